//! Tokens for Amazon MSK with IAM. A token is a request to the cluster's region, signed with the program's AWS
//! identity and valid for 15 minutes. The broker checks the request and never sends it.

use std::error::Error as StdError;
use std::thread;
use std::time::{Duration, SystemTime};

use aws_msk_iam_sasl_signer::{
    generate_auth_token, generate_auth_token_from_profile, generate_auth_token_from_role,
};
use aws_types::region::Region;
use tokio::runtime;
use tokio::time::timeout;

use crate::config::MskIam;
use crate::login::token::{Token, TokenSource};

/// The timeout for loading the identity: from an instance's or a role's service, in the worst case with
/// retries.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Signer {
    settings: MskIam,
}

impl Signer {
    pub(crate) fn new(settings: &MskIam) -> Self {
        Self {
            settings: settings.clone(),
        }
    }
}

impl TokenSource for Signer {
    fn token(&self) -> Result<Token, Box<dyn StdError + Send + Sync>> {
        let settings = self.settings.clone();
        // This uses its own runtime on its own thread: the application's runtime may be waiting for
        // exactly this token, and the calling thread may be within that runtime. It is a few threads per hour.
        let signing = thread::Builder::new().name("kafka-token".into());
        let signing = signing.spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime?.block_on(async { timeout(PATIENCE, sign(settings)).await? })
        })?;
        signing
            .join()
            .unwrap_or_else(|_| Err("signing the token panicked".into()))
    }
}

async fn sign(settings: MskIam) -> Result<Token, Box<dyn StdError + Send + Sync>> {
    let region = Region::new(settings.region);
    let signed = match (settings.profile, settings.role_arn) {
        (Some(profile), _) => generate_auth_token_from_profile(region, profile).await,
        (None, Some(role)) => {
            let session = settings.session_name;
            let session = session.unwrap_or_else(|| "millstream".into());
            generate_auth_token_from_role(region, role, session).await
        }
        (None, None) => generate_auth_token(region).await,
    };
    let (token, expires) = signed.map_err(|error| {
        let reason = crate::login::token::with_causes(&error);
        format!("no identity at AWS for the login at MSK: {reason}")
    })?;
    let expires = Duration::from_millis(u64::try_from(expires)?);
    Ok(Token::new(token, SystemTime::UNIX_EPOCH + expires))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use hmac::{Hmac, Mac};
    use sha2::{Digest, Sha256};

    use super::*;

    const KEY: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const SESSION: &str = "a+session/token==";
    const CHILD: &str = "MILLSTREAM_TEST_CHILD";

    /// Runs one of the tests here in a child process with its own environment, so that no other thread reads
    /// the environment while it is changed. Returns true in that process.
    fn in_environment(test: &str, variables: &[(&str, &str)]) -> bool {
        if std::env::var(CHILD).is_ok_and(|child| child == test) {
            return true;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        let (_, module) = module_path!().split_once("::").unwrap();
        child.args(["--exact", &format!("{module}::{test}"), "--nocapture"]);
        for name in [
            "AWS_PROFILE",
            "AWS_CONFIG_FILE",
            "AWS_SHARED_CREDENTIALS_FILE",
        ] {
            child.env(name, "/dev/null");
        }
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        ] {
            child.env_remove(name);
        }
        child.env_remove("AWS_PROFILE");
        // The instance metadata service is disabled: this machine may be an instance.
        child.env("AWS_EC2_METADATA_DISABLED", "true");
        child.env(CHILD, test);
        child.envs(variables.iter().copied());
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.contains("1 passed"), "{said}");
        false
    }

    /// Computes the signature of a presigned request, from AWS's description of Signature Version 4 and without
    /// code of the AWS SDK. `query` is encoded and has no signature.
    fn signature(
        secret: &str,
        (date, region, service): (&str, &str, &str),
        (host, path, query, body): (&str, &str, &str, &str),
    ) -> String {
        let mut query: Vec<&str> = query.split('&').collect();
        query.sort_unstable();
        let query = query.join("&");
        let request = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\n{body}");
        let day = &date[..8];
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let hashed = hex(&Sha256::digest(request));
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [day, region, service, "aws4_request", &text] {
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            mac.update(part.as_bytes());
            key = mac.finalize().into_bytes().to_vec();
        }
        hex(&key)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Uses the example in AWS's documentation of presigned requests (API reference of S3,
    /// "Authenticating Requests: Using Query Parameters").
    #[test]
    fn the_test_signs_as_the_documentation_does() {
        let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256\
            &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
            &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host";
        let signed = signature(
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            ("20130524T000000Z", "us-east-1", "s3"),
            (
                "examplebucket.s3.amazonaws.com",
                "/test.txt",
                query,
                "UNSIGNED-PAYLOAD",
            ),
        );
        let expected = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert_eq!(signed, expected);
    }

    /// Checks everything in a token that MSK checks.
    fn check(token: &Token, key: &str, secret: &str, session: Option<&str>) {
        let now = SystemTime::now();
        let left = token.expires().duration_since(now).unwrap();
        let fifteen = Duration::from_secs(900);
        assert!(
            left <= fifteen && left > fifteen - Duration::from_secs(60),
            "{left:?}"
        );

        let url = BASE64_URL_SAFE_NO_PAD.decode(token.value()).unwrap();
        let url = String::from_utf8(url).unwrap();
        let query = url.strip_prefix("https://kafka.eu-west-1.amazonaws.com/?");
        let parameters: Vec<(&str, &str)> = query
            .unwrap()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap())
            .collect();
        let of = |name: &str| {
            let mut found = parameters.iter().filter(|(n, _)| *n == name);
            let value = found.next().map(|(_, value)| *value);
            assert!(found.next().is_none(), "{name} is there twice");
            value
        };
        let date = of("X-Amz-Date").unwrap();
        let credential = format!(
            "{key}%2F{}%2Feu-west-1%2Fkafka-cluster%2Faws4_request",
            &date[..8]
        );
        assert_eq!(of("Action"), Some("kafka-cluster%3AConnect"));
        assert_eq!(of("X-Amz-Algorithm"), Some("AWS4-HMAC-SHA256"));
        assert_eq!(of("X-Amz-Credential"), Some(&*credential));
        assert_eq!(of("X-Amz-Expires"), Some("900"));
        assert_eq!(of("X-Amz-SignedHeaders"), Some("host"));
        assert_eq!(of("X-Amz-Security-Token"), session);
        assert!(of("User-Agent").is_some());
        let signed: Vec<String> = parameters
            .iter()
            .filter(|(name, _)| !["X-Amz-Signature", "User-Agent"].contains(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let nothing = hex(&Sha256::digest(""));
        let host = "kafka.eu-west-1.amazonaws.com";
        let expected = signature(
            secret,
            (date, "eu-west-1", "kafka-cluster"),
            (host, "/", &signed.join("&"), &nothing),
        );
        assert_eq!(of("X-Amz-Signature"), Some(&*expected));
    }

    const VARIABLES: [(&str, &str); 3] = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", SESSION),
    ];

    #[test]
    fn the_identity_of_the_environment_signs() {
        if in_environment("the_identity_of_the_environment_signs", &VARIABLES) {
            let token = Signer::new(&MskIam::new("eu-west-1")).token().unwrap();
            check(&token, KEY, SECRET, Some("a%2Bsession%2Ftoken%3D%3D"));
        }
    }

    /// This also covers a caller within a single-threaded runtime.
    #[test]
    fn a_runtime_with_one_thread_is_not_stuck() {
        if in_environment("a_runtime_with_one_thread_is_not_stuck", &VARIABLES) {
            let runtime = runtime::Builder::new_current_thread().build().unwrap();
            let signed = runtime.block_on(async { Signer::new(&MskIam::new("eu-west-1")).token() });
            signed.unwrap();
        }
    }

    /// Signs with a profile of the shared files.
    fn by_profile(test: &str, variables: &[(&str, &str)], check: impl FnOnce(&Token)) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        let profile =
            "[team]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = its-secret\n";
        std::fs::write(&file, profile).unwrap();
        let file = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
        if in_environment(test, &[&[file], variables].concat()) {
            let mut settings = MskIam::new("eu-west-1");
            settings.profile = Some("team".into());
            check(&Signer::new(&settings).token().unwrap());
        }
    }

    #[test]
    fn a_profile_signs() {
        by_profile("a_profile_signs", &[], |token| {
            check(token, "PROFILEKEY", "its-secret", None);
        });
    }

    #[test]
    fn keys_of_the_environment_come_before_a_profile() {
        let test = "keys_of_the_environment_come_before_a_profile";
        by_profile(test, &VARIABLES, |token| {
            check(token, KEY, SECRET, Some("a%2Bsession%2Ftoken%3D%3D"));
        });
    }

    #[test]
    fn no_identity_is_told_with_its_reason() {
        if in_environment("no_identity_is_told_with_its_reason", &[]) {
            let error = Signer::new(&MskIam::new("eu-west-1")).token().unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("no identity at AWS"), "{error}");
        }
    }
}
