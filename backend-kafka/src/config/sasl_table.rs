use std::path::PathBuf;

use serde::Deserialize;

use super::{Credentials, MskIam, Sasl, Secret};

/// One table with the keys of all logins.
///
/// Rejected: `#[serde(tag = "mechanism")]` alone. It reads each value before it knows its type, so
/// a password such as `123456` becomes a number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SaslTable {
    mechanism: Mechanism,
    username: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    region: Option<String>,
    profile: Option<String>,
    role_arn: Option<String>,
    session_name: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mechanism {
    Plain,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
    MskIam,
    Oauthbearer,
}

impl Mechanism {
    /// Returns the name of the mechanism, and its keys.
    const fn keys(self) -> (&'static str, &'static [&'static str]) {
        const USER: &[&str] = &["username", "password", "password_file"];
        match self {
            Self::Plain => ("plain", USER),
            Self::ScramSha256 => ("scram-sha-256", USER),
            Self::ScramSha512 => ("scram-sha-512", USER),
            Self::MskIam => (
                "msk-iam",
                &["region", "profile", "role_arn", "session_name"],
            ),
            Self::Oauthbearer => ("oauthbearer", &[]),
        }
    }
}

impl TryFrom<SaslTable> for Sasl {
    /// The error message. It contains keys and no values.
    type Error = String;

    fn try_from(table: SaslTable) -> Result<Self, String> {
        let mechanism = table.mechanism;
        let (name, keys) = mechanism.keys();
        let set = [
            ("username", table.username.is_some()),
            ("password", table.password.is_some()),
            ("password_file", table.password_file.is_some()),
            ("region", table.region.is_some()),
            ("profile", table.profile.is_some()),
            ("role_arn", table.role_arn.is_some()),
            ("session_name", table.session_name.is_some()),
        ];
        let foreign = set
            .iter()
            .find(|(key, is_set)| *is_set && !keys.contains(key));
        if let Some((key, _)) = foreign {
            let keys = keys.iter().map(|key| format!(", `{key}`"));
            let keys: String = keys.collect();
            return Err(format!(
                "the mechanism `{name}` takes no key `{key}`, expected one of `mechanism`{keys}"
            ));
        }
        let missing = |key| format!("the mechanism `{name}` needs the key `{key}`");
        let credentials = |username: Option<String>| {
            Ok::<_, String>(Credentials {
                username: username.ok_or_else(|| missing("username"))?,
                password: table.password,
                password_file: table.password_file,
            })
        };
        Ok(match mechanism {
            Mechanism::Plain => Self::Plain(credentials(table.username)?),
            Mechanism::ScramSha256 => Self::ScramSha256(credentials(table.username)?),
            Mechanism::ScramSha512 => Self::ScramSha512(credentials(table.username)?),
            Mechanism::MskIam => Self::MskIam(MskIam {
                region: table.region.ok_or_else(|| missing("region"))?,
                profile: table.profile,
                role_arn: table.role_arn,
                session_name: table.session_name,
            }),
            Mechanism::Oauthbearer => Self::Oauthbearer {},
        })
    }
}
