//! Key pairs: made, read from PEM, and their public half as a JSON web key.

use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey};
use p256::SecretKey;
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey};
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts;
use thiserror::Error;

use crate::error::Code;

/// Bits of an RSA key: of those that are made, and at least of those that are given.
pub const MIN_RSA_BITS: usize = 2_048;

/// How tokens are signed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// RSA with SHA-256, as the service signs; every verifier knows it.
    #[default]
    Rs256,
    /// ECDSA on P-256 with SHA-256: keys are made at once, and tokens are shorter.
    Es256,
}

impl SigningAlgorithm {
    /// Its name in headers and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    pub(super) fn jwt(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
        }
    }
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is no private key of that kind in PEM (PKCS #8, PKCS #1 or SEC 1).
    #[error("not a private key for {algorithm} in PEM")]
    Pem {
        /// The name of the algorithm it should have been for.
        algorithm: &'static str,
    },
    /// The RSA key has fewer than [`MIN_RSA_BITS`] bits.
    #[error("an RSA key needs at least {MIN_RSA_BITS} bits (bits={bits})")]
    TooShort {
        /// How many it has.
        bits: usize,
    },
    /// The key set is none, or has no key with an id for RS256 or ES256.
    #[error("no JSON web key set with a usable key")]
    NoKeys,
    /// The key could not be made or encoded.
    #[error("the key cannot be used: {reason}")]
    Unusable {
        /// What the cryptography says.
        reason: String,
    },
}

impl KeyError {
    /// Always [`Code::InvalidArgument`].
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }

    fn unusable(reason: impl std::fmt::Display) -> Self {
        Self::Unusable { reason: reason.to_string() }
    }
}

/// A private key, ready to sign, and its public half.
pub(super) struct KeyPair {
    pub(super) private: EncodingKey,
    pub(super) public: Jwk,
    pub(super) id: String,
}

impl KeyPair {
    pub(super) fn generate(algorithm: SigningAlgorithm) -> Result<KeyPair, KeyError> {
        match algorithm {
            SigningAlgorithm::Rs256 => {
                let key = RsaPrivateKey::new(&mut OsRng, MIN_RSA_BITS);
                Self::of_rsa(&key.map_err(KeyError::unusable)?)
            }
            SigningAlgorithm::Es256 => Self::of_p256(&SecretKey::random(&mut OsRng)),
        }
    }

    pub(super) fn from_pem(algorithm: SigningAlgorithm, pem: &str) -> Result<KeyPair, KeyError> {
        let wrong = || KeyError::Pem { algorithm: algorithm.name() };
        match algorithm {
            SigningAlgorithm::Rs256 => {
                let key = RsaPrivateKey::from_pkcs8_pem(pem).ok();
                let key = key.or_else(|| RsaPrivateKey::from_pkcs1_pem(pem).ok());
                Self::of_rsa(&key.ok_or_else(wrong)?)
            }
            SigningAlgorithm::Es256 => {
                let key = SecretKey::from_pkcs8_pem(pem).ok();
                let key = key.or_else(|| SecretKey::from_sec1_pem(pem).ok());
                Self::of_p256(&key.ok_or_else(wrong)?)
            }
        }
    }

    fn of_rsa(key: &RsaPrivateKey) -> Result<KeyPair, KeyError> {
        let bits = key.n().bits();
        if bits < MIN_RSA_BITS {
            return Err(KeyError::TooShort { bits });
        }
        let der = key.to_pkcs1_der().map_err(KeyError::unusable)?;
        Self::of(EncodingKey::from_rsa_der(der.as_bytes()), SigningAlgorithm::Rs256)
    }

    fn of_p256(key: &SecretKey) -> Result<KeyPair, KeyError> {
        let der = key.to_pkcs8_der().map_err(KeyError::unusable)?;
        Self::of(EncodingKey::from_ec_der(der.as_bytes()), SigningAlgorithm::Es256)
    }

    fn of(private: EncodingKey, algorithm: SigningAlgorithm) -> Result<KeyPair, KeyError> {
        choose_provider();
        let public = Jwk::from_encoding_key(&private, algorithm.jwt());
        let mut public = public.map_err(KeyError::unusable)?;
        let id = public.thumbprint(ThumbprintHash::SHA256).map_err(KeyError::unusable)?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(KeyPair { private, public, id })
    }
}

/// Settles on the cryptography of this crate, unless the program has chosen another one before.
///
/// Without a choice the library panics as soon as another crate switches on a second one.
pub(super) fn choose_provider() {
    let _another_was_chosen = DEFAULT_PROVIDER.install_default();
}
