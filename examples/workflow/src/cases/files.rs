//! The files of a case, read.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::doubles::Double;
use super::keys;
use crate::language::Object;

/// A case: one flow, its surroundings, and what is expected of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name of the folder, which is the name of the flow.
    pub name: String,
    /// The text of `flow.yaml`.
    pub definition: String,
    /// `input.json`.
    pub input: Value,
    /// `workers.json`: a double for each resource.
    pub workers: BTreeMap<String, Double>,
    /// `script.json`, ordered by time.
    pub script: Vec<Action>,
    /// `expected.json`.
    pub expected: Expected,
    /// The texts of `subflows/*.yaml`, by name.
    pub subflows: BTreeMap<String, String>,
    /// Keys of the files that mean nothing; a misspelt one is an error instead.
    pub notes: Vec<String>,
}

/// What is done at a virtual time, after everything else of that instant has settled.
#[derive(Clone, Debug, Deserialize)]
pub struct Action {
    /// Milliseconds after the start.
    pub at_ms: u64,
    /// What is done.
    #[serde(flatten)]
    pub kind: ActionKind,
}

/// What an action does.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum ActionKind {
    /// Reports success of a callback task.
    ReportSucceeded {
        /// The step whose task is meant.
        token_of: Option<String>,
        /// Which attempt of it, counted from 1; the last if absent.
        nth: Option<usize>,
        /// A token as it is, instead.
        token: Option<String>,
        /// The output, as text.
        output: Value,
        /// `ok` or the name of an error.
        expect: Option<String>,
    },
    /// Reports failure of a callback task.
    ReportFailed {
        /// The step whose task is meant.
        token_of: Option<String>,
        /// Which attempt of it, counted from 1; the last if absent.
        nth: Option<usize>,
        /// A token as it is, instead.
        token: Option<String>,
        /// The error's name.
        error: String,
        /// The cause.
        #[serde(default, deserialize_with = "null_is_absent")]
        cause: String,
        /// `ok` or the name of an error.
        expect: Option<String>,
    },
    /// Reports that a callback task is alive.
    ReportHeartbeat {
        /// The step whose task is meant.
        token_of: Option<String>,
        /// Which attempt of it, counted from 1; the last if absent.
        nth: Option<usize>,
        /// A token as it is, instead.
        token: Option<String>,
        /// `ok` or the name of an error.
        expect: Option<String>,
    },
    /// Stops the execution.
    Stop {
        /// The error's name.
        #[serde(default, deserialize_with = "null_is_absent")]
        error: String,
        /// The cause.
        #[serde(default, deserialize_with = "null_is_absent")]
        cause: String,
        /// `ok` or the name of an error.
        expect: Option<String>,
    },
    /// Drops the engine and the bus, and opens the store again.
    Restart,
    /// Looks at the execution.
    Expect {
        /// Its status.
        status: Option<String>,
        /// The type and step of its last event.
        last_event: Option<(String, String)>,
    },
}

/// What is expected; only what is present is checked.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Expected {
    /// The final status.
    pub status: Option<String>,
    /// The output.
    pub output: Option<Value>,
    /// The error's name.
    pub error: Option<String>,
    /// The cause.
    pub cause: Option<String>,
    /// End − start.
    pub elapsed_ms: Option<u64>,
    /// The steps entered, in order.
    pub visited: Option<Vec<String>>,
    /// The steps entered, in any order.
    pub visited_unordered: Option<Vec<String>>,
    /// How often each resource was invoked, without what crashes repeat.
    pub invocations: Option<BTreeMap<String, usize>>,
    /// The inputs of the invocations of each resource, in any order.
    pub invocation_inputs: Option<BTreeMap<String, Vec<Value>>>,
    /// The parameters of messages, in any order: by resource, or of all.
    pub published: Option<Published>,
    /// Events that come in this order, others between them.
    pub events_in_order: Option<Vec<(String, String)>>,
    /// How many events there are at most.
    pub event_count_max: Option<u32>,
}

/// The parameters of published messages.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Published {
    /// By resource.
    ByResource(BTreeMap<String, Vec<Value>>),
    /// Of all resources.
    All(Vec<Value>),
}

/// Why the files of a case cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct CaseError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

impl Case {
    /// Reads the folder of a case. `flow.yaml` and `expected.json` must be there.
    ///
    /// # Errors
    ///
    /// [`CaseError`] names the file that is missing or cannot be read, or holds a misspelt key.
    pub fn read(folder: &Path) -> Result<Self, CaseError> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| bad("", "the folder has no name"))?;
        let definition = text(folder, "flow.yaml")?;
        let mut subflows = BTreeMap::new();
        let nested = folder.join("subflows");
        if nested.is_dir() {
            let entries = fs::read_dir(&nested).map_err(|error| bad("subflows", error))?;
            for entry in entries {
                let path = entry.map_err(|error| bad("subflows", error))?.path();
                let yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
                let (Some(stem), Some(file)) = (path.file_stem(), path.file_name()) else {
                    continue;
                };
                if yaml {
                    let file = format!("subflows/{}", file.to_string_lossy());
                    subflows.insert(stem.to_string_lossy().into_owned(), text(folder, &file)?);
                }
            }
        }
        let mut notes = Vec::new();
        let script = json(folder, SCRIPT)?.unwrap_or_else(|| Value::Array(Vec::new()));
        let workers = json(folder, WORKERS)?.unwrap_or_else(|| Value::Object(Object::new()));
        let expected = json(folder, EXPECTED)?.ok_or_else(|| bad(EXPECTED, "it is missing"))?;
        keys::expected(&expected).map_err(|why| bad(EXPECTED, why))?.report(EXPECTED, &mut notes);
        Ok(Self {
            name: flow_name(&name),
            definition,
            input: json(folder, "input.json")?.unwrap_or_else(|| Value::Object(Object::new())),
            workers: read_workers(workers, &mut notes).map_err(|why| bad(WORKERS, why))?,
            script: read_script(script, &mut notes).map_err(|why| bad(SCRIPT, why))?,
            expected: typed(expected).map_err(|why| bad(EXPECTED, why))?,
            subflows,
            notes,
        })
    }
}

/// The doubles of `workers.json`; a remark under `about` is none.
///
/// # Errors
///
/// What is wrong, in words.
pub fn read_workers(
    workers: Value,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, Double>, String> {
    let Value::Object(workers) = workers else {
        return Err("it is no object of doubles by resource".to_owned());
    };
    let mut doubles = BTreeMap::new();
    for (arn, double) in workers.into_iter().filter(|(arn, _)| !keys::is_remark(arn)) {
        let at = |why: String| format!("{arn}: {why}");
        keys::double(&double).map_err(at)?.report(&format!("{WORKERS}: {arn}"), notes);
        doubles.insert(arn.clone(), typed(double).map_err(at)?);
    }
    Ok(doubles)
}

/// The actions of `script.json`, ordered by time.
///
/// # Errors
///
/// What is wrong, in words.
pub fn read_script(script: Value, notes: &mut Vec<String>) -> Result<Vec<Action>, String> {
    let Value::Array(script) = script else { return Err("it is no list of actions".to_owned()) };
    let mut actions = Vec::new();
    for (index, action) in script.into_iter().enumerate() {
        let at = |why: String| format!("action {index}: {why}");
        keys::action(&action).map_err(at)?.report(&format!("{SCRIPT}: action {index}"), notes);
        actions.push(typed::<Action>(action).map_err(at)?);
    }
    actions.sort_by_key(|action| action.at_ms);
    Ok(actions)
}

/// A folder's name as that of a flow: what a flow may not be called is written `_`.
pub fn flow_name(folder: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name: String = folder.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    match name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        true => name,
        false => format!("_{name}"),
    }
}

fn text(folder: &Path, file: &str) -> Result<String, CaseError> {
    let bytes = fs::read(folder.join(file)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => bad(file, "it is missing"),
        _ => bad(file, error),
    })?;
    // What is no UTF-8 is refused by the language, where it stands.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A JSON file, if there is one.
fn json(folder: &Path, file: &str) -> Result<Option<Value>, CaseError> {
    match fs::read_to_string(folder.join(file)) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| bad(file, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(file, error)),
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

const SCRIPT: &str = "script.json";
const WORKERS: &str = "workers.json";
const EXPECTED: &str = "expected.json";

/// A text that may also be written `null`, which is as if it were absent.
pub(super) fn null_is_absent<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn bad(file: &str, why: impl ToString) -> CaseError {
    CaseError { file: file.to_owned(), why: why.to_string() }
}
