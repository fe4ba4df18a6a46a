//! Folders of bad definitions: each must be refused with the error that is expected.
//!
//! An expectation `{code, path, message_contains, also}` names one error that must be among those
//! reported: its code, its path unless null, line and column if given, and words of its message or
//! hint; `also` names further ones, by code or as expectations. Where expectations stand in a
//! folder is the matter of `folder.rs`.

mod folder;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::language::{Code, Definition, DefinitionError, LanguageLimits};

/// What came of one bad definition.
#[derive(Clone, Debug)]
pub struct BadCase {
    /// Its name: that of the file, or of the folder that holds the definition alone.
    pub name: String,
    /// The definition.
    pub file: PathBuf,
    /// What was reported, errors before warnings.
    pub reported: Vec<DefinitionError>,
    /// What is not as expected; empty when all is.
    pub failures: Vec<String>,
}

/// Judges every bad definition of a folder and the folders in it, in the order of their names.
///
/// A definition without an expectation fails, and so does an expectation without a definition.
///
/// # Errors
///
/// A folder that cannot be read or has no cases, or an `expected.json` of another form.
pub fn run_bad_cases(folder: &Path) -> Result<Vec<BadCase>, String> {
    let found = folder::find(folder)?;
    if found.is_empty() {
        let expected = folder::EXPECTED;
        return Err(format!("{}: no bad definitions with an {expected}", folder.display()));
    }
    Ok(found.into_iter().map(judge).collect())
}

fn judge(found: folder::Found) -> BadCase {
    let folder::Found { name, file, expectation } = found;
    let judged = expectation.and_then(|expectation| {
        let bytes = std::fs::read(&file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such definition".to_owned(),
            _ => error.to_string(),
        })?;
        Ok(judge_text(&String::from_utf8_lossy(&bytes), &expectation))
    });
    let (reported, failures) = judged.unwrap_or_else(|why| (Vec::new(), vec![why]));
    BadCase { name, file, reported, failures }
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
/// expectation may as well name the field, or one of the two of which a wait takes one.
fn is_at(error: &DefinitionError, path: &str) -> bool {
    let names_field = |field: &str| match error.code {
        Code::MissingField | Code::TopLevelMissing => {
            error.message.starts_with(&format!("`{field}` "))
        }
        Code::WaitOneOfTwo => matches!(field, "duration" | "timestamp"),
        _ => false,
    };
    let field = path.strip_prefix(&error.path).and_then(|rest| rest.strip_prefix('.'));
    error.path == path || field.is_some_and(names_field)
}

/// Message and hint, without regard to case: an expectation is about words, not sentences.
fn said(error: &DefinitionError) -> String {
    let hint = error.hint.as_deref().unwrap_or_default();
    format!("{} {hint}", error.message).to_lowercase()
}
