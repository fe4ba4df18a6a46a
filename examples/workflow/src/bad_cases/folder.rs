//! Bad definitions in folders, and where their expectations stand.
//!
//! `expected.json` holds one expectation for the folder's only definition, an object of
//! expectations by file name (with or without extension; a list for several of one file), or a list
//! of expectations with a `file`. Without it, each definition may have a file of its own beside it,
//! `NAME.expected.json` or `NAME.json`. Folders may be nested.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::language::Object;

pub(super) const EXPECTED: &str = "expected.json";

/// A definition and what is expected of it, or why that is not known.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) expectation: Result<Value, String>,
}

/// The definitions of a folder and of those in it, in the order of their names.
pub(super) fn find(folder: &Path) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    collect(folder, folder, MAX_FOLDERS, &mut found)?;
    Ok(found)
}

fn collect(top: &Path, folder: &Path, depth: usize, found: &mut Vec<Found>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let definitions = definitions(&paths);
    let expected = folder.join(EXPECTED);
    let mut here = match expected.is_file() {
        true => Expectations { folder, definitions: &definitions }.read(&expected)?,
        false => beside(&definitions),
    };
    if !here.is_empty() {
        let is_judged = |file: &&PathBuf| here.iter().any(|(judged, _)| judged == *file);
        let silent: Vec<_> = definitions.iter().filter(|file| !is_judged(file)).cloned().collect();
        let why = || Err(format!("{EXPECTED} says nothing about it"));
        here.extend(silent.into_iter().map(|file| (file, why())));
    }
    here.sort_by(|a, b| a.0.cmp(&b.0));
    found.extend(here.into_iter().map(|(file, expectation)| {
        let name = name(top, &file);
        Found { name, file, expectation }
    }));
    for path in paths.iter().filter(|path| depth > 0 && path.is_dir()) {
        collect(top, path, depth - 1, found)?;
    }
    Ok(())
}

/// What a case is called: its path below the folder that was asked for, without the extension;
/// the folder's own name for a file that is the same in each folder.
fn name(top: &Path, file: &Path) -> String {
    let stem = file.with_extension("");
    let named = match stem.file_name().and_then(|name| name.to_str()) {
        Some("flow" | "definition") => stem.parent().unwrap_or(&stem),
        _ => &stem,
    };
    let short = named.strip_prefix(top).ok().filter(|short| !short.as_os_str().is_empty());
    let last = || named.file_name().map(Path::new).unwrap_or(named);
    short.unwrap_or_else(last).display().to_string()
}

fn definitions(paths: &[PathBuf]) -> Vec<PathBuf> {
    let extension = |path: &Path| path.extension().and_then(|end| end.to_str()).map(str::to_owned);
    let is_yaml = |path: &Path| matches!(extension(path).as_deref(), Some("yaml" | "yml"));
    let is_definition = |path: &&PathBuf| {
        // A JSON file is a definition unless it says what is expected.
        let is_json = extension(path).as_deref() == Some("json");
        path.is_file() && (is_yaml(path) || (is_json && !is_expectation(path)))
    };
    paths.iter().filter(is_definition).cloned().collect()
}

/// Whether a JSON file belongs to a definition instead of being one.
fn is_expectation(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let of_yaml = || ["yaml", "yml"].iter().any(|end| path.with_extension(end).is_file());
    let of_case = ["input.json", "workers.json", "script.json"].contains(&name);
    name == EXPECTED || name.ends_with(".expected.json") || of_case || of_yaml()
}

/// Where an expectation for a definition goes.
type Judged = (PathBuf, Result<Value, String>);

fn beside(definitions: &[PathBuf]) -> Vec<Judged> {
    let own = |file: &PathBuf| {
        let files = [file.with_extension(EXPECTED), file.with_extension("json")];
        let expected = files.into_iter().find(|expected| expected != file && expected.is_file())?;
        Some((file.clone(), read(&expected)))
    };
    definitions.iter().filter_map(own).collect()
}

fn read(file: &Path) -> Result<Value, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}

struct Expectations<'a> {
    folder: &'a Path,
    definitions: &'a [PathBuf],
}

impl Expectations<'_> {
    fn read(&self, expected: &Path) -> Result<Vec<Judged>, String> {
        let value = read(expected)?;
        let odd = |what: &str| format!("{}: {what}", expected.display());
        let list = |entries: &[Value]| self.list(entries).map_err(odd);
        match &value {
            Value::Array(entries) => list(entries),
            Value::Object(object) if object.get("code").is_some() => match self.definitions {
                [file] => Ok(vec![(file.clone(), Ok(value))]),
                _ => list(std::slice::from_ref(&value)),
            },
            Value::Object(object) => match object.get("cases") {
                Some(Value::Array(entries)) => list(entries),
                Some(Value::Object(cases)) => Ok(self.by_name(cases)),
                _ => Ok(self.by_name(object)),
            },
            _ => Err(odd("neither an expectation nor expectations by file")),
        }
    }

    fn list(&self, entries: &[Value]) -> Result<Vec<Judged>, &'static str> {
        let named = |entry: &Value| {
            let keys = ["file", "name", "case", "definition"];
            let name = keys.iter().find_map(|key| entry.get(key).and_then(Value::as_str));
            let name = name.ok_or("an expectation without `file`")?;
            Ok((self.file(name), Ok(entry.clone())))
        };
        entries.iter().map(named).collect()
    }

    /// What is no expectation, such as a text under `about`, is a remark.
    fn by_name(&self, object: &Object) -> Vec<Judged> {
        let named = object.iter().filter_map(|(name, entry)| match entry {
            Value::Object(_) => Some((name, entry.clone())),
            Value::Array(all) => Some((name, json!({"code": null, "also": all}))),
            Value::String(code) if code.starts_with("FDL") => Some((name, json!({"code": code}))),
            _ => None,
        });
        named.map(|(name, entry)| (self.file(name), Ok(entry))).collect()
    }

    /// The definition of this name, with or without extension; one that is not there otherwise.
    fn file(&self, name: &str) -> PathBuf {
        let name = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
        let is = |part: Option<&std::ffi::OsStr>| part.is_some_and(|part| part == name);
        let matches = |file: &&PathBuf| is(file.file_name()) || is(file.file_stem());
        let found = self.definitions.iter().find(matches).cloned();
        found.unwrap_or_else(|| self.folder.join(name))
    }
}

/// How deep folders are followed.
const MAX_FOLDERS: usize = 8;
