//! Tables of jobs, still and live.

use std::process::ExitCode;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::client::Client;
use crate::say;

/// Jobs that are followed at a time.
const MAX_WATCHED: usize = 50;

/// Jobs as a table.
pub(crate) fn table(jobs: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["id", "kind", "status", "attempt", "progress", "created", "error"]);
    for job in jobs {
        table.add_row([
            text(&job["id"]),
            text(&job["kind"]),
            text(&job["status"]),
            format!("{}/{}", job["attempt"], job["max_attempts"]),
            progress(job).map_or_else(String::new, |(done, total)| format!("{done}/{total}")),
            text(&job["created_at"]),
            text(&job["error"]["name"]),
        ]);
    }
    table
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn progress(job: &Value) -> Option<(u64, u64)> {
    let progress = &job["progress"];
    Some((progress["done"].as_u64()?, progress["total"].as_u64()?))
}

/// Follows jobs until they are over: a row with a bar for each. Succeeds if all are completed.
pub(crate) fn watch(client: &Client, mut ids: Vec<String>) -> Result<ExitCode, String> {
    if ids.is_empty() {
        for status in ["running", "retrying", "created"] {
            let filters = [("status", Some(status.to_owned()))];
            let jobs = client.list(&filters, MAX_WATCHED)?;
            ids.extend(jobs.iter().map(|job| text(&job["id"])));
        }
        ids.truncate(MAX_WATCHED);
    }
    let rows = MultiProgress::new();
    let ends: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let rows = &rows;
        let followed: Vec<_> =
            ids.iter().map(|id| scope.spawn(move || follow(client, id, rows))).collect();
        let lost = || Err("the row was lost".to_owned());
        followed.into_iter().map(|row| row.join().unwrap_or_else(|_| lost())).collect()
    });
    let mut code = ExitCode::SUCCESS;
    let mut seen = Vec::new();
    for end in ends {
        let status = end?;
        if status != "completed" {
            code = ExitCode::FAILURE;
        }
        seen.push(status);
    }
    // Bars are drawn on a terminal alone; this line is always there.
    say(format_args!("{} jobs: {}", seen.len(), seen.join(", ")));
    Ok(code)
}

/// One row; answers the final status.
fn follow(client: &Client, id: &str, rows: &MultiProgress) -> Result<String, String> {
    let bar = rows.add(ProgressBar::new(1));
    let style = ProgressStyle::with_template("{prefix:26} {msg:40!} {bar:30} {pos}/{len}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(id.to_owned());
    let mut status = String::new();
    for job in client.events(id)? {
        let job = job?;
        status = text(&job["status"]);
        if let Some((done, total)) = progress(&job) {
            bar.set_length(total);
            bar.set_position(done);
        }
        if status == "completed" {
            bar.set_position(bar.length().unwrap_or(1));
        }
        let note = text(&job["progress"]["note"]);
        let error = text(&job["last_error"]["name"]);
        let said = if status == "retrying" || status == "failed" { error } else { note };
        bar.set_message(format!("{} {status} {said}", text(&job["kind"])));
    }
    bar.abandon();
    match status.is_empty() {
        true => Err(format!("job {id} is gone")),
        false => Ok(status),
    }
}
