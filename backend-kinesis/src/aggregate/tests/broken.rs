//! Data that is damaged, or written by less careful writers.

use proptest::prelude::*;

use super::*;
use crate::aggregate::message::Tag;
use crate::stream::HashKey;

fn sample() -> Bytes {
    let records = [
        ("one", Record::new("1").header("name", "value")),
        ("two", Record::new("2")),
        ("one", Record::new("3").header("id", &[0xFF][..])),
    ];
    aggregate(&records).finish().unwrap().data
}

#[test]
fn whatever_has_no_checksum_is_a_bare_record() {
    let whole = sample();
    for end in 0..whole.len() {
        assert_eq!(
            deaggregate(&whole.slice(..end)),
            Deaggregated::Bare,
            "{end} bytes"
        );
    }
    for begin in 1..whole.len() {
        assert_eq!(
            deaggregate(&whole.slice(begin..)),
            Deaggregated::Bare,
            "from {begin}"
        );
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            deaggregate(&flipped.into()),
            Deaggregated::Bare,
            "bit {bit}"
        );
    }
    let longer = [&whole[..], b"!"].concat();
    assert_eq!(deaggregate(&longer.into()), Deaggregated::Bare);
}

#[test]
fn a_frame_around_nothing_is_a_bare_record() {
    assert_eq!(deaggregate(&frame::wrap([&[]]).into()), Deaggregated::Bare);
}

#[test]
fn an_aggregate_may_be_empty() {
    let aggregate = AggregatedRecord {
        keys: vec![Bytes::from_static(b"k")],
        ..AggregatedRecord::default()
    };
    assert_eq!(
        deaggregate(&foreign(&aggregate)),
        Deaggregated::UserRecords(Vec::new())
    );
}

#[test]
fn an_aggregate_that_refers_to_nothing_is_corrupt() {
    let mut good = AggregatedRecord {
        keys: vec![Bytes::from_static(b"k")],
        hash_keys: vec![Bytes::from_static(b"42"), Bytes::from_static(b"unused")],
        records: vec![item(0, b"1"), item(0, b"2"), item(0, b"3")],
    };
    good.records[1].hash_key = Some(0);
    assert_eq!(opened(&foreign(&good)).len(), 3);
    let broken: [fn(&mut AggregatedRecord); 10] = [
        |aggregate| aggregate.records[1].hash_key = Some(1),
        |aggregate| aggregate.records[1].key = Some(1),
        |aggregate| aggregate.records[1].key = Some(u64::MAX),
        |aggregate| aggregate.records[1].key = None,
        |aggregate| aggregate.records[1].data = None,
        |aggregate| aggregate.records[1].hash_key = Some(2),
        |aggregate| aggregate.hash_keys[0] = Bytes::from_static(b"forty-two"),
        |aggregate| aggregate.hash_keys[0] = Bytes::from_static(b""),
        |aggregate| aggregate.hash_keys[0] = Bytes::from_static(b"\xFF"),
        // 2 to the power of 128.
        |aggregate| {
            aggregate.hash_keys[0] = Bytes::from_static(b"340282366920938463463374607431768211456");
        },
    ];
    for (case, break_it) in broken.into_iter().enumerate() {
        let mut aggregate = good.clone();
        break_it(&mut aggregate);
        let read = deaggregate(&foreign(&aggregate));
        assert!(matches!(read, Deaggregated::Corrupt(_)), "{case}: {read:?}");
    }
}

#[test]
fn a_checksum_around_anything_else_is_corrupt() {
    for message in [&b"no message"[..], b"\x0A", b"\x1A\x05\x08\x00"] {
        let read = deaggregate(&frame::wrap([message]).into());
        assert!(matches!(read, Deaggregated::Corrupt(_)), "{read:?}");
    }
}

#[test]
fn texts_that_are_no_texts_lose_nothing() {
    let mut tagged = item(0, b"1");
    let tag = |key: &'static [u8], value: Option<&'static [u8]>| Tag {
        key: Some(Bytes::from_static(key)),
        value: value.map(Bytes::from_static),
    };
    tagged.tags = vec![tag(b"a\xFF", Some(b"\xED\xA0\x80")), tag(b"none", None)];
    let aggregate = AggregatedRecord {
        keys: vec![Bytes::from_static(b"\xC3\x28")],
        records: vec![tagged],
        ..AggregatedRecord::default()
    };
    let read = opened(&foreign(&aggregate)).remove(0);
    assert_eq!(read.key.as_deref(), Some(&b"\xC3\x28"[..]));
    assert_eq!(read.hash, HashKey::of(b"\xC3\x28"));
    let headers: Vec<_> = read.headers.iter().collect();
    assert_eq!(
        headers,
        [
            ("a\u{FFFD}", Some(&Bytes::from_static(b"\xED\xA0\x80"))),
            ("none", None),
        ]
    );
}

proptest! {
    /// These are mistakes of a writer. The checksum detects damage.
    #[test]
    fn nothing_panics_over_a_wrong_message_of_a_right_checksum(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        end in any::<prop::sample::Index>(),
    ) {
        let whole = sample();
        let mut message = frame::message(&whole).unwrap().to_vec();
        for (index, byte) in changes {
            *index.get_mut(&mut message) = byte;
        }
        message.truncate(end.index(message.len()) + 1);
        let data = Bytes::from(frame::wrap([&message]));
        match deaggregate(&data) {
            Deaggregated::Bare => prop_assert!(false, "the checksum is right"),
            Deaggregated::Corrupt(why) => prop_assert!(!why.is_empty()),
            Deaggregated::UserRecords(records) => {
                let subs: Vec<_> = records.iter().map(|record| record.sub).collect();
                let all: Vec<_> = (0..records.len() as u64).collect();
                prop_assert_eq!(subs, all);
            }
        }
    }

    #[test]
    fn nothing_panics_over_anything(data in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(deaggregate(&data.clone().into()), Deaggregated::Bare);
        // The message may be valid by chance; all that is known is that it is not bare.
        if !data.is_empty() {
            prop_assert_ne!(deaggregate(&frame::wrap([&data]).into()), Deaggregated::Bare);
        }
    }
}
