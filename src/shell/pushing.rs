//! Whether somebody pushes for a bus, so that no push configuration is stored and ignored.
//!
//! The pusher itself is a client far above; it signs on and off here.

use crate::config::SubscriptionConfig;
use crate::error::AdminError;
use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Pushing(Mutex<Option<Signer>>);

/// Whether a pusher can sign tokens.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "there are no pushers"))]
pub(crate) enum Signer {
    None,
    Issuer,
}

impl Pushing {
    /// Refuses a push configuration that nobody would act on (LIB-420, LIB-421).
    pub(crate) fn check(&self, name: &str, config: &SubscriptionConfig) -> Result<(), AdminError> {
        let Some(push) = &config.push_config else { return Ok(()) };
        let subscription = || name.to_owned();
        match *self.0.lock() {
            None => Err(AdminError::NoPusher { subscription: subscription() }),
            Some(Signer::None) if push.oidc_token.is_some() => {
                Err(AdminError::NoIssuer { subscription: subscription() })
            }
            Some(_) => Ok(()),
        }
    }

    /// There is at most one pusher, or everything would be pushed by both.
    #[cfg(feature = "http")]
    pub(crate) fn attach(&self, signer: Signer) -> Result<(), AdminError> {
        let mut attached = self.0.lock();
        if attached.is_some() {
            return Err(AdminError::PusherAttached);
        }
        *attached = Some(signer);
        Ok(())
    }

    #[cfg(feature = "http")]
    pub(crate) fn detach(&self) {
        *self.0.lock() = None;
    }
}
