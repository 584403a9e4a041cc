//! Every public name of the core is in one of the facade's groups, where `cargo doc` shows it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

const CORE: &str = include_str!("../../core/src/lib.rs");
const FACADE: &str = include_str!("../src/lib.rs");

/// The names of all `pub use` of `text` whose path begins with one of `paths`.
fn names<'a>(text: &'a str, path: &str) -> BTreeSet<&'a str> {
    let uses = text.split("pub use ").skip(1);
    let uses = uses
        .filter_map(|rest| rest.split_once(';'))
        .map(|(used, _)| used);
    let used = uses.filter(|used| used.starts_with(path));
    let lists = used.map(|used| used.rsplit_once("::").unwrap().1);
    let names = lists.flat_map(|list| list.trim_matches(['{', '}']).split(','));
    names
        .map(str::trim)
        .filter(|name| !name.is_empty() && *name != "*")
        .collect()
}

#[test]
fn every_name_of_the_core_is_in_a_group() {
    let core = names(CORE, "");
    assert!(
        core.contains("Client") && core.contains("Retry"),
        "{core:?}"
    );
    let groups = names(FACADE, "millstream_core");
    let missing: Vec<_> = core.difference(&groups).collect();
    assert!(
        missing.is_empty(),
        "add to a module of sdk/src/lib.rs: {missing:?}"
    );
}
