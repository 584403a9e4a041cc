//! Our client, at its defaults.

use millstream_kinesis::{Config, Credentials};

use crate::job::Place;

pub(crate) fn config(place: &Place) -> Config {
    let [id, secret] = conformance::kinesis::Site::CREDENTIALS;
    let mut config = Config::default();
    config.region = Some(conformance::kinesis::Site::REGION.into());
    config.credentials = Some(Credentials {
        access_key_id: id.into(),
        secret_access_key: secret.to_owned().into(),
        session_token: None,
    });
    config.endpoint = Some(place.kinesis.clone());
    config.dynamodb_endpoint = Some(place.dynamodb.clone());
    config
}
