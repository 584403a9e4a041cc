//! Checks which librdkafka is linked.
//!
//! The lock file of an application may select a later `rdkafka-sys` than this crate is tested with, and
//! the feature `dynamic-linking` of that crate uses the system's library.

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::util::get_rdkafka_version;

use crate::config::{Config, Sasl};
use crate::error;

/// 2.12.1, in librdkafka's own format (`rd_kafka_version`). An older version lacks calls that this crate
/// makes. The defects that this crate works around are those of this version.
const TESTED: i32 = 0x020c_01ff;

/// Other producers may have compressed their records with any of these.
const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

struct Library {
    version: i32,
    /// The version in readable form.
    version_text: String,
    /// The features that it was built with, separated by commas.
    features: String,
}

/// Checks that the linked library has what a configuration needs.
///
/// # Errors
/// `Unsupported` if it is too old, or was built without a feature.
pub(super) fn check(config: &Config) -> Result<()> {
    let library = linked()?;
    library.check(config)?;
    if library.version != TESTED {
        event!(
            warn,
            "millstream.kafka.client.untested_version",
            version = library.version_text,
            "the linked librdkafka is another version than this crate is tested with"
        );
    }
    Ok(())
}

fn linked() -> Result<Library> {
    let (version, version_text) = get_rdkafka_version();
    let config = ClientConfig::new().create_native_config();
    let features = config.and_then(|config| config.get("builtin.features"));
    Ok(Library {
        version,
        version_text,
        features: features.map_err(|e| error::from("connect", e))?,
    })
}

impl Library {
    fn check(&self, config: &Config) -> Result<()> {
        let version = &self.version_text;
        if self.version < TESTED {
            return Err(unsupported(format!(
                "librdkafka {version} is linked, use 2.12.1 or later"
            )));
        }
        let built_with: Vec<&str> = self.features.split(',').map(str::trim).collect();
        match needs(config).find(|need| !built_with.contains(need)) {
            None => Ok(()),
            Some(missing) => Err(unsupported(format!(
                "the linked librdkafka {version} was built without {missing}: build it with that, or \
                 without the feature dynamic-linking of rdkafka-sys"
            ))),
        }
    }
}

fn needs(config: &Config) -> impl Iterator<Item = &'static str> + use<> {
    let sasl = config.security.sasl.as_ref().map(|sasl| match sasl {
        Sasl::Plain(_) => "sasl_plain",
        Sasl::ScramSha256(_) | Sasl::ScramSha512(_) => "sasl_scram",
        Sasl::MskIam(_) | Sasl::Oauthbearer {} => "sasl_oauthbearer",
    });
    let is_encrypted = matches!(config.security.sasl, Some(Sasl::MskIam(_)));
    let tls = (is_encrypted || config.security.tls.is_some()).then_some("ssl");
    CODECS.into_iter().chain(tls).chain(sasl)
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, "connect", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    fn library(version: i32, features: &str) -> Library {
        Library {
            version,
            version_text: "x.y.z".into(),
            features: features.into(),
        }
    }

    /// If a later version passes all tests, it becomes the tested one.
    #[test]
    fn the_linked_version_is_the_tested_one() {
        let library = linked().unwrap();
        assert_eq!(library.version, TESTED, "{}", library.version_text);
        library.check(&Config::default()).unwrap();
    }

    #[test]
    fn an_older_version_is_refused_by_name() {
        let all = "gzip,snappy,lz4,zstd";
        let error = library(0x0202_00ff, all).check(&Config::default());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("x.y.z"), "{error}");
        for later in [TESTED, 0x020f_00ff] {
            library(later, all).check(&Config::default()).unwrap();
        }
    }

    #[test]
    fn a_missing_feature_is_refused_by_name() {
        let mut tls = Config::default();
        tls.security.tls = Some(Tls::default());
        let mut token = Config::default();
        token.security.sasl = Some(Sasl::Oauthbearer {});
        for (config, features, missing) in [
            (Config::default(), "gzip, snappy, lz4", "zstd"),
            (tls, "gzip,snappy,lz4,zstd,sasl_ssl", "ssl"),
            (token, "gzip,snappy,lz4,zstd,ssl", "sasl_oauthbearer"),
        ] {
            let error = library(TESTED, features).check(&config).unwrap_err();
            let expected = format!("without {missing}:");
            assert!(error.message().contains(&expected), "{error}");
        }
    }
}
