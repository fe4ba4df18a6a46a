//! Folders of bad definitions: each must be refused with the error that is expected.
//!
//! A folder holds YAML files and an `expected.json`. That is one expectation `{code, path,
//! message_contains, also}` for the folder's only definition, an object of expectations by file
//! name (with or without extension; a list for several of one file), or a list of expectations
//! with a `file`. Folders may be
//! nested. An expectation names one error that must be among those reported: its code, its path
//! unless null, line and column if given, and words of its message or hint; `also` names further
//! ones, by code or as expectations.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::language::{Code, Definition, DefinitionError, LanguageLimits};

/// What came of one bad definition.
#[derive(Clone, Debug)]
pub struct BadCase {
    /// The definition.
    pub file: PathBuf,
    /// What was reported, errors before warnings.
    pub reported: Vec<DefinitionError>,
    /// What is not as expected; empty when all is.
    pub failures: Vec<String>,
}

/// Judges every bad definition of a folder and the folders in it, in the order of their names.
///
/// # Errors
///
/// A folder without cases, a file that cannot be read, or an `expected.json` of another form.
pub fn run_bad_cases(folder: &Path) -> Result<Vec<BadCase>, String> {
    let mut cases = Vec::new();
    collect(folder, &mut cases, MAX_FOLDERS)?;
    if cases.is_empty() {
        return Err(format!("{}: no bad definitions with an {EXPECTED}", folder.display()));
    }
    Ok(cases)
}

const EXPECTED: &str = "expected.json";

/// How deep folders are followed.
const MAX_FOLDERS: usize = 8;

/// What a definition may be called.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

fn collect(folder: &Path, cases: &mut Vec<BadCase>, depth: usize) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let expected = folder.join(EXPECTED);
    if expected.is_file() {
        for (file, expectation) in expectations(&expected, &definitions(&paths))? {
            cases.push(judge(file, &expectation)?);
        }
    }
    if depth > 0 {
        for path in paths.iter().filter(|path| path.is_dir()) {
            collect(path, cases, depth - 1)?;
        }
    }
    Ok(())
}

fn definitions(paths: &[PathBuf]) -> Vec<PathBuf> {
    let is_definition = |path: &&PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.is_file()
            && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
            && path.file_name().is_some_and(|name| name != EXPECTED)
    };
    paths.iter().filter(is_definition).cloned().collect()
}

/// The definitions of a folder with what is expected of them.
fn expectations(expected: &Path, files: &[PathBuf]) -> Result<Vec<(PathBuf, Value)>, String> {
    let text = read(expected)?;
    let value: Value =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", expected.display()))?;
    let odd = |what: &str| format!("{}: {what}", expected.display());
    let find = |name: &str| {
        let name = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
        let matches = |file: &&PathBuf| {
            let is = |part: Option<&std::ffi::OsStr>| part.is_some_and(|part| part == name);
            is(file.file_name()) || is(file.file_stem())
        };
        files.iter().find(matches).cloned().ok_or_else(|| odd(&format!("no definition `{name}`")))
    };
    let list = |entries: &[Value]| {
        let named = entries.iter().map(|entry| {
            let name = ["file", "name", "case", "definition"]
                .iter()
                .find_map(|key| entry.get(key).and_then(Value::as_str))
                .ok_or_else(|| odd("an expectation without `file`"))?;
            Ok((find(name)?, entry.clone()))
        });
        named.collect()
    };
    match &value {
        Value::Array(entries) => list(entries),
        Value::Object(object) if object.get("code").is_some() => match files {
            [file] => Ok(vec![(file.clone(), value)]),
            _ => list(std::slice::from_ref(&value)),
        },
        Value::Object(object) => match object.get("cases") {
            Some(Value::Array(entries)) => list(entries),
            Some(Value::Object(cases)) => by_name(cases, find),
            _ => by_name(object, find),
        },
        _ => Err(odd("neither an expectation nor expectations by file")),
    }
}

/// What is no expectation, such as a text under `about`, is a remark.
fn by_name(
    object: &crate::language::Object,
    find: impl Fn(&str) -> Result<PathBuf, String>,
) -> Result<Vec<(PathBuf, Value)>, String> {
    let named = object.iter().filter_map(|(name, entry)| match entry {
        Value::Object(_) => Some((name, entry.clone())),
        Value::Array(all) => Some((name, json!({"code": null, "also": all}))),
        Value::String(code) if code.starts_with("FDL") => Some((name, json!({"code": code}))),
        _ => None,
    });
    named.map(|(name, entry)| Ok((find(name)?, entry))).collect()
}

fn judge(file: PathBuf, expectation: &Value) -> Result<BadCase, String> {
    let (reported, failures) = judge_text(&read(&file)?, expectation);
    Ok(BadCase { file, reported, failures })
}

/// Judges one text: what is reported about it, and what of that is not as expected.
pub fn judge_text(text: &str, expectation: &Value) -> (Vec<DefinitionError>, Vec<String>) {
    let checked = Definition::check(text, &LanguageLimits::default());
    let mut failures = Vec::new();
    if checked.definition.is_some() {
        failures.push("the definition is not refused".into());
    }
    let reported: Vec<_> = checked.errors.into_iter().chain(checked.warnings).collect();
    // Several expectations of one file stand under `also` alone.
    if expectation.get("code") != Some(&Value::Null) {
        expect(expectation, &reported, &mut failures);
    }
    let also = match expectation.get("also") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(further)) => further.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    for further in also {
        expect(further, &reported, &mut failures);
    }
    (reported, failures)
}

/// An expectation is met when one reported error meets all of it.
fn expect(expectation: &Value, reported: &[DefinitionError], failures: &mut Vec<String>) {
    let code = expectation.as_str().or_else(|| expectation.get("code").and_then(Value::as_str));
    let Some(code) = code else {
        return failures.push(format!("an expectation without code: {expectation}"));
    };
    let path = expectation.get("path").and_then(Value::as_str);
    let words: Vec<&str> = match expectation.get("message_contains") {
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(words)) => vec![words],
        _ => Vec::new(),
    };
    let number = |key: &str| expectation.get(key).and_then(Value::as_u64);
    let meets = |error: &&DefinitionError| {
        let said = said(error);
        error.code.as_str() == code
            && path.is_none_or(|path| is_at(error, path))
            && number("line").is_none_or(|line| line == u64::from(error.position.line))
            && number("column").is_none_or(|column| column == u64::from(error.position.column))
            && words.iter().all(|word| said.contains(&word.to_lowercase()))
    };
    if !reported.iter().any(|error| meets(&error)) {
        let place = path.map(|path| format!(" at {path}")).unwrap_or_default();
        failures.push(format!("no {code}{place} that says {words:?}"));
    }
}

/// Whether the error is at the path. That of a missing field is the path of what lacks it; an
/// expectation may as well name the field.
fn is_at(error: &DefinitionError, path: &str) -> bool {
    let is_missing = matches!(error.code, Code::MissingField | Code::TopLevelMissing);
    let names_field = |field: &str| error.message.starts_with(&format!("`{field}` "));
    let field = path.strip_prefix(&error.path).and_then(|rest| rest.strip_prefix('.'));
    error.path == path || (is_missing && field.is_some_and(names_field))
}

/// Message and hint, without regard to case: an expectation is about words, not sentences.
fn said(error: &DefinitionError) -> String {
    let hint = error.hint.as_deref().unwrap_or_default();
    format!("{} {hint}", error.message).to_lowercase()
}

fn read(file: &Path) -> Result<String, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
