//! Header names: bytes in Kafka, text here.
//!
//! Kafka says that a name is UTF-8, and no broker checks it. Bytes that are not UTF-8 are kept in a form that is
//! text and is converted back where the name is sent: a byte `b` becomes the character `U+10FF00 + b`, of
//! Unicode's last private use area. So a record that is passed on keeps its original name, byte by byte.
//!
//! A name that already contains one of these characters is kept byte by byte too, and is read as four of
//! them: otherwise the character could not be distinguished from the bytes that it stands for.
//!
//! Rejected: `U+FFFD` for bytes that are not UTF-8, as in `String::from_utf8_lossy`. Different names become the
//! same name, and a pipeline passes on another name than it read.

use std::borrow::Cow;

const FIRST: u32 = 0x10_FF00;

/// Returns the text that represents a name.
pub(super) fn to_text(name: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(name) {
        if !text.chars().any(|char| escaped(char).is_some()) {
            return Cow::Borrowed(text);
        }
    }
    let mut text = String::with_capacity(4 * name.len());
    for chunk in name.utf8_chunks() {
        for char in chunk.valid().chars() {
            match escaped(char) {
                None => text.push(char),
                Some(_) => {
                    let mut bytes = [0; 4];
                    text.extend(char.encode_utf8(&mut bytes).bytes().map(escape));
                }
            }
        }
        text.extend(chunk.invalid().iter().copied().map(escape));
    }
    Cow::Owned(text)
}

/// Returns the name that a text represents.
pub(super) fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.chars().any(|char| escaped(char).is_some()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut name = Vec::with_capacity(text.len());
    for char in text.chars() {
        match escaped(char) {
            Some(byte) => name.push(byte),
            None => name.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(name)
}

/// Returns the character for a byte. Bytes below 0x80 are always UTF-8.
fn escape(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).expect("the last character is U+10FFFF")
}

fn escaped(char: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(char).checked_sub(FIRST)?).ok()?;
    (!byte.is_ascii()).then_some(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_in_utf8_is_itself() {
        for name in [
            "",
            "trace",
            "größe",
            "日本",
            "\u{FFFD}",
            "\u{10FF00}",
            "a\0b",
        ] {
            assert_eq!(to_text(name.as_bytes()), name);
            assert_eq!(&*to_bytes(name), name.as_bytes());
        }
    }

    #[test]
    fn names_that_are_not_utf8_stay_different() {
        assert_eq!(to_text(b"a\xff\xfe"), "a\u{10FFFF}\u{10FFFE}");
        assert_ne!(to_text(b"\xff"), to_text(b"\xfe"));
        assert_ne!(to_text(b"\xff"), to_text("\u{10FFFF}".as_bytes()));
    }

    proptest! {
        #[test]
        fn every_name_survives(name: Vec<u8>) {
            let text = to_text(&name);
            prop_assert_eq!(&*to_bytes(&text), &name[..]);
        }

        #[test]
        fn every_name_with_private_characters_survives(
            name in prop::collection::vec(prop_oneof![
                any::<char>(),
                prop::char::range('\u{10FF70}', '\u{10FFFF}'),
            ], 0..20),
        ) {
            let name = name.into_iter().collect::<String>().into_bytes();
            let text = to_text(&name);
            prop_assert_eq!(&*to_bytes(&text), &name[..]);
        }
    }
}
