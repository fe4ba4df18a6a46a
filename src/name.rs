//! Names of topics and subscriptions: which texts may be one.

use crate::error::NameError;
use crate::limits::NameGrammar;

/// A name has at least one byte and at most this many.
pub const MAX_NAME_BYTES: usize = 1_024;

/// Characters of a resource id under the strict grammar (RES-2).
const STRICT_ID: std::ops::RangeInclusive<usize> = 3..=255;

/// Checks a name; `collection` is `topics` or `subscriptions`.
pub(crate) fn check(grammar: NameGrammar, collection: &str, name: &str) -> Result<(), NameError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control);
    // What subscriptions of a deleted topic name as theirs can be no topic's name (RES-9).
    let fits = fits && !(collection == "topics" && name == crate::DELETED_TOPIC);
    let fits = fits
        && match grammar {
            NameGrammar::Any => true,
            NameGrammar::Strict => is_strict(collection, name),
        };
    if fits { Ok(()) } else { Err(NameError { name: shown(name) }) }
}

/// A bare id, or a full name `projects/{project}/{collection}/{id}` (RES-1 … RES-6).
fn is_strict(collection: &str, name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [id] => is_strict_id(id),
        ["projects", project, kind, id] => {
            !project.is_empty() && *kind == collection && is_strict_id(id)
        }
        _ => false,
    }
}

fn is_strict_id(id: &str) -> bool {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"-_.~+%".contains(&b);
    STRICT_ID.contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_alphabetic())
        && !id.starts_with("goog")
        && id.bytes().all(rest)
}

/// A name as an error shows it: whole, or cut where it is far too long.
fn shown(name: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    match name.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => {
            format!("{}… ({} bytes)", name.get(..end).unwrap_or_default(), name.len())
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(name: &str) -> bool {
        check(NameGrammar::Strict, "topics", name).is_ok()
    }

    #[test]
    fn any_name_without_control_characters_will_do() {
        let any = |name: &str| check(NameGrammar::Any, "topics", name).is_ok();
        assert!(any("a") && any("projects/p/topics/t") && any("Größe 📨"));
        assert!(any(&"x".repeat(MAX_NAME_BYTES)) && !any(&"x".repeat(MAX_NAME_BYTES + 1)));
        assert!(!any("") && !any("a\nb") && !any("\u{7f}"));
    }

    #[test]
    fn strict_names_follow_the_grammar_of_the_service() {
        for good in ["abc", "Googabc", "mygoog", "a-_.~+%9", "projects/p/topics/abc"] {
            assert!(strict(good), "RES-2, RES-3: {good}");
        }
        for bad in ["ab", "goog", "googabc", "1abc", "a b c", "abc/", "/abc", "größe"] {
            assert!(!strict(bad), "RES-2 … RES-5: {bad}");
        }
        for bad in ["projects//topics/abc", "projects/p/subscriptions/abc", "projects/p/topics/"] {
            assert!(!strict(bad), "RES-5, RES-6: {bad}");
        }
        assert!(strict(&"a".repeat(255)) && !strict(&"a".repeat(256)), "LIM-1");
    }

    #[test]
    fn an_error_shows_the_name_but_not_a_megabyte_of_it() {
        let error = check(NameGrammar::Any, "topics", &"é".repeat(10_000)).expect_err("too long");
        assert!(error.to_string().len() < 400, "{error}");
    }
}
