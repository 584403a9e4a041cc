//! Replaces the advertised port with a client's own port of the proxy.

use std::io;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, DescribeClusterResponse, FindCoordinatorResponse, MetadataResponse,
};

use super::request::Request;
use super::response::rewrite;

/// The port that the broker advertises, and that of the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct PortChange {
    from: i32,
    to: i32,
}

/// The response to change, by the API of its request and the version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming {
    api: ApiKey,
    version: i16,
}

impl PortChange {
    pub(super) fn new(from: u16, to: u16) -> Self {
        let (from, to) = (from.into(), to.into());
        Self { from, to }
    }

    /// Returns how to rewrite the response to a request, if it contains the ports of brokers and these change.
    pub(super) fn concerns(&self, request: &Request) -> Option<Naming> {
        let api = request.api()?;
        let names = matches!(
            api,
            ApiKey::Metadata | ApiKey::FindCoordinator | ApiKey::DescribeCluster
        );
        let version = request.version();
        (names && self.from != self.to).then_some(Naming { api, version })
    }

    /// Returns the response with the client's port.
    pub(super) fn apply(&self, response: &Bytes, named: Naming) -> io::Result<Bytes> {
        let version = named.version;
        match named.api {
            ApiKey::Metadata => rewrite(response, version, |response: &mut MetadataResponse| {
                let brokers = response.brokers.iter_mut();
                brokers.for_each(|broker| self.change(&mut broker.port));
            }),
            ApiKey::FindCoordinator => rewrite(
                response,
                version,
                |response: &mut FindCoordinatorResponse| {
                    self.change(&mut response.port);
                    let coordinators = response.coordinators.iter_mut();
                    coordinators.for_each(|coordinator| self.change(&mut coordinator.port));
                },
            ),
            _ => rewrite(
                response,
                version,
                |response: &mut DescribeClusterResponse| {
                    let brokers = response.brokers.iter_mut();
                    brokers.for_each(|broker| self.change(&mut broker.port));
                },
            ),
        }
    }

    fn change(&self, port: &mut i32) {
        if *port == self.from {
            *port = self.to;
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ResponseHeader;
    use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
    use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, StrBytes};

    use super::*;
    use crate::kafka::frame;

    const CHANGE: PortChange = PortChange {
        from: 9092,
        to: 7001,
    };

    /// Changes a response in every version, and returns its content after that.
    fn changed<R>(api: ApiKey, response: &R) -> Vec<(i16, R)>
    where
        R: Message + Decodable + Encodable + HeaderVersion,
    {
        let versions = R::VERSIONS.min..=R::VERSIONS.max;
        let of = |version| {
            let header = ResponseHeader::default().with_correlation_id(77);
            let header_version = R::header_version(version);
            let frame = frame::of((&header, header_version), (response, version)).unwrap();
            let changed = CHANGE.apply(&frame, Naming { api, version }).unwrap();
            assert_eq!(frame::correlation(&changed).unwrap(), 77);
            let mut body = frame::body(&changed);
            ResponseHeader::decode(&mut body, header_version).unwrap();
            let decoded = R::decode(&mut body, version).unwrap();
            assert!(body.is_empty(), "version {version}");
            (version, decoded)
        };
        versions.map(of).collect()
    }

    #[test]
    fn brokers_of_any_version_are_behind_the_port_of_the_client() {
        let broker = |port| MetadataResponseBroker::default().with_port(port);
        let response = MetadataResponse::default().with_brokers(vec![broker(9092), broker(9093)]);
        for (version, changed) in changed(ApiKey::Metadata, &response) {
            let ports: Vec<_> = changed.brokers.iter().map(|broker| broker.port).collect();
            assert_eq!(ports, [7001, 9093], "version {version}");
        }
        let broker = DescribeClusterBroker::default().with_port(9092);
        let response = DescribeClusterResponse::default()
            .with_cluster_id(StrBytes::from_static_str("cars"))
            .with_brokers(vec![broker]);
        for (version, changed) in changed(ApiKey::DescribeCluster, &response) {
            assert_eq!(changed.brokers[0].port, 7001, "version {version}");
        }
    }

    #[test]
    fn coordinators_of_any_version_are_behind_the_port_of_the_client() {
        // Newer versions have a list instead.
        let one = FindCoordinatorResponse::default().with_port(9092);
        let coordinator = Coordinator::default().with_port(9092);
        let list = FindCoordinatorResponse::default().with_coordinators(vec![coordinator]);
        let header = ResponseHeader::default();
        for version in FindCoordinatorResponse::VERSIONS.min..=FindCoordinatorResponse::VERSIONS.max
        {
            let header_version = FindCoordinatorResponse::header_version(version);
            let response = if version < 4 { &one } else { &list };
            let frame = frame::of((&header, header_version), (response, version)).unwrap();
            let api = ApiKey::FindCoordinator;
            let changed = CHANGE.apply(&frame, Naming { api, version }).unwrap();
            let mut body = frame::body(&changed);
            ResponseHeader::decode(&mut body, header_version).unwrap();
            let decoded = FindCoordinatorResponse::decode(&mut body, version).unwrap();
            let listed = decoded.coordinators.first().map(|of| of.port);
            assert_eq!(listed.unwrap_or(decoded.port), 7001, "version {version}");
        }
    }
}
