//! Explicit hash keys: a header of a record can decide its shard.

use std::sync::Arc;

use millstream_core::Record;

use crate::stream::HashKey;

/// The records of a call as they are stored: without the header that contains an explicit hash key.
pub(super) struct Addressed {
    pub(super) records: Arc<Vec<Record>>,
    /// The parsed headers; empty if there is no such header.
    hashes: Vec<Result<Option<HashKey>, String>>,
}

impl Addressed {
    /// Without a configured header, the records are shared with the call.
    pub(super) fn of(records: &Arc<Vec<Record>>, header: Option<&str>) -> Self {
        let Some(header) = header else {
            return Self {
                records: records.clone(),
                hashes: Vec::new(),
            };
        };
        let records = records.iter().map(|record| take(record, header));
        let (records, hashes): (Vec<_>, _) = records.unzip();
        Self {
            records: Arc::new(records),
            hashes,
        }
    }

    /// Returns each record with its explicit hash key, or with the error of an invalid one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Record, Result<Option<HashKey>, &str>)> {
        self.records.iter().enumerate().map(|(index, record)| {
            let hash = self.hashes.get(index).map(Result::as_ref);
            let hash = hash.map_or(Ok(None), |hash| hash.copied().map_err(|wrong| &**wrong));
            (record, hash)
        })
    }
}

fn take(record: &Record, header: &str) -> (Record, Result<Option<HashKey>, String>) {
    let mut given = record.headers.iter().filter(|(name, _)| *name == header);
    let Some((_, value)) = given.next() else {
        return (record.clone(), Ok(None));
    };
    let hash = match given.next() {
        None => value.and_then(|value| read(value)).map(Some).ok_or_else(|| {
            format!(
                "the header {header:?} is {:?}: as an explicit hash key it must be a decimal number \
                 of 0 to {}",
                String::from_utf8_lossy(value.map_or(&[], |value| &value[..])),
                u128::MAX
            )
        }),
        Some(_) => Err(format!(
            "the record has the header {header:?} more than once: give one explicit hash key"
        )),
    };
    let mut record = record.clone();
    record.headers.remove(header);
    (record, hash)
}

/// Kinesis accepts [no sign and no leading zeros][PutRecordsRequestEntry].
///
/// [PutRecordsRequestEntry]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html
fn read(value: &[u8]) -> Option<HashKey> {
    let hash: HashKey = std::str::from_utf8(value).ok()?.parse().ok()?;
    (hash.0.to_string().as_bytes() == value).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addressed(record: Record) -> (Record, Result<Option<HashKey>, String>) {
        take(&record, "hash-key")
    }

    #[test]
    fn the_header_is_taken_off_and_all_else_stays() {
        let other = Record::new("payload").key("k").header("a", "1");
        let given = other.clone().header("hash-key", "42").header("b", "2");
        let (record, hash) = addressed(given);
        assert_eq!(hash, Ok(Some(HashKey(42))));
        assert_eq!(record, other.clone().header("b", "2"));
        assert_eq!(addressed(other.clone()), (other, Ok(None)));
    }

    #[test]
    fn numbers_are_as_kinesis_takes_them() {
        let most = u128::MAX.to_string();
        for (value, hash) in [("0", 0), ("7", 7), (&*most, u128::MAX)] {
            let record = Record::new("").header("hash-key", value.to_owned());
            assert_eq!(addressed(record).1, Ok(Some(HashKey(hash))), "{value}");
        }
        let above = "340282366920938463463374607431768211456";
        for value in ["", "-1", "+1", "007", " 1", "1.0", "0x1", "one", above] {
            let record = Record::new("").header("hash-key", value);
            let wrong = addressed(record).1.unwrap_err();
            assert!(wrong.contains(&format!("{value:?}")), "{wrong}");
            assert!(wrong.contains(&most), "{wrong}");
        }
        let bytes = Record::new("").header("hash-key", &[0xFF][..]);
        assert!(addressed(bytes).1.is_err());
    }

    #[test]
    fn it_may_be_there_once() {
        let record = Record::new("").header("hash-key", "1");
        let wrong = addressed(record.header("hash-key", "1")).1.unwrap_err();
        assert!(wrong.contains("more than once"), "{wrong}");
    }
}
