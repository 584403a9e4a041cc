//! Settings before their types are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::Origin;
use super::problem::Problem;

/// A value, and the place where it was written.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A value as it was written.
///
/// Unquoted values keep their source text, because only the setting decides their type: `1e5` is a number for
/// a rate and a text for a password.
#[derive(Clone)]
pub(super) enum Value {
    /// The value of an environment variable, or a part of it.
    Text(String),
    /// A quoted string.
    String(String),
    Literal {
        text: String,
        kind: Literal,
    },
    /// A list; `text` is its source, if there is one.
    List {
        items: Vec<Node>,
        text: Option<String>,
    },
    Table(Table),
}

#[derive(Clone, Copy)]
pub(super) enum Literal {
    Integer,
    Float,
    Boolean,
    Datetime,
}

/// Keys with their values, in the order of their names.
#[derive(Clone, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, Entry>);

#[derive(Clone)]
pub(super) struct Entry {
    /// The place where the key was written.
    pub(super) origin: Origin,
    pub(super) node: Node,
}

impl Table {
    /// Parses a TOML document, which `name` names in errors.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let document: Arc<str> = name.into();
        match DeTable::parse(text) {
            Ok(table) => {
                let origin = |offset| Origin::at(&document, text, offset);
                Ok(from_table(table.get_ref(), text, &origin))
            }
            Err(error) => Err(syntax_problem(&document, text, &error)),
        }
    }

    /// Returns the text at `key`, if it is one.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.0.get(key)?.node.value {
            Value::Text(text) | Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Merges `over`, whose values win. Tables are merged, other values are replaced.
    pub(super) fn merge(&mut self, over: Self) {
        for (key, entry) in over.0 {
            match (self.0.get_mut(&key), entry) {
                (
                    Some(Entry {
                        node:
                            Node {
                                value: Value::Table(below),
                                ..
                            },
                        ..
                    }),
                    Entry {
                        node:
                            Node {
                                value: Value::Table(above),
                                ..
                            },
                        ..
                    },
                ) => below.merge(above),
                (_, entry) => _ = self.0.insert(key, entry),
            }
        }
    }
}

impl Node {
    /// Parses one TOML value, all of which gets the origin `origin`. Returns `None` if it is not valid TOML.
    pub(super) fn parse(text: &str, origin: &Origin) -> Option<Self> {
        let value = DeValue::parse(text).ok()?;
        Some(from_value(&value, text, &|_| origin.clone()))
    }
}

fn from_table(table: &DeTable<'_>, source: &str, origin: &dyn Fn(usize) -> Origin) -> Table {
    let entries = table.iter().map(|(key, value)| {
        let entry = Entry {
            origin: origin(key.span().start),
            node: from_value(value, source, origin),
        };
        (key.get_ref().to_string(), entry)
    });
    Table(entries.collect())
}

fn from_value(
    value: &Spanned<DeValue<'_>>,
    source: &str,
    origin: &dyn Fn(usize) -> Origin,
) -> Node {
    let span = value.span();
    let text = || source.get(span.clone()).unwrap_or_default().to_owned();
    let literal = |kind| Value::Literal { text: text(), kind };
    let converted = match value.get_ref() {
        DeValue::String(string) => Value::String(string.to_string()),
        DeValue::Integer(_) => literal(Literal::Integer),
        DeValue::Float(_) => literal(Literal::Float),
        DeValue::Boolean(_) => literal(Literal::Boolean),
        DeValue::Datetime(_) => literal(Literal::Datetime),
        DeValue::Array(items) => Value::List {
            items: items
                .iter()
                .map(|item| from_value(item, source, origin))
                .collect(),
            text: Some(text()),
        },
        DeValue::Table(table) => Value::Table(from_table(table, source, origin)),
    };
    Node {
        value: converted,
        origin: origin(span.start),
    }
}

/// Describes a syntax error without the source line, which may hold a secret.
fn syntax_problem(document: &Arc<str>, text: &str, error: &toml::de::Error) -> Problem {
    let offset = error.span().map_or(text.len(), |span| span.start);
    let problem = Problem::new(format!("not valid TOML: {}", error.message()))
        .at(&Origin::at(document, text, offset));
    let (table, _) = DeTable::parse_recoverable(text);
    let mut path = Vec::new();
    match find_key(table.get_ref(), text, offset, &mut path) {
        true => path
            .iter()
            .rev()
            .fold(problem, |problem, key| problem.within(key)),
        false => problem,
    }
}

/// Finds the key whose value contains `offset`, or is before it in the same line.
fn find_key(table: &DeTable<'_>, text: &str, offset: usize, path: &mut Vec<String>) -> bool {
    let same_line = |from: usize| {
        let between = text.get(from..offset);
        between.is_some_and(|between| !between.contains('\n'))
    };
    // Text without a following `=` may be a value in place of a key.
    let is_key = |end: usize| {
        let rest = text.get(end..).unwrap_or_default();
        rest.trim_start().starts_with('=')
    };
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find_key(inner, text, offset, path),
            _ => false,
        };
        let (key, value) = (key.span(), value.span());
        if inner || is_key(key.end) && (value.contains(&offset) || same_line(key.start)) {
            return true;
        }
        path.pop();
    }
    false
}

/// Adopts the values of another deserializer: settings within an application's own.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl NodeVisitor {
    fn node<E>(value: Value) -> Result<Node, E> {
        Ok(Node {
            value,
            origin: Origin::Embedded,
        })
    }

    fn literal<E>(text: impl ToString, kind: Literal) -> Result<Node, E> {
        let text = text.to_string();
        Self::node(Value::Literal { text, kind })
    }
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a setting")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Self::literal(value, Literal::Boolean)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Self::literal(value, Literal::Integer)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Self::literal(value, Literal::Integer)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Self::literal(value, Literal::Float)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Self::node(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Self::node(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Self::node(Value::List { items, text: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut table = Table::default();
        while let Some((key, node)) = map.next_entry::<String, Node>()? {
            let origin = Origin::Embedded;
            table.0.insert(key, Entry { origin, node });
        }
        Self::node(Value::Table(table))
    }
}
