//! The server: a bus, a store, a worker and the routes.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jobs::http::{HttpOptions, router};
use jobs::{IdFormat, Jobs, RedbStore, WorkerOptions, parse_span};
use siftbus::Bus;

use crate::{kinds, say};

/// What the server was told.
pub(crate) struct Serve {
    pub(crate) listen: SocketAddr,
    pub(crate) store: Option<PathBuf>,
    pub(crate) root: PathBuf,
    pub(crate) concurrency: u16,
    pub(crate) lease: String,
    pub(crate) grace: String,
    pub(crate) uuids: bool,
}

/// Serves until it is told to stop; a store needs no farewell, and a process may as well be killed.
pub(crate) fn serve(options: &Serve) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let done = runtime.block_on(run(options));
    // A digest that is still being computed is not waited for.
    runtime.shutdown_background();
    done
}

/// Leases that the bus allows.
const LEASES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);

async fn run(options: &Serve) -> Result<ExitCode, String> {
    let root = options.root.canonicalize();
    let root = root.map_err(|error| format!("--root {}: {error}", options.root.display()))?;
    if !root.is_dir() {
        return Err(format!("--root {}: is no folder", options.root.display()));
    }
    let lease = parse_span(&options.lease).filter(|lease| LEASES.contains(lease));
    let lease =
        lease.ok_or_else(|| format!("--lease {}: 100ms to 10m, such as 10s", options.lease))?;
    let grace = parse_span(&options.grace);
    let grace = grace.ok_or_else(|| format!("--grace {}: write 10s or 500ms", options.grace))?;
    let mut stops = Stops::new().map_err(|error| error.to_string())?;
    // Before anything begins that could not go on.
    let listener = tokio::net::TcpListener::bind(options.listen).await;
    let listener = listener.map_err(|error| format!("--listen {}: {error}", options.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let ids = if options.uuids { IdFormat::UuidV4 } else { IdFormat::Ulid };
    let builder = Jobs::builder(Bus::new()).known_kinds_only(true).ids(ids);
    let builder = match &options.store {
        None => builder,
        Some(path) => builder.store(RedbStore::open(path).map_err(|error| error.to_string())?),
    };
    let jobs = builder.build().await.map_err(|error| error.to_string())?;
    kinds::register(&jobs, root).map_err(|error| error.to_string())?;
    // The name says which process had a job when it died.
    let name = format!("jobs-{}", std::process::id());
    let concurrency = usize::from(options.concurrency);
    let worker = WorkerOptions::new().name(name).concurrency(concurrency).lease(lease);
    let worker = jobs.spawn_worker(worker).await.map_err(|error| error.to_string())?;
    say(format_args!("listening on http://{address}"));
    let bus = jobs.bus().clone();
    let served = axum::serve(listener, router(jobs, HttpOptions::new()));
    tokio::select! {
        served = served.into_future() => {
            served.map_err(|error| error.to_string())?;
        }
        () = stops.next() => {
            eprintln!("jobs: stopping; jobs that run have {} s to end", grace.as_secs_f64());
            tokio::select! {
                stopped = worker.stop() => stopped.map_err(|error| error.to_string())?,
                () = bus.sleep(grace) => {}
                () = stops.next() => {}
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The signals that ask for an end.
struct Stops {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stops {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        let interrupt = tokio::signal::ctrl_c();
        #[cfg(unix)]
        tokio::select! {
            _ = interrupt => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        drop(interrupt.await);
    }
}
