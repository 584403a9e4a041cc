//! Loads the configurations of the AWS SDK: region and credentials for Kinesis, and those for the lease table, which may
//! be in another account.

use aws_config::identity::IdentityCache;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::config::Credentials;
use aws_types::service_config::ServiceConfigKey;
use millstream_core::{Error, ErrorKind, Result};

use crate::config::{Config, Leases};

/// The configurations of both services.
#[derive(Debug, Clone)]
pub(crate) struct SdkConfigs {
    pub(crate) kinesis: SdkConfig,
    pub(crate) dynamodb: SdkConfig,
}

impl SdkConfigs {
    /// Loads them from the settings and the environment. `region` is that of Kinesis, if it is already known.
    pub(crate) async fn load(config: &Config, region: Option<Region>) -> Self {
        let kinesis = of_kinesis(config, region).await;
        let dynamodb = of_dynamodb(config, &kinesis).await;
        Self { kinesis, dynamodb }
    }

    /// Refuses the address of an emulator for one service alone: the other one would be that of AWS. [`Config::validate`]
    /// checks the settings, and this the addresses of the environment and the profile, which the settings override.
    pub(crate) fn check_endpoints(&self, config: &Config) -> Result<()> {
        let kinesis = endpoint(config.endpoint.as_deref(), &self.kinesis, "Kinesis");
        let dynamodb = config.dynamodb_endpoint.as_deref();
        let dynamodb = endpoint(dynamodb, &self.dynamodb, "DynamoDB");
        let is_plain = |url: &Option<String>| {
            let url = url.as_deref();
            url.is_some_and(|url| url.starts_with("http://"))
        };
        let (set, unset) = match (&kinesis, &dynamodb) {
            (kinesis, None) if is_plain(kinesis) => (OF_KINESIS, OF_DYNAMODB),
            (None, dynamodb) if is_plain(dynamodb) => (OF_DYNAMODB, OF_KINESIS),
            _ => return Ok(()),
        };
        let message = format!(
            "{set} is that of an emulator, and {unset} is not set, so it is that of AWS: set both, or AWS_ENDPOINT_URL"
        );
        Err(Error::new(ErrorKind::Invalid, "connect", message))
    }
}

/// The settings of the address of a service.
const OF_KINESIS: &str = "the address of Kinesis (`endpoint`, AWS_ENDPOINT_URL_KINESIS)";
const OF_DYNAMODB: &str =
    "the address of DynamoDB (`dynamodb_endpoint`, AWS_ENDPOINT_URL_DYNAMODB)";

/// Returns the address of a service, if it is not the region's own. The clients of the AWS SDK choose it in the same
/// order, and do not show it.
fn endpoint(set: Option<&str>, sdk: &SdkConfig, service_id: &str) -> Option<String> {
    let of_service = || {
        let key = ServiceConfigKey::builder()
            .service_id(service_id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        sdk.service_config()?.load_config(key.ok()?)
    };
    set.map(str::to_owned)
        .or_else(of_service)
        .or_else(|| sdk.endpoint_url().map(str::to_owned))
}

async fn of_kinesis(config: &Config, region: Option<Region>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        // Only the caller knows the effect of a request that is sent twice.
        .retry_config(RetryConfig::disabled())
        // A subscription to a quiet shard sends little for minutes.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = region.or_else(|| config.region.clone().map(Region::new)) {
        loader = loader.region(region);
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(credentials) = &config.credentials {
        loader = loader.credentials_provider(Credentials::new(
            &credentials.access_key_id,
            credentials.secret_access_key.expose(),
            credentials
                .session_token
                .as_ref()
                .map(|token| token.expose().to_owned()),
            None,
            "millstream",
        ));
    }
    loader.load().await
}

/// Returns the configuration for the lease table: that for Kinesis, except for what the settings say.
async fn of_dynamodb(config: &Config, kinesis: &SdkConfig) -> SdkConfig {
    let Leases {
        region,
        profile,
        role_arn,
        ..
    } = &config.leases;
    let mut sdk = kinesis.clone();
    if let Some(profile) = profile {
        // Not the usual chain of providers, which prefers the environment's credentials to those of a profile: they may be
        // of another account.
        let of_provider = ProviderConfig::without_region()
            .with_region(kinesis.region().cloned())
            .with_use_fips(kinesis.use_fips())
            .with_use_dual_stack(kinesis.use_dual_stack());
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(&of_provider)
            .profile_name(profile)
            .build();
        sdk = with_credentials(sdk, provider);
    }
    if let Some(role) = role_arn {
        let provider = AssumeRoleProvider::builder(role)
            .configure(&sdk)
            // It is part of the name under which the account of the table sees the requests.
            .session_name(format!("{}-leases", config.client_id))
            .build();
        sdk = with_credentials(sdk, provider.await);
    }
    match region {
        Some(region) => sdk
            .into_builder()
            .region(Region::new(region.clone()))
            .build(),
        None => sdk,
    }
}

fn with_credentials(sdk: SdkConfig, provider: impl ProvideCredentials + 'static) -> SdkConfig {
    let sdk = sdk
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider));
    sdk.identity_cache(IdentityCache::lazy().build()).build()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
    use aws_smithy_types::body::SdkBody;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::child_process;
    use crate::connection::Connection;
    use crate::fake_service::{ARN, FakeService};
    use crate::stream;

    /// A token service that lends the credentials `THEIRS` to everyone, and notes the requests.
    #[derive(Debug, Clone, Default)]
    struct TokenService(Arc<Mutex<Vec<String>>>);

    impl HttpClient for TokenService {
        fn http_connector(
            &self,
            _settings: &HttpConnectorSettings,
            _components: &RuntimeComponents,
        ) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    impl HttpConnector for TokenService {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let signed = request.headers().get("authorization").unwrap_or_default();
            let form = request.body().bytes().unwrap_or_default();
            let form = format!("{signed} {}", String::from_utf8_lossy(form));
            self.0.lock().unwrap().push(form);
            let response = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>THEIRS</AccessKeyId>\
                          <SecretAccessKey>hushed</SecretAccessKey><SessionToken>token</SessionToken>\
                          <Expiration>2199-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
                          </AssumeRoleResponse>";
            let status = 200.try_into().unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(response))))
        }
    }

    async fn access_key(sdk: &SdkConfig) -> String {
        let provider = sdk.credentials_provider().unwrap();
        let loaded = provider.provide_credentials().await.unwrap();
        loaded.access_key_id().to_owned()
    }

    #[tokio::test]
    async fn the_lease_table_is_where_the_streams_are_by_default() {
        let config = FakeService::start().await.config();
        let SdkConfigs { kinesis, dynamodb } = SdkConfigs::load(&config, None).await;
        assert_eq!(dynamodb.region(), kinesis.region());
        assert_eq!(access_key(&dynamodb).await, access_key(&kinesis).await);
    }

    #[tokio::test]
    async fn the_lease_table_has_a_region_and_a_role_of_its_own() {
        let service = FakeService::start().await;
        let mut config = service.config();
        config.leases.region = Some("us-east-1".into());
        let role = "arn:aws:iam::999999999999:role/leases";
        config.leases.role_arn = Some(role.into());
        let tokens = TokenService::default();
        let kinesis = of_kinesis(&config, None).await.into_builder();
        let kinesis = kinesis.http_client(tokens.clone()).build();
        let dynamodb = of_dynamodb(&config, &kinesis).await;
        assert_eq!(access_key(&kinesis).await, "OURS");
        assert_eq!(access_key(&dynamodb).await, "THEIRS");
        let regions = [&kinesis, &dynamodb].map(|sdk| sdk.region().map(Region::as_ref));
        assert_eq!(regions, [Some("eu-west-1"), Some("us-east-1")]);
        let form = tokens.0.lock().unwrap().concat();
        for part in ["Credential=OURS", "/eu-west-1/sts/", "role%2Fleases"] {
            assert!(form.contains(part), "{part}: {form}");
        }
    }

    /// Writes a file of the shared configuration with a profile for the streams, and one for the lease table.
    fn two_profiles() -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        for (profile, key) in [("streams", "OURS"), ("leases", "THEIRS")] {
            let keys = format!("aws_access_key_id = {key}\naws_secret_access_key = hush");
            writeln!(file, "[profile {profile}]\n{keys}").unwrap();
        }
        file
    }

    #[tokio::test]
    async fn requests_to_the_lease_table_have_the_credentials_of_its_profile() {
        if !child_process::is_child() {
            let file = two_profiles();
            let test = "sdk_config::tests::requests_to_the_lease_table_have_the_credentials_of_its_profile";
            let file = file.path().to_str().unwrap();
            return child_process::run(test, &[("AWS_CONFIG_FILE", file)]).await;
        }
        let service = FakeService::start().await;
        let mut config = service.config();
        config.credentials = None;
        config.profile = Some("streams".into());
        config.leases.profile = Some("leases".into());
        let connection = Connection::open(config).await.unwrap();
        // Those of a member load their own.
        for connection in [connection.independent("m").await, connection] {
            stream::shards(&connection, "test", ARN).await.unwrap();
            let scan = connection.dynamodb.scan().table_name("group");
            scan.send().await.unwrap();
        }
        let noted = service.noted();
        assert_eq!(noted.len(), 4, "{noted:?}");
        for request in noted {
            let key = match &*request.operation {
                "Scan" => "Credential=THEIRS/",
                _ => "Credential=OURS/",
            };
            assert!(request.authorization.contains(key), "{request:?}");
        }
    }

    /// Opens a connection whose addresses are those of the environment, and returns the reason if it is refused.
    async fn refusal_of_the_environment() -> Option<String> {
        let mut config = FakeService::start().await.config();
        (config.endpoint, config.dynamodb_endpoint) = (None, None);
        let refused = Connection::open(config).await.err()?;
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        Some(refused.message().to_owned())
    }

    #[tokio::test]
    async fn an_emulator_of_one_service_alone_in_the_environment_is_refused() {
        const TEST: &str =
            "sdk_config::tests::an_emulator_of_one_service_alone_in_the_environment_is_refused";
        const ALLOWED: &str = "MILLSTREAM_TEST_ALLOWED";
        const URL: &str = "http://127.0.0.1:4566";
        const ANY: &str = "AWS_ENDPOINT_URL";
        const KINESIS: &str = "AWS_ENDPOINT_URL_KINESIS";
        const DYNAMODB: &str = "AWS_ENDPOINT_URL_DYNAMODB";
        if child_process::is_child() {
            let refusal = refusal_of_the_environment().await;
            if std::env::var_os(ALLOWED).is_some() {
                assert_eq!(refusal, None);
                return;
            }
            let refusal = refusal.unwrap();
            for part in [KINESIS, DYNAMODB, "emulator"] {
                assert!(refusal.contains(part), "{part}: {refusal}");
            }
            return;
        }
        for refused in [KINESIS, DYNAMODB] {
            child_process::run(TEST, &[(refused, URL)]).await;
        }
        let yes = (ALLOWED, "1");
        child_process::run(TEST, &[(KINESIS, URL), (DYNAMODB, URL), yes]).await;
        child_process::run(TEST, &[(ANY, URL), yes]).await;
        // A private network may have an address for one of the services.
        child_process::run(TEST, &[(KINESIS, "https://kinesis.invalid"), yes]).await;
    }

    #[tokio::test]
    async fn a_profile_of_the_lease_table_takes_no_other_credentials() {
        let mut config = FakeService::start().await.config();
        config.leases.profile = Some("there-is-no-such-profile".into());
        let SdkConfigs { kinesis, dynamodb } = SdkConfigs::load(&config, None).await;
        assert_eq!(access_key(&kinesis).await, "OURS");
        let provider = dynamodb.credentials_provider().unwrap();
        assert!(provider.provide_credentials().await.is_err());
    }
}
