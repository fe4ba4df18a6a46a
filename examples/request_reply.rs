//! Requests and replies: every file of a folder is counted and hashed by a pool of workers, and
//! nothing is lost although one worker dies and another stalls.
//!
//! ```text
//! cargo run --release --example request_reply [-- FOLDER]
//! ```
//!
//! Each file is a request on one topic; four workers share one subscription on it. The requester
//! keeps 64 requests in flight, gets the replies by correlation id and checks each against the
//! file.
//!
//! The accidents are staged, so that they happen in a folder with a single file, too: half of the
//! requests are served by everybody, then worker 1 takes some and dies (its task is aborted, so
//! they are released at once), then worker 2 takes one and stalls (its lease ends by the ack
//! deadline), then the others serve what is left. Unless both have really happened and every
//! reply is right, the program fails.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};
use sha2::{Digest, Sha256};
use siftbus::{
    Bus, Deliveries, Delivery, Message, MessageId, Outcome, Requester, Subscription,
    SubscriptionConfig, TopicConfig,
};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How many requests are under way at once.
const IN_FLIGHT: usize = 64;
/// Workers 3 and 4; the other two have an accident.
const HEALTHY_WORKERS: usize = 2;
/// How long a worker may be silent about a request before somebody else gets it.
const ACK_DEADLINE: Duration = Duration::from_millis(200);
/// How many requests the dying worker takes along, if there are so many.
const DIES_WITH: usize = 4;
/// After how long a request counts as lost.
const PATIENCE: Duration = Duration::from_secs(600);
/// Folders that are not looked into.
const SKIPPED: [&str; 2] = ["target", ".git"];

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (folder, None) = (arguments.next().unwrap_or_else(own_tree), arguments.next()) else {
        eprintln!("usage: request_reply [FOLDER]");
        return ExitCode::from(2);
    };
    match run(&folder).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("request_reply: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The project's folder, or the current one if the program was taken elsewhere.
fn own_tree() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    if project.is_dir() { project.into() } else { ".".into() }
}

async fn run(folder: &Path) -> Result<(), Error> {
    let files = files_below(folder)?;
    let bus = Bus::new();
    let requests = bus.create_topic("files", TopicConfig::new()).await?;
    bus.create_topic("counts", TopicConfig::new()).await?;
    let config = SubscriptionConfig::new().ack_deadline(ACK_DEADLINE);
    let work = requests.subscribe("workers", config).await?;
    let requester = Requester::new(&bus, "files", "counts").await?;

    let pool = Arc::new(Pool::new(bus, work, files.len() / 2));
    let mut healthy = JoinSet::new();
    for _ in 0..HEALTHY_WORKERS {
        healthy.spawn(serve(Arc::clone(&pool)));
    }
    let started = stopwatch();
    let all = async { tokio::try_join!(ask_all(&requester, &pool, files), stage_accidents(&pool)) };
    let (asked, accidents) = tokio::select! {
        done = all => done?,
        // Healthy workers end only by an error.
        Some(ended) = healthy.join_next() => match ended?? {},
    };
    let elapsed = started();
    healthy.shutdown().await;

    asked.print_table(folder);
    asked.print_figures(elapsed);
    accidents.print(&pool);
    asked.verify()?;
    accidents.verify(&pool)?;
    println!("{}", asked.summary(&pool));
    Ok(())
}

// ---- the files

/// All regular files below a folder, sorted. What cannot be read further below is reported.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(inside) = folders.pop() {
        if let Err(error) = look_into(&inside, &mut files, &mut folders) {
            eprintln!("left out: {} or a part of it: {error}", printable(&inside));
        }
    }
    if files.is_empty() {
        return Err(format!("{}: there is no file in this folder", folder.display()).into());
    }
    files.sort();
    Ok(files)
}

/// Adds the files and folders of one folder, but neither links nor special files.
fn look_into(
    folder: &Path,
    files: &mut Vec<PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            continue;
        }
        if kind.is_dir() {
            folders.push(path);
        } else if kind.is_file() && path.to_str().is_some() {
            files.push(path);
        } else if kind.is_file() {
            eprintln!("left out: {}: the name is not UTF-8", printable(&path));
        }
    }
    Ok(())
}

/// A path for the terminal: a name may contain anything.
fn printable(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "?")
}

fn read_in_chunks(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => each(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a worker finds out about a file; lines and words are counted as `wc` does.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    bytes: u64,
    lines: u64,
    words: u64,
    sha256: Vec<u8>,
}

/// The counts, or why there are none.
type Answer = Result<Counts, String>;

fn count(path: &Path) -> Answer {
    let (mut counts, mut hasher, mut in_word) = (Counts::default(), Sha256::new(), false);
    let read = read_in_chunks(path, |chunk| {
        hasher.update(chunk);
        counts.bytes += chunk.len() as u64;
        for byte in chunk {
            counts.lines += u64::from(*byte == b'\n');
            let is_space = matches!(byte, b' ' | b'\t'..=b'\r');
            counts.words += u64::from(!is_space && !in_word);
            in_word = !is_space;
        }
    });
    counts.sha256 = hasher.finalize().to_vec();
    read.map(|()| counts).map_err(|error| error.to_string())
}

fn encode(answer: Answer) -> Message {
    match answer {
        Ok(counts) => Message::new(counts.sha256)
            .with_attribute("bytes", counts.bytes.to_string())
            .with_attribute("lines", counts.lines.to_string())
            .with_attribute("words", counts.words.to_string()),
        Err(problem) => Message::new(problem).with_attribute("failed", "yes"),
    }
}

fn decode(reply: &Message) -> Answer {
    if reply.attribute("failed").is_some() {
        return Err(String::from_utf8_lossy(reply.data()).into_owned());
    }
    let number = |name: &str| {
        let value = reply.attribute(name).and_then(|value| value.parse().ok());
        value.ok_or_else(|| format!("a reply without {name}"))
    };
    let (bytes, lines, words) = (number("bytes")?, number("lines")?, number("words")?);
    Ok(Counts { bytes, lines, words, sha256: reply.data().to_vec() })
}

// ---- the workers

/// What all workers share.
struct Pool {
    bus: Bus,
    work: Subscription,
    /// A permit for each hand-out before the accidents.
    first_half: Semaphore,
    stage: watch::Sender<Stage>,
    /// The highest attempt seen of each request.
    attempts: Mutex<HashMap<MessageId, u32>>,
}

#[derive(Copy, Clone, Debug, PartialEq, PartialOrd)]
enum Stage {
    FirstHalf,
    OneDied,
    OneStalled,
}

impl Pool {
    fn new(bus: Bus, work: Subscription, first_half: usize) -> Pool {
        Pool {
            bus,
            work,
            first_half: Semaphore::new(first_half.min(Semaphore::MAX_PERMITS)),
            stage: watch::Sender::new(Stage::FirstHalf),
            attempts: Mutex::default(),
        }
    }

    async fn take(&self, max_messages: usize) -> Result<Deliveries, Error> {
        let batch = self.work.pull(max_messages).await?;
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        for delivery in &batch {
            let seen = attempts.entry(delivery.id()).or_default();
            *seen = delivery.attempt().max(*seen);
        }
        drop(attempts);
        Ok(batch)
    }

    fn attempts_of(&self, id: MessageId) -> u32 {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.get(&id).copied().unwrap_or_default()
    }

    /// How many hand-outs the workers have seen that were not the first of their request.
    fn redeliveries(&self) -> u64 {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.values().map(|seen| u64::from(seen - 1)).sum()
    }

    async fn serve_one(&self) -> Result<(), Error> {
        for request in self.take(1).await? {
            self.answer(request).await?;
        }
        Ok(())
    }

    async fn serve_first_half(&self) -> Result<(), Error> {
        while let Ok(permit) = self.first_half.try_acquire() {
            permit.forget();
            self.serve_one().await?;
        }
        Ok(())
    }

    /// Replies, and acknowledges after that: whoever dies in between leaves the request to others.
    async fn answer(&self, request: Delivery) -> Result<Outcome, Error> {
        let path = PathBuf::from(std::str::from_utf8(request.data())?);
        let mut counting = spawn_blocking(move || count(&path));
        let answer = loop {
            match self.bus.timeout(ACK_DEADLINE / 2, &mut counting).await {
                Ok(answer) => break answer?,
                // A large file: still at it, nobody else has to begin.
                Err(_) => drop(request.set_deadline(ACK_DEADLINE)),
            }
        };
        siftbus::reply(&self.bus, &request, encode(answer)).await?;
        Ok(request.ack().await?)
    }

    async fn reached(&self, stage: Stage) -> Result<(), Error> {
        self.stage.subscribe().wait_for(|now| *now >= stage).await?;
        Ok(())
    }
}

/// A healthy worker.
async fn serve(pool: Arc<Pool>) -> Result<Infallible, Error> {
    pool.serve_first_half().await?;
    pool.reached(Stage::OneStalled).await?;
    loop {
        pool.serve_one().await?;
    }
}

/// Worker 1 takes requests that it will never answer, and says which.
async fn serve_until_killed(
    pool: Arc<Pool>,
    holding: oneshot::Sender<Vec<MessageId>>,
) -> Result<Infallible, Error> {
    pool.serve_first_half().await?;
    let batch = pool.take(DIES_WITH).await?;
    let ids = batch.iter().map(|delivery| delivery.id()).collect();
    holding.send(ids).map_err(|_| "nobody is there to kill worker 1")?;
    std::future::pending().await
}

/// What came of worker 2.
struct Stalled {
    held_for: Duration,
    outcome: Outcome,
}

/// Worker 2 takes a request and sits on it until somebody else has got it.
async fn serve_and_stall(pool: Arc<Pool>) -> Result<Stalled, Error> {
    pool.serve_first_half().await?;
    pool.reached(Stage::OneDied).await?;
    let batch = pool.take(1).await?;
    let request = batch.into_iter().next().ok_or("an empty batch")?;
    let since = pool.bus.now();
    pool.stage.send_replace(Stage::OneStalled);

    let superseded = async {
        while pool.attempts_of(request.id()) <= request.attempt() {
            pool.bus.sleep(2 * ACK_DEADLINE).await;
        }
    };
    pool.bus.timeout(PATIENCE, superseded).await?;
    let held_for = pool.bus.now().duration_since(since)?;
    let outcome = pool.answer(request).await?;
    Ok(Stalled { held_for, outcome })
}

/// What happened to workers 1 and 2.
struct Accidents {
    /// Requests that worker 1 died with.
    orphans: Vec<MessageId>,
    killed: bool,
    stalled: Stalled,
}

async fn stage_accidents(pool: &Arc<Pool>) -> Result<Accidents, Error> {
    let (holding, held) = oneshot::channel();
    let first = tokio::spawn(serve_until_killed(Arc::clone(pool), holding));
    let second = tokio::spawn(serve_and_stall(Arc::clone(pool)));

    let Ok(orphans) = held.await else { match first.await?? {} };
    first.abort();
    let killed = first.await.is_err_and(|end| end.is_cancelled());
    pool.stage.send_replace(Stage::OneDied);

    Ok(Accidents { orphans, killed, stalled: second.await?? })
}

impl Accidents {
    fn print(&self, pool: &Pool) {
        println!(
            "worker 1 was killed with {} requests in hand; others were handed each of them",
            self.orphans.len(),
        );
        println!(
            "worker 2 held a request for {:?} (deadline {ACK_DEADLINE:?}); its late ack was {:?}",
            self.stalled.held_for, self.stalled.outcome,
        );
        println!("leases ended by the ack deadline: {}", pool.work.stats().expired_leases);
    }

    /// Whether both have really happened.
    fn verify(&self, pool: &Pool) -> Result<(), Error> {
        let stats = pool.work.stats();
        let again = |id: &MessageId| pool.attempts_of(*id) > 1;
        if !self.killed || self.orphans.is_empty() || !self.orphans.iter().all(again) {
            return Err("worker 1 did not die, or not all of its requests came back".into());
        }
        if self.stalled.outcome != Outcome::Stale || stats.expired_leases == 0 {
            return Err("worker 2 did not lose its lease".into());
        }
        if stats.redeliveries != pool.redeliveries() {
            let (bus, workers) = (stats.redeliveries, pool.redeliveries());
            return Err(format!("{bus} redeliveries, but the workers saw {workers}").into());
        }
        Ok(())
    }
}

// ---- the requester

/// A file, and what was replied about it.
struct Asked {
    path: PathBuf,
    latency: Duration,
    answer: Answer,
    right: bool,
}

/// What the requester knows in the end.
#[derive(Default)]
struct Results {
    replied: Vec<Asked>,
    lost: usize,
}

async fn ask_all(
    requester: &Requester,
    pool: &Pool,
    files: Vec<PathBuf>,
) -> Result<Results, Error> {
    let start = pool.bus.now();
    let asking = stream::iter(files).map(|path| ask(requester, path, start));
    let mut asking = std::pin::pin!(asking.buffer_unordered(IN_FLIGHT));
    let mut results = Results::default();
    while let Some(asked) = asking.next().await {
        match asked {
            Ok(asked) => results.replied.push(asked),
            Err(problem) => {
                eprintln!("lost: {problem}");
                results.lost += 1;
            }
        }
    }
    Ok(results)
}

/// Asks about one file and checks the reply.
async fn ask(requester: &Requester, path: PathBuf, start: SystemTime) -> Result<Asked, String> {
    let name = path.to_string_lossy().into_owned();
    let latency = stopwatch();
    let reply = requester.request(name, PATIENCE).await;
    let latency = latency();
    let reply = reply.map_err(|error| format!("{}: {error}", printable(&path)))?;
    let checking = spawn_blocking(move || {
        let answer = decode(&reply);
        let right = is_right(&path, &answer, start);
        Asked { path, latency, answer, right }
    });
    checking.await.map_err(|error| error.to_string())
}

/// Compares an answer with the file. It may differ if the file was changed during the run.
fn is_right(path: &Path, answer: &Answer, start: SystemTime) -> bool {
    let (mut bytes, mut hasher) = (0, Sha256::new());
    let read = read_in_chunks(path, |chunk| {
        bytes += chunk.len() as u64;
        hasher.update(chunk);
    });
    let sha256 = hasher.finalize();
    let right = match (read, answer) {
        (Ok(()), Ok(counts)) => counts.bytes == bytes && counts.sha256 == sha256.as_slice(),
        (read, answer) => read.is_err() && answer.is_err(),
    };
    let modified = || fs::metadata(path).and_then(|data| data.modified());
    if !right && modified().map_or(true, |modified| modified > start) {
        eprintln!("changed during the run: {}", printable(path));
        return true;
    }
    right
}

impl Results {
    /// The ten largest files.
    fn print_table(&self, folder: &Path) {
        let mut largest: Vec<_> =
            self.replied.iter().filter_map(|a| Some((&a.path, a.answer.as_ref().ok()?))).collect();
        largest.sort_by(|(a, x), (b, y)| y.bytes.cmp(&x.bytes).then(a.cmp(b)));
        println!("{:>12} {:>9} {:>9}  {:12}  file", "bytes", "lines", "words", "sha-256");
        for (path, Counts { bytes, lines, words, sha256 }) in largest.into_iter().take(10) {
            let digest: String = sha256.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            let path = printable(path.strip_prefix(folder).unwrap_or(path));
            println!("{bytes:12} {lines:9} {words:9}  {digest}  {path}");
        }
    }

    fn print_figures(&self, elapsed: Duration) {
        let mut latencies: Vec<_> = self.replied.iter().map(|asked| asked.latency).collect();
        latencies.sort();
        let percentile = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100);
            latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        println!("\nlatency: p50 {:.1?}, p99 {:.1?}", percentile(50), percentile(99));
        let bytes: u64 = self.replied.iter().flat_map(|a| &a.answer).map(|c| c.bytes).sum();
        let (seconds, mebibytes) = (elapsed.as_secs_f64(), bytes as f64 / 1024.0 / 1024.0);
        println!(
            "throughput: {:.0} requests/s, {:.1} MiB/s; {elapsed:.1?} in all",
            self.replied.len() as f64 / seconds,
            mebibytes / seconds,
        );
        for Asked { path, answer, .. } in &self.replied {
            if let Err(problem) = answer {
                eprintln!("not counted: {}: {problem}", printable(path));
            }
        }
    }

    fn verify(&self) -> Result<(), Error> {
        let wrong = self.replied.iter().find(|asked| !asked.right);
        match wrong {
            Some(asked) => Err(format!("a wrong reply about {}", printable(&asked.path)).into()),
            None if self.lost > 0 => Err(format!("{} requests were lost", self.lost).into()),
            None => Ok(()),
        }
    }

    fn summary(&self, pool: &Pool) -> String {
        let (replies, lost) = (self.replied.len(), self.lost);
        let redelivered = pool.work.stats().redeliveries;
        let requests = replies + lost;
        format!(
            "request_reply: {requests} requests, {replies} replies, {lost} lost, \
             {redelivered} redelivered"
        )
    }
}

/// Measures time until it is called. The bus's time has whole milliseconds; most replies are
/// faster.
#[allow(clippy::disallowed_methods, reason = "`Bus::now` is too coarse for latencies")]
fn stopwatch() -> impl Fn() -> Duration {
    let start = std::time::Instant::now();
    move || start.elapsed()
}
