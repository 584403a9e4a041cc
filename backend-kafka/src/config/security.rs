use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// Encryption and login of the connection. Default: neither.
///
/// A trailing newline in the file of a password or a key is ignored. The files are read again for each new client,
/// so the next client uses a rotated password. If a file cannot be read then, the last password stays in
/// use.
///
/// ```
/// let config: millstream_kafka::Config = toml::from_str(r#"
///     brokers = ["b-1.example.com:9096", "b-2.example.com:9096"]
///
///     [security.tls]
///     ca_file = "/etc/ssl/kafka-ca.pem"       # without it: what the system trusts
///
///     [security.sasl]
///     mechanism = "scram-sha-512"             # or "plain", "scram-sha-256"
///     username = "team-a"
///     password_file = "/run/secrets/kafka"    # or password = ".."
/// "#)?;
/// assert!(config.security.tls.is_some());
/// # Ok::<_, toml::de::Error>(())
/// ```
///
/// Mutual TLS, where the certificate is the login:
///
/// ```
/// let config: millstream_kafka::Config = toml::from_str(r#"
///     brokers = ["kafka.example.com:9094"]
///
///     [security.tls]
///     ca_file = "/etc/kafka/ca.pem"
///     certificate_file = "/etc/kafka/client.pem"
///     key_file = "/etc/kafka/client.key"
///     key_password_file = "/run/secrets/client-key"    # where the key is encrypted
/// "#)?;
/// assert!(config.security.sasl.is_none());
/// # Ok::<_, toml::de::Error>(())
/// ```
///
/// Amazon MSK with IAM:
///
/// ```
/// let config: millstream_kafka::Config = toml::from_str(r#"
///     brokers = ["b-1.example.kafka.eu-west-1.amazonaws.com:9098"]
///     security.sasl = { mechanism = "msk-iam", region = "eu-west-1" }
/// "#)?;
/// assert!(config.security.tls.is_none());    // it is on, all the same
/// # Ok::<_, toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Security {
    /// Encryption. Default unset: none, except with `mechanism = "msk-iam"`, which is always encrypted.
    /// An empty table turns it on. Needs the feature `tls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The login. Default unset: none, or the client certificate of `tls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// Encryption, and the certificates by which brokers are verified.
///
/// Each value may be given by a file or in place, not by both. All are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Tls {
    /// The file of the certificate authorities that are trusted to sign brokers' certificates. Default unset:
    /// `ca_pem`, or the authorities that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The certificate authorities in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The file of the client's certificate chain. Default unset: the client has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// The client's certificate chain in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_pem: Option<String>,
    /// The file of the certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The private key in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<Secret>,
    /// The password of the encrypted private key. Default unset: the key is not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password: Option<Secret>,
    /// The file that holds the password of the private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password_file: Option<PathBuf>,
    /// Whether a broker's certificate must contain the host name of the connection. If not, anyone
    /// with a certificate of the same authority can impersonate a broker. Default `true`.
    pub verify_hostname: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca_file: None,
            ca_pem: None,
            certificate_file: None,
            certificate_pem: None,
            key_file: None,
            key_pem: None,
            key_password: None,
            key_password_file: None,
            verify_hostname: true,
        }
    }
}

/// A login, by the SASL mechanism.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "mechanism",
    rename_all = "kebab-case",
    try_from = "super::sasl_table::SaslTable"
)]
#[non_exhaustive]
pub enum Sasl {
    /// User and password, which are sent to the broker in clear text: anyone on the network path can read them unless
    /// `tls` is on.
    Plain(Credentials),
    /// User and password, which are proven and not sent (SCRAM-SHA-256). Needs the feature `tls`.
    #[serde(rename = "scram-sha-256")]
    ScramSha256(Credentials),
    /// Like `scram-sha-256`, with the longer hash. Amazon MSK offers this one. Needs the feature `tls`.
    #[serde(rename = "scram-sha-512")]
    ScramSha512(Credentials),
    /// The program's AWS identity, for Amazon MSK with IAM access control. Needs the
    /// feature `msk-iam`.
    MskIam(MskIam),
    /// Tokens that the program creates: connect with [`Kafka::connect_with`]. Needs the feature `tls`.
    ///
    /// [`Kafka::connect_with`]: crate::Kafka::connect_with
    Oauthbearer {},
}

/// A user and a password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password. This or `password_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Credentials {
    /// Creates the credentials of a user with a password.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            username: username.into(),
            password: Some(password.into()),
            password_file: None,
        }
    }
}

/// An AWS identity: the default of the environment (variables, profile, container, instance), unless
/// a profile or a role is named.
///
/// The clock must be accurate to some minutes: tokens are valid for 15.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MskIam {
    /// The cluster's region, such as `eu-west-1`.
    pub region: String,
    /// The profile of the shared configuration files to use. The profile may name a role itself. Keys in the
    /// environment (`AWS_ACCESS_KEY_ID`) take precedence. Default unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The role to assume with the identity of the environment. Cannot be combined with `profile`. Default
    /// unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The session name under which AWS logs the role's calls. Default `millstream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
}

impl MskIam {
    /// Creates the identity of the environment, in a region.
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            ..Self::default()
        }
    }
}
