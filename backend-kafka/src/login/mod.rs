//! Converts the encryption and login settings to librdkafka's.

#[cfg(feature = "msk-iam")]
mod msk;
pub(crate) mod token;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::client::Client;
use rdkafka::{ClientConfig, ClientContext};

use crate::config::{Credentials, Sasl, Secret, Security, Tls};
use crate::login::token::{TokenSource, Tokens};
use crate::native;

/// Encryption and login of a connection. The settings are checked, and can be applied to any number of clients.
#[derive(Debug)]
pub(crate) struct Login {
    security: Security,
    password: Option<Password>,
    key_password: Option<Password>,
    tokens: Option<Tokens>,
    /// Whether a broker has ever accepted a client of the connection.
    was_accepted: AtomicBool,
}

impl Login {
    /// Opens the login. The settings must be validated. Reads the files, so that a missing file is reported here.
    pub(crate) fn open(security: &Security, source: Option<Arc<dyn TokenSource>>) -> Result<Self> {
        let source = match (&security.sasl, source) {
            (Some(Sasl::MskIam(msk)), None) => Some(msk_tokens(msk)?),
            (Some(Sasl::Oauthbearer {}), Some(source)) => Some(source),
            (Some(Sasl::Oauthbearer {}), None) => {
                return Err(invalid(
                    "the mechanism `oauthbearer` of security.sasl needs tokens: connect by \
                     `Kafka::connect_with`",
                ));
            }
            (_, Some(_)) => {
                return Err(invalid(
                    "a source of tokens was given: set security.sasl to \
                     { mechanism = \"oauthbearer\" }",
                ));
            }
            (_, None) => None,
        };
        let password = match &security.sasl {
            Some(Sasl::Plain(c) | Sasl::ScramSha256(c) | Sasl::ScramSha512(c)) => {
                Password::open("security.sasl.password", &c.password, &c.password_file)?
            }
            _ => None,
        };
        let mut key_password = None;
        if let Some(tls) = &security.tls {
            let key = "security.tls.key_password";
            key_password = Password::open(key, &tls.key_password, &tls.key_password_file)?;
            for (key, path) in [
                ("ca_file", &tls.ca_file),
                ("certificate_file", &tls.certificate_file),
                ("key_file", &tls.key_file),
            ] {
                // librdkafka reads the file too, but its error says less.
                if let Some(path) = path {
                    read(&format!("security.tls.{key}"), path).map_err(invalid)?;
                }
            }
        }
        let tokens = source.map(Tokens::start).transpose().map_err(|error| {
            let message = "no thread to be had for the tokens of the login";
            Error::new(ErrorKind::Unavailable, "connect", message).with_source(error)
        })?;
        Ok(Self {
            security: security.clone(),
            password,
            key_password,
            tokens,
            was_accepted: AtomicBool::new(false),
        })
    }

    /// Records that a broker has accepted a client.
    pub(crate) fn on_logged_in(&self) {
        self.was_accepted.store(true, Relaxed);
    }

    /// Returns whether a broker has ever accepted a client. Until then a refusal is final.
    pub(crate) fn was_accepted(&self) -> bool {
        self.was_accepted.load(Relaxed)
    }

    /// Sets the current password from its file for a client whose login was refused.
    pub(crate) fn renew<C: ClientContext>(&self, client: &Client<C>) {
        let Some(Sasl::Plain(user) | Sasl::ScramSha256(user) | Sasl::ScramSha512(user)) =
            &self.security.sasl
        else {
            return;
        };
        let password = self.password.as_ref();
        if let Some(password) = password.filter(|password| password.file.is_some()) {
            native::credentials::set(client, &user.username, password.now().expose());
        }
    }

    /// Returns the source of clients' tokens, if they log in with tokens.
    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }

    /// Sets librdkafka's keys, for a client that is about to be created.
    pub(crate) fn apply(&self, settings: &mut ClientConfig) {
        let sasl = self.security.sasl.as_ref();
        let always = Tls::default();
        let tls = match (&self.security.tls, sasl) {
            (Some(tls), _) => Some(tls),
            (None, Some(Sasl::MskIam(_))) => Some(&always),
            (None, _) => None,
        };
        let protocol = match (tls.is_some(), sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        settings.set("security.protocol", protocol);
        if let Some(tls) = tls {
            self.apply_tls(tls, settings);
        }
        match sasl {
            None => {}
            Some(Sasl::Plain(user)) => self.apply_password("PLAIN", user, settings),
            Some(Sasl::ScramSha256(user)) => self.apply_password("SCRAM-SHA-256", user, settings),
            Some(Sasl::ScramSha512(user)) => self.apply_password("SCRAM-SHA-512", user, settings),
            Some(Sasl::MskIam(_) | Sasl::Oauthbearer {}) => {
                settings.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
    }

    fn apply_password(&self, mechanism: &str, user: &Credentials, settings: &mut ClientConfig) {
        settings.set("sasl.mechanism", mechanism);
        settings.set("sasl.username", &user.username);
        if let Some(password) = &self.password {
            settings.set("sasl.password", password.now().expose());
        }
    }

    fn apply_tls(&self, tls: &Tls, settings: &mut ClientConfig) {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        // OpenSSL is linked into the program, and by default searches its own build-time location.
        // "probe" searches the usual locations of system certificates.
        let system = "probe".to_owned();
        match (&tls.ca_file, &tls.ca_pem) {
            (Some(file), _) => settings.set("ssl.ca.location", path(file)),
            (None, Some(pem)) => settings.set("ssl.ca.pem", pem),
            (None, None) => settings.set("ssl.ca.location", system),
        };
        if let Some(file) = &tls.certificate_file {
            settings.set("ssl.certificate.location", path(file));
        }
        if let Some(pem) = &tls.certificate_pem {
            settings.set("ssl.certificate.pem", pem);
        }
        if let Some(file) = &tls.key_file {
            settings.set("ssl.key.location", path(file));
        }
        if let Some(pem) = &tls.key_pem {
            settings.set("ssl.key.pem", pem.expose());
        }
        if let Some(password) = &self.key_password {
            settings.set("ssl.key.password", password.now().expose());
        }
        let identification = if tls.verify_hostname { "https" } else { "none" };
        settings.set("ssl.endpoint.identification.algorithm", identification);
    }
}

#[cfg(feature = "msk-iam")]
fn msk_tokens(settings: &crate::config::MskIam) -> Result<Arc<dyn TokenSource>> {
    Ok(Arc::new(crate::login::msk::Signer::new(settings)))
}

#[cfg(not(feature = "msk-iam"))]
fn msk_tokens(_: &crate::config::MskIam) -> Result<Arc<dyn TokenSource>> {
    Err(invalid(crate::config::NO_MSK_IAM))
}

/// A password. If it is in a file, the file is read again for each use.
#[derive(Debug)]
struct Password {
    key: &'static str,
    file: Option<PathBuf>,
    last: Mutex<Secret>,
}

impl Password {
    fn open(
        key: &'static str,
        given: &Option<Secret>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Self>> {
        let last = match (given, file) {
            (Some(given), _) => given.clone(),
            (None, Some(file)) => read_password(key, file).map_err(invalid)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            key,
            file: file.clone(),
            last: Mutex::new(last),
        }))
    }

    fn now(&self) -> Secret {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file {
            match read_password(self.key, file) {
                Ok(read) => *last = read,
                // While secrets are rotated, a file may be missing for a moment.
                Err(reason) => {
                    event!(
                        warn,
                        "millstream.kafka.login.password_kept",
                        reason,
                        "the last password is used on"
                    );
                }
            }
        }
        last.clone()
    }
}

fn read_password(key: &str, file: &Path) -> Result<Secret, String> {
    let text = read(&format!("{key}_file"), file)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains('\0') {
        let file = file.display();
        return Err(format!(
            "{key}_file: {file} is empty, or holds a NUL byte: write the password into it"
        ));
    }
    Ok(Secret::new(text))
}

fn read(key: &str, file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file)
        .map_err(|error| format!("{key}: {} cannot be read: {error}", file.display()))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Invalid, "connect", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(security: Security) -> ClientConfig {
        let login = Login::open(&security, None).unwrap();
        let mut settings = ClientConfig::new();
        login.apply(&mut settings);
        settings
    }

    #[test]
    fn the_protocol_follows_from_what_is_set() {
        let sasl = || Some(Sasl::Plain(Credentials::new("me", "secret")));
        for (tls, sasl, expected) in [
            (None, None, "plaintext"),
            (Some(Tls::default()), None, "ssl"),
            (None, sasl(), "sasl_plaintext"),
            (Some(Tls::default()), sasl(), "sasl_ssl"),
        ] {
            let settings = settings(Security { tls, sasl });
            assert_eq!(settings.get("security.protocol"), Some(expected));
        }
    }

    #[test]
    fn a_broker_is_verified_unless_that_is_turned_off() {
        let identification = |verify_hostname| {
            let tls = Tls {
                verify_hostname,
                ..Tls::default()
            };
            let settings = settings(Security {
                tls: Some(tls),
                sasl: None,
            });
            assert_eq!(settings.get("ssl.ca.location"), Some("probe"));
            let key = "ssl.endpoint.identification.algorithm";
            settings.get(key).unwrap().to_owned()
        };
        assert_eq!(identification(true), "https");
        assert_eq!(identification(false), "none");
    }

    #[test]
    fn a_rotated_password_is_taken_up_and_a_lost_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let security = Security {
            tls: None,
            sasl: Some(Sasl::ScramSha256(Credentials {
                username: "me".into(),
                password: None,
                password_file: Some(file.clone()),
            })),
        };
        let missing = Login::open(&security, None).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Invalid);
        assert!(missing.message().starts_with("security.sasl.password_file"));

        std::fs::write(&file, "first\r\n").unwrap();
        let login = Login::open(&security, None).unwrap();
        let password = || {
            let mut settings = ClientConfig::new();
            login.apply(&mut settings);
            settings.get("sasl.password").unwrap().to_owned()
        };
        assert_eq!(password(), "first");
        std::fs::write(&file, " second\n").unwrap();
        assert_eq!(password(), " second");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(password(), " second");
        assert!(!format!("{login:?}").contains("second"));
    }

    #[test]
    fn tokens_and_mechanism_belong_together() {
        #[derive(Debug)]
        struct None_;
        impl TokenSource for None_ {
            fn token(&self) -> Result<crate::Token, Box<dyn std::error::Error + Send + Sync>> {
                Err("none".into())
            }
        }
        let oauth = Security {
            tls: None,
            sasl: Some(Sasl::Oauthbearer {}),
        };
        let missing = Login::open(&oauth, None).unwrap_err();
        assert!(missing.message().contains("connect_with"), "{missing}");
        let source: Arc<dyn TokenSource> = Arc::new(None_);
        let extra = Login::open(&Security::default(), Some(source.clone())).unwrap_err();
        assert!(extra.message().contains("oauthbearer"), "{extra}");
        assert!(
            Login::open(&oauth, Some(source))
                .unwrap()
                .tokens()
                .is_some()
        );
    }
}
