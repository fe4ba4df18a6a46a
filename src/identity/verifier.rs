//! The verifier: whether a token comes from the issuer, is for us, now, and from the right account.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::claims::{Claimed, seconds};
use super::issuer::ISSUER_URL;
use super::keys::{KeyError, choose_provider};

/// By how much clocks may differ unless told otherwise.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(10);

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1_024;

/// Why a caller is not let in. Everything is 401 but a valid token of another account, 403.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no `Authorization: Bearer` with a token, or more than one.
    #[error("no bearer token")]
    Missing,
    /// No token, too long, without a claim that it needs, or signed in an unknown way (`none`).
    #[error("malformed token")]
    Malformed,
    /// The token is not signed as its key is used for; a shared secret never is.
    #[error("the token's algorithm is not allowed")]
    Algorithm,
    /// No known key has the token's key id.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// Somebody else's token.
    #[error("the token has another issuer")]
    Issuer,
    /// A token for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It names no account, or one that the issuer has not verified.
    #[error("the token has no verified e-mail")]
    Unverified,
    /// A valid token of another account.
    #[error("the token is of another account")]
    Account,
}

impl IdentityError {
    /// The HTTP status to answer with: 401, or 403 for [`Account`](Self::Account).
    pub fn status(&self) -> u16 {
        match self {
            Self::Account => 403,
            _ => 401,
        }
    }
}

/// Who calls, by a token that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    email: String,
    subject: String,
    issued_at: u64,
    expires_at: u64,
}

impl Identity {
    /// The e-mail of the service account.
    pub fn email(&self) -> &str {
        &self.email
    }

    /// The number of the service account.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the token was signed, in whole seconds since the Unix epoch.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// When it ends, in whole seconds since the Unix epoch.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }
}

/// Lets in who has a token of the right account for the right audience.
///
/// Signatures by RS256 and ES256 are accepted, each only by a key that is for it.
#[derive(Clone)]
pub struct Verifier {
    keys: HashMap<String, (Algorithm, DecodingKey)>,
    issuer: String,
    audience: String,
    account: String,
    leeway: u64,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Trusts the keys of a JSON web key set, for one audience and the e-mail of one account.
    ///
    /// The issuer is [`ISSUER_URL`], the leeway [`DEFAULT_LEEWAY`]. Keys without an id and keys for
    /// other algorithms are passed over.
    ///
    /// # Errors
    ///
    /// [`KeyError::NoKeys`] if no key is left.
    pub fn new(
        jwks: &Value,
        audience: impl Into<String>,
        account: impl Into<String>,
    ) -> Result<Self, KeyError> {
        choose_provider();
        // Key by key: one of a kind that is unknown does not spoil the set.
        let keys = jwks.get("keys").and_then(Value::as_array).ok_or(KeyError::NoKeys)?;
        let keys: Vec<Jwk> = keys.iter().filter_map(|key| Jwk::deserialize(key).ok()).collect();
        let keys: HashMap<_, _> = JwkSet { keys }.keys.iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(KeyError::NoKeys);
        }
        Ok(Self {
            keys,
            issuer: ISSUER_URL.to_owned(),
            audience: audience.into(),
            account: account.into(),
            leeway: DEFAULT_LEEWAY.as_secs(),
        })
    }

    /// Sets the issuer that tokens must have.
    #[must_use]
    pub fn issuer(mut self, url: impl Into<String>) -> Self {
        self.issuer = url.into();
        self
    }

    /// Sets by how much clocks may differ; parts of a second do not count.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.as_secs();
        self
    }

    /// Checks a token.
    ///
    /// # Errors
    ///
    /// What is wrong with it; [`IdentityError::status`] says how to answer.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, IdentityError> {
        let claims = self.signed(token)?;
        if claims.iss != self.issuer {
            return Err(IdentityError::Issuer);
        }
        if claims.aud != self.audience {
            return Err(IdentityError::Audience);
        }
        self.in_time(&claims, seconds(now))?;
        let email = claims.email.filter(|_| claims.email_verified);
        let email = email.ok_or(IdentityError::Unverified)?;
        if email != self.account {
            return Err(IdentityError::Account);
        }
        let Claimed { sub: subject, iat: issued_at, exp: expires_at, .. } = claims;
        Ok(Identity { email, subject, issued_at, expires_at })
    }

    /// Checks the bearer token of a request.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify), and [`IdentityError::Missing`].
    pub fn verify_headers(
        &self,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        self.verify(bearer(headers).ok_or(IdentityError::Missing)?, now)
    }

    /// The claims, if the signature is right.
    fn signed(&self, token: &str) -> Result<Claimed, IdentityError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(IdentityError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| IdentityError::Malformed)?;
        // What must be understood is not: no extension is.
        if header.crit.is_some() {
            return Err(IdentityError::Malformed);
        }
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(IdentityError::Algorithm);
        }
        let key = header.kid.and_then(|id| self.keys.get(&id));
        let (algorithm, key) = key.ok_or(IdentityError::UnknownKey)?;
        if *algorithm != header.alg {
            return Err(IdentityError::Algorithm);
        }
        let decoded = jsonwebtoken::decode::<Claimed>(token, key, &signature_only(*algorithm));
        let TokenData { claims, .. } = decoded.map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => IdentityError::Signature,
            _ => IdentityError::Malformed,
        })?;
        Ok(claims)
    }

    fn in_time(&self, claims: &Claimed, now: u64) -> Result<(), IdentityError> {
        if now >= claims.exp.saturating_add(self.leeway) {
            return Err(IdentityError::Expired);
        }
        let from = claims.nbf.unwrap_or_default().max(claims.iat);
        if from > now.saturating_add(self.leeway) {
            return Err(IdentityError::NotYetValid);
        }
        Ok(())
    }
}

/// The claims are checked here, because the library would read the system's clock.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn usable(key: &Jwk) -> Option<(String, (Algorithm, DecodingKey))> {
    let (of_kind, algorithm) = match &key.algorithm {
        AlgorithmParameters::RSA(_) => (KeyAlgorithm::RS256, Algorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (KeyAlgorithm::ES256, Algorithm::ES256)
        }
        _ => return None,
    };
    if key.common.key_algorithm.is_some_and(|named| named != of_kind) {
        return None;
    }
    Some((key.common.key_id.clone()?, (algorithm, DecodingKey::from_jwk(key).ok()?)))
}

/// The only bearer token, if there is exactly one. The scheme has no case (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
