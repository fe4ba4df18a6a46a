//! What a token says (PUSH-13), and the stable number of an account (PUSH-14).

use std::time::SystemTime;

use rsa::sha2::{Digest, Sha256};
use serde::{Deserialize, Serialize};

/// The claims that are signed.
#[derive(Debug, Serialize)]
pub(super) struct Claims<'a> {
    pub(super) iss: &'a str,
    pub(super) aud: &'a str,
    pub(super) azp: &'a str,
    pub(super) sub: &'a str,
    pub(super) email: &'a str,
    pub(super) email_verified: bool,
    pub(super) iat: u64,
    pub(super) exp: u64,
}

/// The claims that are checked. A missing one makes the token malformed, apart from those that a
/// verifier has an error of its own for.
#[derive(Debug, Deserialize)]
pub(super) struct Claimed {
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) sub: String,
    pub(super) email: Option<String>,
    #[serde(default)]
    pub(super) email_verified: bool,
    pub(super) iat: u64,
    pub(super) exp: u64,
    pub(super) nbf: Option<u64>,
}

/// Whole seconds since the epoch; zero before it.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// 21 digits that begin with a one, as the service's do, always the same for one e-mail.
pub(super) fn account_number(email: &str) -> String {
    const TWENTY_DIGITS: u128 = 100_000_000_000_000_000_000;
    let hash = Sha256::digest(email.as_bytes());
    let number = hash.iter().take(16).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
    (TWENTY_DIGITS + number % TWENTY_DIGITS).to_string()
}
