//! Authentication.

use std::time::{Duration, Instant};

use millstream_core::ErrorKind::{Invalid, Unauthenticated};
use millstream_kafka::{Config, Credentials, Kafka, Sasl, Secret};

use crate::pki::Authority;
use crate::refused;
use crate::secured::{LOGIN, MUTUAL, SECRET, Secured, TOKENS};
use crate::tokens::Unsigned;

#[tokio::test]
async fn every_login_is_let_in_and_every_wrong_one_is_told_at_once() {
    let secured = Secured::start().await;
    secured.user("user", &format!("user{SECRET}")).await;
    let secured = &secured;

    let mut mutual = secured.config(MUTUAL);
    let tls = mutual.security.tls.as_mut().unwrap();
    tls.certificate_pem = Some(secured.client.certificate.clone());
    tls.key_pem = Some(Secret::new(&*secured.client.key));
    for (name, config) in [
        ("plain", secured.login(Sasl::Plain, "plain-user")),
        ("scram-sha-256", secured.login(Sasl::ScramSha256, "user")),
        ("scram-sha-512", secured.login(Sasl::ScramSha512, "user")),
        ("certificate", mutual.clone()),
        ("the same by files", by_files(&mutual)),
    ] {
        let connected = config.connect().await;
        connected.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    let source = Unsigned::new("admin", Duration::from_secs(60));
    let by_token = Kafka::connect_with(bearer(secured), source).await;
    by_token.unwrap();

    let mut unencrypted = secured.config(MUTUAL);
    unencrypted.security.tls = None;
    unencrypted.request_timeout = Duration::from_secs(3);
    let error = unencrypted.connect().await.unwrap_err();
    let reason = "if the broker expects TLS, set security.tls";
    assert!(error.message().contains(reason), "{error}");

    let wrong = format!("wrong{SECRET}");
    let foreign = Authority::new("another authority");
    let mut unknown_authority = secured.login(Sasl::Plain, "plain-user");
    unknown_authority.security.tls.as_mut().unwrap().ca_pem = Some(foreign.pem().to_owned());
    // The certificate is for the address, not for the name.
    let mut another_host = secured.login(Sasl::Plain, "plain-user");
    another_host.brokers = vec![another_host.brokers[0].replace("127.0.0.1", "localhost")];
    let no_certificate = secured.config(MUTUAL);
    let mut foreign_certificate = mutual.clone();
    let stranger = foreign.identity("client", &[]);
    let tls = foreign_certificate.security.tls.as_mut().unwrap();
    tls.certificate_pem = Some(stranger.certificate);
    tls.key_pem = Some(Secret::new(stranger.key));
    for (name, config) in [
        (
            "plain",
            secured.login_with(Sasl::Plain, "plain-user", &wrong),
        ),
        (
            "scram-sha-256",
            secured.login_with(Sasl::ScramSha256, "user", &wrong),
        ),
        (
            "scram-sha-512",
            secured.login_with(Sasl::ScramSha512, "user", &wrong),
        ),
        ("no such user", secured.login(Sasl::ScramSha256, "nobody")),
        ("an unknown authority", unknown_authority),
        ("another host's certificate", another_host.clone()),
        ("no certificate", no_certificate),
        ("a foreign certificate", foreign_certificate),
    ] {
        let broker = config.brokers[0].clone();
        let error = refused(name, Unauthenticated, config.connect()).await;
        assert!(error.message().contains(&broker), "{error}");
    }
    let expired = Unsigned::new("admin", Duration::from_secs(1));
    let call = Kafka::connect_with(bearer(secured), expired);
    refused("a token that is nearly over", Unauthenticated, call).await;
    let mut other_mechanism = secured.config(LOGIN);
    other_mechanism.security.sasl = Some(Sasl::Oauthbearer {});
    let source = Unsigned::new("admin", Duration::from_secs(60));
    let call = Kafka::connect_with(other_mechanism, source);
    refused("a mechanism that is not offered", Unauthenticated, call).await;

    another_host.security.tls.as_mut().unwrap().verify_hostname = false;
    another_host.connect().await.unwrap();

    let mut broken = mutual;
    let tls = broken.security.tls.as_mut().unwrap();
    tls.key_pem = Some(Secret::new(format!(
        "-----BEGIN PRIVATE KEY-----\nkey{SECRET}\n-----END PRIVATE KEY-----\n"
    )));
    refused("a broken key", Invalid, broken.connect()).await;
}

fn bearer(secured: &Secured) -> Config {
    let mut config = secured.config(TOKENS);
    config.security.sasl = Some(Sasl::Oauthbearer {});
    config
}

/// Returns the same settings with all inline values moved to files.
fn by_files(config: &Config) -> Config {
    let folder = tempfile::tempdir().unwrap().keep();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let mut config = config.clone();
    let tls = config.security.tls.as_mut().unwrap();
    tls.ca_file = file("ca.pem", &tls.ca_pem.take().unwrap());
    tls.certificate_file = file("certificate.pem", &tls.certificate_pem.take().unwrap());
    config
}

#[tokio::test]
async fn tokens_are_renewed_for_as_long_as_the_connection_lives() {
    let secured = Secured::start().await;
    let source = Unsigned::new("admin", Duration::from_secs(7));
    let kafka = Kafka::connect_with(bearer(&secured), source.clone()).await;
    let client = millstream_core::Client::new(kafka.unwrap());
    assert_eq!(source.made(), 1);
    // The broker closes a connection whose token has expired, so this also requires that new tokens are sent.
    let deadline = Instant::now() + Duration::from_secs(60);
    while source.made() < 3 {
        assert!(Instant::now() < deadline, "{} tokens", source.made());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.streams().list().await.unwrap();
    client
        .streams()
        .create(millstream_core::StreamSpec::new("by-token").partitions(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_password_that_is_put_right_works_at_once() {
    let secured = Secured::start().await;
    secured.user("user", "old").await;
    let all = ["--operation", "All", "--topic", "*"];
    secured.allow("user", &all).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    let mut user = Credentials::new("user", "");
    user.password = None;
    user.password_file = Some(file.path().to_owned());
    let mut config = secured.config(LOGIN);
    config.security.sasl = Some(Sasl::ScramSha512(user));
    let client = config.connect().await.unwrap();
    client.streams().list().await.unwrap();

    secured.user("user", "new").await;
    // A broker checks a password when a connection is made.
    secured.broker.stop().await;
    secured.broker.start().await;
    for _ in 0..2 {
        refused("the old password", Unauthenticated, async {
            client.streams().list().await
        })
        .await;
    }
    std::fs::write(file.path(), "new\n").unwrap();
    let begun = Instant::now();
    client.streams().list().await.unwrap();
    assert!(begun.elapsed() < crate::AT_ONCE, "{:?}", begun.elapsed());
}
