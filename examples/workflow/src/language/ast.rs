//! The definition of a flow as values: what the parser makes and the engine executes.
//!
//! A definition is complete and checked: names are unique, every `goto` is resolved to a step of
//! the same list, every number is within its limit. What is evaluated at run time (sources,
//! conditions, a dynamic duration) is kept as a parsed expression. Nothing here reads a clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::language::{Condition, Mapping, Object, Path, Position, Source};

/// The name of a step; unique in its definition.
pub type StepName = Arc<str>;

/// Steps that run one after another (F-20).
pub type StepList = Vec<Step>;

/// A flow: the whole document, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The notation: `v1` or `v1beta1`.
    pub version: String,
    /// The top list; its end is the end of the execution (F-20).
    pub steps: StepList,
    /// Makes the flow's input from the Input of the execution; `None`: the Input as it is.
    pub input_mappings: Option<Vec<Mapping>>,
    /// Makes the flow's output; `None`: `$local`.
    pub output_mappings: Option<Vec<Mapping>>,
    /// The time the whole execution may take; no limit by default.
    pub timeout: Option<Duration>,
    /// `x-strict`: a missing path is `FnF.ParameterError` instead of a key left out (F-14).
    pub strict: bool,
    /// The keys that do not change the execution, kept as they are: `name`, `description`, `x-*`.
    pub annotations: Object,
    /// How many steps there are, nested ones included; step ids are below it.
    pub step_count: usize,
}

/// A step of a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The number of this step in the order of the document, from 0.
    pub id: usize,
    /// The name, by which `goto` and the history call it.
    pub name: StepName,
    /// Makes the step's input (F-03); `None`: parent input overlaid by parent local (F-02).
    pub input_mappings: Option<Vec<Mapping>>,
    /// Makes the step's output (F-05); `None`: the default of F-06.
    pub output_mappings: Option<Vec<Mapping>>,
    /// After this step its list ends (F-20); always true for `succeed`.
    pub end: bool,
    /// What the step does.
    pub kind: StepKind,
    /// Where the step begins in the text.
    pub position: Position,
    /// The keys that do not change the execution: `description`, `x-*`.
    pub annotations: Object,
}

/// What a step does, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// Invokes a resource and takes its result.
    Task(Task),
    /// Does nothing but its mappings (F-30).
    Pass,
    /// Waits for a while or until an instant.
    Wait(Wait),
    /// Takes the first branch whose condition is true.
    Choice(Choice),
    /// Runs branches at the same time.
    Parallel(Parallel),
    /// Runs its steps once for each element of an array.
    Foreach(Foreach),
    /// Ends its list: a pass step with `end: true` (F-20).
    Succeed,
    /// Fails with an error.
    Fail(Fail),
}

/// A `task` step.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What is invoked.
    pub resource: Resource,
    /// When the step has its result.
    pub pattern: Pattern,
    /// The time one attempt may take, from `TaskScheduled` to the result.
    pub timeout: Option<Duration>,
    /// `x-heartbeatSeconds`: the longest silence between two heartbeats of a callback task.
    pub heartbeat: Option<Duration>,
    /// Parameters of resources that are not functions, in order; `$` is the step's input.
    pub service_params: Vec<(String, Source)>,
    /// What happens on an error.
    pub handling: ErrorHandling,
}

/// What a task invokes; its text fits a row of the table of resources (section 3.8).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Resource {
    /// `resourceArn` as written.
    pub arn: String,
    /// Where invocations go; region and account do not count.
    pub target: ResourceTarget,
}

/// Where invocations of a resource go.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ResourceTarget {
    /// `acs:fc:…:services/{S}/functions/{F}`.
    Function {
        /// The service.
        service: String,
        /// The function of the service.
        function: String,
    },
    /// `acs:mns:…:/topics/{T}/messages`.
    MessageTopic(String),
    /// `acs:mns:…:/queues/{Q}/messages`.
    MessageQueue(String),
    /// `acs:fnf:…:flow/{NAME}`.
    Flow(String),
    /// `bus:topic/{T}`: a topic of the bus.
    BusTopic(String),
    /// `job:{KIND}`: a job of this kind.
    Job(String),
}

/// When a task has its result.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Pattern {
    /// When the worker has answered; for messages and flows, when it was submitted (F-60).
    #[default]
    RequestResponse,
    /// When a child flow or job has ended (F-61).
    Sync,
    /// When somebody has reported the result with the task token (F-62).
    WaitForCallback,
}

/// A `wait` step: how long.
#[derive(Clone, Debug, PartialEq)]
pub enum Wait {
    /// `duration`, a constant, in whole milliseconds.
    For(Duration),
    /// `duration`, a path on the step's input that gives seconds.
    ForPath(Path),
    /// `timestamp`, a constant; in the past it ends at once.
    Until(SystemTime),
    /// `timestamp`, a path on the step's input that gives RFC 3339 text.
    UntilPath(Path),
}

/// A `choice` step.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The branches, in order; the first whose condition is true is taken.
    pub choices: Vec<ChoiceBranch>,
    /// Taken when no condition is true; `None`: the step ends with `{}`.
    pub default: Option<Continuation>,
}

/// A condition and what follows when it is true.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceBranch {
    /// Evaluated on the step's input.
    pub condition: Condition,
    /// What follows.
    pub then: Continuation,
}

/// Steps to run, then a step to go to; both may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Continuation {
    /// The steps of the branch; empty when there are none.
    pub steps: StepList,
    /// Where the list of the choice goes on after the steps ended (F-21).
    pub goto: Option<Goto>,
}

/// A step of the same list to go on with (F-21).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Goto {
    /// The name of the step.
    pub step: StepName,
    /// Its index in the list that holds the step with the `goto`.
    pub index: usize,
}

/// A `parallel` step.
#[derive(Clone, Debug, PartialEq)]
pub struct Parallel {
    /// What runs at the same time (F-50); never empty.
    pub branches: Vec<StepList>,
    /// What happens on an error of a branch (F-53).
    pub handling: ErrorHandling,
}

/// A `foreach` step.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreach {
    /// A path on the step's input that gives the array.
    pub collection: Path,
    /// The key of an iteration's input that holds the element.
    pub item: String,
    /// The key of an iteration's input that holds the index from 0, if wanted.
    pub index: Option<String>,
    /// What runs for each element.
    pub steps: StepList,
    /// `x-maxConcurrency`: how many iterations run at a time, if fewer than the limit allows.
    pub max_concurrency: Option<usize>,
    /// What happens on an error of an iteration (F-53).
    pub handling: ErrorHandling,
}

/// A `fail` step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fail {
    /// The error name; `None`: `FnF.StepFailed`.
    pub error: Option<Source>,
    /// The cause; `None`: empty.
    pub cause: Option<Source>,
}

/// What a task, parallel or foreach step does on an error (F-70).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorHandling {
    /// Retry policies; the first that matches the error is used.
    pub retry: Vec<RetryPolicy>,
    /// Where to go when no retry is left; the first that matches the error is used.
    pub catch: Vec<Catch>,
    /// Makes the output when a catch matched; `None`: `{}`.
    pub error_mappings: Option<Vec<Mapping>>,
}

/// When and how often a step is run again after an error.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The errors it is for; never empty.
    pub errors: Vec<ErrorPattern>,
    /// The delay before the first retry; default 1 s.
    pub interval: Duration,
    /// The longest delay; default and maximum 86,400 s.
    pub max_interval: Duration,
    /// The number of retries after the first attempt; default 3.
    pub max_attempts: u32,
    /// What the delay is multiplied by for each further retry; default 2, at least 1.
    pub multiplier: f64,
    /// `x-jitter`: how the delay is spread (F-71).
    pub jitter: Jitter,
}

/// How a retry delay is spread.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Jitter {
    /// Exactly the delay.
    #[default]
    None,
    /// Anything from zero to the delay.
    Full,
    /// Half the delay, plus anything from zero to the other half.
    Equal,
}

/// Where a step's list goes on after an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Catch {
    /// The errors it is for; never empty.
    pub errors: Vec<ErrorPattern>,
    /// The step to go on with.
    pub goto: Goto,
}

/// An entry of an `errors` list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ErrorPattern {
    /// `FnF.ALL`: every error that can be caught.
    All,
    /// This error name exactly.
    Name(String),
}

impl Pattern {
    /// The pattern as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestResponse => "requestResponse",
            Self::Sync => "sync",
            Self::WaitForCallback => "waitForCallback",
        }
    }
}

impl Definition {
    /// The step of this name, wherever it is nested.
    pub fn step(&self, name: &str) -> Option<&Step> {
        find(&self.steps, &mut |step| &*step.name == name)
    }

    /// The step of this number, wherever it is nested.
    pub fn step_by_id(&self, id: usize) -> Option<&Step> {
        find(&self.steps, &mut |step| step.id == id)
    }
}

impl Step {
    /// The `type` of the step as written.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            StepKind::Task(_) => "task",
            StepKind::Pass => "pass",
            StepKind::Wait(_) => "wait",
            StepKind::Choice(_) => "choice",
            StepKind::Parallel(_) => "parallel",
            StepKind::Foreach(_) => "foreach",
            StepKind::Succeed => "succeed",
            StepKind::Fail(_) => "fail",
        }
    }

    /// What the step does on an error; `None` for types that have no say in it.
    pub fn handling(&self) -> Option<&ErrorHandling> {
        match &self.kind {
            StepKind::Task(task) => Some(&task.handling),
            StepKind::Parallel(parallel) => Some(&parallel.handling),
            StepKind::Foreach(foreach) => Some(&foreach.handling),
            _ => None,
        }
    }

    /// The lists nested in this step, in order.
    pub fn lists(&self) -> Vec<&StepList> {
        match &self.kind {
            StepKind::Choice(choice) => {
                let branches = choice.choices.iter().map(|branch| &branch.then);
                branches.chain(&choice.default).map(|then| &then.steps).collect()
            }
            StepKind::Parallel(parallel) => parallel.branches.iter().collect(),
            StepKind::Foreach(foreach) => vec![&foreach.steps],
            _ => Vec::new(),
        }
    }
}

impl ErrorPattern {
    /// Whether the pattern matches the error of this name; the error must be one that can be
    /// caught.
    pub fn matches(&self, error: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name == error,
        }
    }
}

impl RetryPolicy {
    /// Whether the policy is for the error of this name.
    pub fn matches(&self, error: &str) -> bool {
        self.errors.iter().any(|pattern| pattern.matches(error))
    }

    /// The delay before retry `k`, counted from 0, without jitter (F-70).
    pub fn delay(&self, k: u32) -> Duration {
        let factor = self.multiplier.powi(i32::try_from(k).unwrap_or(i32::MAX));
        let seconds = self.interval.as_secs_f64() * factor;
        let longest = self.max_interval.as_secs_f64();
        // A product of zero and infinity is not a number: an interval of zero stays zero.
        let seconds = if seconds.is_nan() { 0.0 } else { seconds.min(longest) };
        Duration::from_millis((seconds * 1000.0).round() as u64)
    }
}

impl Catch {
    /// Whether the catch is for the error of this name.
    pub fn matches(&self, error: &str) -> bool {
        self.errors.iter().any(|pattern| pattern.matches(error))
    }
}

/// Nesting is bounded by the limits of the parser, so the recursion is.
fn find<'a>(steps: &'a [Step], wanted: &mut dyn FnMut(&Step) -> bool) -> Option<&'a Step> {
    steps.iter().find_map(|step| {
        if wanted(step) {
            return Some(step);
        }
        step.lists().into_iter().find_map(|list| find(list, wanted))
    })
}
