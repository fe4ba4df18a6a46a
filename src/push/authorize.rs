//! What a push says in its `Authorization` header: nothing, what the program says, or a token.

use hyper::header::HeaderValue;

#[cfg(feature = "oidc")]
use crate::identity::Issuer;
use crate::received::Failure;
use crate::shell::core::BusCore;
use crate::sync::Arc;

type Said = dyn Fn() -> Result<String, Failure> + Send + Sync;

pub(super) enum Authorization {
    Nothing,
    Said(Box<Said>),
    #[cfg(feature = "oidc")]
    Token(Account),
}

/// In whose name is pushed, to whom, and who signs it.
#[cfg(feature = "oidc")]
pub(super) struct Account {
    pub(super) issuer: Arc<Issuer>,
    pub(super) email: String,
    pub(super) audience: String,
}

impl Authorization {
    /// The header for a push of now.
    pub(super) async fn header(&self, core: &Arc<BusCore>) -> Result<Option<HeaderValue>, Failure> {
        let text = match self {
            Self::Nothing => return Ok(None),
            Self::Said(say) => say()?,
            #[cfg(feature = "oidc")]
            Self::Token(account) => format!("Bearer {}", account.token(core).await?),
        };
        #[cfg(not(feature = "oidc"))]
        let _ = core;
        let mut value = HeaderValue::try_from(text)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

#[cfg(feature = "oidc")]
impl Account {
    /// A token that is valid for a while yet (PUSH-14).
    async fn token(&self, core: &Arc<BusCore>) -> Result<String, Failure> {
        let now = core.read().now.to_system();
        if let Some(token) = self.issuer.kept_token(&self.email, &self.audience, now) {
            return Ok(token);
        }
        // Making a key takes up to seconds, in which other tasks go on.
        let issuer = Arc::clone(&self.issuer);
        let (email, audience) = (self.email.clone(), self.audience.clone());
        let signing = move || issuer.token(&email, &audience, now);
        Ok(tokio::task::spawn_blocking(signing).await??)
    }
}
