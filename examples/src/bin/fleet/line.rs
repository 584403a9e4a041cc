//! One line at a time, bounded, and the key in it.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The maximum length of a line that is read completely, in bytes: a file without line breaks must not fill the
/// memory.
pub(crate) const LONGEST: usize = 1 << 20;

/// Reads lines of any length, and keeps at most [`LONGEST`] bytes of each.
pub(crate) struct LineReader<R> {
    input: BufReader<R>,
    number: u64,
}

impl<R: Read> LineReader<R> {
    pub(crate) fn new(input: BufReader<R>) -> Self {
        Self { input, number: 0 }
    }

    /// Returns the number of lines that were read.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether the next line can be read without waiting.
    pub(crate) fn has_more(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    /// Returns the next line without its line break, and whether it is complete.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Bytes, bool)>> {
        let mut line = Vec::new();
        let mut whole = true;
        let mut begun = false;
        loop {
            let chunk = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                if !begun {
                    return Ok(None);
                }
                break;
            }
            begun = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let room = LONGEST - line.len();
            whole &= part.len() <= room;
            line.extend_from_slice(&part[..part.len().min(room)]);
            let read = part.len() + usize::from(end.is_some());
            self.input.consume(read);
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        // A byte order mark, which some programs put before the first line.
        if self.number == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(Some((line.into(), whole)))
    }
}

/// Finds the text or number in `field` of the JSON object `line`. Returns the reason if there is
/// none.
pub(crate) fn find_key(line: &[u8], field: &str) -> Result<String, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let key = json
        .deserialize_any(Fields(field))
        .and_then(|key| json.end().map(|()| key))
        .map_err(|error| json_error(&error))?;
    match key {
        None => Err(format!("no field `{field}`")),
        Some(Key::Other) => Err(format!("field `{field}` is no text or number")),
        Some(Key::Text(key)) if key.is_empty() => Err(format!("field `{field}` is empty")),
        Some(Key::Text(key)) => Ok(key),
    }
}

/// Describes the error of a line, without a line number: there is only one line.
pub(crate) fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) if error.column() > 0 => format!("{what} at column {}", error.column()),
        _ => text,
    }
}

enum Key {
    Text(String),
    Other,
}

/// Deserializes an object and keeps only one field.
struct Fields<'a>(&'a str);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Option<Key>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Key>, A::Error> {
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(IsField(self.0))? {
            if wanted {
                found = Some(match map.next_value::<serde_json::Value>()? {
                    serde_json::Value::String(text) => Key::Text(text),
                    serde_json::Value::Number(number) => Key::Text(number.to_string()),
                    _ => Key::Other,
                });
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct IsField<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for IsField<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsField<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(Bytes, bool)> {
        let mut reader = LineReader::new(BufReader::new(bytes));
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn an_over_long_line_is_cut_and_the_next_one_is_whole() {
        let mut bytes = vec![b'x'; LONGEST + 5];
        bytes.extend_from_slice(b"\nnext");
        let lines = lines(&bytes);
        assert_eq!((lines[0].0.len(), lines[0].1), (LONGEST, false));
        assert_eq!(lines[1], ("next".into(), true));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(
            lines(b"\xef\xbb\xbf{}\r\n\n"),
            [("{}".into(), true), ("".into(), true)]
        );
    }

    #[test]
    fn keys_are_text_or_numbers() {
        assert_eq!(find_key(br#"{"a":1,"id":"x\u0041"}"#, "id").unwrap(), "xA");
        assert_eq!(find_key(br#"{"id":-7.5}"#, "id").unwrap(), "-7.5");
        assert_eq!(find_key(br#"{"i\u0064":7}"#, "id").unwrap(), "7");
    }

    #[test]
    fn a_line_without_a_key_has_a_reason() {
        let reason = |line: &str| find_key(line.as_bytes(), "id").unwrap_err();
        assert_eq!(reason(r#"{"ID":1}"#), "no field `id`");
        assert_eq!(reason(r#"{"id":""}"#), "field `id` is empty");
        assert_eq!(reason(r#"{"id":null}"#), "field `id` is no text or number");
        assert_eq!(reason("{\"id\":"), "EOF while parsing a value at column 6");
        assert!(reason("[1]").contains("expected a JSON object"));
        assert!(reason(r#"{"id":1} x"#).contains("trailing"));
        assert!(find_key(b"{\"id\":\"\xff\"}", "id").is_err());
    }
}
