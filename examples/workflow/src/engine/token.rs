//! Task tokens: who holds one may end the task it names, and nobody can make one up.
//!
//! `base64url("v1#{flow}#{execution}#{scheduleEventId}#{mac}")`, where the MAC is the first half of
//! HMAC-SHA-256 over the rest. It is compared in constant time (A-S4-a).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The secret of a store's tokens; made when the store is first opened.
#[derive(Clone)]
pub struct TokenKey([u8; KEY_BYTES]);

/// Which task a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOf {
    /// The flow's name.
    pub flow: String,
    /// The execution's name.
    pub execution: String,
    /// The event id of the `TaskScheduled`.
    pub scheduled: u32,
}

impl TokenKey {
    /// A key from bytes that nobody else knows.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The token of a task.
    pub fn token(&self, flow: &str, execution: &str, scheduled: u32) -> String {
        let body = format!("{VERSION}#{flow}#{execution}#{scheduled}");
        let mac = hex(&self.mac(&body));
        URL_SAFE_NO_PAD.encode(format!("{body}#{mac}"))
    }

    /// The task that a token names; `None` if it is not one of this key.
    pub fn open(&self, token: &str) -> Option<TokenOf> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let text = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
        let text = String::from_utf8(text).ok()?;
        let (body, mac) = text.rsplit_once('#')?;
        let expected = hex(&self.mac(body));
        if !bool::from(expected.as_bytes().ct_eq(mac.as_bytes())) {
            return None;
        }
        let mut parts = body.split('#');
        let (version, flow, execution, scheduled) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let scheduled = scheduled.parse().ok()?;
        Some(TokenOf { flow: flow.to_owned(), execution: execution.to_owned(), scheduled })
    }

    /// The bytes, to be stored.
    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn mac(&self, body: &str) -> [u8; MAC_BYTES] {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        hmac.update(body.as_bytes());
        let full = hmac.finalize().into_bytes();
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(full.get(..MAC_BYTES).expect("SHA-256 has 32 bytes"));
        mac
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Bytes of a [`TokenKey`].
pub const KEY_BYTES: usize = 32;

const VERSION: &str = "v1";
const MAC_BYTES: usize = 16;
/// Longer texts are no tokens: two names of 128 characters, numbers and the MAC fit well.
const MAX_TOKEN_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_with_its_key_only() {
        let key = TokenKey::new([7; KEY_BYTES]);
        let token = key.token("flow", "exec-1", 4);
        let opened = key.open(&token).expect("the key made it");
        assert_eq!((opened.flow.as_str(), opened.execution.as_str()), ("flow", "exec-1"));
        assert_eq!(opened.scheduled, 4);
        assert!(TokenKey::new([8; KEY_BYTES]).open(&token).is_none(), "A-S4-a: other key");
    }

    #[test]
    fn no_changed_token_opens() {
        let key = TokenKey::new([7; KEY_BYTES]);
        let token = key.token("flow", "exec-1", 4);
        for at in 0..token.len() {
            for other in ['A', 'b', '3', '#', '-'] {
                let mut changed: Vec<char> = token.chars().collect();
                if changed[at] == other {
                    continue;
                }
                changed[at] = other;
                let changed: String = changed.into_iter().collect();
                assert_eq!(key.open(&changed), None, "A-S4-a: changed at {at}");
            }
        }
        for nonsense in ["", "===", "💥", "djEj", &"x".repeat(5_000)] {
            assert_eq!(key.open(nonsense), None, "A-S4-a");
        }
    }
}
