//! Validates settings. Each message names the key and says what to change.

use std::path::PathBuf;
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};

use super::{Config, Credentials, MskIam, Sasl, Secret, Security, Tls};
use crate::config::passthrough;

const NO_TLS: &str = "build millstream-kafka with the feature `tls`";
pub(crate) const NO_MSK_IAM: &str = "security.sasl.mechanism: for `msk-iam` build millstream-kafka \
                                     with the feature `msk-iam`";

impl Config {
    /// Checks everything that can be checked without a broker. [`connect`](Self::connect) does so first.
    ///
    /// # Errors
    /// `Invalid`, with the name of the first invalid key.
    pub fn validate(&self) -> Result<()> {
        self.problem().map_or(Ok(()), |problem| {
            Err(Error::new(ErrorKind::Invalid, "connect", problem))
        })?;
        passthrough::check(self)
    }

    fn problem(&self) -> Option<String> {
        brokers(&self.brokers)
            .or_else(|| name("client_id", &self.client_id))
            .or_else(|| security(&self.security))
            .or_else(|| self.numbers())
            .or_else(|| {
                let instance = self.consumer.instance_id.as_ref();
                instance.and_then(|instance| name("consumer.instance_id", instance))
            })
            .or_else(|| {
                let mut keys = self.topics.config.keys();
                let empty = keys.any(|key| key.is_empty());
                empty.then(|| "topics.config has a key without a name: leave it out".into())
            })
    }

    fn numbers(&self) -> Option<String> {
        const MS: Duration = Duration::from_millis(1);
        const NEVER: Duration = Duration::ZERO;
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let Self {
            consumer, producer, ..
        } = self;
        let third = consumer.session_timeout / 3;
        let heartbeat = consumer.heartbeat_interval();
        within("request_timeout", self.request_timeout, SECOND, 10 * MINUTE)
            .or_else(|| match self.statistics_interval {
                NEVER => None,
                often => within("statistics_interval", often, 100 * MS, 1440 * MINUTE),
            })
            .or_else(|| {
                let timeout = consumer.session_timeout;
                within("consumer.session_timeout", timeout, SECOND, 60 * MINUTE)
            })
            .or_else(|| within("consumer.heartbeat_interval", heartbeat, 10 * MS, third))
            .or_else(|| {
                let timeout = consumer.rebalance_drain_timeout;
                within(
                    "consumer.rebalance_drain_timeout",
                    timeout,
                    Duration::ZERO,
                    1440 * MINUTE,
                )
            })
            .or_else(|| {
                within(
                    "producer.linger",
                    producer.linger,
                    Duration::ZERO,
                    15 * MINUTE,
                )
            })
            .or_else(|| within("producer.timeout", producer.timeout, SECOND, 1440 * MINUTE))
            .or_else(|| {
                let factor = self.topics.replication_factor?;
                let is_fit = (1..=i16::MAX as u16).contains(&factor);
                (!is_fit)
                    .then(|| format!("topics.replication_factor is {factor}: set it to 1 to 32767"))
            })
    }
}

fn within(key: &str, value: Duration, least: Duration, most: Duration) -> Option<String> {
    let is_fit = (least..=most).contains(&value);
    (!is_fit).then(|| format!("{key} is {value:?}: set it to {least:?} to {most:?}"))
}

fn brokers(brokers: &[String]) -> Option<String> {
    if brokers.is_empty() {
        return Some("brokers is empty: name one at least, as `host:port`".into());
    }
    let is_address = |text: &str| {
        let Some((host, port)) = text.rsplit_once(':') else {
            return false;
        };
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => return v6.parse::<std::net::Ipv6Addr>().is_ok() && is_port(port),
            None => host,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !host.is_empty() && host.chars().all(is_name) && is_port(port)
    };
    let wrong = brokers.iter().find(|broker| !is_address(broker))?;
    Some(format!(
        "brokers: {wrong:?} is no address: write `host:port`, without a scheme, and one a string"
    ))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn name(key: &str, value: &str) -> Option<String> {
    let wrong = value.is_empty() || value.chars().any(char::is_control);
    wrong.then(|| format!("{key} is empty or has control characters: set it to a plain name"))
}

fn security(security: &Security) -> Option<String> {
    let Security { tls, sasl } = security;
    tls.as_ref()
        .and_then(tls_problem)
        .or_else(|| sasl.as_ref().and_then(sasl_problem))
}

fn tls_problem(tls: &Tls) -> Option<String> {
    if !cfg!(feature = "tls") {
        return Some(format!("security.tls: {NO_TLS}"));
    }
    let certificate = tls.certificate_file.is_some() || tls.certificate_pem.is_some();
    let key = tls.key_file.is_some() || tls.key_pem.is_some();
    if certificate != key {
        return Some(
            "security.tls: a client's certificate needs its key, and a key its certificate: set \
             certificate_file and key_file, or neither"
                .into(),
        );
    }
    let password = tls.key_password.is_some() || tls.key_password_file.is_some();
    if password && !key {
        return Some("security.tls.key_password is set without a key: set key_file".into());
    }
    let pem = tls.key_pem.as_ref().map(Secret::expose);
    twice("ca_file", &tls.ca_file, "ca_pem", tls.ca_pem.as_deref())
        .or_else(|| {
            let pem = tls.certificate_pem.as_deref();
            twice(
                "certificate_file",
                &tls.certificate_file,
                "certificate_pem",
                pem,
            )
        })
        .or_else(|| twice("key_file", &tls.key_file, "key_pem", pem))
        .map(|(file, pem)| format!("security.tls has both {file} and {pem}: set one"))
        .or_else(|| {
            let password = "security.tls.key_password";
            secret(password, tls.key_password.as_ref(), &tls.key_password_file)
        })
        .or_else(|| {
            let pems = [
                ("ca_pem", tls.ca_pem.as_deref()),
                ("certificate_pem", tls.certificate_pem.as_deref()),
                ("key_pem", pem),
            ];
            let is_pem = |text: &str| text.contains("-----BEGIN ") && !text.contains('\0');
            let (key, _) = pems
                .iter()
                .find(|(_, pem)| pem.is_some_and(|pem| !is_pem(pem)))?;
            Some(format!(
                "security.tls.{key} is not PEM: it begins with a line `-----BEGIN ..-----`; for a \
                 path set {}",
                key.replace("pem", "file")
            ))
        })
}

fn twice<'a>(
    file_key: &'a str,
    file: &Option<PathBuf>,
    pem_key: &'a str,
    pem: Option<&str>,
) -> Option<(&'a str, &'a str)> {
    (file.is_some() && pem.is_some()).then_some((file_key, pem_key))
}

fn sasl_problem(sasl: &Sasl) -> Option<String> {
    let tls_for = |mechanism: &str| {
        (!cfg!(feature = "tls"))
            .then(|| format!("security.sasl.mechanism: for `{mechanism}` {NO_TLS}"))
    };
    match sasl {
        Sasl::Plain(user) => credentials(user),
        Sasl::ScramSha256(user) => tls_for("scram-sha-256").or_else(|| credentials(user)),
        Sasl::ScramSha512(user) => tls_for("scram-sha-512").or_else(|| credentials(user)),
        Sasl::MskIam(_) if !cfg!(feature = "msk-iam") => Some(NO_MSK_IAM.into()),
        Sasl::MskIam(msk) => msk_problem(msk),
        Sasl::Oauthbearer {} => tls_for("oauthbearer"),
    }
}

fn credentials(user: &Credentials) -> Option<String> {
    let Credentials {
        username,
        password,
        password_file,
    } = user;
    if password.is_none() && password_file.is_none() {
        return Some("security.sasl has no password: set password or password_file".into());
    }
    name("security.sasl.username", username)
        .or_else(|| secret("security.sasl.password", password.as_ref(), password_file))
}

fn secret(key: &str, given: Option<&Secret>, file: &Option<PathBuf>) -> Option<String> {
    let given = given?;
    if file.is_some() {
        return Some(format!("{key} and {key}_file are both set: set one"));
    }
    if given.is_empty() || given.expose().contains('\0') {
        return Some(format!(
            "{key} is empty, or holds a NUL byte: set the secret"
        ));
    }
    (given.expose() == Secret::SHOWN).then(|| {
        format!(
            "{key} is `***`, which is how secrets are written out: set the secret itself, or {key}_file"
        )
    })
}

fn msk_problem(msk: &MskIam) -> Option<String> {
    let is_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if msk.region.is_empty() || !msk.region.chars().all(is_region) {
        return Some("security.sasl.region is no region: set it to one such as `eu-west-1`".into());
    }
    if msk.profile.is_some() && msk.role_arn.is_some() {
        return Some(
            "security.sasl has both profile and role_arn: set one; a profile may name a role itself"
                .into(),
        );
    }
    if msk.session_name.is_some() && msk.role_arn.is_none() {
        return Some("security.sasl.session_name is set without role_arn: leave it out".into());
    }
    [
        ("security.sasl.profile", &msk.profile),
        ("security.sasl.role_arn", &msk.role_arn),
        ("security.sasl.session_name", &msk.session_name),
    ]
    .into_iter()
    .find_map(|(key, value)| value.as_ref().and_then(|value| name(key, value)))
}
