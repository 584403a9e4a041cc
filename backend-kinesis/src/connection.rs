//! The clients of the two services, and the retries of administration calls.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use aws_types::app_name::AppName;
use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::lag_interval::LagInterval;

/// The timeout of one attempt of a request. The records of a large response arrive at 2 MB/s at worst.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The timeout for connecting.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection: the settings, and a client of each service.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) config: Arc<Config>,
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) lag_interval: LagInterval,
    shared: SdkConfig,
}

impl Connection {
    /// Loads the settings from the environment, and creates the clients. Sends requests only to the providers of
    /// the credentials and the region.
    pub(crate) async fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            // Only the caller knows the effect of a request that is sent twice.
            .retry_config(RetryConfig::disabled())
            // A subscription to a quiet shard sends little for minutes.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT)
                    .operation_attempt_timeout(ATTEMPT)
                    .build(),
            );
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
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
        let shared = loader.load().await;
        if shared.region().is_none() {
            let message = "no region: set `region`, AWS_REGION, or one in the profile";
            return Err(Error::new(ErrorKind::Invalid, "connect", message));
        }
        let config = Arc::new(config);
        let name = config.client_id.clone();
        Ok(Self::build(config, shared, &name))
    }

    /// Returns the same connection under the name of one member, which AWS shows as the application.
    pub(crate) fn named(&self, member: &str) -> Self {
        let name = format!("{}.{member}", self.config.client_id);
        Self::build(self.config.clone(), self.shared.clone(), &name)
    }

    fn build(config: Arc<Config>, shared: SdkConfig, name: &str) -> Self {
        // The alphabet of a user agent; other characters are no reason to fail.
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name: String = name
            .chars()
            .map(|c| if is_fit(c) { c } else { '-' })
            .collect();
        let name = AppName::new(name).ok();
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(&shared);
        kinesis.set_app_name(name.clone());
        if let Some(endpoint) = &config.endpoint {
            kinesis = kinesis.endpoint_url(endpoint);
        }
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&shared);
        dynamodb.set_app_name(name);
        if let Some(endpoint) = &config.dynamodb_endpoint {
            dynamodb = dynamodb.endpoint_url(endpoint);
        }
        Self {
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            lag_interval: LagInterval::default(),
            config,
            shared,
        }
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
