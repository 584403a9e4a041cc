//! Unsigned tokens, which the broker's development validator accepts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use millstream_kafka::{Token, TokenSource};

#[derive(Debug, Clone)]
pub(crate) struct Unsigned {
    pub(crate) subject: &'static str,
    pub(crate) lifetime: Duration,
    pub(crate) made: Arc<AtomicUsize>,
}

impl Unsigned {
    pub(crate) fn new(subject: &'static str, lifetime: Duration) -> Self {
        Self {
            subject,
            lifetime,
            made: Arc::default(),
        }
    }

    pub(crate) fn made(&self) -> usize {
        self.made.load(Relaxed)
    }
}

impl TokenSource for Unsigned {
    fn token(&self) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
        self.made.fetch_add(1, Relaxed);
        let now = SystemTime::now();
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap().as_secs_f64()
        };
        let claims = serde_json::json!({
            "sub": self.subject,
            "iat": seconds(now),
            "exp": seconds(now + self.lifetime),
        });
        let part = |json: &serde_json::Value| base64_url(json.to_string().as_bytes());
        let header = serde_json::json!({ "alg": "none" });
        let token = format!("{}.{}.", part(&header), part(&claims));
        Ok(Token::new(token, now + self.lifetime))
    }
}

/// Encodes base64url, without padding (RFC 4648, section 5).
fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| {
            bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0))
        });
        for digit in 0..=chunk.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}
