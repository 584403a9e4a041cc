//! Decodes requests to Kinesis and DynamoDB.

use std::io;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use serde_json::Value;

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Kinesis.
    Kinesis,
    /// DynamoDB.
    DynamoDb,
}

/// A request, read to its end.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) parts: Parts,
    pub(super) body: Value,
    pub(super) service: Service,
    /// The name of its operation.
    pub(super) name: String,
    /// The name of its client.
    pub(super) client: String,
    pub(super) operation: Operation,
}

/// The purpose of a request, as far as faults distinguish it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Stores a batch of records.
    PutRecords { stream: String },
    /// Stores one record.
    PutRecord { stream: String },
    /// Gets a shard iterator.
    Iterator(Shard),
    /// Polls records.
    Records { iterator: String },
    /// Subscribes to records.
    Subscription(Shard),
    /// Stores a checkpoint in this table.
    Checkpoint { table: String },
    /// Any other request to this table.
    Table { table: String },
    /// Describes a stream.
    Description { stream: String },
    /// A request that no fault applies to.
    Other,
}

/// A shard of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shard {
    pub(super) stream: String,
    pub(super) id: String,
}

impl Request {
    pub(super) async fn read(request: hyper::Request<Incoming>) -> io::Result<Self> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Self::parse(parts, &body)
    }

    fn parse(mut parts: Parts, body: &Bytes) -> io::Result<Self> {
        // The header is set again for the forwarded body.
        parts.headers.remove(CONTENT_LENGTH);
        let target = text(&parts.headers, "x-amz-target");
        let (service, operation) = match target.split_once('.') {
            Some((service, operation)) if service.starts_with("Kinesis") => {
                (Service::Kinesis, operation)
            }
            Some((service, operation)) if service.starts_with("DynamoDB") => {
                (Service::DynamoDb, operation)
            }
            _ => return Err(io::Error::other(format!("a request for {target:?}"))),
        };
        let name = operation.to_owned();
        let body: Value = serde_json::from_slice(body)?;
        let operation = match service {
            Service::Kinesis => of_kinesis(operation, &body),
            Service::DynamoDb => of_dynamodb(operation, &body),
        };
        let client = client(&parts.headers);
        Ok(Self {
            parts,
            body,
            service,
            name,
            client,
            operation,
        })
    }

    /// Returns the keys of the records of a batch, in order.
    pub(super) fn keys(&self) -> Vec<&str> {
        let records = self.body["Records"].as_array().into_iter().flatten();
        records.map(|record| str(&record["PartitionKey"])).collect()
    }
}

fn of_kinesis(operation: &str, body: &Value) -> Operation {
    let stream = stream(body);
    let shard = || Shard {
        stream: stream.to_owned(),
        id: str(&body["ShardId"]).to_owned(),
    };
    match operation {
        "PutRecords" => Operation::PutRecords {
            stream: stream.to_owned(),
        },
        "PutRecord" => Operation::PutRecord {
            stream: stream.to_owned(),
        },
        "DescribeStreamSummary" => Operation::Description {
            stream: stream.to_owned(),
        },
        "GetShardIterator" => Operation::Iterator(shard()),
        "GetRecords" => Operation::Records {
            iterator: str(&body["ShardIterator"]).to_owned(),
        },
        "SubscribeToShard" => Operation::Subscription(shard()),
        _ => Operation::Other,
    }
}

fn of_dynamodb(operation: &str, body: &Value) -> Operation {
    let table = str(&body["TableName"]).to_owned();
    match operation {
        "UpdateItem" if sets(body, "checkpoint") => Operation::Checkpoint { table },
        _ if table.is_empty() => Operation::Other,
        _ => Operation::Table { table },
    }
}

/// Returns the stream of a request, by its name or from the ARN of the stream or its consumer.
fn stream(body: &Value) -> &str {
    let name = str(&body["StreamName"]);
    if !name.is_empty() {
        return name;
    }
    let arns = ["StreamARN", "ConsumerARN"].map(|arn| str(&body[arn]));
    let named = arns.iter().find_map(|arn| arn.split_once(":stream/"));
    let name = named.map_or("", |(_, name)| name);
    name.split_once('/').map_or(name, |(name, _)| name)
}

/// Returns whether an update writes an attribute, by an expression or, as the KCL does, by the older list of
/// attribute updates.
fn sets(body: &Value, attribute: &str) -> bool {
    let update = &body["AttributeUpdates"][attribute];
    if update.is_object() {
        return update["Action"] != "DELETE";
    }
    let expression = str(&body["UpdateExpression"]);
    let (_, set) = expression.split_once("SET ").unwrap_or_default();
    let set = ["REMOVE ", "ADD ", "DELETE "]
        .iter()
        .fold(set, |set, next| set.split(next).next().unwrap_or_default());
    let mut written = set.split(',').filter_map(|part| part.split_once('='));
    written.any(|(name, _)| {
        let name = name.trim();
        let named = &body["ExpressionAttributeNames"][name];
        named.as_str().unwrap_or(name) == attribute
    })
}

/// Returns the application in a user agent: `.. app/NAME ..`.
fn client(headers: &HeaderMap) -> String {
    let agents = [
        text(headers, "x-amz-user-agent"),
        text(headers, USER_AGENT.as_str()),
    ];
    let mut words = agents.iter().flat_map(|agent| agent.split(' '));
    let app = words.find_map(|word| word.strip_prefix("app/"));
    app.unwrap_or_default().to_owned()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

fn str(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(target: &str, agent: &str, body: Value) -> Request {
        let request = hyper::Request::builder()
            .header("x-amz-target", target)
            .header("x-amz-user-agent", agent);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Request::parse(parts, &body.to_string().into()).unwrap()
    }

    #[test]
    fn a_request_tells_its_stream_and_its_client() {
        let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/cars";
        let streams = [
            json!({"StreamName": "cars"}),
            json!({"StreamARN": arn}),
            json!({"ConsumerARN": format!("{arn}/consumer/alerts:17")}),
        ];
        for body in streams {
            let agent = "aws-sdk-rust/1 ua/2.1 app/cars.a lang/rust";
            let request = parsed("Kinesis_20131202.PutRecords", agent, body);
            let stream = "cars".to_owned();
            assert_eq!(request.operation, Operation::PutRecords { stream });
            assert_eq!(
                (request.client.as_str(), request.service),
                ("cars.a", Service::Kinesis)
            );
        }
    }

    #[test]
    fn a_checkpoint_is_known_from_other_updates_of_a_lease() {
        let names = json!({"#c": "checkpoint", "#o": "leaseOwner"});
        let operation = |body: Value| parsed("DynamoDB_20120810.UpdateItem", "", body).operation;
        let expression = |expression: &str| {
            operation(json!({
                "TableName": "alerts",
                "UpdateExpression": expression,
                "ExpressionAttributeNames": names,
            }))
        };
        let table = || "alerts".to_owned();
        let checkpoints = [
            expression("SET leaseCounter = :n, #c = :c REMOVE pendingCheckpoint"),
            expression("REMOVE #o SET checkpoint=:c"),
            operation(json!({
                "TableName": "alerts",
                "AttributeUpdates": {"checkpoint": {"Action": "PUT", "Value": {"S": "1"}}},
            })),
        ];
        for checkpoint in checkpoints {
            assert_eq!(checkpoint, Operation::Checkpoint { table: table() });
        }
        let others = [
            expression("SET leaseCounter = :n, #o = :me"),
            expression("SET leaseCounter = :n REMOVE #c"),
            expression("SET pendingCheckpoint = :n"),
            operation(json!({
                "TableName": "alerts",
                "AttributeUpdates": {"leaseCounter": {"Action": "PUT", "Value": {"N": "1"}}},
            })),
        ];
        for other in others {
            assert_eq!(other, Operation::Table { table: table() });
        }
    }
}
