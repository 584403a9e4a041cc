//! Validation of settings before they are used. Each message names the key and says what to change.

use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};

use super::{Config, Secret};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The maximum record size of any stream.
const LARGEST_RECORD: usize = 10 << 20;

impl Config {
    /// Checks everything that can be checked without an AWS service. [`connect`](Self::connect) does so
    /// first.
    ///
    /// # Errors
    /// `Invalid`, with the name of the first key that is wrong.
    pub fn validate(&self) -> Result<()> {
        self.problem().map_or(Ok(()), |problem| {
            Err(Error::new(ErrorKind::Invalid, "connect", problem))
        })
    }

    fn problem(&self) -> Option<String> {
        name("client_id", &self.client_id, 50)
            .or_else(|| filled("region", self.region.as_deref()))
            .or_else(|| filled("profile", self.profile.as_deref()))
            .or_else(|| self.login())
            .or_else(|| address("endpoint", self.endpoint.as_deref()))
            .or_else(|| address("dynamodb_endpoint", self.dynamodb_endpoint.as_deref()))
            .or_else(|| self.endpoints())
            .or_else(|| within("request_timeout", self.request_timeout, SECOND, 10 * MINUTE))
            .or_else(|| self.consuming())
            .or_else(|| self.sending())
            .or_else(|| self.leasing())
    }

    fn login(&self) -> Option<String> {
        let credentials = self.credentials.as_ref()?;
        let secrets = [
            (
                "credentials.secret_access_key",
                Some(&credentials.secret_access_key),
            ),
            (
                "credentials.session_token",
                credentials.session_token.as_ref(),
            ),
        ];
        let shown = secrets.into_iter().find_map(|(key, secret)| {
            let secret = secret?.expose();
            let is_no_secret = secret.is_empty() || secret == Secret::SHOWN;
            is_no_secret.then(|| format!("{key} is {secret:?}, which is no secret: set it"))
        });
        filled(
            "credentials.access_key_id",
            Some(&credentials.access_key_id),
        )
        .or(shown)
    }

    /// An address without TLS is an emulator's. Those of AWS may be set one by one: a private network may have one of them.
    fn endpoints(&self) -> Option<String> {
        let is_plain = |url: &Option<String>| {
            let url = url.as_deref();
            url.is_some_and(|url| url.starts_with("http://"))
        };
        let (set, unset) = match (&self.endpoint, &self.dynamodb_endpoint) {
            (endpoint, None) if is_plain(endpoint) => ("endpoint", "dynamodb_endpoint"),
            (None, endpoint) if is_plain(endpoint) => ("dynamodb_endpoint", "endpoint"),
            _ => return None,
        };
        Some(format!(
            "{set} is that of an emulator, and {unset} is not set, so it is that of AWS: set both"
        ))
    }

    fn consuming(&self) -> Option<String> {
        let consumer = &self.consumer;
        let poll = consumer.poll_interval;
        within("consumer.poll_interval", poll, 200 * MS, MINUTE)
            .or_else(|| count("consumer.poll_records", consumer.poll_records, 1, 10_000))
            .or_else(|| {
                let timeout = consumer.session_timeout;
                within("consumer.session_timeout", timeout, SECOND, 60 * MINUTE)
            })
            .or_else(|| {
                let timeout = consumer.request_timeout;
                within("consumer.request_timeout", timeout, SECOND, MINUTE)
            })
            .or_else(|| {
                let fan_out = consumer.fan_out_name.as_ref();
                fan_out.and_then(|given| name("consumer.fan_out_name", given, 128))
            })
    }

    fn sending(&self) -> Option<String> {
        let producer = &self.producer;
        let bytes = producer.aggregate_bytes;
        count("producer.aggregate_bytes", bytes, 1_024, LARGEST_RECORD)
            .or_else(|| {
                let header = producer.explicit_hash_key_header.as_deref();
                filled("producer.explicit_hash_key_header", header)
            })
            .or_else(|| within("producer.linger", producer.linger, Duration::ZERO, MINUTE))
            .or_else(|| within("producer.timeout", producer.timeout, SECOND, 1440 * MINUTE))
            .or_else(|| {
                let timeout = producer.request_timeout;
                within("producer.request_timeout", timeout, SECOND, MINUTE)
            })
            .or_else(|| count("producer.requests", producer.requests, 1, 1_000))
    }

    fn leasing(&self) -> Option<String> {
        let leases = &self.leases;
        let fixed = leases.table.replace("{group}", "");
        let is_templated = fixed.len() != leases.table.len();
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let table_is_fit =
            fixed.chars().all(is_fit) && fixed.len() <= 255 && (is_templated || fixed.len() >= 3);
        (!table_is_fit)
            .then(|| {
                format!(
                    "leases.table is {:?}: use 3 to 255 of A-Z a-z 0-9 . _ -, where {{group}} \
                     stands for the group's name",
                    leases.table
                )
            })
            .or_else(|| filled("leases.region", leases.region.as_deref()))
            .or_else(|| filled("leases.profile", leases.profile.as_deref()))
            .or_else(|| role("leases.role_arn", leases.role_arn.as_deref()))
            .or_else(|| match leases.max_per_member {
                Some(0) => Some("leases.max_per_member is 0: set it to 1 or more".into()),
                _ => None,
            })
            .or_else(|| {
                let interval = leases.scan_interval?;
                within("leases.scan_interval", interval, 100 * MS, MINUTE)
            })
            .or_else(|| {
                let interval = leases.audit_interval;
                within("leases.audit_interval", interval, SECOND, 60 * MINUTE)
            })
    }
}

fn within(key: &str, value: Duration, least: Duration, most: Duration) -> Option<String> {
    (value < least || value > most)
        .then(|| format!("{key} is {value:?}: set it to {least:?} to {most:?}"))
}

fn count(key: &str, value: usize, least: usize, most: usize) -> Option<String> {
    (value < least || value > most)
        .then(|| format!("{key} is {value}: set it to {least} to {most}"))
}

fn filled(key: &str, value: Option<&str>) -> Option<String> {
    value
        .is_some_and(str::is_empty)
        .then(|| format!("{key} is empty: give one, or leave the key out"))
}

fn role(key: &str, value: Option<&str>) -> Option<String> {
    let value = value?;
    let is_role = value.starts_with("arn:") && value.contains(":iam::") && value.contains(":role/");
    (!is_role).then(|| format!("{key} is {value:?}: use arn:aws:iam::ACCOUNT:role/NAME"))
}

fn address(key: &str, value: Option<&str>) -> Option<String> {
    let value = value?;
    let rest = value
        .strip_prefix("http://")
        .or_else(|| value.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains('@') => None,
        _ => Some(format!(
            "{key} is {value:?}: use http:// or https://, a host, and perhaps a port"
        )),
    }
}

fn name(key: &str, name: &str, longest: usize) -> Option<String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name_is_fit = (1..=longest).contains(&name.len()) && name.chars().all(is_fit);
    (!name_is_fit).then(|| format!("{key} is {name:?}: use 1 to {longest} of A-Z a-z 0-9 . _ -"))
}
