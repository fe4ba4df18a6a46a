//! Measuring: contestants run in turn, round after round, and medians are kept.
//!
//! The machine's speed drifts, so only what was measured in the same rounds is compared: the ratio
//! of two contestants is the median of the ratios of each round.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What is timed: answers how long it took, for how many units.
pub(crate) type Contestant<'a> = Box<dyn FnMut() -> Sample + 'a>;

/// One run of a contestant.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) time: Duration,
    pub(crate) units: usize,
}

impl Sample {
    fn nanos(self) -> f64 {
        self.time.as_secs_f64() * 1e9 / self.units as f64
    }
}

/// Nanoseconds per unit: of each contestant, for each round.
#[derive(Debug)]
pub(crate) struct Results(Vec<Vec<f64>>);

impl Results {
    /// The median of one contestant, in nanoseconds per unit.
    pub(crate) fn nanos(&self, contestant: usize) -> f64 {
        median(self.0[contestant].clone())
    }

    /// The median of the rounds' ratios of one contestant to another.
    pub(crate) fn ratio(&self, ours: usize, peer: usize) -> f64 {
        let pairs = self.0[ours].iter().zip(&self.0[peer]);
        median(pairs.map(|(ours, peer)| ours / peer).collect())
    }

    /// The median of the rounds' differences of one contestant to another, in nanoseconds.
    pub(crate) fn difference(&self, more: usize, less: usize) -> f64 {
        let pairs = self.0[more].iter().zip(&self.0[less]);
        median(pairs.map(|(more, less)| more - less).collect())
    }
}

/// Runs all contestants `rounds` times in turn, after one round that does not count.
pub(crate) fn race(rounds: usize, mut contestants: Vec<Contestant<'_>>) -> Results {
    let mut results = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..=rounds {
        for (run, kept) in contestants.iter_mut().zip(&mut results) {
            let sample = run();
            if round > 0 {
                kept.push(sample.nanos());
            }
        }
    }
    Results(results)
}

/// Times `units` of work by the wall clock.
pub(crate) fn wall(units: usize, work: impl FnOnce()) -> Sample {
    let start = Instant::now();
    work();
    Sample { time: start.elapsed(), units }
}

/// Times `units` of work by the processor time of the whole process.
pub(crate) fn cpu(units: usize, work: impl FnOnce()) -> Sample {
    let start = cpu_time();
    work();
    Sample { time: cpu_time() - start, units }
}

/// Processor time that this process has used.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes of this process that are in memory.
pub(crate) fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * rustix::param::page_size()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A runtime on the calling thread.
pub(crate) fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// A runtime with two workers.
pub(crate) fn two_threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// A payload whose clones share one allocation.
pub(crate) fn payload(bytes: usize) -> bytes::Bytes {
    let payload = bytes::Bytes::from(vec![7; bytes]);
    drop(payload.clone());
    payload
}
