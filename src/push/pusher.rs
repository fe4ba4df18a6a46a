//! The pusher: runs a push over HTTP for each subscription whose configuration asks for one.
//!
//! A client of the bus: it follows the events, and after each looks at how things are now, so that
//! missed events, or several at once, lead to the same. How one push goes is `push/`'s and the
//! runner's business.

use std::collections::HashMap;
use std::fmt;

use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::client::HttpClient;
use super::http::HttpEndpoint;
use super::{Push, PushOptions, PushStats, check_window};
use crate::bus::Bus;
use crate::error::AdminError;
use crate::events::{Event, Events};
#[cfg(feature = "oidc")]
use crate::identity::Issuer;
use crate::push_config::PushConfig;
use crate::shell::core::BusCore;
use crate::shell::pushing::Signer;
use crate::subscription::Subscription;
use crate::sync::{Arc, Mutex};

/// Pushes for every subscription of a bus that has a [`PushConfig`].
///
/// While it is attached, such configurations are accepted; without one they are refused, so that
/// none is stored and ignored (LIB-420). A subscription that switches to pull, or goes, is pushed
/// no more; requests that are under way are left to finish (PUSH-29). When a `Pusher` is dropped
/// all requests are dropped, and their messages released at once; [`drain`](Self::drain) lets them
/// finish. The next pusher goes on with the configurations that are there.
///
/// It does not keep the bus open. Needs the feature `http`.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use siftbus::{Bus, PushConfig, Pusher, SubscriptionConfig, SubscriptionUpdate, TopicConfig};
///
/// let bus = Bus::new();
/// let pusher = Pusher::attach(&bus)?;
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
///
/// let push = PushConfig::new("http://127.0.0.1:8080/orders");
/// let billing = topic.subscribe("billing", SubscriptionConfig::new().push_config(push)).await?;
/// topic.publish("order 1").await?; // becomes a POST
///
/// billing.update(SubscriptionUpdate::new().push_config(None)).await?; // pulls again
/// pusher.drain().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a pusher stops it"]
pub struct Pusher {
    inner: Arc<Inner>,
    follower: JoinHandle<()>,
}

/// Makes a [`Pusher`].
#[derive(Clone, Debug, Default)]
pub struct PusherBuilder {
    options: PushOptions,
    client: Option<HttpClient>,
    #[cfg(feature = "oidc")]
    issuer: Option<Arc<Issuer>>,
}

struct Inner {
    core: Arc<BusCore>,
    runtime: Handle,
    options: PushOptions,
    client: HttpClient,
    #[cfg(feature = "oidc")]
    issuer: Arc<Issuer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the name of the subscription.
    running: HashMap<String, Running>,
    /// Pushes that begin nothing new.
    retired: JoinSet<()>,
    is_stopped: bool,
}

struct Running {
    subscription: Subscription,
    config: PushConfig,
    push: Push,
}

impl Pusher {
    /// Pushes for this bus on the current tokio runtime, with windows of up to
    /// [`DEFAULT_PUSH_WINDOW`](crate::DEFAULT_PUSH_WINDOW) requests.
    ///
    /// # Errors
    ///
    /// [`AdminError::NoRuntime`] outside of a tokio runtime, [`AdminError::PusherAttached`],
    /// [`AdminError::Closed`].
    pub fn attach(bus: &Bus) -> Result<Self, AdminError> {
        Self::builder().attach(bus)
    }

    /// A pusher with a window, a client or an issuer of one's own.
    pub fn builder() -> PusherBuilder {
        PusherBuilder::default()
    }

    /// How the push of a subscription is doing; `None` if none runs for it.
    pub fn stats(&self, subscription: &Subscription) -> Option<PushStats> {
        self.of(subscription, Push::stats)
    }

    /// What went wrong last with the push of a subscription, if anything did.
    pub fn last_failure(&self, subscription: &Subscription) -> Option<String> {
        self.of(subscription, Push::last_failure)?
    }

    fn of<T>(&self, subscription: &Subscription, look: impl FnOnce(&Push) -> T) -> Option<T> {
        let state = self.inner.state.lock();
        let running = state.running.get(subscription.name());
        let running = running.filter(|running| is_same(&running.subscription, subscription));
        running.map(|running| look(&running.push))
    }

    /// Who signs the tokens: serve its documents to those who verify them.
    #[cfg(feature = "oidc")]
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.inner.issuer
    }

    /// Pushes nothing more and waits for the requests that are under way. Bound it with
    /// [`Bus::timeout`].
    ///
    /// # Cancel safety
    ///
    /// If dropped, so is the pusher: what is still under way is dropped, its messages released.
    pub async fn drain(self) {
        let mut state = self.stop();
        for running in std::mem::take(&mut state.running).into_values() {
            state.retire(running, &self.inner.runtime);
        }
        while state.retired.join_next().await.is_some() {}
    }

    /// From here on nothing new begins.
    fn stop(&self) -> State {
        self.follower.abort();
        let mut state = self.inner.state.lock();
        if !state.is_stopped {
            self.inner.core.pushing.detach();
        }
        std::mem::replace(&mut *state, State { is_stopped: true, ..State::default() })
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.inner.state.lock().running.len();
        f.debug_struct("Pusher").field("subscriptions", &running).finish_non_exhaustive()
    }
}

impl PusherBuilder {
    /// How many requests of one subscription may be under way at once;
    /// [`PUSH_WINDOW`](crate::PUSH_WINDOW) is allowed (PUSH-23).
    #[must_use]
    pub fn max_window(mut self, max: usize) -> Self {
        self.options = self.options.max_window(max);
        self
    }

    /// What sends the requests, if another one than [`HttpClient::new`].
    #[must_use]
    pub fn client(mut self, client: &HttpClient) -> Self {
        self.client = Some(client.clone());
        self
    }

    /// Who signs the tokens. Default: an issuer by RS256 that makes its key when it first signs.
    #[cfg(feature = "oidc")]
    #[must_use]
    pub fn issuer(mut self, issuer: &Arc<Issuer>) -> Self {
        self.issuer = Some(Arc::clone(issuer));
        self
    }

    /// Pushes for this bus on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Pusher::attach`], and [`AdminError::Config`].
    pub fn attach(self, bus: &Bus) -> Result<Pusher, AdminError> {
        check_window(self.options.max_window)?;
        let core = Arc::clone(bus.core());
        let runtime = Handle::try_current().map_err(|_| AdminError::NoRuntime)?;
        core.check_open()?;
        let can_sign = cfg!(feature = "oidc");
        core.pushing.attach(if can_sign { Signer::Issuer } else { Signer::None })?;
        let inner = Arc::new(Inner {
            core,
            runtime: runtime.clone(),
            options: self.options,
            client: self.client.unwrap_or_default(),
            #[cfg(feature = "oidc")]
            issuer: self.issuer.unwrap_or_default(),
            state: Mutex::default(),
        });
        // First the ears, then the eyes: nothing is missed in between.
        let events = bus.events();
        inner.look_at_all();
        let follower = runtime.spawn(follow(Arc::clone(&inner), events));
        Ok(Pusher { inner, follower })
    }
}

async fn follow(inner: Arc<Inner>, mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::SubscriptionCreated { subscription, .. }
            | Event::SubscriptionUpdated { subscription }
            | Event::SubscriptionDeleted { subscription }
            | Event::SubscriptionDetached { subscription }
            | Event::SubscriptionExpired { subscription, .. } => inner.look_at(&subscription),
            Event::Missed(_) => inner.look_at_all(),
            _ => {}
        }
    }
}

impl Inner {
    fn look_at_all(&self) {
        let mut names: Vec<String> = self.state.lock().running.keys().cloned().collect();
        names.extend(self.core.subscriptions().iter().map(|found| found.name.to_string()));
        names.iter().for_each(|name| self.look_at(name));
    }

    /// Makes what runs for a subscription what its configuration of now asks for.
    fn look_at(&self, name: &str) {
        let found = self.core.subscription(name).ok().map(Subscription::new);
        let found = found.filter(|found| !found.is_detached());
        let wanted = found.and_then(|found| found.config().push_config.map(|push| (found, push)));
        let mut state = self.state.lock();
        if state.is_stopped {
            return;
        }
        let is_wanted = |running: &Running| {
            wanted.as_ref().is_some_and(|(subscription, config)| {
                is_same(&running.subscription, subscription) && running.config == *config
            })
        };
        if state.running.get(name).is_some_and(is_wanted) {
            return;
        }
        if let Some(other) = state.running.remove(name) {
            state.retire(other, &self.runtime);
        }
        // One that is gone again meanwhile cannot be started.
        let started = wanted.and_then(|(subscription, config)| self.start(subscription, config));
        if let Some(running) = started {
            state.running.insert(name.to_owned(), running);
        }
    }

    fn start(&self, subscription: Subscription, config: PushConfig) -> Option<Running> {
        let endpoint = HttpEndpoint::configured(&subscription, &config, &self.client).ok()?;
        #[cfg(feature = "oidc")]
        let endpoint = match &config.oidc_token {
            Some(token) if token.audience.is_empty() => {
                endpoint.identify(&self.issuer, &token.service_account_email, &config.push_endpoint)
            }
            Some(token) => {
                endpoint.identify(&self.issuer, &token.service_account_email, &token.audience)
            }
            None => endpoint,
        };
        let push = subscription.push_on(&self.runtime, endpoint, self.options.clone()).ok()?;
        Some(Running { subscription, config, push })
    }
}

impl State {
    /// Begins nothing new; what is under way goes on until it has ended (PUSH-29).
    fn retire(&mut self, running: Running, runtime: &Handle) {
        running.push.stop();
        while self.retired.try_join_next().is_some() {}
        let ends = async move {
            running.push.drain().await;
        };
        self.retired.spawn_on(ends, runtime);
    }
}

/// Whether two handles are of the same incarnation.
fn is_same(one: &Subscription, other: &Subscription) -> bool {
    Arc::ptr_eq(one.shared(), other.shared())
}
