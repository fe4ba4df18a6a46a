//! The two kinds of job that the server works on.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobs::{JobCtx, JobError, Jobs, SubmitError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Registers `process_task` and `digest`; the latter reads files below `root` alone.
pub(crate) fn register(jobs: &Jobs, root: PathBuf) -> Result<(), SubmitError> {
    jobs.register("process_task", process_task)?;
    jobs.register("digest", move |ctx, wanted| digest(ctx, root.clone(), wanted))
}

#[derive(Debug, Deserialize)]
struct Task {
    #[serde(default = "fifty")]
    seconds: f64,
}

fn fifty() -> f64 {
    50.0
}

/// Steps in which a task says how far it is.
const STEPS: u64 = 100;

/// Sleeps as many seconds as it is told, fifty by default.
async fn process_task(ctx: JobCtx, task: Task) -> Result<serde_json::Value, JobError> {
    let span = Duration::try_from_secs_f64(task.seconds)
        .map_err(|error| JobError::permanent("InvalidArguments", format!("seconds: {error}")))?;
    let steps = u32::try_from(STEPS).unwrap_or(1);
    for step in 0..STEPS {
        ctx.progress(step, STEPS, "sleeping");
        tokio::select! {
            () = ctx.bus().sleep(span / steps) => {}
            _ = ctx.cancelled() => return Err(JobError::Cancelled),
        }
    }
    ctx.progress(STEPS, STEPS, "done");
    Ok(serde_json::json!({"ok": true}))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    path: String,
}

#[derive(Debug, Serialize)]
struct Found {
    path: String,
    bytes: u64,
    sha256: String,
    /// Of a picture alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<usize>,
}

/// Size and SHA-256 of a file, and the dimensions if it is a picture.
async fn digest(ctx: JobCtx, root: PathBuf, wanted: Wanted) -> Result<Found, JobError> {
    let work = tokio::task::spawn_blocking(move || read(&ctx, &root, wanted));
    work.await.map_err(|error| JobError::retry("Panic", error))?
}

/// Bytes that are read between two looks at whether to go on.
const CHUNK: usize = 1024 * 1024;

fn read(ctx: &JobCtx, root: &Path, wanted: Wanted) -> Result<Found, JobError> {
    let path = below(root, &wanted.path)?;
    let failed = |error: std::io::Error| JobError::retry("ReadFailed", error);
    let mut file = File::open(&path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        ctx.check_cancelled()?;
        let read = file.read(&mut chunk).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(chunk.get(..read).unwrap_or_default());
        done += read as u64;
        ctx.progress(done, bytes.max(done), "reading");
    }
    let size = imagesize::size(&path).ok();
    Ok(Found {
        path: wanted.path,
        bytes: done,
        sha256: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        width: size.map(|size| size.width),
        height: size.map(|size| size.height),
    })
}

/// The file that is meant, if it lies below the root whatever links are on the way.
fn below(root: &Path, path: &str) -> Result<PathBuf, JobError> {
    let found = root.join(path).canonicalize();
    let found =
        found.map_err(|error| JobError::permanent("NoSuchFile", format!("{path}: {error}")));
    let outside = || JobError::permanent("OutsideRoot", format!("{path} leaves the root"));
    // What is outside is not even said to exist.
    let lexically_outside = Path::new(path).is_absolute()
        || Path::new(path).components().any(|part| part == std::path::Component::ParentDir);
    match found {
        Ok(found) if !found.starts_with(root) => Err(outside()),
        Ok(found) if found.is_file() => Ok(found),
        Ok(_) => Err(JobError::permanent("NoSuchFile", format!("{path} is no file"))),
        Err(_) if lexically_outside => Err(outside()),
        Err(error) => Err(error),
    }
}
