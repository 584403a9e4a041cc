//! The clients of the two services, and the retries of administration calls.

use std::sync::Arc;
use std::time::Duration;

use aws_config::Region;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
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
use crate::sdk_config::SdkConfigs;

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
    /// The same one, unless DynamoDB has credentials of its own.
    pub(crate) lease_credit: Credit,
    origin: Origin,
}

/// What all connections of one [`Kinesis`](crate::Kinesis) share.
#[derive(Debug, Clone)]
struct Origin {
    config: Arc<Config>,
    sdk: SdkConfigs,
    transport: Transport,
    credit: Credit,
    /// `None` if both services have the same credentials.
    lease_credit: Option<Credit>,
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
        let sdk = SdkConfigs::load(&config, None).await;
        if sdk.kinesis.region().is_none() {
            let message = "no region: set `region`, AWS_REGION, or one in the profile";
            return Err(Error::new(ErrorKind::Invalid, "connect", message));
        }
        sdk.check_endpoints(&config)?;
        let lease_credit = config.leases.has_credentials().then(Credit::default);
        let origin = Origin {
            config: Arc::new(config),
            sdk,
            transport,
            credit: Credit::default(),
            lease_credit,
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

    /// Makes sure that there are credentials for Kinesis: a producer needs no others. Sends no request to Kinesis: its quotas for the control plane are those of a
    /// whole account, and many processes may start at once.
    pub(crate) async fn check_credentials(&self) -> Result<()> {
        let provider = self.origin.sdk.kinesis.credentials_provider();
        let load = || async {
            let provider = provider.as_ref().ok_or_else(|| {
                let nothing = CredentialsError::not_loaded_no_source();
                error::of_credentials("connect", nothing)
            })?;
            let loaded = provider.provide_credentials().await;
            loaded.map_err(|e| error::of_credentials("connect", e))
        };
        self.retry("connect", load).await.map(drop)
    }

    /// Returns the same connection under the name of one member, which AWS shows as the application.
    pub(crate) fn named(&self, member: &str) -> Self {
        Self::of(self.origin.clone(), Some(member))
    }

    /// Like [`named`](Self::named), with credentials of its own: of several that share credentials, one loads them, and the
    /// others wait for it, even if its runtime is blocked.
    pub(crate) async fn independent(&self, member: &str) -> Self {
        let mut origin = self.origin.clone();
        let region = origin.sdk.kinesis.region().cloned();
        origin.sdk = SdkConfigs::load(&origin.config, region).await;
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
        let region = self.origin.sdk.kinesis.region();
        region.map_or("", Region::as_ref)
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
    pub(crate) async fn retry<T, F>(
        &self,
        operation: &'static str,
        call: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        retry(operation, self.config.request_timeout, call).await
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
        let lease_credit = match &self.lease_credit {
            Some(credit) => credit.with_patience(patience),
            None => credit.clone(),
        };
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(&self.sdk.kinesis)
            .http_client(self.transport.client(&credit))
            .timeout_config(timeouts.clone());
        kinesis.set_app_name(name.clone());
        if let Some(endpoint) = &self.config.endpoint {
            kinesis = kinesis.endpoint_url(endpoint);
        }
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&self.sdk.dynamodb)
            .http_client(self.transport.client(&lease_credit))
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
            lease_credit,
            origin: self,
        }
    }
}

/// Calls until there is a result that a retry would not change, for `within` at most. Returns the last
/// error when the time is over.
pub(crate) async fn retry<T, F>(
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
            Ok(response) => return response,
            Err(_) => break,
        }
        let delay = delays.next().unwrap_or(Duration::from_secs(2));
        if Instant::now() + delay >= deadline {
            break;
        }
        sleep(delay).await;
    }
    Err(last.unwrap_or_else(|| {
        let message = format!("no response within {within:?}");
        Error::new(ErrorKind::Timeout, operation, message)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_service::{ARN, FakeService};
    use crate::stream;

    #[tokio::test]
    async fn requests_are_signed_for_the_region_of_their_service() {
        let service = FakeService::start().await;
        let mut config = service.config();
        config.leases.region = Some("us-east-1".into());
        let connection = Connection::open(config).await.unwrap();
        for connection in [connection.independent("m").await, connection] {
            stream::shards(&connection, "test", ARN).await.unwrap();
            let scan = connection.dynamodb.scan().table_name("group");
            scan.send().await.unwrap();
        }
        for request in service.noted() {
            let signed = match &*request.operation {
                "Scan" => "/us-east-1/dynamodb/",
                _ => "/eu-west-1/kinesis/",
            };
            assert!(request.authorization.contains(signed), "{request:?}");
        }
        assert_eq!(service.noted().len(), 4);
    }
}
