//! Scalars of YAML by the 1.2 core schema, with numbers that begin in zero kept as strings.

use saphyr_parser::Tag;
use serde_json::Number;

use crate::language::node::{NodeKind, shortened};

/// What a scalar is: strings unless it is plain and reads as something else, or a tag says so.
///
/// # Errors
///
/// A tag that is not of the core schema or does not fit the text; a number that JSON has not.
pub(crate) fn resolve(text: &str, is_plain: bool, tag: Option<&Tag>) -> Result<NodeKind, String> {
    let Some(tag) = tag else {
        return if is_plain { plain(text) } else { Ok(NodeKind::Text(text.into())) };
    };
    if is_unspecific(tag) || (tag.is_yaml_core_schema() && tag.suffix == "str") {
        return Ok(NodeKind::Text(text.into()));
    }
    let kind = plain(text)?;
    match (&kind, tag.suffix.as_str()) {
        _ if !tag.is_yaml_core_schema() => Err(unsupported_tag(tag)),
        (NodeKind::Null, "null") | (NodeKind::Bool(_), "bool") => Ok(kind),
        (NodeKind::Number(number), "int") if !number.is_f64() => Ok(kind),
        (NodeKind::Number(number), "float") => {
            Number::from_f64(number.as_f64().unwrap_or_default())
                .map(NodeKind::Number)
                .ok_or_else(|| not_json(text))
        }
        (_, "null" | "bool" | "int" | "float") => {
            Err(format!("`{}` is no {}", shortened(text), tag.suffix))
        }
        _ => Err(unsupported_tag(tag)),
    }
}

/// The tag `!`, which asks for a string.
pub(crate) fn is_unspecific(tag: &Tag) -> bool {
    (tag.handle.is_empty() && tag.suffix == "!") || (tag.handle == "!" && tag.suffix.is_empty())
}

pub(crate) fn unsupported_tag(tag: &Tag) -> String {
    let name = if tag.handle == "!" || tag.handle.is_empty() {
        format!("!{}", tag.suffix.trim_start_matches('!'))
    } else if tag.is_yaml_core_schema() {
        format!("!!{}", tag.suffix)
    } else {
        format!("!<{}{}>", tag.handle, tag.suffix)
    };
    format!("the tag {} is not supported", shortened(&name))
}

fn plain(text: &str) -> Result<NodeKind, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => NodeKind::Null,
        "true" | "True" | "TRUE" => NodeKind::Bool(true),
        "false" | "False" | "FALSE" => NodeKind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Err(not_json(text)),
        _ => match unsigned(text) {
            ".inf" | ".Inf" | ".INF" => return Err(not_json(text)),
            digits => match number(text, digits) {
                Some(number) => NodeKind::Number(number.ok_or_else(|| not_json(text))?),
                None => NodeKind::Text(text.into()),
            },
        },
    })
}

fn not_json(text: &str) -> String {
    format!("`{}` is not a number of JSON", shortened(text))
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// `None`: not a number. `Some(None)`: a number that is too large.
fn number(text: &str, digits: &str) -> Option<Option<Number>> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return all.then(|| u64::from_str_radix(digits, radix).ok().map(Number::from));
        }
    }
    if !is_decimal(digits) {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Ok(integer) = text.parse::<i64>() {
        return Some(Some(integer.into()));
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Some(Some(integer.into()));
    }
    Some(text.parse().ok().and_then(Number::from_f64))
}

/// `12`, `1.5`, `1.`, `.5`, `1e3`; not `010`, which is a string here.
fn is_decimal(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let exponent_fits = exponent.map(unsigned).is_none_or(|text| !text.is_empty() && all(text));
    has_digits && all(whole) && all(fraction) && !leading_zero && exponent_fits
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::language::Position;
    use crate::language::node::Node;

    fn value(text: &str) -> Value {
        Node::new(plain(text).unwrap(), Position::default()).to_value()
    }

    #[test]
    fn core_schema() {
        // Section 3.1: `yes`, `no`, `on`, timestamps and `010` are strings.
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
            "010",
            "-010",
            "007.5",
            "00",
            "1_000",
            "0b1",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "1:30",
            "0x",
            "0o8",
            "1e",
            "e1",
            ".",
            "-",
            "+",
            "--1",
            "tRUE",
            "nULL",
            "1.2.3",
            "0xg",
            "-0x1",
            "١",
        ] {
            assert_eq!(value(text), json!(text));
        }
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("TRUE", json!(true)),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("+5", json!(5)),
            ("-12", json!(-12)),
            ("18446744073709551615", json!(u64::MAX)),
            ("18446744073709551616", json!(18446744073709551616.0)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("1.0", json!(1.0)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("0.50", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("-1.5E-1", json!(-0.15)),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        for text in [".nan", "-.inf", "+.INF", "1e999", "0xfffffffffffffffff"] {
            assert!(plain(text).is_err(), "{text}");
        }
    }
}
