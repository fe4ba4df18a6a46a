//! The limits of the language as a value; the limits of executions are the engine's.

/// What a definition may hold (F-90).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LanguageLimits {
    /// The size of the document in bytes; default 1 MiB.
    pub max_document_bytes: usize,
    /// How deep YAML collections may be nested; default 64.
    pub max_depth: usize,
    /// How many aliases may be expanded, those inside expansions included; default 100.
    pub max_alias_expansions: usize,
    /// How many branches a parallel step may have; default 100.
    pub max_branches: usize,
    /// How deep lists of steps may be nested, the top list counted; default 10.
    pub max_nesting: usize,
    /// The longest wait and the largest constant duration, in seconds; default 172,800 (2 days).
    pub max_wait_seconds: u64,
    /// The longest timeout and heartbeat interval of a task, in seconds; default 1 year.
    pub max_task_timeout_seconds: u64,
    /// The longest retry interval, in seconds; default 86,400 (1 day).
    pub max_retry_interval_seconds: u64,
    /// The most retries a policy may ask for; default 1,000.
    pub max_retry_attempts: u32,
    /// How many iterations of a foreach step run at a time; default 100.
    pub max_concurrency: usize,
}

impl Default for LanguageLimits {
    fn default() -> Self {
        Self {
            max_document_bytes: 1 << 20,
            max_depth: 64,
            max_alias_expansions: 100,
            max_branches: 100,
            max_nesting: 10,
            max_wait_seconds: 172_800,
            max_task_timeout_seconds: 365 * 86_400,
            max_retry_interval_seconds: 86_400,
            max_retry_attempts: 1_000,
            max_concurrency: 100,
        }
    }
}
