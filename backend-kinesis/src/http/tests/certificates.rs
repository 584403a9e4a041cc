use std::io::Write;

use millstream_core::{Error, ErrorKind};
use tempfile::NamedTempFile;

use super::super::Transport;
use crate::child_process;
use crate::connection::Connection;
use crate::fake_service::FakeService;
use crate::log_lines::LogLines;
use crate::test_certificate::TestCertificate;

/// A PEM block whose content is no certificate.
const NO_CERTIFICATE: &str =
    "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";

/// A PEM block that is damaged.
const DAMAGED: &str = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn check(error: &Error, path: &str) {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains(path), "{error}");
    assert!(error.message().contains("AWS_CA_BUNDLE"), "{error}");
}

#[tokio::test]
async fn a_file_without_usable_certificates_is_refused_with_its_name() {
    let good = TestCertificate::new(&["localhost"]).pem;
    let damaged = format!("{good}{DAMAGED}");
    for content in ["", "no PEM", NO_CERTIFICATE, DAMAGED, &damaged] {
        let file = file(content);
        let refused = Transport::load(Some(file.path())).await;
        check(&refused.unwrap_err(), file.path().to_str().unwrap());
    }
}

#[tokio::test]
async fn a_bad_certificate_among_good_ones_gets_a_warning() {
    let good = TestCertificate::new(&["localhost"]).pem;
    let mixed = file(&format!("{good}{NO_CERTIFICATE}{good}"));
    let lines = LogLines::record();
    Transport::load(Some(mixed.path())).await.unwrap();
    let told = lines.of("millstream.kinesis.ca_file.ignored");
    assert_eq!(told.len(), 1, "{told:?}");
    for part in ["WARN", mixed.path().to_str().unwrap(), "ignored=1"] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
    let lines = LogLines::record();
    Transport::load(Some(file(&good).path())).await.unwrap();
    assert!(lines.of("millstream.kinesis.ca_file.ignored").is_empty());
}

#[tokio::test]
async fn the_file_of_the_environment_is_read() {
    const MISSING: &str = "/there/is/no/such.pem";
    if child_process::is_child() {
        let config = FakeService::start().await.config();
        return check(&Connection::open(config).await.unwrap_err(), MISSING);
    }
    let test = "http::tests::certificates::the_file_of_the_environment_is_read";
    child_process::run(test, &[("AWS_CA_BUNDLE", MISSING)]).await;
}
