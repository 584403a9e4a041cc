//! Checks that a setup ignores exactly the cases that it must.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::setup::{BrokerScope, Setup};
use crate::{Case, Harness, cases};

/// Checks that the setup ignores exactly the cases whose needs its backend does not meet.
///
/// A case that needs its own broker and is not ignored is checked by its own test, which fails if a
/// need is not met: that avoids the start of a broker.
///
/// # Errors
/// All mismatches, one per line.
pub(super) fn check(setup: &Setup) -> Result<(), String> {
    let mut mismatches = names(setup);
    for scope in [BrokerScope::Shared, BrokerScope::OneCase] {
        let looked_at = |case: &&Case| {
            let ignored = setup.ignores(case.name).is_some();
            case.broker_scope() == scope && (scope == BrokerScope::Shared || ignored)
        };
        let cases: Vec<&Case> = cases::all().filter(looked_at).collect();
        if cases.is_empty() {
            continue;
        }
        let unmet = setup.run_on_harness("needs", scope, |harness| unmet(harness, cases))?;
        for (case, unmet) in unmet {
            match (setup.ignores(case), unmet.as_slice()) {
                (Some(_), []) => mismatches.push(format!(
                    "{case} is ignored, although its needs are met: take it off the list"
                )),
                (None, [_, ..]) => mismatches.push(format!(
                    "{case} needs {}, which this backend does not have: ignore it",
                    unmet.join(", ")
                )),
                _ => {}
            }
        }
    }
    match mismatches.is_empty() {
        true => Ok(()),
        false => Err(mismatches.join("\n")),
    }
}

/// Returns the problems with the names of the ignored cases.
fn names(setup: &Setup) -> Vec<String> {
    let known: BTreeSet<&str> = cases::all().map(|case| case.name).collect();
    let mut seen = BTreeSet::new();
    let mut mismatches = Vec::new();
    for name in setup.ignored() {
        if !known.contains(name) {
            mismatches.push(format!("{name} is ignored, but there is no such case"));
        }
        if !seen.insert(name) {
            mismatches.push(format!("{name} is ignored twice"));
        }
    }
    mismatches
}

async fn unmet(
    harness: Arc<dyn Harness>,
    cases: Vec<&'static Case>,
) -> Vec<(&'static str, Vec<String>)> {
    let mut needs = Vec::new();
    for case in cases {
        needs.push((case.name, case.unmet(&*harness).await));
    }
    needs
}
