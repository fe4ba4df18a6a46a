//! `jobs`: a server for jobs over HTTP, and its client.

// Reading a key that a JSON value does not have gives `null`, never a panic.
#![allow(clippy::indexing_slicing)]

mod client;
mod kinds;
mod serve;
mod watch;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Asynchronous jobs: a server, and commands to talk to one.
#[derive(Debug, Parser)]
#[command(name = "jobs", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves jobs of the kinds `process_task` and `digest` over HTTP.
    Serve {
        /// Where to listen; port 0 takes any that is free.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// The file that keeps the jobs; without it they are in memory.
        #[arg(long)]
        store: Option<PathBuf>,
        /// The folder whose files `digest` may read.
        #[arg(long, default_value = ".")]
        root: PathBuf,
        /// Jobs at a time.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
        concurrency: u16,
        /// How long a job is its worker's own between two heartbeats.
        #[arg(long, default_value = "10s")]
        lease: String,
        /// How long jobs have to end after SIGTERM or Ctrl-C; with a store, those that have not
        /// begin again when it is opened next.
        #[arg(long, default_value = "5s")]
        grace: String,
        /// Names jobs by UUIDs of version 4 in place of ULIDs; lists are not in the order of
        /// submission then.
        #[arg(long)]
        uuids: bool,
    },
    /// Submits a job and prints its id.
    Submit {
        #[command(flatten)]
        server: Server,
        /// What is to be done.
        #[arg(long, default_value = "process_task")]
        kind: String,
        /// The arguments, a JSON object.
        #[arg(default_value = "{}")]
        args: String,
        /// Submitting twice under one key gives one job.
        #[arg(long)]
        key: Option<String>,
        /// When to start: `+30s`, or RFC 3339.
        #[arg(long)]
        run_at: Option<String>,
        /// When to give up: `+30s`, or RFC 3339.
        #[arg(long)]
        deadline: Option<String>,
        /// Waits until it is over, with a bar.
        #[arg(long)]
        watch: bool,
    },
    /// Prints a job's document.
    Get {
        #[command(flatten)]
        server: Server,
        id: String,
        /// Waits so long until it is over, at most 60s.
        #[arg(long)]
        wait: Option<String>,
    },
    /// Prints a table of jobs.
    List {
        #[command(flatten)]
        server: Server,
        /// In this state.
        #[arg(long)]
        status: Option<String>,
        /// Of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// With this label, `key:value`.
        #[arg(long)]
        label: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Calls a job off.
    Cancel {
        #[command(flatten)]
        server: Server,
        id: String,
    },
    /// Has a job that is over run again.
    Retry {
        #[command(flatten)]
        server: Server,
        id: String,
    },
    /// Follows jobs in a live table until they are over; without ids, all that are not.
    Watch {
        #[command(flatten)]
        server: Server,
        ids: Vec<String>,
    },
}

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
struct Server {
    /// The server's address.
    #[arg(long, env = "JOBS_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve { listen, store, root, concurrency, lease, grace, uuids } => {
            let options = serve::Serve { listen, store, root, concurrency, lease, grace, uuids };
            serve::serve(&options)
        }
        Command::Submit { server, kind, args, key, run_at, deadline, watch } => {
            let client = client::Client::new(&server.url);
            client.submit(&client::Submit { kind, args, key, run_at, deadline }).and_then(|id| {
                say(format_args!("{id}"));
                if watch { watch::watch(&client, vec![id]) } else { Ok(ExitCode::SUCCESS) }
            })
        }
        Command::Get { server, id, wait } => {
            client::Client::new(&server.url).get(&id, wait.as_deref()).map(|document| {
                say(format_args!("{document:#}"));
                ExitCode::SUCCESS
            })
        }
        Command::List { server, status, kind, label, limit } => {
            let filters = [("status", status), ("kind", kind), ("label", label)];
            client::Client::new(&server.url).list(&filters, limit).map(|jobs| {
                say(format_args!("{}", watch::table(&jobs)));
                ExitCode::SUCCESS
            })
        }
        Command::Cancel { server, id } => {
            client::Client::new(&server.url).cancel(&id).map(|job| print_status(&job))
        }
        Command::Retry { server, id } => {
            client::Client::new(&server.url).retry(&id).map(|job| print_status(&job))
        }
        Command::Watch { server, ids } => watch::watch(&client::Client::new(&server.url), ids),
    };
    done.unwrap_or_else(|error| {
        eprintln!("jobs: {error}");
        ExitCode::FAILURE
    })
}

fn print_status(job: &serde_json::Value) -> ExitCode {
    let asked = match job["cancel_requested"].as_bool() {
        Some(true) if job["status"] == "running" => ", told to stop",
        _ => "",
    };
    say(format_args!("{}{asked}", job["status"].as_str().unwrap_or("?")));
    ExitCode::SUCCESS
}

/// Prints a line. Whoever has stopped reading wants no more of it.
fn say(line: std::fmt::Arguments<'_>) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}
