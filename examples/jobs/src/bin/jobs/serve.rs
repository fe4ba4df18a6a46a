//! The server: a bus, a store, a worker and the routes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use jobs::http::{HttpOptions, router};
use jobs::{Jobs, RedbStore, WorkerOptions, parse_span};
use siftbus::Bus;

use crate::kinds;

/// What the server was told.
pub(crate) struct Serve {
    pub(crate) listen: SocketAddr,
    pub(crate) store: Option<PathBuf>,
    pub(crate) root: PathBuf,
    pub(crate) concurrency: usize,
    pub(crate) lease: String,
}

/// Serves until the process ends; a store needs no farewell.
pub(crate) fn serve(options: &Serve) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(run(options))
}

async fn run(options: &Serve) -> Result<ExitCode, String> {
    let root = options.root.canonicalize();
    let root = root.map_err(|error| format!("--root {}: {error}", options.root.display()))?;
    let lease = parse_span(&options.lease).filter(|lease| !lease.is_zero());
    let lease = lease.ok_or_else(|| format!("--lease {}: write 10s or 500ms", options.lease))?;
    let builder = Jobs::builder(Bus::new()).known_kinds_only(true);
    let builder = match &options.store {
        None => builder,
        Some(path) => builder.store(RedbStore::open(path).map_err(|error| error.to_string())?),
    };
    let jobs = builder.build().await.map_err(|error| error.to_string())?;
    kinds::register(&jobs, root).map_err(|error| error.to_string())?;
    // The name says which process had a job when it died.
    let name = format!("jobs-{}", std::process::id());
    let worker = WorkerOptions::new().name(name).concurrency(options.concurrency).lease(lease);
    let worker = jobs.spawn_worker(worker).await.map_err(|error| error.to_string())?;
    let listener = tokio::net::TcpListener::bind(options.listen).await;
    let listener = listener.map_err(|error| format!("--listen {}: {error}", options.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("listening on http://{address}");
    let served = axum::serve(listener, router(jobs, HttpOptions::new())).await;
    drop(worker);
    served.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}
