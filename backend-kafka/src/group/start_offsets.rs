//! The offsets of a [`Start`] in a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use millstream_core::{Error, ErrorKind, Result, Start};

use crate::cluster::list_offsets::{OffsetSpec, list_led_offsets};
use crate::cluster::topics;
use crate::connection::Connection;

/// Returns the offset of `start` in each partition of a stream, by partition. `None` for partitions that have had no
/// leader for long.
pub(crate) async fn start_offsets(
    connection: &Connection,
    operation: &'static str,
    stream: &str,
    start: Start,
) -> Result<Vec<Option<i64>>> {
    let (topic, timeout) = (stream.to_owned(), connection.config.request_timeout);
    let end = match start {
        Start::Latest => OffsetSpec::Latest,
        Start::At(time) => OffsetSpec::At(millis_up(time)),
        Start::Earliest => OffsetSpec::Earliest,
        _ => {
            let message = "this start is not one that Kafka knows";
            return Err(Error::new(ErrorKind::Unsupported, operation, message).with_stream(stream));
        }
    };
    let found = connection.request_client.ask(operation, move |client| {
        let Some(found) = topics::look_up_led(client, &topic, timeout)? else {
            return Ok(None);
        };
        list_led_offsets(client, &topic, &found, end, timeout).map(Some)
    });
    match found.await {
        Ok(Some(places)) => Ok(places),
        Ok(None) => {
            let unknown = Error::new(ErrorKind::NotFound, operation, "no such topic");
            Err(unknown.with_stream(stream))
        }
        Err(error) => Err(error.with_stream(stream)),
    }
}

/// Returns the first whole millisecond that is not before `time`. The minimum is 1970.
fn millis_up(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = since.as_nanos().div_ceil(1_000_000);
    i64::try_from(millis).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_within_a_millisecond_is_the_next_one() {
        let at = |nanos| millis_up(UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!([at(0), at(1), at(1_000_000), at(1_000_001)], [0, 1, 1, 2]);
        assert_eq!(millis_up(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
