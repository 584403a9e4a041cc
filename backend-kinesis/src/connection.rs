//! The clients of the two services, and the retries of administration calls.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_types::app_name::AppName;
use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::credit::Credit;
use crate::error;
use crate::http::Transport;
use crate::lag_interval::LagInterval;

/// The timeout of one attempt of a request, however slow the network is. Without any progress it fails earlier, see
/// [`http`](crate::http). An iterator is valid for 5 minutes.
const ATTEMPT: Duration = Duration::from_secs(60);

/// A connection: the settings, and a client of each service.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) config: Arc<Config>,
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) lag_interval: LagInterval,
    pub(crate) credit: Credit,
    origin: Origin,
}

/// What all connections of one [`Kinesis`](crate::Kinesis) share.
#[derive(Debug, Clone)]
struct Origin {
    config: Arc<Config>,
    sdk: SdkConfig,
    transport: Transport,
    credit: Credit,
}

impl Connection {
    /// Loads the settings from the environment, and creates the clients. Sends requests only to the providers of
    /// the credentials and the region.
    pub(crate) async fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let ca_file = config.ca_file.clone().or_else(|| {
            let file = std::env::var_os("AWS_CA_BUNDLE")?;
            (!file.is_empty()).then(|| file.into())
        });
        let transport = Transport::load(ca_file.as_deref()).await?;
        let sdk = load(&config, None).await;
        if sdk.region().is_none() {
            let message = "no region: set `region`, AWS_REGION, or one in the profile";
            return Err(Error::new(ErrorKind::Invalid, "connect", message));
        }
        let origin = Origin {
            config: Arc::new(config),
            sdk,
            transport,
            credit: Credit::default(),
        };
        Ok(Self::of(origin, None))
    }

    fn of(origin: Origin, member: Option<&str>) -> Self {
        let config = origin.config.clone();
        let name = match member {
            Some(member) => &format!("{}.{member}", config.client_id),
            None => &config.client_id,
        };
        let patience = match member {
            Some(_) => config.consumer.session_timeout,
            None => config.request_timeout,
        };
        origin.connect(name, config.consumer.request_timeout, patience)
    }

    /// Makes sure that there are credentials. Sends no request to Kinesis: its quotas for the control plane are those of a
    /// whole account, and many processes may start at once.
    pub(crate) async fn check_credentials(&self) -> Result<()> {
        let provider = self.origin.sdk.credentials_provider();
        let load = || async {
            let provider = provider.as_ref().ok_or_else(|| {
                let nothing = CredentialsError::not_loaded_no_source();
                error::of_credentials("connect", nothing)
            })?;
            let loaded = provider.provide_credentials().await;
            loaded.map_err(|e| error::of_credentials("connect", e))
        };
        self.ask("connect", load).await.map(drop)
    }

    /// Returns the same connection under the name of one member, which AWS shows as the application.
    pub(crate) fn named(&self, member: &str) -> Self {
        Self::of(self.origin.clone(), Some(member))
    }

    /// Like [`named`](Self::named), with credentials of its own: of several that share credentials, one loads them, and the
    /// others wait for it, even if its runtime is blocked.
    pub(crate) async fn independent(&self, member: &str) -> Self {
        let mut origin = self.origin.clone();
        let region = origin.sdk.region().cloned();
        origin.sdk = load(&origin.config, region).await;
        Self::of(origin, Some(member))
    }

    /// Returns the same connection for a producer.
    pub(crate) fn for_producer(&self) -> Self {
        let config = &self.config;
        let timeouts = (config.producer.request_timeout, config.producer.timeout);
        let origin = self.origin.clone();
        origin.connect(&config.client_id, timeouts.0, timeouts.1)
    }

    /// Returns the region of Kinesis.
    pub(crate) fn region(&self) -> &str {
        // There is none without a region.
        self.origin.sdk.region().map_or("", Region::as_ref)
    }

    /// Returns the SDK's error for a failed call.
    pub(crate) fn error<E>(&self, operation: &'static str, error: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        error::of(operation, error, &self.credit)
    }

    /// Calls until there is a result that a retry would not change, for `request_timeout` at
    /// most.
    pub(crate) async fn ask<T, F>(
        &self,
        operation: &'static str,
        call: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        ask(operation, self.config.request_timeout, call).await
    }
}

impl Origin {
    /// Creates the clients. Their requests may make no progress for `stall`, and credentials that were accepted before may
    /// be refused for `patience`.
    fn connect(self, name: &str, stall: Duration, patience: Duration) -> Connection {
        // The alphabet of a user agent; other characters are no reason to fail.
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name: String = name
            .chars()
            .map(|c| if is_fit(c) { c } else { '-' })
            .collect();
        let name = AppName::new(name).ok();
        let timeouts = TimeoutConfig::builder()
            .read_timeout(stall)
            .operation_attempt_timeout(ATTEMPT)
            .build();
        let credit = self.credit.with_patience(patience);
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(&self.sdk)
            .http_client(self.transport.client(&credit))
            .timeout_config(timeouts.clone());
        kinesis.set_app_name(name.clone());
        if let Some(endpoint) = &self.config.endpoint {
            kinesis = kinesis.endpoint_url(endpoint);
        }
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&self.sdk)
            .http_client(self.transport.client(&credit))
            .timeout_config(timeouts);
        dynamodb.set_app_name(name);
        if let Some(endpoint) = &self.config.dynamodb_endpoint {
            dynamodb = dynamodb.endpoint_url(endpoint);
        }
        Connection {
            config: self.config.clone(),
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            lag_interval: LagInterval::default(),
            credit,
            origin: self,
        }
    }
}

/// Loads what the clients of both services share from the settings and the environment.
async fn load(config: &Config, region: Option<Region>) -> SdkConfig {
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

/// Calls until there is a result that a retry would not change, for `within` at most. Returns the last
/// error when the time is over.
pub(crate) async fn ask<T, F>(
    operation: &'static str,
    within: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + within;
    let mut delays = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter()
        .build();
    let mut last = None;
    loop {
        match timeout_at(deadline, call()).await {
            Ok(Err(error)) if error.is_retryable() => last = Some(error),
            Ok(answer) => return answer,
            Err(_) => break,
        }
        let delay = delays.next().unwrap_or(Duration::from_secs(2));
        if Instant::now() + delay >= deadline {
            break;
        }
        sleep(delay).await;
    }
    Err(last.unwrap_or_else(|| {
        let message = format!("no answer within {within:?}");
        Error::new(ErrorKind::Timeout, operation, message)
    }))
}
