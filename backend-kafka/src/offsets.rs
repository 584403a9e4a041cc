//! Converts between the SDK's positions and Kafka's offsets.
//!
//! Kafka stores the *next* offset to read. The SDK names the last settled record. The conversion happens
//! only here.

use millstream_core::Position;

/// Returns the offset that Kafka stores when everything up to and including `position` is settled. `None` for a
/// position that does not come from Kafka.
pub(crate) fn next(position: Position) -> Option<i64> {
    i64::try_from(position.offset()?).ok()?.checked_add(1)
}

/// Returns the last settled position when Kafka has `next` stored. `None` at the very beginning.
pub(crate) fn settled(next: i64) -> Option<Position> {
    let last = u64::try_from(next).ok()?.checked_sub(1)?;
    Some(Position::from(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_and_its_position_are_one_apart() {
        assert_eq!(next(Position::from(41)), Some(42));
        assert_eq!(settled(42), Some(Position::from(41)));
        assert_eq!(settled(0), None);
        assert_eq!(settled(-1001), None);
        assert_eq!(next(Position::from(u64::MAX)), None);
        assert_eq!(next("18446744073709551616".parse().unwrap()), None);
    }
}
