//! Starting the job layer: which topics, which store, which defaults.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use siftbus::{Bus, Clock};

use crate::document::DEFAULT_QUEUE;
use crate::engine::{Engine, Settings};
use crate::error::BuildError;
use crate::handler::KindOptions;
use crate::id::IdFormat;
use crate::jobs::Jobs;
use crate::limits::DEFAULT_MAX_UNFINISHED;
use crate::queue::open_topic;
use crate::retry::Jitter;
use crate::store::{JobStore, MemoryStore};
use crate::ticker;

/// Makes [`Jobs`].
#[derive(Debug)]
pub struct JobsBuilder {
    bus: Bus,
    store: Option<Box<dyn JobStore>>,
    topic: String,
    dead_letters: Option<String>,
    events: Option<String>,
    known_kinds_only: bool,
    max_unfinished: u64,
    ids: IdFormat,
    queue_limits: HashMap<Arc<str>, usize>,
    defaults: KindOptions,
}

impl JobsBuilder {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            store: None,
            topic: "jobs".to_owned(),
            dead_letters: None,
            events: None,
            known_kinds_only: false,
            max_unfinished: DEFAULT_MAX_UNFINISHED,
            ids: IdFormat::default(),
            queue_limits: HashMap::new(),
            defaults: KindOptions::new(),
        }
    }

    /// Where the documents are. Default: in memory.
    #[must_use]
    pub fn store(mut self, store: impl JobStore) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// The topic that carries the jobs; its workers pull from `{topic}-worker`. Queues of their own
    /// have topics `{topic}.{queue}`; jobs of a priority that is not zero go to `{topic}+urgent`
    /// and `{topic}+idle`. Default: `jobs`.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.topic = name.into();
        self
    }

    /// A topic to which the messages of failed jobs go (J-06). Default: none.
    #[must_use]
    pub fn dead_letter_topic(mut self, name: impl Into<String>) -> Self {
        self.dead_letters = Some(name.into());
        self
    }

    /// A topic to which the document of every job goes that is over (J-36). Default: none.
    #[must_use]
    pub fn events_topic(mut self, name: impl Into<String>) -> Self {
        self.events = Some(name.into());
        self
    }

    /// Whether jobs are refused whose kind has no handler here. Default: no, they wait for one.
    #[must_use]
    pub fn known_kinds_only(mut self, only: bool) -> Self {
        self.known_kinds_only = only;
        self
    }

    /// How many jobs may wait or run at a time. Default: 1,000,000.
    #[must_use]
    pub fn max_unfinished(mut self, jobs: u64) -> Self {
        self.max_unfinished = jobs;
        self
    }

    /// How jobs are named that are given no id (J-20). Default: ULIDs.
    #[must_use]
    pub fn ids(mut self, format: IdFormat) -> Self {
        self.ids = format;
        self
    }

    /// How many jobs of a queue run at a time, over all workers, at least 1. Default: as many as
    /// there are workers for (J-39).
    #[must_use]
    pub fn queue_concurrency(mut self, queue: impl Into<Arc<str>>, jobs: usize) -> Self {
        self.queue_limits.insert(queue.into(), jobs.max(1));
        self
    }

    /// What holds for every kind that says nothing else.
    #[must_use]
    pub fn defaults(mut self, options: KindOptions) -> Self {
        self.defaults = options;
        self
    }

    /// How long completed jobs, and failed or cancelled ones, are kept. Default: 24 h and 7 days.
    #[must_use]
    pub fn finished_ttl(mut self, completed: Duration, failed: Duration) -> Self {
        self.defaults = self.defaults.completed_ttl(completed).failed_ttl(failed);
        self
    }

    /// Starts: makes topics and subscriptions that are missing, gives every job of the store that
    /// is not over a message again (J-37), and publishes what was left over (J-35).
    ///
    /// # Errors
    ///
    /// [`BuildError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn build(self) -> Result<Jobs, BuildError> {
        let bus = self.bus;
        let jobs_topic = open_topic(&bus, &self.topic).await?;
        let dead_letters = match &self.dead_letters {
            Some(name) => Some(open_topic(&bus, name).await?),
            None => None,
        };
        let events = match &self.events {
            Some(name) => Some(open_topic(&bus, name).await?),
            None => None,
        };
        let jitter = match bus.clock() {
            Clock::Manual(_) => Jitter::None,
            _ => Jitter::Equal,
        };
        let retry = self.defaults.retry.clone().unwrap_or_default().jitter_unless_set(jitter);
        let settings = Settings {
            defaults: self.defaults.retry(retry),
            dead_letters,
            events,
            known_kinds_only: self.known_kinds_only,
            max_unfinished: self.max_unfinished,
            ids: self.ids,
            queue_limits: self.queue_limits,
        };
        let store = self.store.unwrap_or_else(|| Box::new(MemoryStore::new()));
        let engine = Engine::new(bus, jobs_topic, store, settings);
        let weak = std::sync::Arc::downgrade(&engine);
        tokio::spawn(Engine::run_groups(weak.clone(), engine.group_ready().clone()));
        let jobs = Jobs { engine: engine.clone() };
        jobs.queue(DEFAULT_QUEUE).await?;
        ticker::recover(&jobs).await?;
        ticker::drain(&engine).await?;
        tokio::spawn(ticker::run(weak, engine.tick.clone()));
        Ok(jobs)
    }
}
