//! Logs when members sent which request to their groups, which shows how quickly a client reacts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kafka_protocol::messages::ApiKey;

use super::request::Request;

/// A request of a member to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestKind {
    /// A join: the first one, or that of a rebalance. Classic groups only.
    Join,
    /// A heartbeat. Classic groups only.
    Heartbeat,
    /// An offset commit.
    Commit,
}

impl RequestKind {
    fn by(request: &Request) -> Option<Self> {
        match request.api()? {
            ApiKey::JoinGroup => Some(Self::Join),
            ApiKey::Heartbeat => Some(Self::Heartbeat),
            ApiKey::OffsetCommit => Some(Self::Commit),
            _ => None,
        }
    }
}

/// Clones share the log.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestLog(Arc<Mutex<Entries>>);

/// By client id.
type Entries = BTreeMap<(String, RequestKind), Vec<Instant>>;

impl RequestLog {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request that has just arrived.
    pub(super) fn note(&self, request: &Request) {
        if let Some(request_times) = RequestKind::by(request) {
            let of = (request.client().to_owned(), request_times);
            self.lock().entry(of).or_default().push(Instant::now());
        }
    }

    pub(super) fn times(&self, client: &str, request_times: RequestKind) -> Vec<Instant> {
        let entries = self.lock();
        let times = entries.get(&(client.to_owned(), request_times));
        times.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::RequestHeader;
    use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};

    use super::*;
    use crate::kafka::frame;

    fn request<R: Encodable + HeaderVersion + Default>(key: ApiKey, client: &str) -> Request {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(4)
            .with_client_id(Some(StrBytes::from_string(client.to_owned())));
        let frame = frame::of((&header, R::header_version(4)), (&R::default(), 4));
        Request::parse(&frame.unwrap()).unwrap()
    }

    #[test]
    fn each_request_is_noted_by_its_client_and_what_it_asks() {
        use kafka_protocol::messages::{HeartbeatRequest, JoinGroupRequest, MetadataRequest};
        use kafka_protocol::messages::{OffsetCommitRequest, SyncGroupRequest};

        let request_log = RequestLog::default();
        request_log.note(&request::<JoinGroupRequest>(ApiKey::JoinGroup, "a"));
        request_log.note(&request::<HeartbeatRequest>(ApiKey::Heartbeat, "a"));
        request_log.note(&request::<HeartbeatRequest>(ApiKey::Heartbeat, "b"));
        request_log.note(&request::<HeartbeatRequest>(ApiKey::Heartbeat, "a"));
        request_log.note(&request::<OffsetCommitRequest>(ApiKey::OffsetCommit, "b"));
        request_log.note(&request::<SyncGroupRequest>(ApiKey::SyncGroup, "a"));
        request_log.note(&request::<MetadataRequest>(ApiKey::Metadata, "a"));
        let counted = |client| {
            [
                RequestKind::Join,
                RequestKind::Heartbeat,
                RequestKind::Commit,
            ]
            .map(|request_times| request_log.times(client, request_times).len())
        };
        assert_eq!(counted("a"), [1, 2, 0]);
        assert_eq!(counted("b"), [0, 1, 1]);
        assert_eq!(counted("c"), [0, 0, 0]);
        assert!(request_log.times("a", RequestKind::Heartbeat).is_sorted());
    }
}
