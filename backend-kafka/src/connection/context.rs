//! Reports of librdkafka besides the results of calls: log lines, token requests, and errors that belong to no
//! call.
//!
//! A refused login and a denied topic or group are only reported here: librdkafka itself retries forever, and the
//! call that waits for it merely times out. So every call that waits for a broker races against [`FatalError`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind};
use rdkafka::ClientContext;
use rdkafka::client::{Client, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;

use super::bootstrap::Bootstrap;
use super::client_error;
use super::health::Health;
use super::refused_logins::RefusedLogins;
use super::statistics::Statistics;
use crate::login::Login;
use crate::login::token::Tokens;
use crate::native;

/// The first error of a client that does not pass by itself. Clones share it.
///
/// It stays set, though its cause may end: a password is corrected, or access is granted. librdkafka does not report
/// that, and it repeats an error with the same text after 30 s at the earliest, so waiting for the next error would
/// not show it either. A caller that sees the client work again calls [`clear`]. A caller that cannot see this creates
/// a new client, which immediately learns the current state.
///
/// [`clear`]: Self::clear
#[derive(Debug, Clone)]
pub(crate) struct FatalError {
    first: Arc<watch::Sender<Option<Error>>>,
    /// The last error that may pass by itself, for the message of a wait that times out.
    last: Arc<Mutex<Option<LastError>>>,
}

/// An error of a client that may pass by itself.
#[derive(Debug, Clone)]
pub(crate) struct LastError {
    /// `Throttled` or `Unavailable`.
    pub(crate) kind: ErrorKind,
    pub(crate) reason: String,
    pub(crate) at: Instant,
}

impl FatalError {
    pub(crate) fn new() -> Self {
        Self {
            first: Arc::new(watch::Sender::new(None)),
            last: Arc::default(),
        }
    }

    /// Returns the last error that was not raised, if there was any.
    pub(crate) fn last_error(&self) -> Option<LastError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// Returns the reason of the last error that was not raised, unless it is old.
    pub(crate) fn recent_error(&self) -> Option<String> {
        // librdkafka repeats an error with the same text after 30 s at the earliest.
        const RECENT: Duration = Duration::from_secs(45);
        let last = self.last_error()?;
        (last.at.elapsed() < RECENT).then_some(last.reason)
    }

    fn set_last_error(&self, kind: ErrorKind, reason: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(LastError {
            kind,
            reason: reason.to_owned(),
            at: Instant::now(),
        });
    }

    /// Sets the error, unless one is already set.
    pub(crate) fn raise(&self, error: Error) {
        self.first.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(error);
            is_first
        });
    }

    /// Returns the error, if it is set.
    pub(crate) fn first(&self) -> Option<Error> {
        self.first.borrow().clone()
    }

    /// Waits for the error.
    pub(crate) async fn raised(&self) -> Error {
        let mut watch = self.first.subscribe();
        let raised = watch.wait_for(Option::is_some).await;
        let raised = raised.expect("the sender is held by self");
        raised.clone().expect("it was waited for")
    }
}

/// The context of every librdkafka client in this crate. Created by [`Connection::context`].
///
/// [`Connection::context`]: crate::connection::Connection::context
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) fatal_error: FatalError,
    operation: &'static str,
    group: Option<Arc<str>>,
    stream: Option<Arc<str>>,
    /// Continues when the client is replaced.
    health: Arc<Health>,
    bootstrap: Option<Bootstrap>,
    login: Option<Arc<Login>>,
    /// How long all brokers may refuse a login before the error is raised. `None`: it is raised at once.
    outlasts: Option<Duration>,
    refused_logins: Arc<Mutex<RefusedLogins>>,
    /// Whether the client's credentials must be set again.
    must_renew: Arc<AtomicBool>,
    /// The version of the token that the client has.
    token: Arc<AtomicU64>,
}

impl Context {
    /// Creates a context. `operation` is the operation of the error for a denial: "join", "open", ..
    pub(crate) fn new(operation: &'static str, login: Option<Arc<Login>>) -> Self {
        Self {
            fatal_error: FatalError::new(),
            operation,
            group: None,
            stream: None,
            health: Arc::default(),
            bootstrap: None,
            login,
            outlasts: None,
            refused_logins: Arc::default(),
            must_renew: Arc::default(),
            token: Arc::default(),
        }
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    /// Sets the bootstrap servers of the client.
    pub(crate) fn bootstrap(mut self, servers: &[String]) -> Self {
        self.bootstrap = Some(Bootstrap::new(servers));
        self
    }

    /// Does not raise a refused login until all brokers have refused for this long. A login that was never
    /// accepted is raised at once all the same.
    pub(crate) fn outlast_refusals(mut self, timeout: Duration) -> Self {
        self.outlasts = Some(timeout);
        self
    }

    /// Names the group in errors.
    pub(crate) fn group(mut self, group: &str) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Names the stream in events.
    pub(crate) fn stream(mut self, stream: &Arc<str>) -> Self {
        self.stream = Some(stream.clone());
        self
    }

    /// Restores the client's connection to its cluster if it has lost it. Sets the client's password from its current
    /// file, or the newest token. Code that polls the client must also call this.
    pub(crate) fn keep_connected<C: ClientContext>(&self, client: &Client<C>) {
        if let Some(bootstrap) = &self.bootstrap {
            bootstrap.tell(client);
        }
        if self.must_renew.swap(false, Relaxed) {
            if let Some(login) = &self.login {
                login.renew(client);
            }
        }
        let version = self.token.load(Relaxed);
        let newer = self.tokens().and_then(|tokens| tokens.newer_than(version));
        if let Some((version, token)) = newer {
            self.token.store(version, Relaxed);
            if let Err(reason) = native::token::set(client, token) {
                tracing::debug!(target: "librdkafka", reason, "a token was not taken");
            }
        }
    }

    /// Handles the client's statistics, and returns the parsed part.
    pub(crate) fn on_statistics(&self, statistics: &[u8]) -> Option<Statistics> {
        match Statistics::parse(statistics) {
            Ok(statistics) => {
                let (group, stream) = (self.group.as_deref(), self.stream.as_deref());
                self.health.on_statistics(&statistics, group, stream);
                if statistics.is_logged_in() {
                    self.refused_logins().on_logged_in();
                }
                Some(statistics)
            }
            Err(error) => {
                tracing::debug!(target: "librdkafka", %error, "statistics that cannot be read");
                None
            }
        }
    }

    /// Returns the settings and the context for a client that replaces this context's one: the settings with the
    /// current login, and a context without the fatal error of this one.
    pub(crate) fn successor(&self, settings: &ClientConfig) -> (ClientConfig, Self) {
        let mut settings = settings.clone();
        if let Some(login) = &self.login {
            login.apply(&mut settings);
        }
        let context = Self {
            fatal_error: FatalError::new(),
            bootstrap: self.bootstrap.as_ref().map(Bootstrap::afresh),
            refused_logins: Arc::default(),
            must_renew: Arc::default(),
            token: Arc::default(),
            ..self.clone()
        };
        (settings, context)
    }

    /// Returns the source of the client's tokens, if it logs in with tokens.
    pub(super) fn tokens(&self) -> Option<&Tokens> {
        self.login.as_ref()?.tokens()
    }

    /// Returns the refusal of a login, if that may be the reason why the client reaches no broker.
    pub(crate) fn refused_login(&self) -> Option<Error> {
        self.refused_logins().current(Instant::now()).cloned()
    }

    fn refused_logins(&self) -> MutexGuard<'_, RefusedLogins> {
        let logins = self.refused_logins.lock();
        logins.unwrap_or_else(PoisonError::into_inner)
    }

    fn on_refused_login(&self, refused: Error, reason: &str) {
        // The next token may be accepted, if permissions or keys have changed.
        if let Some(tokens) = self.tokens() {
            tokens.forget();
        }
        self.must_renew.store(true, Relaxed);
        let was_accepted = self
            .login
            .as_ref()
            .is_some_and(|login| login.was_accepted());
        if !was_accepted || self.outlasts.is_none() {
            return self.fatal_error.raise(refused);
        }
        self.emit_refused_login(reason);
        self.fatal_error
            .set_last_error(ErrorKind::Unavailable, reason);
        self.refused_logins().on_refused(refused, Instant::now());
    }

    /// Handles a limit of new connections: librdkafka retries with growing delays.
    fn on_throttled_login(&self, reason: &str) {
        self.emit_refused_login(reason);
        self.fatal_error
            .set_last_error(ErrorKind::Throttled, reason);
        self.refused_logins().on_other_failure();
    }

    fn emit_refused_login(&self, reason: &str) {
        let (group, stream) = (self.group.as_deref(), self.stream.as_deref());
        event!(
            warn,
            "millstream.kafka.login.refused",
            group,
            stream,
            reason,
            "a broker refused a login, it is tried again"
        );
    }

    /// Handles an error that may pass by itself.
    fn on_other_failure(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.refused_logins().on_other_failure();
            let reason = client_error::with_advice(reason);
            return self
                .fatal_error
                .set_last_error(ErrorKind::Unavailable, &reason);
        }
        // It follows from the errors of the individual brokers, and contains less information.
        let now = Instant::now();
        if let Some(bootstrap) = &self.bootstrap {
            bootstrap.all_are_down(now);
        }
        let Some(timeout) = self.outlasts else {
            return;
        };
        let logins = self.refused_logins();
        if let Some(refused) = logins.on_all_brokers_down(timeout, now) {
            self.fatal_error.raise(refused.clone());
        }
    }
}

/// Returns the level at which a line of librdkafka's log is reported.
///
/// At each start of a client, librdkafka warns about settings that no user can act on: one that it calls
/// experimental, which the SDK sets on purpose, and those of [`Config::librdkafka`] that are for clients of
/// the other kind.
///
/// [`Config::librdkafka`]: crate::Config::librdkafka
pub(crate) fn severity(level: RDKafkaLogLevel, facility: &str, message: &str) -> RDKafkaLogLevel {
    match facility {
        "CONFWARN"
            if message.contains("enable.gapless.guarantee is experimental")
                || message.contains("property and will be ignored by this") =>
        {
            RDKafkaLogLevel::Debug
        }
        _ => level,
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            if let Some(reason) = client_error::hang_up(message) {
                self.fatal_error
                    .set_last_error(ErrorKind::Unavailable, &reason);
            }
        }
        // Not with the target `millstream`: the names and texts are librdkafka's, and may change.
        match severity(level, facility, message) {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, message),
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, message),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, message);
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, message),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.on_statistics(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let told = code.and_then(|code| client_error::classify(self.operation, code, reason));
        let Some(told) = told else {
            // librdkafka's own log has a line for each failure.
            tracing::debug!(target: "librdkafka", %error, reason, "a broker failed");
            return self.on_other_failure(code, reason);
        };
        let told = match &self.group {
            Some(group) => told.with_group(group.clone()),
            None => told,
        };
        let told = told.with_source(error);
        match told.kind() {
            ErrorKind::Unauthenticated => self.on_refused_login(told, reason),
            ErrorKind::Throttled => self.on_throttled_login(reason),
            _ => self.fatal_error.raise(told),
        }
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match self.tokens() {
            Some(tokens) => {
                let (version, token) = tokens.kept()?;
                self.token.store(version, Relaxed);
                Ok(token)
            }
            None => Err("no token is configured".into()),
        }
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::*;

    #[tokio::test]
    async fn the_first_trouble_stays() {
        let fatal_error = FatalError::new();
        let error = |text: &'static str| Error::new(ErrorKind::Denied, "join", text);
        fatal_error.raise(error("first"));
        fatal_error.raise(error("second"));
        assert_eq!(fatal_error.raised().await.message(), "first");
    }

    #[test]
    fn what_passes_by_itself_is_no_trouble() {
        let context = Context::new("join", None);
        for (code, reason) in [
            (Code::AllBrokersDown, "1/1 brokers are down"),
            (
                Code::BrokerTransportFailure,
                "b:9092/1: Connect to ipv4#127.0.0.1:9092 failed",
            ),
            (Code::Resolve, "b:9092/1: Failed to resolve 'b:9092'"),
            (Code::OperationTimedOut, "b:9092/1: 1 request(s) timed out"),
        ] {
            context.error(KafkaError::Global(code), reason);
            assert!(context.fatal_error.first().is_none(), "{code:?}");
        }
    }

    const REFUSED: &str = "b:9092/1: SASL authentication error: Authentication failed";

    fn logged_in(outlasts: Option<Duration>) -> Context {
        let login = Login::open(&Default::default(), None).unwrap();
        login.on_logged_in();
        let context = Context::new("join", Some(Arc::new(login)));
        match outlasts {
            Some(timeout) => context.outlast_refusals(timeout),
            None => context,
        }
    }

    fn report(context: &Context, code: Code, reason: &str) {
        context.error(KafkaError::Global(code), reason);
    }

    #[test]
    fn a_refused_login_is_raised_at_once_until_one_was_accepted() {
        let login = Arc::new(Login::open(&Default::default(), None).unwrap());
        let context = Context::new("join", Some(login)).outlast_refusals(Duration::ZERO);
        report(&context, Code::Authentication, REFUSED);
        let error = context.fatal_error.first().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }

    #[test]
    fn a_call_fails_at_once_and_a_client_that_lasts_goes_on() {
        let call = logged_in(None);
        report(&call, Code::Authentication, REFUSED);
        assert!(call.fatal_error.first().is_some());

        let member = logged_in(Some(Duration::from_secs(30)));
        report(&member, Code::Authentication, REFUSED);
        report(&member, Code::AllBrokersDown, "1/1 brokers are down");
        assert!(member.fatal_error.first().is_none());
        assert!(member.refused_login().is_some());

        let member = logged_in(Some(Duration::ZERO));
        report(&member, Code::Authentication, REFUSED);
        assert!(member.fatal_error.first().is_none());
        report(&member, Code::AllBrokersDown, "1/1 brokers are down");
        let error = member.fatal_error.first().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }

    #[test]
    fn too_many_connects_are_never_raised() {
        for context in [
            Context::new("connect", None),
            logged_in(Some(Duration::ZERO)),
        ] {
            report(
                &context,
                Code::Authentication,
                "b:9092/1: Too many connects",
            );
            report(&context, Code::AllBrokersDown, "1/1 brokers are down");
            assert!(context.fatal_error.first().is_none());
            let last = context.fatal_error.last_error().unwrap();
            assert_eq!(last.kind, ErrorKind::Throttled);
        }
    }

    #[test]
    fn a_denied_join_names_topic_and_group() {
        let context = Context::new("join", None).group("g");
        let reason = "Subscribed topic not available: a.b: Broker: Topic authorization failed";
        context.error(KafkaError::Global(Code::TopicAuthorizationFailed), reason);
        let error = context.fatal_error.first().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.operation(), "join");
        assert_eq!((error.stream(), error.group()), (Some("a.b"), Some("g")));
    }
}
