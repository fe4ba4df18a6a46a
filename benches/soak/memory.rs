//! Memory of the process while the soak runs: after a warm-up it must not grow.
//!
//! The highest of the last third may be above the highest of the first third after the warm-up by a
//! fifth and 8 MiB: what an allocator keeps in reserve, and what single samples are off by.

use std::time::Duration;

const MEBIBYTE: u64 = 1024 * 1024;
/// Shorter runs have no warm-up worth the name, and are not judged.
const SHORTEST: Duration = Duration::from_secs(20);

pub(crate) struct Memory {
    warm_up: Duration,
    length: Duration,
    samples: Vec<u64>,
}

impl Memory {
    pub(crate) fn new(length: Duration) -> Memory {
        let warm_up = (length / 4).min(Duration::from_secs(60));
        Memory { warm_up, length, samples: Vec::new() }
    }

    pub(crate) fn sample(&mut self, elapsed: Duration) {
        if elapsed >= self.warm_up {
            self.samples.extend(resident());
        }
    }

    pub(crate) fn judge(&self, seed: u64) {
        if self.length < SHORTEST || self.samples.len() < 6 {
            println!("memory: not judged, the run is too short or there is no /proc");
            return;
        }
        let third = self.samples.len() / 3;
        let highest = |samples: &[u64]| samples.iter().copied().max().unwrap_or_default();
        let (rest, late) = self.samples.split_at(self.samples.len() - third);
        let (early, middle) = rest.split_at(third);
        let [early, middle, late] = [early, middle, late].map(highest);
        let shown = |bytes: u64| bytes as f64 / MEBIBYTE as f64;
        println!(
            "memory: highest after warm-up, by thirds: {:.1}, {:.1}, {:.1} MiB",
            shown(early),
            shown(middle),
            shown(late)
        );
        let most = early + early / 5 + 8 * MEBIBYTE;
        assert!(late <= most, "seed {seed}: memory grows: {early} bytes first, {late} in the end");
    }
}

/// Bytes of this process in memory.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
