//! Tokens for a login with OAUTHBEARER: their source, and their lifetime.
//!
//! A connection has several clients, which share one token. The token is made on the connection's own thread, and
//! renewed after half of its lifetime: making one may take long, and the clients' threads must handle receipts and
//! rebalances. They only pass on the kept token.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use millstream_core::telemetry::{Causes, event};
use rdkafka::client::OAuthToken;

use crate::config::Secret;
use crate::error::panic_message;

/// Makes the tokens of a login with `oauthbearer`; see [`Kafka::connect_with`].
///
/// [`Kafka::connect_with`]: crate::Kafka::connect_with
pub trait TokenSource: Debug + Send + Sync + 'static {
    /// Makes a token, which all clients of a connection share until half of its lifetime is over.
    ///
    /// Called on the connection's own thread, which may block and belongs to no runtime. Calls never overlap. Nothing
    /// waits for the call as long as the last token is valid.
    ///
    /// # Errors
    /// The text is shown to users and logged: it must not contain a secret. A failure is followed by another call
    /// within 10 s. While the last token is valid, the failure is only logged. A `connect` without a valid token fails
    /// with `Unauthenticated`.
    fn token(&self) -> Result<Token, Box<dyn StdError + Send + Sync>>;
}

/// A token, and its expiry. `Debug` does not show its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    value: Secret,
    principal: String,
    expires: SystemTime,
}

impl Token {
    /// Creates a token that the broker accepts until `expires`.
    ///
    /// It may only contain visible ASCII characters and spaces, as RFC 7628 requires.
    pub fn new(value: impl Into<Secret>, expires: SystemTime) -> Self {
        Self {
            value: value.into(),
            principal: String::new(),
            expires,
        }
    }

    /// Sets the principal for librdkafka's log. The broker takes the name from the token itself.
    #[must_use]
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = principal.into();
        self
    }

    #[cfg(all(test, feature = "msk-iam"))]
    pub(crate) fn value(&self) -> &str {
        self.value.expose()
    }

    #[cfg(all(test, feature = "msk-iam"))]
    pub(crate) fn expires(&self) -> SystemTime {
        self.expires
    }

    fn left(&self) -> Duration {
        let left = self.expires.duration_since(SystemTime::now());
        left.unwrap_or_default()
    }

    fn for_librdkafka(&self) -> OAuthToken {
        // Despite its name, `lifetime` is not a duration: it is a point in time of the wall clock.
        let expires = self.expires.duration_since(SystemTime::UNIX_EPOCH);
        let expires = expires.unwrap_or_default().as_millis();
        OAuthToken {
            token: self.value.expose().to_owned(),
            principal_name: self.principal.clone(),
            lifetime_ms: i64::try_from(expires).unwrap_or(i64::MAX),
        }
    }
}

/// A token with less time left than this is no longer handed out, unless the next one is not due yet.
const LAST_USE: Duration = Duration::from_secs(5);

/// The delay before another attempt after a failure, unless a caller waits for the token.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The minimum delay between two attempts.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// How often the remaining time is checked. It is wall-clock time, which continues while a machine sleeps.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The token of a connection. The thread that makes it ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Tokens(Arc<Refresher>);

#[derive(Debug)]
struct Refresher {
    source: Arc<dyn TokenSource>,
    state: Mutex<State>,
    /// Notified after each attempt, and when an attempt becomes due.
    changed: Condvar,
    /// The number of tokens that were made.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    kept: Option<Kept>,
    /// Why the last attempt failed, if it did.
    failure: Option<String>,
    attempts: u64,
    last_attempt: Option<Instant>,
    /// Whether a caller waits for a token.
    is_awaited: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Kept {
    token: Token,
    /// The time that was left when it was made.
    lifetime: Duration,
    /// Whether a broker refused it.
    is_refused: bool,
}

impl Tokens {
    /// Starts the thread, which makes the first token at once.
    pub(crate) fn start(source: Arc<dyn TokenSource>) -> io::Result<Self> {
        let tokens = Self::new(source);
        let refresher = tokens.0.clone();
        thread::Builder::new()
            .name("kafka-tokens".into())
            .spawn(move || refresher.run())?;
        Ok(tokens)
    }

    fn new(source: Arc<dyn TokenSource>) -> Self {
        Self(Arc::new(Refresher {
            source,
            state: Mutex::default(),
            changed: Condvar::new(),
            version: AtomicU64::new(0),
        }))
    }

    /// Returns the kept token and its version. Does not wait.
    pub(crate) fn kept(&self) -> Result<(u64, OAuthToken), String> {
        let state = self.0.state();
        match &state.kept {
            Some(kept) if kept.is_usable() => {
                let version = self.0.version.load(Acquire);
                Ok((version, kept.token.for_librdkafka()))
            }
            _ => {
                let failure = state.failure.clone();
                Err(failure.unwrap_or_else(|| "no token was made in time".into()))
            }
        }
    }

    /// Returns the kept token, if it is newer than this version.
    pub(crate) fn newer_than(&self, version: u64) -> Option<(u64, OAuthToken)> {
        let is_newer = self.0.version.load(Acquire) > version;
        is_newer.then(|| self.kept().ok())?
    }

    /// Waits until there is a token that no broker has refused, or until an attempt has failed. Must be called on a
    /// thread that may block.
    pub(crate) fn wait(&self) -> Result<(), String> {
        let refresher = &self.0;
        let mut state = refresher.state();
        let before = state.attempts;
        loop {
            let usable = state.kept.as_ref().filter(|kept| kept.is_usable());
            match usable {
                Some(kept) if !kept.is_refused => return Ok(()),
                // An attempt has produced no other token.
                Some(_) if state.attempts > before => return Ok(()),
                _ => {}
            }
            if state.attempts > before {
                let failure = state.failure.clone();
                return Err(failure.unwrap_or_else(|| "the token was over at once".into()));
            }
            state.is_awaited = true;
            refresher.changed.notify_all();
            let waited = refresher.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Requests a new token: a broker refused the current one.
    pub(crate) fn forget(&self) {
        if let Some(kept) = &mut self.0.state().kept {
            kept.is_refused = true;
        }
        self.0.changed.notify_all();
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Kept {
    fn is_usable(&self) -> bool {
        self.token.left() > LAST_USE.min(self.lifetime / 2)
    }
}

impl State {
    /// Returns how long no attempt is due.
    fn pause(&self, now: Instant) -> Duration {
        let shortest = match self.failure {
            Some(_) if !self.is_awaited => RETRY_AFTER,
            _ => SHORTEST_PAUSE,
        };
        let pause = self.last_attempt.map_or(Duration::ZERO, |last| {
            (last + shortest).saturating_duration_since(now)
        });
        match &self.kept {
            Some(kept) if !kept.is_refused => {
                let half = kept.token.left().saturating_sub(kept.lifetime / 2);
                half.max(pause)
            }
            _ => pause,
        }
    }
}

impl Refresher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        while !state.is_closed {
            let pause = state.pause(Instant::now());
            if pause.is_zero() {
                drop(state);
                self.refresh();
                state = self.state();
            } else {
                let waited = self.changed.wait_timeout(state, pause.min(LOOK_EVERY));
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Makes a token, and notifies all waiting callers.
    fn refresh(&self) {
        let made = self.make();
        let mut state = self.state();
        state.attempts += 1;
        state.last_attempt = Some(Instant::now());
        state.is_awaited = false;
        match made {
            Ok(token) => {
                let lifetime = token.left();
                state.failure = None;
                state.kept = Some(Kept {
                    token,
                    lifetime,
                    is_refused: false,
                });
                self.version.fetch_add(1, Release);
            }
            Err(reason) => {
                let kept = state.kept.as_ref().filter(|kept| kept.is_usable());
                if let Some(kept) = kept {
                    let (reason, left) = (reason.as_str(), kept.token.left());
                    event!(
                        warn, "millstream.kafka.login.token_kept", reason, left = ?left,
                        "no new token for the login at Kafka; the last one is still good"
                    );
                }
                state.failure = Some(reason);
            }
        }
        self.changed.notify_all();
    }

    fn make(&self) -> Result<Token, String> {
        // A panic would end the thread, and no later token would be made.
        let made = panic::catch_unwind(AssertUnwindSafe(|| self.source.token()));
        let token = match made {
            Ok(Ok(token)) => token,
            Ok(Err(error)) => return Err(with_causes(&*error)),
            Err(panic) => {
                return Err(format!(
                    "making the token panicked: {}",
                    panic_message(&*panic)
                ));
            }
        };
        let is_fit = |byte: u8| matches!(byte, b' '..=b'~');
        if token.value.is_empty() || !token.value.expose().bytes().all(is_fit) {
            return Err("the token is empty, or not of visible ASCII characters".into());
        }
        if token.principal.contains('\0') {
            return Err("the token's principal holds a NUL byte".into());
        }
        if token.left() <= LAST_USE {
            let left = token.left();
            return Err(format!(
                "the token expires too soon ({left:?} are left): is the clock right?"
            ));
        }
        Ok(token)
    }
}

/// Returns an error and its causes, in one line without a NUL, which rdkafka could not pass on.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    Causes(error).to_string().replace(['\0', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use millstream_core::{Error, ErrorKind};

    use super::*;
    use crate::captured_log::CapturedLog;

    #[derive(Debug)]
    struct Script {
        calls: AtomicUsize,
        lifetimes: Vec<Result<u64, &'static str>>,
    }

    impl TokenSource for Script {
        fn token(&self) -> Result<Token, Box<dyn StdError + Send + Sync>> {
            let call = self.calls.fetch_add(1, Relaxed);
            let lifetime = Duration::from_secs(self.lifetimes[call]?);
            let token = Token::new(format!("token {call}"), SystemTime::now() + lifetime);
            Ok(token.principal("me"))
        }
    }

    /// Creates tokens that are only made when a test requests it.
    fn script(lifetimes: Vec<Result<u64, &'static str>>) -> Tokens {
        Tokens::new(Arc::new(Script {
            calls: AtomicUsize::new(0),
            lifetimes,
        }))
    }

    impl Tokens {
        /// Shortens the kept token's remaining time by this many seconds.
        fn age(&self, by: u64) {
            let mut state = self.0.state();
            state.kept.as_mut().unwrap().token.expires -= Duration::from_secs(by);
        }

        fn value(&self) -> Result<String, String> {
            self.kept().map(|(_, token)| token.token)
        }

        /// Makes a token if one is due after this time.
        fn refresh_after(&self, since: Duration) -> bool {
            let is_due = self.0.state().pause(Instant::now() + since).is_zero();
            if is_due {
                self.0.refresh();
            }
            is_due
        }
    }

    #[test]
    fn a_token_is_made_when_half_of_the_last_ones_time_is_over() {
        let tokens = script(vec![Ok(900), Ok(900)]);
        assert!(tokens.refresh_after(Duration::ZERO));
        assert_eq!(tokens.value().unwrap(), "token 0");
        tokens.age(440);
        assert!(!tokens.refresh_after(SHORTEST_PAUSE));
        tokens.age(20);
        assert!(tokens.refresh_after(SHORTEST_PAUSE));
        assert_eq!(tokens.value().unwrap(), "token 1");
    }

    #[test]
    fn a_client_is_given_each_token_once() {
        let tokens = script(vec![Ok(900), Ok(900)]);
        assert!(tokens.newer_than(0).is_none());
        tokens.0.refresh();
        let (version, token) = tokens.newer_than(0).unwrap();
        assert_eq!(token.token, "token 0");
        assert!(tokens.newer_than(version).is_none());
        tokens.0.refresh();
        assert_eq!(tokens.newer_than(version).unwrap().1.token, "token 1");
    }

    #[test]
    fn librdkafka_is_told_when_a_token_expires_as_a_point_in_time() {
        let tokens = script(vec![Ok(900)]);
        tokens.0.refresh();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap().as_millis()).unwrap();
        let (_, token) = tokens.kept().unwrap();
        let lifetime = token.lifetime_ms - now;
        assert!((899_000..=902_000).contains(&lifetime), "{lifetime}");
        assert_eq!(token.principal_name, "me");
    }

    #[test]
    fn a_failure_does_no_harm_while_the_last_token_is_good() {
        let tokens = script(vec![Ok(900), Err("no network"), Err("no network"), Ok(900)]);
        tokens.0.refresh();
        tokens.age(720);
        assert!(tokens.refresh_after(SHORTEST_PAUSE));
        assert_eq!(tokens.value().unwrap(), "token 0");
        assert!(!tokens.refresh_after(RETRY_AFTER / 2));
        tokens.age(178);
        assert!(tokens.refresh_after(RETRY_AFTER));
        assert_eq!(tokens.value().unwrap_err(), "no network");
        assert!(tokens.refresh_after(RETRY_AFTER));
        assert_eq!(tokens.value().unwrap(), "token 3");
    }

    #[test]
    fn a_token_of_few_seconds_is_given_until_the_next_one_is_due() {
        let tokens = script(vec![Ok(8)]);
        tokens.0.refresh();
        tokens.age(3);
        assert_eq!(tokens.value().unwrap(), "token 0");
        tokens.age(2);
        tokens.value().unwrap_err();
    }

    #[test]
    fn who_waits_gets_the_next_token_or_the_reason_why_there_is_none() {
        let source = Script {
            calls: AtomicUsize::new(0),
            lifetimes: vec![Ok(900), Err("no network"), Ok(900)],
        };
        let tokens = Tokens::start(Arc::new(source)).unwrap();
        tokens.wait().unwrap();
        assert_eq!(tokens.value().unwrap(), "token 0");
        // An hour later the last token has expired.
        tokens.age(3_600);
        assert_eq!(tokens.wait().unwrap_err(), "no network");
        tokens.wait().unwrap();
        assert_eq!(tokens.value().unwrap(), "token 2");
    }

    /// A source that makes one token.
    #[derive(Debug)]
    struct Once(AtomicUsize);

    impl TokenSource for Once {
        fn token(&self) -> Result<Token, Box<dyn StdError + Send + Sync>> {
            if self.0.fetch_add(1, Relaxed) == 0 {
                return Ok(Token::new("the-value", in_a_minute()));
            }
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            let error = Error::new(ErrorKind::Unavailable, "authorize", "the server is away");
            Err(error.with_source(refused).into())
        }
    }

    #[test]
    fn a_log_holds_the_whole_chain_of_causes_and_no_token() {
        let log = CapturedLog::new("warn");
        let tokens = Tokens::new(Arc::new(Once(AtomicUsize::new(0))));
        tokens.0.refresh();
        tokens.age(40);
        tokens.0.refresh();
        tokens.value().unwrap();
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        for words in [
            "event=\"millstream.kafka.login.token_kept\"",
            "the server is away: connection refused",
        ] {
            assert!(text.contains(words), "{text}");
        }
        assert!(!text.contains("the-value"), "{text}");
    }

    #[test]
    fn a_refused_token_is_made_anew() {
        let tokens = script(vec![Ok(900), Ok(900)]);
        tokens.0.refresh();
        tokens.forget();
        assert!(!tokens.refresh_after(Duration::ZERO), "not again and again");
        assert!(tokens.refresh_after(SHORTEST_PAUSE));
        tokens.wait().unwrap();
        assert_eq!(tokens.value().unwrap(), "token 1");
    }

    #[derive(Debug)]
    struct Bad(fn() -> Token);

    impl TokenSource for Bad {
        fn token(&self) -> Result<Token, Box<dyn StdError + Send + Sync>> {
            Ok((self.0)())
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_being_shown() {
        type Make = fn() -> Token;
        let bad: [(Make, &str); 4] = [
            (|| Token::new("", in_a_minute()), "empty"),
            (|| Token::new("se\ncret", in_a_minute()), "visible ASCII"),
            (
                || Token::new("secret", SystemTime::now()),
                "expires too soon",
            ),
            (|| panic!("a bug"), "panicked: a bug"),
        ];
        for (make, expected) in bad {
            let tokens = Tokens::new(Arc::new(Bad(make)));
            tokens.0.refresh();
            let refused = tokens.value().unwrap_err();
            assert!(refused.contains(expected), "{refused}");
            assert!(!refused.contains("cret"), "{refused}");
        }
    }

    fn in_a_minute() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn debug_shows_no_token() {
        let token = Token::new("the-value", in_a_minute());
        assert!(!format!("{token:?}").contains("the-value"));
    }
}
