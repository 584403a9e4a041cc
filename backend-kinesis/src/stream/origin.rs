//! Which shard a sequence number came from, as far as the number shows it.
//!
//! AWS does not document the format. The numbers in [its examples][examples], and those of the emulators, are 47
//! hexadecimal digits: a `2`, nine digits with the second in which the shard was created, and the rest. Kinesis
//! refuses to read a shard from a number with another second: "it did not come from this stream". Emulators accept it,
//! and so skip every record before it. A number in any other format is never judged, and streams of the same second are
//! not told apart.
//!
//! [examples]: https://docs.aws.amazon.com/streams/latest/dev/fundamental-stream.html

use millstream_core::Position;

use super::Shard;

/// 37 of the 47 hexadecimal digits follow those with the creation time.
const BITS_AFTER: i32 = 37 * 4;

/// The digit before the creation time.
const FORMAT: u64 = 2 << 36;

impl Shard {
    /// Returns whether a record of this shard may have that position.
    pub(crate) fn may_have(&self, position: Position) -> bool {
        match (created(self.starting), created(position)) {
            (Some(shard), Some(record)) => shard == record,
            _ => self.starting <= position,
        }
    }
}

/// Returns the creation time in seconds since the epoch of the shard that assigned a sequence number.
fn created(position: Position) -> Option<u64> {
    let digits = position.with_sub_sequence(0).to_string();
    // The conversion rounds monotonically, and represents multiples of this power exactly. The digit after the
    // creation time is never above 7, so that no number is rounded up to the next second.
    let leading = digits.parse::<f64>().ok()? / 2_f64.powi(BITS_AFTER);
    let leading = leading as u64;
    (FORMAT..FORMAT + (1 << 36))
        .contains(&leading)
        .then(|| leading - FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::HashRange;

    fn at(digits: &str) -> Position {
        digits.parse().unwrap()
    }

    fn shard(starting: &str) -> Shard {
        Shard {
            id: "shardId-000000000000".into(),
            parents: Vec::new(),
            range: HashRange {
                first: 0,
                last: u128::MAX,
            },
            starting: at(starting),
            open: true,
        }
    }

    /// From the examples in AWS's documentation.
    #[test]
    fn a_sequence_number_has_the_creation_time_of_its_shard() {
        let starting = "49546986683135544286507457935754639466300920667981217794";
        let record = "49546986683135544286507457936321625675700192471156785154";
        assert_eq!(created(at(starting)), Some(1_421_279_230));
        assert_eq!(created(at(record)), Some(1_421_279_230));
        assert!(shard(starting).may_have(at(starting)));
        assert!(shard(starting).may_have(at(record).with_sub_sequence(7)));
        let older = "49543463076570308322303623326179887152428262250726293522";
        let younger = "49590338271490256608559692540925702759324208523137515618";
        assert!(!shard(starting).may_have(at(older)));
        assert!(!shard(starting).may_have(at(younger)));
    }

    #[test]
    fn numbers_of_another_format_are_compared() {
        assert_eq!(created(at("17")), None);
        let longest = "6277101735386680763835789423207666416102355444464034512895";
        assert_eq!(created(at(longest)), None);
        assert!(shard("17").may_have(at("17")));
        assert!(shard("17").may_have(at(longest)));
        assert!(!shard("17").may_have(at("16.9")));
    }
}
