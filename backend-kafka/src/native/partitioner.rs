//! Selects the partition of a key.

use std::num::NonZeroUsize;
use std::ptr;

use rdkafka::bindings as rd;

/// Returns the partition that librdkafka's `murmur2_random` chooses for a record with a key, in a topic with this
/// number of partitions.
pub(crate) fn murmur2(key: &[u8], partitions: NonZeroUsize) -> usize {
    let count = i32::try_from(partitions.get()).unwrap_or(i32::MAX);
    // SAFETY: the key has the given length, and the partition count, a divisor, is not zero. Topic and opaques are
    // for other partitioners; this one reads only the key (librdkafka 2.12, `rd_kafka_msg_partitioner_murmur2`).
    let partition = unsafe {
        rd::rd_kafka_msg_partitioner_murmur2(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            count,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    usize::try_from(partition).expect("a partition is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are those of Java's own test (`UtilsTest.testMurmur2`), made positive as there.
    #[test]
    fn it_is_what_java_does() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            let hash = (hash & i32::MAX) as usize;
            for partitions in [1, 4, 1_000] {
                let partition = murmur2(key.as_bytes(), NonZeroUsize::new(partitions).unwrap());
                assert_eq!(partition, hash % partitions, "{key}, {partitions}");
            }
        }
        assert!(murmur2(b"", NonZeroUsize::new(3).unwrap()) < 3);
    }
}
