//! The plain clients of the AWS SDK, with their defaults (with retries), for comparison.

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use conformance::kinesis::Testbed;

pub(crate) fn kinesis(endpoint: &str) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(Testbed::REGION))
        .credentials_provider(credentials())
        .endpoint_url(endpoint);
    aws_sdk_kinesis::Client::from_conf(config.build())
}

pub(crate) fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(Testbed::REGION))
        .credentials_provider(credentials())
        .endpoint_url(endpoint);
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

fn credentials() -> Credentials {
    let [id, secret] = Testbed::CREDENTIALS;
    Credentials::new(id, secret, None, None, "bench")
}
