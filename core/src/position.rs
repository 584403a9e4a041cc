use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// The digits that fit a word: a long number is read and printed by so many at a time.
const CHUNK_DIGITS: usize = 19;

/// The place of a record in its partition (Kafka: offset; Kinesis: sequence number and sub-sequence
/// number).
///
/// Positions of one partition have the order of its records; positions of different partitions must
/// not be compared. A position prints as a decimal number, followed by a dot and the sub-sequence
/// number if that is not 0, and parses back from that text.
///
/// ```
/// use millstream_core::Position;
///
/// let position: Position = "49590338271490256608559692538361571095921575989136588898.3".parse()?;
/// assert!(position > Position::from(41));
/// assert_eq!(position.to_string(), "49590338271490256608559692538361571095921575989136588898.3");
/// # Ok::<(), millstream_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Most significant word first. Three words, since a Kinesis sequence number has up to 186
    /// bits.
    sequence: [u64; 3],
    sub: u64,
}

impl Position {
    /// Returns the position of record `sub` within the aggregate that is stored at this position.
    pub const fn with_sub_sequence(self, sub: u64) -> Self {
        Self {
            sequence: self.sequence,
            sub,
        }
    }

    /// Returns the number as an offset, if it fits 64 bits, without the sub-sequence number.
    pub const fn offset(self) -> Option<u64> {
        match self.sequence {
            [0, 0, offset] => Some(offset),
            _ => None,
        }
    }

    /// Returns the sub-sequence number: the place in an aggregate, or 0 for a record outside of one.
    pub const fn sub(self) -> u64 {
        self.sub
    }

    fn parse_sequence(digits: &str) -> Option<[u64; 3]> {
        if digits.is_empty() {
            return None;
        }
        let mut words = [0u64; 3];
        // By the word, and not by the digit: each stored record of Kinesis has one to parse.
        for digits in digits.as_bytes().chunks(CHUNK_DIGITS) {
            let mut chunk = 0;
            for byte in digits {
                let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
                chunk = chunk * 10 + u64::from(digit);
            }
            let scale = 10u64.pow(digits.len() as u32);
            let mut carry = u128::from(chunk);
            for word in words.iter_mut().rev() {
                carry += u128::from(*word) * u128::from(scale);
                *word = carry as u64;
                carry >>= 64;
            }
            if carry != 0 {
                return None;
            }
        }
        Some(words)
    }
}

impl From<u64> for Position {
    fn from(offset: u64) -> Self {
        Self {
            sequence: [0, 0, offset],
            sub: 0,
        }
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (sequence, sub) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        match (Self::parse_sequence(sequence), sub.parse()) {
            (Some(sequence), Ok(sub_number)) if digits(sub) => Ok(Self {
                sequence,
                sub: sub_number,
            }),
            _ => Err(Error::new(
                ErrorKind::Invalid,
                "parse position",
                format!(
                    "{text:?} is not a decimal number of at most 192 bits, with an optional sub-number after a dot"
                ),
            )),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHUNK: u128 = 10u128.pow(CHUNK_DIGITS as u32);

        let mut words = self.sequence;
        let mut chunks = [0u64; 4];
        let mut used = 0;
        while used == 0 || words != [0; 3] {
            let mut rest = 0u128;
            for word in &mut words {
                rest = (rest << 64) | u128::from(*word);
                *word = (rest / CHUNK) as u64;
                rest %= CHUNK;
            }
            chunks[used] = rest as u64;
            used += 1;
        }
        write!(f, "{}", chunks[used - 1])?;
        for chunk in chunks[..used - 1].iter().rev() {
            write!(f, "{chunk:019}")?;
        }
        if self.sub > 0 {
            write!(f, ".{}", self.sub)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prints_and_parses_back(sequence: [u64; 3], sub: u64) {
            let position = Position { sequence, sub };
            prop_assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }

        #[test]
        fn orders_as_numbers_do(a: u64, b: u64, sub: u64) {
            let (one, other) = (Position::from(a), Position::from(b));
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            prop_assert!(one.with_sub_sequence(sub) >= one);
            prop_assert_eq!(one.with_sub_sequence(sub).offset(), Some(a));
        }
    }

    #[test]
    fn the_largest_number_fits() {
        let largest = Position {
            sequence: [u64::MAX; 3],
            sub: 0,
        };
        let text = "6277101735386680763835789423207666416102355444464034512895";
        assert_eq!(largest.to_string(), text);
        assert_eq!(text.parse::<Position>().unwrap(), largest);
        assert!(
            "6277101735386680763835789423207666416102355444464034512896"
                .parse::<Position>()
                .is_err()
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", ".", "1.", ".1", "-1", "+1", "1.+1", "a", "1.2.3", " 1", "LATEST",
        ] {
            let error = text.parse::<Position>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text:?}");
        }
    }
}
