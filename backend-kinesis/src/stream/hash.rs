use std::str::FromStr;

use md5::{Digest, Md5};

/// The number that decides a record's shard: the MD5 of its partition key, as an unsigned number of
/// 128 bits, unless the producer set one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HashKey(pub(crate) u128);

impl HashKey {
    pub(crate) fn of(partition_key: impl AsRef<[u8]>) -> Self {
        let digest = Md5::digest(partition_key);
        Self(u128::from_be_bytes(digest.into()))
    }
}

impl FromStr for HashKey {
    type Err = std::num::ParseIntError;

    fn from_str(decimal: &str) -> Result<Self, Self::Err> {
        decimal.parse().map(Self)
    }
}

/// The hash keys of a shard, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HashRange {
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl HashRange {
    pub(crate) fn contains(&self, key: HashKey) -> bool {
        (self.first..=self.last).contains(&key.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_kinesis_does() {
        let known = [
            ("a", 16_955_237_001_963_240_173_058_271_559_858_726_497),
            (
                "partitionKey-0",
                283_893_945_402_358_862_714_065_952_676_399_797_471,
            ),
        ];
        for (key, hash) in known {
            assert_eq!(HashKey::of(key), HashKey(hash));
        }
    }
}
