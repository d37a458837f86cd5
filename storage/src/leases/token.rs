//! Names that are unique to one process.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::host;

/// A name that no other process, on any host, has chosen: 16 hexadecimal digits. Nothing else is read as one, so a
/// token out of a file leads to no other folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

/// Text that is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not 16 hexadecimal digits", .0.escape_debug())]
pub struct NotAToken(String);

const DIGITS: usize = 16;

impl Token {
    /// A new one.
    pub(super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        // The standard library seeds its hash maps with the system's randomness.
        let random = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), now);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let text = format!("{}/{}/{now}/{random}/{count}", host::machine(), std::process::id());
        Self(blake3::hash(text.as_bytes()).to_hex()[..DIGITS].to_string())
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let is_token = text.len() == DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_token {
            Ok(Self(text.to_string()))
        } else {
            Err(NotAToken(text.to_string()))
        }
    }
}

impl TryFrom<String> for Token {
    type Error = NotAToken;

    fn try_from(text: String) -> Result<Self, NotAToken> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_nothing_but_digits() {
        let token = Token::new();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_ne!(token, Token::new());
        for text in [
            "",
            "0123456789abcde",
            "0123456789ABCDEF",
            "../3456789abcdef",
            "0123456789abcdefé",
        ] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }
}
