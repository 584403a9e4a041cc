//! Tokens for a login by OAUTHBEARER: who makes them, and how long one is good for.
//!
//! A connection has several clients, and each asks for a token of its own when 80 % of the last
//! one's time is over. They share one here, so that whoever makes them is asked once.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use millstream_core::telemetry::{Causes, event};
use rdkafka::client::OAuthToken;

use crate::config::Secret;

/// Makes the tokens of a login by `oauthbearer`; see [`Kafka::connect_with`].
///
/// [`Kafka::connect_with`]: crate::Kafka::connect_with
pub trait TokenSource: Debug + Send + Sync + 'static {
    /// Makes a token, which all clients of a connection share until half of its time is over.
    ///
    /// Called on a thread of the connection's own, which may block for seconds and belongs to no
    /// runtime; never twice at once.
    ///
    /// # Errors
    /// The text is shown to users and logged: it must hold no secret. While the last token is good
    /// the failure is only logged, and there is another call later; then it is `Unauthenticated`.
    fn token(&self) -> Result<Token, Box<dyn StdError + Send + Sync>>;
}

/// A token, and what it is good for. `Debug` does not show its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    value: Secret,
    principal: String,
    expires: SystemTime,
}

impl Token {
    /// A token that the broker accepts until `expires`.
    ///
    /// Visible ASCII characters and blanks alone, as RFC 7628 has it.
    pub fn new(value: impl Into<Secret>, expires: SystemTime) -> Self {
        Self {
            value: value.into(),
            principal: String::new(),
            expires,
        }
    }

    /// Names who logs in, for librdkafka's log. The broker takes the name from the token itself.
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
        // Not a duration, for all that its name says: a point in time, by the wall clock.
        let expires = self.expires.duration_since(SystemTime::UNIX_EPOCH);
        let expires = expires.unwrap_or_default().as_millis();
        OAuthToken {
            token: self.value.expose().to_owned(),
            principal_name: self.principal.clone(),
            lifetime_ms: i64::try_from(expires).unwrap_or(i64::MAX),
        }
    }
}

/// A token that has less time left than this is no longer given to anybody.
const LAST_USE: Duration = Duration::from_secs(5);

/// The token of a connection. Whoever asks may have to wait for a new one.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    token: Token,
    /// What it had left when it was made.
    lifetime: Duration,
}

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self {
            source,
            kept: Mutex::new(None),
        }
    }

    /// The kept token in the first half of its time, else a new one. Blocks while that is made.
    pub(crate) fn current(&self) -> Result<OAuthToken, String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept { token, lifetime }) = &*kept {
            if token.left() > *lifetime / 2 {
                return Ok(token.for_librdkafka());
            }
        }
        match self.make() {
            Ok(token) => {
                let made = token.for_librdkafka();
                let lifetime = token.left();
                *kept = Some(Kept { token, lifetime });
                Ok(made)
            }
            Err(reason) => match &*kept {
                // librdkafka asks again after 80 % of what is left, so ever sooner.
                Some(Kept { token, .. }) if token.left() > LAST_USE => {
                    event!(
                        warn, "millstream.kafka.login.token_kept", reason, left = ?token.left(),
                        "no new token for the login at Kafka; the last one is still good"
                    );
                    Ok(token.for_librdkafka())
                }
                _ => Err(reason),
            },
        }
    }

    /// Has the next caller get a new one: a broker refused what there is.
    pub(crate) fn forget(&self) {
        // A token is being made now, if it is locked: then there is nothing to forget.
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
    }

    fn make(&self) -> Result<Token, String> {
        // A panic would end the thread that listens for the client's errors, and with it would go
        // all that could tell of it.
        let made = panic::catch_unwind(AssertUnwindSafe(|| self.source.token()));
        let token = match made {
            Ok(Ok(token)) => token,
            Ok(Err(error)) => return Err(with_causes(&*error)),
            Err(panic) => return Err(format!("making the token panicked: {}", said(&*panic))),
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

/// An error and what caused it, in one line without a NUL, which rdkafka could not pass on.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    Causes(error).to_string().replace(['\0', '\n'], " ")
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use millstream_core::{Error, ErrorKind};
    use tracing_subscriber::fmt;
    use tracing_subscriber::util::SubscriberInitExt;

    use super::*;

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

    fn script(lifetimes: Vec<Result<u64, &'static str>>) -> Tokens {
        Tokens::new(Arc::new(Script {
            calls: AtomicUsize::new(0),
            lifetimes,
        }))
    }

    impl Tokens {
        /// As if so much of the kept token's time were over.
        fn age(&self, by: u64) {
            let mut kept = self.kept.lock().unwrap();
            kept.as_mut().unwrap().token.expires -= Duration::from_secs(by);
        }

        fn value(&self) -> Result<String, String> {
            self.current().map(|token| token.token)
        }
    }

    #[test]
    fn a_token_is_shared_in_the_first_half_of_its_time() {
        let tokens = script(vec![Ok(900), Ok(900)]);
        assert_eq!(tokens.value().unwrap(), "token 0");
        tokens.age(440);
        assert_eq!(tokens.value().unwrap(), "token 0");
        tokens.age(20);
        assert_eq!(tokens.value().unwrap(), "token 1");
    }

    #[test]
    fn librdkafka_is_told_when_a_token_expires_as_a_point_in_time() {
        let tokens = script(vec![Ok(900)]);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap().as_millis()).unwrap();
        let token = tokens.current().unwrap();
        let lifetime = token.lifetime_ms - now;
        assert!((899_000..=902_000).contains(&lifetime), "{lifetime}");
        assert_eq!(token.principal_name, "me");
    }

    #[test]
    fn a_failure_does_no_harm_while_the_last_token_is_good() {
        let tokens = script(vec![Ok(900), Err("no network"), Err("no network"), Ok(900)]);
        assert_eq!(tokens.value().unwrap(), "token 0");
        tokens.age(720);
        assert_eq!(tokens.value().unwrap(), "token 0");
        tokens.age(178);
        assert_eq!(tokens.value().unwrap_err(), "no network");
        assert_eq!(tokens.value().unwrap(), "token 3");
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Gives one token.
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
        // While there is one subscriber only, `tracing` asks the thread that is first at an event
        // whether anybody listens, and that may be the thread of another test.
        let _other = fmt().with_writer(io::sink).set_default();
        let log = Log::default();
        let lines = log.clone();
        let lines = fmt()
            .with_env_filter("millstream::kafka=warn")
            .with_writer(move || lines.clone());
        let _listening = lines.set_default();
        let tokens = Tokens::new(Arc::new(Once(AtomicUsize::new(0))));
        tokens.value().unwrap();
        tokens.age(40);
        tokens.value().unwrap();
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
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
    fn a_refused_token_is_not_given_again() {
        let tokens = script(vec![Ok(900), Ok(900)]);
        assert_eq!(tokens.value().unwrap(), "token 0");
        tokens.forget();
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
