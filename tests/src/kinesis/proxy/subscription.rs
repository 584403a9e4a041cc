//! Forwards the event stream of a subscription.

use std::io;

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder, write_message_to};
use aws_smithy_types::event_stream::Message;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::sync::broadcast;

use super::faults::Faults;
use super::request::{Service, Shard};
use super::response::ProxyResponse;
use super::retention::Retention;

/// One subscription of a client.
pub(super) struct Subscription {
    pub(super) shard: Shard,
    pub(super) client: String,
    pub(super) faults: Faults,
    pub(super) retention: Retention,
}

/// A subscription, and the decoder of its events.
struct Events {
    of: Subscription,
    cuts: broadcast::Receiver<String>,
    body: Incoming,
    decoder: MessageFrameDecoder,
    read: BytesMut,
}

impl Subscription {
    /// Forwards events until either side ends, or a fault cuts it.
    pub(super) fn pass(self, response: Response<Incoming>) -> ProxyResponse {
        let cuts = self.faults.cuts();
        response.map(|body| {
            let events = Events {
                of: self,
                cuts,
                body,
                decoder: MessageFrameDecoder::new(),
                read: BytesMut::new(),
            };
            let events = stream::try_unfold(events, async |mut events| {
                let event = events.next().await?;
                Ok(event.map(|event| (Frame::data(event), events)))
            });
            StreamBody::new(Box::pin(events)).boxed()
        })
    }
}

impl Events {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let decoded = self.decoder.decode_frame(&mut self.read);
            if let DecodedFrame::Complete(event) = decoded.map_err(io::Error::other)? {
                let (faults, client) = (&self.of.faults, &self.of.client);
                if faults.is_cut_off(client, Service::Kinesis) {
                    return Err(io::Error::other("the client is cut off"));
                }
                return self.of.passed(event).map(Some);
            }
            tokio::select! {
                frame = self.body.frame() => match frame {
                    Some(frame) => {
                        let frame = frame.map_err(io::Error::other)?;
                        self.read.extend(frame.into_data().ok());
                    }
                    None => return Ok(None),
                },
                Ok(stream) = self.cuts.recv() => if stream == self.of.shard.stream {
                    self.of.faults.record_hit(&stream);
                    return Err(io::Error::other("the subscription is cut"));
                },
            }
        }
    }
}

impl Subscription {
    /// Removes hidden records from an event.
    fn passed(&self, event: Message) -> io::Result<Bytes> {
        let event = match serde_json::from_slice::<Value>(event.payload()) {
            Ok(mut payload) => {
                self.retention.apply(&self.shard, &mut payload);
                let payload = Bytes::from(payload.to_string());
                Message::new_from_parts(event.headers().to_vec(), payload)
            }
            // The first event has none.
            Err(_) => event,
        };
        let mut passed = BytesMut::new();
        write_message_to(&event, &mut passed).map_err(io::Error::other)?;
        Ok(passed.freeze())
    }
}
