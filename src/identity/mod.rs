//! Identity of pushes: tokens that say who calls, as the service sends them, and their check.
//!
//! [`Issuer`] signs, [`Verifier`] checks, [`VerifierLayer`] guards an HTTP service. Everything is
//! told the time. Nothing here sends or listens; the documents that a foreign verifier fetches are
//! values to serve wherever it suits.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use siftbus::identity::{Issuer, SigningAlgorithm, Verifier};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let issuer = Issuer::new(SigningAlgorithm::Es256);
//! let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
//! let token = issuer.token("push@orders.example", "https://orders.example/push", now)?;
//!
//! let keys = issuer.jwks()?;
//! let verifier = Verifier::new(&keys, "https://orders.example/push", "push@orders.example")?;
//! assert_eq!(verifier.verify(&token, now)?.email(), "push@orders.example");
//!
//! let later = now + Duration::from_secs(3_700);
//! assert_eq!(verifier.verify(&token, later).unwrap_err().status(), 401);
//! # Ok(())
//! # }
//! ```

mod claims;
mod issuer;
mod keys;
mod layer;
mod verifier;

pub use issuer::{
    DISCOVERY_PATH, ISSUER_URL, Issuer, JWKS_PATH, REUSE_MARGIN, TOKEN_LIFETIME, TokenError,
};
pub use keys::{KeyError, MIN_RSA_BITS, SigningAlgorithm};
pub use layer::{VerifierFuture, VerifierLayer, VerifierService};
pub use verifier::{DEFAULT_LEEWAY, Identity, IdentityError, MAX_TOKEN_BYTES, Verifier};
