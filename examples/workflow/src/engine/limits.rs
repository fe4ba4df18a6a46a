//! Every limit of the engine as a value; the defaults are the figures of the service (F-90).
//!
//! Limits of definitions (branches, nesting, constants) are checked by the language half when a
//! flow is created; here are those that an execution meets while it runs.

use std::time::Duration;

/// What an engine accepts (F-90).
///
/// | field | default | beyond it |
/// | --- | --- | --- |
/// | `data_bytes` | 32,768 | `FnF.DataLimitExceeded` (F-10), `EntityTooLarge` for a report |
/// | `request_bytes` | 1,048,576 | `EntityTooLarge` |
/// | `events` | 5,000 | `FnF.HistoryLimitExceeded` |
/// | `flows` | 10,000 | `TooManyFlows` |
/// | `running_executions` | 10,000 | `TooManyExecutions` |
/// | `concurrent_iterations` | 100 | further iterations wait |
/// | `wait` | 2 days | `FnF.ParameterError` |
/// | `inflight` per resource | 1,000 | further invocations wait (F-116) |
/// | `error_chars`, `cause_chars` | 128, 4,096 | cut (F-63), `InvalidArgument` for a report |
/// | `history_retention` | 90 days | the execution is removed |
/// | `snapshot_events` | 1,000 | a snapshot is stored (F-126) |
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowLimits {
    /// Bytes of input, local and output of one step together, as compact JSON.
    pub data_bytes: usize,
    /// Bytes of one request: a definition, an input, a report.
    pub request_bytes: usize,
    /// Events of one execution, the final one included; at least 2.
    pub events: u32,
    /// Flows in one store.
    pub flows: usize,
    /// Executions that are not final.
    pub running_executions: usize,
    /// Iterations of one `foreach` that run at once.
    pub concurrent_iterations: u32,
    /// The longest wait of one step.
    pub wait: Duration,
    /// Open invocations of one resource.
    pub inflight: usize,
    /// Characters of an error name.
    pub error_chars: usize,
    /// Characters of a cause.
    pub cause_chars: usize,
    /// How long a final execution is kept.
    pub history_retention: Duration,
    /// After how many events of an execution its state is stored again.
    pub snapshot_events: u32,
}

impl Default for FlowLimits {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            data_bytes: 32 * 1_024,
            request_bytes: 1_024 * 1_024,
            events: 5_000,
            flows: 10_000,
            running_executions: 10_000,
            concurrent_iterations: 100,
            wait: Duration::from_secs(2 * DAY),
            inflight: 1_000,
            error_chars: 128,
            cause_chars: 4_096,
            history_retention: Duration::from_secs(90 * DAY),
            snapshot_events: 1_000,
        }
    }
}
