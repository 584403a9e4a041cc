//! Millstream's client, with its defaults.

use millstream_kinesis::{Config, Credentials};

use crate::job::Target;

pub(crate) fn config(target: &Target) -> Config {
    let [id, secret] = conformance::kinesis::Testbed::CREDENTIALS;
    let mut config = Config::default();
    config.region = Some(conformance::kinesis::Testbed::REGION.into());
    config.credentials = Some(Credentials {
        access_key_id: id.into(),
        secret_access_key: secret.to_owned().into(),
        session_token: None,
    });
    config.endpoint = Some(target.kinesis.clone());
    config.dynamodb_endpoint = Some(target.dynamodb.clone());
    config
}
