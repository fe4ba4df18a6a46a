//! The issuer: signs tokens for pushes, uses them again, and shows its public keys.
//!
//! Leaves out serving: the documents are values.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use jsonwebtoken::Header;
use serde_json::{Value, json};
use thiserror::Error;

use super::claims::{Claims, account_number, seconds};
use super::keys::{KeyError, KeyPair, SigningAlgorithm};
use crate::error::Code;
use crate::sync::{Mutex, OnceLock};

/// The `iss` of tokens unless another one is set: the service's (PUSH-13).
pub const ISSUER_URL: &str = "https://accounts.google.com";

/// How long a token is valid (PUSH-13).
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// How long before its end a token is no longer handed out again (PUSH-14).
pub const REUSE_MARGIN: Duration = Duration::from_secs(300);

/// Where verifiers look for [`Issuer::discovery`].
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Where [`Issuer::discovery`] says that [`Issuer::jwks`] is.
pub const JWKS_PATH: &str = "/oauth2/v3/certs";

/// How many tokens are kept for use again. More accounts and audiences only sign more often.
const KEPT_TOKENS: usize = 1_024;

/// A token that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// There is no service account to speak for (PUSH-15).
    #[error("a token needs the e-mail of a service account")]
    NoAccount,
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Signing failed.
    #[error("the token could not be signed: {reason}")]
    Signing {
        /// What the cryptography says.
        reason: String,
    },
}

impl TokenError {
    /// Always [`Code::InvalidArgument`].
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

struct Kept {
    token: String,
    issued: u64,
}

impl Kept {
    /// A token from the future of `now` is not used: the clock was set back.
    fn serves(&self, now: u64) -> bool {
        let reused = TOKEN_LIFETIME.saturating_sub(REUSE_MARGIN).as_secs();
        now.checked_sub(self.issued).is_some_and(|age| age < reused)
    }
}

/// Signs tokens that say for which service account a push speaks (PUSH-13, PUSH-14).
///
/// Its key is made when it is first needed; an RSA key takes up to seconds, on the thread that
/// asks. [`jwks`](Self::jwks) makes it ahead. Tokens are used again for 55 minutes.
///
/// Receivers that insist on the service's own certificates refuse these tokens; point them at
/// [`jwks`](Self::jwks), such as by `certs_url` in the service's library for Python.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use siftbus::identity::{Issuer, SigningAlgorithm};
///
/// let issuer = Issuer::new(SigningAlgorithm::Es256).url("http://127.0.0.1:8085");
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
/// let token = issuer.token("push@orders.example", "https://orders.example/push", now)?;
///
/// // For the next 55 minutes it is the same.
/// let soon = now + Duration::from_secs(55 * 60 - 1);
/// assert_eq!(issuer.token("push@orders.example", "https://orders.example/push", soon)?, token);
/// let late = now + Duration::from_secs(55 * 60);
/// assert_ne!(issuer.token("push@orders.example", "https://orders.example/push", late)?, token);
/// # Ok::<(), siftbus::identity::TokenError>(())
/// ```
pub struct Issuer {
    url: String,
    algorithm: SigningAlgorithm,
    key: OnceLock<Result<KeyPair, KeyError>>,
    kept: Mutex<HashMap<(String, String), Kept>>,
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new(SigningAlgorithm::Rs256)
    }
}

impl fmt::Debug for Issuer {
    /// Shows neither keys nor tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Issuer");
        shown.field("url", &self.url).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Issuer {
    /// With a key of its own, and [`ISSUER_URL`] as `iss`.
    pub fn new(algorithm: SigningAlgorithm) -> Self {
        let kept = Mutex::new(HashMap::new());
        Self { url: ISSUER_URL.to_owned(), algorithm, key: OnceLock::new(), kept }
    }

    /// With a given private key in PEM: PKCS #8, PKCS #1 for RSA, or SEC 1 for P-256.
    ///
    /// # Errors
    ///
    /// [`KeyError::Pem`] and, under [`MIN_RSA_BITS`](super::MIN_RSA_BITS), [`KeyError::TooShort`].
    pub fn from_pem(algorithm: SigningAlgorithm, pem: &str) -> Result<Self, KeyError> {
        let pair = KeyPair::from_pem(algorithm, pem)?;
        Ok(Self { key: OnceLock::from(Ok(pair)), ..Self::new(algorithm) })
    }

    /// Sets `iss`, by which verifiers know the issuer (PUSH-14).
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self.kept = Mutex::new(HashMap::new());
        self
    }

    /// The token of an account for an audience, to be sent as `Authorization: Bearer <token>`.
    ///
    /// It is valid for [`TOKEN_LIFETIME`] from when it was signed, and is handed out again until
    /// [`REUSE_MARGIN`] before that ends (PUSH-14).
    ///
    /// # Errors
    ///
    /// [`TokenError::NoAccount`] if the e-mail is empty (PUSH-15).
    pub fn token(
        &self,
        email: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        if email.is_empty() {
            return Err(TokenError::NoAccount);
        }
        if let Some(token) = self.kept_token(email, audience, now) {
            return Ok(token);
        }
        // Signing is slow, so it happens outside of the lock; two at once merely sign twice.
        let now = seconds(now);
        let token = self.sign(email, audience, now)?;
        let whose = (email.to_owned(), audience.to_owned());
        self.keep(whose, Kept { token: token.clone(), issued: now }, now);
        Ok(token)
    }

    /// A token that was signed before and serves still.
    pub(crate) fn kept_token(
        &self,
        email: &str,
        audience: &str,
        now: SystemTime,
    ) -> Option<String> {
        let (now, whose) = (seconds(now), (email.to_owned(), audience.to_owned()));
        let kept = self.kept.lock();
        kept.get(&whose).filter(|kept| kept.serves(now)).map(|kept| kept.token.clone())
    }

    fn sign(&self, email: &str, audience: &str, now: u64) -> Result<String, TokenError> {
        let key = self.key()?;
        let number = account_number(email);
        let claims = Claims {
            iss: &self.url,
            aud: audience,
            azp: &number,
            sub: &number,
            email,
            email_verified: true,
            iat: now,
            exp: now.saturating_add(TOKEN_LIFETIME.as_secs()),
        };
        let header = Header { kid: Some(key.id.clone()), ..Header::new(self.algorithm.jwt()) };
        jsonwebtoken::encode(&header, &claims, &key.private)
            .map_err(|error| TokenError::Signing { reason: error.to_string() })
    }

    fn keep(&self, whose: (String, String), token: Kept, now: u64) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_TOKENS {
            kept.retain(|_, token| token.serves(now));
        }
        if kept.len() < KEPT_TOKENS || kept.contains_key(&whose) {
            kept.insert(whose, token);
        }
    }

    fn key(&self) -> Result<&KeyPair, KeyError> {
        let key = self.key.get_or_init(|| KeyPair::generate(self.algorithm));
        key.as_ref().map_err(Clone::clone)
    }

    /// The public keys as a JSON web key set, for [`JWKS_PATH`].
    ///
    /// # Errors
    ///
    /// [`KeyError::Unusable`] if the key could not be made.
    pub fn jwks(&self) -> Result<Value, KeyError> {
        Ok(json!({ "keys": [self.key()?.public] }))
    }

    /// The discovery document of OpenID Connect, for [`DISCOVERY_PATH`]; `base` is the address
    /// where the documents are served, such as `http://127.0.0.1:8085`.
    pub fn discovery(&self, base: &str) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}{JWKS_PATH}", base.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm.name()],
            "claims_supported":
                ["aud", "azp", "email", "email_verified", "exp", "iat", "iss", "sub"],
        })
    }

    /// What to answer to a GET of `path`: one of the two documents, or `None` for other paths.
    ///
    /// # Errors
    ///
    /// As [`jwks`](Self::jwks).
    pub fn document(&self, path: &str, base: &str) -> Result<Option<Value>, KeyError> {
        match path {
            DISCOVERY_PATH => Ok(Some(self.discovery(base))),
            JWKS_PATH => self.jwks().map(Some),
            _ => Ok(None),
        }
    }
}
