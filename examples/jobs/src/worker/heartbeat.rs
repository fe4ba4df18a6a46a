//! Heartbeats: one task a worker says for all its jobs that they go on (J-24, J-31).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use siftbus::AckId;

use super::WorkerShared;
use crate::engine::Engine;
use crate::machine::Refused;
use crate::queue::Queue;
use crate::running::{Running, Stop};
use crate::transitions::Changed;

/// Says for all jobs of a worker that it is alive (J-31), and writes their progress (J-24).
pub(super) async fn beat(engine: Arc<Engine>, queue: Queue, shared: Arc<WorkerShared>) {
    loop {
        if shared.running.lock().is_empty() {
            shared.busy.notified().await;
        }
        engine.bus.sleep(shared.beat).await;
        let running = shared.running();
        if running.is_empty() {
            continue;
        }
        let lease = shared.lease;
        let jobs = running.clone();
        let beaten = engine
            .commit(move |tx| {
                let mut answers = Vec::with_capacity(jobs.len());
                for job in jobs {
                    let progress = job.take_progress();
                    let kept = progress.clone();
                    let answer = tx.heartbeat(&job.id, job.attempt, lease, progress);
                    if answer.is_err() {
                        job.return_progress(kept);
                    }
                    answers.push(answer?);
                }
                Ok(answers)
            })
            .await;
        match beaten {
            Ok(answers) => {
                let alive = judge(&running, answers);
                queue.extend(&alive, lease).await;
            }
            Err(_) => running.iter().for_each(|job| miss(job)),
        }
    }
}

/// Who is still alive; the others are told.
fn judge(running: &[Arc<Running>], answers: Vec<Result<(), Changed>>) -> Vec<(usize, AckId)> {
    let mut alive = Vec::with_capacity(running.len());
    for (job, answer) in running.iter().zip(answers) {
        match answer {
            Ok(()) => {
                job.missed.store(0, Ordering::SeqCst);
                alive.extend(job.ack_id.lock().clone());
            }
            Err(Changed::Refused(Refused::LeaseLost)) => job.tell(Stop::LeaseLost),
            Err(_) => {
                job.tell(Stop::LeaseLost);
                job.end();
            }
        }
    }
    alive
}

/// Two heartbeats that fail in a row stop the handler before another worker may start.
fn miss(job: &Running) {
    if job.missed.fetch_add(1, Ordering::SeqCst) + 1 >= 2 {
        job.tell(Stop::LeaseLost);
    }
}
