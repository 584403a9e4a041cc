//! Deserializes a setting as the type that its field requests.

use std::collections::btree_map;
use std::vec;

use serde::de::value::{MapAccessDeserializer, StrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::origin::Origin;
use super::problem::Problem;
use super::tree::{Entry, Literal, Node, Table, Value};

type Result<T> = std::result::Result<T, Problem>;

/// A whole number or a fraction, as written.
enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl Number {
    /// Reads a number by Rust's rules, and by TOML's: `0x1F`, `67_108_864`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(number) = text.parse() {
            return Some(Self::Unsigned(number));
        }
        if let Ok(number) = text.parse() {
            return Some(Self::Signed(number));
        }
        if let Ok(number) = text.parse() {
            return Some(Self::Float(number));
        }
        let value = toml::de::DeValue::parse(text).ok()?;
        if let Some(integer) = value.get_ref().as_integer() {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            return Some(Self::Signed(number));
        }
        let float = value.get_ref().as_float()?;
        float.as_str().parse().ok().map(Self::Float)
    }
}

impl Node {
    /// Returns the source text of a number or a boolean. A quoted string is neither.
    fn literal(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Literal { text, .. } => Some(text),
            Value::String(_) | Value::List { .. } | Value::Table(_) => None,
        }
    }

    /// Returns the source text of a text.
    fn into_text(self) -> Option<String> {
        match self.value {
            Value::Text(text) | Value::String(text) | Value::Literal { text, .. } => Some(text),
            Value::List { text, .. } => text,
            Value::Table(_) => None,
        }
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = match self.literal().and_then(Number::parse) {
            Some(Number::Unsigned(number)) => visitor.visit_u64(number),
            Some(Number::Signed(number)) => visitor.visit_i64(number),
            Some(Number::Float(_)) | None => Err(Problem::mismatch(&visitor)),
        };
        value.map_err(|problem| problem.at(&self.origin))
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = match self.literal().and_then(Number::parse) {
            Some(Number::Unsigned(number)) => visitor.visit_f64(number as f64),
            Some(Number::Signed(number)) => visitor.visit_f64(number as f64),
            Some(Number::Float(number)) => visitor.visit_f64(number),
            None => Err(Problem::mismatch(&visitor)),
        };
        value.map_err(|problem| problem.at(&self.origin))
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let origin = self.origin.clone();
        let value = match self.into_text() {
            Some(text) => visitor.visit_string(text),
            None => Err(Problem::mismatch(&visitor)),
        };
        value.map_err(|problem| problem.at(&origin))
    }

    /// Reads the text of a variable as a list: a TOML list in brackets, or otherwise values separated by commas.
    fn into_list(self) -> Option<Vec<Self>> {
        match self.value {
            Value::List { items, .. } => Some(items),
            Value::Text(text) if text.trim_start().starts_with('[') => {
                match Self::parse(text.trim(), &self.origin)?.value {
                    Value::List { items, .. } => Some(items),
                    _ => None,
                }
            }
            Value::Text(text) => {
                let items = text.split(',').map(str::trim);
                let items = items.filter(|item| !item.is_empty()).map(|item| Self {
                    value: Value::Text(item.to_owned()),
                    origin: self.origin.clone(),
                });
                Some(items.collect())
            }
            Value::String(_) | Value::Literal { .. } | Value::Table(_) => None,
        }
    }

    /// Reads the text of a variable as a table: a TOML table in braces.
    pub(super) fn into_table(self) -> Option<Table> {
        match self.value {
            Value::Table(table) => Some(table),
            Value::Text(text) if text.trim_start().starts_with('{') => {
                match Self::parse(text.trim(), &self.origin)?.value {
                    Value::Table(table) => Some(table),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

macro_rules! by {
    ($read:ident: $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.$read(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Problem;

    by!(integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128);
    by!(integer: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);
    by!(float: deserialize_f32 deserialize_f64);
    by!(text: deserialize_char deserialize_str deserialize_string deserialize_identifier);
    by!(text: deserialize_bytes deserialize_byte_buf);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Text(_) | Value::String(_) => self.text(visitor),
            Value::Literal { kind, .. } => match kind {
                Literal::Integer => self.integer(visitor),
                Literal::Float => self.float(visitor),
                Literal::Boolean => self.deserialize_bool(visitor),
                Literal::Datetime => self.text(visitor),
            },
            Value::List { .. } => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = match self.literal().map(str::trim) {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            _ => Err(Problem::mismatch(&visitor)),
        };
        value.map_err(|problem| problem.at(&self.origin))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        Err(Problem::mismatch(&visitor).at(&self.origin))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let origin = self.origin.clone();
        let value = match self.into_list() {
            Some(items) => visitor.visit_seq(Items(items.into_iter())),
            None => Err(Problem::mismatch(&visitor)),
        };
        value.map_err(|problem| problem.at(&origin))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let origin = self.origin.clone();
        let value = match self.into_table() {
            Some(table) => visitor.visit_map(Entries::new(table)),
            None => Err(Problem::mismatch(&visitor)),
        };
        value.map_err(|problem| problem.at(&origin))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let origin = self.origin.clone();
        let value = match self.value {
            Value::Table(table) => MapAccessDeserializer::new(Entries::new(table))
                .deserialize_enum(name, variants, visitor),
            _ => match self.into_text() {
                Some(text) => {
                    let text: StringDeserializer<Problem> = text.into_deserializer();
                    text.deserialize_enum(name, variants, visitor)
                }
                None => Err(Problem::mismatch(&visitor)),
            },
        };
        value.map_err(|problem| problem.at(&origin))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }
}

impl IntoDeserializer<'_, Problem> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items(vec::IntoIter<Node>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Entries {
    entries: btree_map::IntoIter<String, Entry>,
    /// The value of the key that was read last.
    value: Option<(String, Node)>,
}

impl Entries {
    fn new(table: Table) -> Self {
        Self {
            entries: table.0.into_iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((key, Entry { origin, node })) = self.entries.next() else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Problem> = key.as_str().into_deserializer();
        let read = seed
            .deserialize(name)
            .map_err(|problem| problem.at(&origin))?;
        self.value = Some((key, node));
        Ok(Some(read))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value> {
        let Some((key, node)) = self.value.take() else {
            return Err(Problem::new("a value was read before its key"));
        };
        let origin: Origin = node.origin.clone();
        let value = seed.deserialize(node);
        value.map_err(|problem| problem.at(&origin).within(&key))
    }
}
