//! Settings from environment variables.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use millstream_core::telemetry::event;

use super::origin::Origin;
use super::problem::Problem;
use super::tree::{Entry, Node, Table, Value};

/// The variables that begin with one prefix.
pub(super) struct Environment(Vec<Variable>);

struct Variable {
    name: Arc<str>,
    /// The name without the prefix, in lower case.
    key: String,
    text: String,
}

impl Environment {
    /// Selects the variables with `prefix`, which ends in an underscore.
    ///
    /// # Errors
    /// If one of them is not UTF-8. Other variables are not checked.
    pub(super) fn new(
        prefix: &str,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Problem> {
        let mut picked = Vec::new();
        for (name, value) in variables {
            let shown = name.to_string_lossy();
            let Some(key) = shown.strip_prefix(prefix) else {
                continue;
            };
            if is_service_link(key, &value) {
                event!(
                    warn,
                    "millstream.settings.ignored",
                    variable = &*shown,
                    "environment variable ignored: Kubernetes sets it for a service, it is no setting"
                );
                continue;
            }
            let name: Arc<str> = shown.as_ref().into();
            let key = key.to_lowercase();
            let text = match (value.into_string(), shown) {
                (Ok(text), std::borrow::Cow::Borrowed(_)) => text,
                _ => {
                    return Err(
                        Problem::new("the variable is not valid UTF-8").at(&Origin::Variable(name))
                    );
                }
            };
            picked.push(Variable { name, key, text });
        }
        // The same environment always gives the same settings, and a table comes before its keys.
        picked.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self(picked))
    }

    /// Returns the text of the variable for `key`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|variable| variable.key == key);
        found.map(|variable| &*variable.text)
    }

    /// Sets the values of the variables in `table`.
    pub(super) fn apply(self, table: &mut Table) -> Result<(), Problem> {
        for Variable { name, key, text } in self.0 {
            let origin = Origin::Variable(name);
            set(table, &key, text, &origin).map_err(|problem| problem.at(&origin))?;
        }
        Ok(())
    }
}

fn set(table: &mut Table, key: &str, text: String, origin: &Origin) -> Result<(), Problem> {
    let mut steps: Vec<&str> = key.split("__").collect();
    let last = steps.pop().unwrap_or_default();
    if last.is_empty() || steps.contains(&"") {
        return Err(Problem::new("the name holds no setting"));
    }
    let entry = |value| Entry {
        origin: origin.clone(),
        node: Node {
            value,
            origin: origin.clone(),
        },
    };
    let mut table = table;
    for step in steps {
        let next = table.0.entry(step.to_owned());
        let next = next.or_insert_with(|| entry(Value::Table(Table::default())));
        if !matches!(next.node.value, Value::Table(_)) {
            // A table that another variable contains as a whole, in braces.
            let whole = next.node.clone().into_table();
            let whole = whole.ok_or_else(|| {
                Problem::new(format!("`{step}` is a value ({}), no table", next.origin))
            })?;
            next.node.value = Value::Table(whole);
        }
        let Value::Table(inner) = &mut next.node.value else {
            return Err(Problem::new(format!("`{step}` is no table")));
        };
        table = inner;
    }
    table.0.insert(last.to_owned(), entry(Value::Text(text)));
    Ok(())
}

/// Returns whether Kubernetes sets this variable for a service in the namespace. It does so for
/// a service whose name is the prefix: `X_SERVICE_HOST`, `X_SERVICE_PORT_HTTP`,
/// `X_PORT=tcp://..`, `X_PORT_8080_TCP_ADDR`.
fn is_service_link(key: &str, value: &OsStr) -> bool {
    // Services whose names begin with the prefix add the rest of their name.
    let has = |ending: &str| {
        let rest = key.strip_suffix(ending);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    };
    let is_address = || {
        let value = value.to_string_lossy();
        let schemes = ["tcp://", "udp://", "sctp://"];
        schemes.iter().any(|scheme| value.starts_with(scheme))
    };
    let is_port_of_protocol = || {
        // 8080_TCP, 8080_TCP_PROTO, 8080_TCP_PORT, 8080_TCP_ADDR
        let mut begins = key.match_indices("PORT_");
        begins.any(|(at, begin)| {
            let mut parts = key[at + begin.len()..].split('_');
            let number = parts.next().unwrap_or_default();
            let protocol = parts.next();
            !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && matches!(protocol, Some("TCP" | "UDP" | "SCTP"))
        })
    };
    let is_named_port = key.starts_with("SERVICE_PORT_") || key.contains("_SERVICE_PORT_");
    has("SERVICE_HOST")
        || has("SERVICE_PORT")
        || is_named_port
        || has("PORT") && is_address()
        || is_port_of_protocol()
}
