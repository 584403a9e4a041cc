//! The quotas of the control plane, which no emulator enforces: requests per second of [an account][limits], and of one of
//! its shards.
//!
//! [limits]: https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::request::{Request, Service};

const SECOND: Duration = Duration::from_secs(1);

/// The tolerance: clocks differ between client and service, and latency varies.
const SLACK: Duration = Duration::from_millis(20);

/// What requests count for: the account, and what they have in common.
type Quota = (String, String);

/// The times of the requests of the last second. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Quotas(Arc<Mutex<BTreeMap<Quota, VecDeque<Instant>>>>);

impl Quotas {
    /// Counts a request, and returns whether it is within the quotas.
    pub(super) fn admit(&self, request: &Request, now: Instant) -> bool {
        let Some((of, most)) = quota(request) else {
            return true;
        };
        let now = now + SLACK;
        let mut quotas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let account = account(&request.client).to_owned();
        let times = quotas.entry((account, of)).or_default();
        while times.front().is_some_and(|at| *at + SECOND <= now) {
            times.pop_front();
        }
        let admitted = times.len() < most;
        if admitted {
            times.push_back(now - SLACK);
        }
        admitted
    }
}

/// Returns what a request counts for, and how many of these are admitted in a second.
fn quota(request: &Request) -> Option<(String, usize)> {
    if request.service != Service::Kinesis {
        return None;
    }
    let name = request.name.as_str();
    let most = match name {
        "ListStreams" | "RegisterStreamConsumer" | "GetShardIterator" => 5,
        "DescribeStreamSummary" | "DescribeStreamConsumer" => 20,
        _ => return None,
    };
    let of = match name {
        "GetShardIterator" => format!(
            "{name} {} {}",
            request.body["StreamName"], request.body["ShardId"]
        ),
        name => name.to_owned(),
    };
    Some((of, most))
}

/// Returns the account of a client. Cases share a proxy, and each is its own account: `client-CASE-NUMBER.MEMBER`.
fn account(client: &str) -> &str {
    client
        .rsplit_once('-')
        .map_or(client, |(account, _)| account)
}
