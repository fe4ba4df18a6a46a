//! Documents in the order of their ids, for the way jobs use them: ids grow with time, so that a
//! new one mostly goes to the end, and those that are looked for together mostly lie side by side.

use crate::document::Job;
use crate::id::JobId;

/// Documents by id. Both finding what lies behind the last one that was found and adding to the end
/// take no search.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// In order, none of them empty.
    runs: Vec<Run>,
    /// The run and the place in it where something was last found.
    last: (usize, usize),
}

/// Documents that follow each other, in order.
type Run = Vec<(JobId, Box<Job>)>;

/// A run has at most so many documents.
const RUN: usize = 256;

impl Documents {
    pub(super) fn get(&mut self, id: &JobId) -> Option<&Job> {
        self.get_mut(id).map(|job| &*job)
    }

    pub(super) fn get_mut(&mut self, id: &JobId) -> Option<&mut Job> {
        let (run, place) = self.find(id).ok()?;
        self.last = (run, place);
        self.runs.get_mut(run)?.get_mut(place).map(|(_, job)| &mut **job)
    }

    /// Adds a document, or gives it back if its id is taken.
    pub(super) fn insert(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        let id = job.id.clone();
        if self.runs.last().and_then(|run| run.last()).is_none_or(|(last, _)| *last < id) {
            match self.runs.last_mut() {
                Some(run) if run.len() < RUN => run.push((id, job)),
                _ => {
                    let mut run = Run::with_capacity(RUN);
                    run.push((id, job));
                    self.runs.push(run);
                }
            }
            return Ok(());
        }
        let (run, place) = match self.find(&id) {
            Ok(_) => return Err(job),
            Err(place) => place,
        };
        let Some(into) = self.runs.get_mut(run) else { return Err(job) };
        into.insert(place, (id, job));
        if into.len() > RUN {
            let rest = into.split_off(RUN / 2);
            self.runs.insert(run + 1, rest);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &JobId) -> Option<Box<Job>> {
        let (run, place) = self.find(id).ok()?;
        let from = self.runs.get_mut(run)?;
        let (_, job) = from.remove(place);
        if from.is_empty() {
            self.runs.remove(run);
        }
        self.join(run);
        Some(job)
    }

    /// Joins a run with the next one if there is ample room for both, so that few documents never
    /// take the place of many.
    fn join(&mut self, run: usize) {
        if let [one, two] = self.runs.get_mut(run..run + 2).unwrap_or_default()
            && one.len() + two.len() <= RUN / 2
        {
            one.append(two);
            self.runs.remove(run + 1);
        }
    }

    /// The documents behind an id, or all.
    pub(super) fn after<'d>(&'d self, id: Option<&'d JobId>) -> impl Iterator<Item = &'d Job> {
        let first = id.map_or(0, |id| self.run_of(id));
        let behind = move |job: &&Job| id.is_none_or(|id| job.id > *id);
        let runs = self.runs.get(first..).unwrap_or_default();
        runs.iter().flatten().map(|(_, job)| &**job).skip_while(move |job| !behind(job))
    }

    /// Where an id is, or would have to be put.
    fn find(&self, id: &JobId) -> Result<(usize, usize), (usize, usize)> {
        let (run, place) = self.last;
        let is_at = |(run, place): (usize, usize)| {
            self.runs.get(run).and_then(|run| run.get(place)).is_some_and(|(at, _)| at == id)
        };
        for near in [(run, place + 1), (run, place), (run + 1, 0)] {
            if is_at(near) {
                return Ok(near);
            }
        }
        let run = self.run_of(id);
        let Some(jobs) = self.runs.get(run) else { return Err((run, 0)) };
        match jobs.binary_search_by(|(at, _)| at.cmp(id)) {
            Ok(place) => Ok((run, place)),
            Err(place) => Err((run, place)),
        }
    }

    /// The run that an id belongs into.
    fn run_of(&self, id: &JobId) -> usize {
        let begins = |run: &Run| run.first().is_some_and(|(first, _)| first <= id);
        self.runs.partition_point(begins).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::{IdSource, Random};
    use crate::json::Json;
    use crate::new_job::NewJob;
    use crate::time::Timestamp;

    fn job(id: JobId, version: u64) -> Box<Job> {
        let now = Timestamp::from_millis(1);
        let mut job = NewJob::with_json("k", Json::null()).into_job(id, 5, now);
        job.version = version;
        Box::new(job)
    }

    /// Whatever is done in whatever order, it is what a map would be.
    #[test]
    fn it_is_an_ordered_map() {
        for seed in 0..20 {
            let random = Random::new(seed);
            let ids = IdSource::new(seed, Default::default());
            let now = Timestamp::from_millis(5);
            let (mut documents, mut map) = (Documents::default(), BTreeMap::new());
            let mut known: Vec<JobId> = Vec::new();
            // Phases that grow and phases that shrink, so that runs are split and joined.
            for step in 0..6_000u64 {
                let grows = step / 1_500 % 2 == 0;
                let some = known.get(random.next() as usize % known.len().max(1)).cloned();
                match (random.next() % 8, some) {
                    (0..4, _) if grows => {
                        let id = match random.next() % 3 {
                            0 => format!("j{}", random.next() % 4_000).parse().unwrap(),
                            _ => ids.next(now),
                        };
                        let added = documents.insert(job(id.clone(), step)).is_ok();
                        assert_eq!(added, !map.contains_key(&id), "seed {seed}");
                        if added {
                            map.insert(id.clone(), step);
                            known.push(id);
                        }
                    }
                    (0..4, Some(id)) => {
                        let removed = documents.remove(&id).map(|job| job.version);
                        assert_eq!(removed, map.remove(&id), "seed {seed}");
                    }
                    (4..6, Some(id)) => {
                        let from = known.iter().position(|known| *known == id).unwrap();
                        for id in known.iter().skip(from).take(5) {
                            let found = documents.get(id).map(|job| job.version);
                            assert_eq!(found, map.get(id).copied(), "seed {seed}");
                        }
                    }
                    (6, Some(id)) => {
                        let listed = documents.after(Some(&id)).take(9).map(|job| job.version);
                        let bounds = (std::ops::Bound::Excluded(&id), std::ops::Bound::Unbounded);
                        let expected = map.range::<JobId, _>(bounds).take(9).map(|(_, v)| *v);
                        assert!(listed.eq(expected), "seed {seed}");
                    }
                    _ => {}
                }
            }
            let all = documents.after(None).map(|job| job.version);
            assert!(all.eq(map.values().copied()), "seed {seed}");
            let room: usize = documents.runs.iter().map(|run| run.capacity()).sum();
            assert!(room <= map.len() * 8 + 2 * RUN, "{room} for {}, seed {seed}", map.len());
        }
    }
}
