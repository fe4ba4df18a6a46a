//! Hostile definitions: whatever stands in a megabyte is answered, quickly and with typed errors.
//!
//! Each text is read whole by the parser in a debug build; one that took more than linear time
//! would be seen as a test that does not end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use workflow::Definition;
use workflow::language::{Code, Condition, Path};

/// The largest document.
const WHOLE: usize = 1 << 20;

/// Large enough to be deep or long, small enough to be tried in hundreds of forms.
const PART: usize = 1 << 15;

fn codes(text: &str) -> Vec<Code> {
    let errors = Definition::parse(text).expect_err("hostile text is no definition");
    assert!(errors.is_sorted(), "errors by position");
    errors.iter().map(|error| error.code).collect()
}

fn filled(size: usize, start: &str, unit: &str, end: &str) -> String {
    let count = (size - start.len() - end.len()) / unit.len();
    format!("{start}{}{end}", unit.repeat(count))
}

#[test]
fn much_of_everything() {
    let head = "version: v1\ntype: flow\nsteps:\n";
    for unit in [
        "[",
        "]",
        "{",
        "}",
        "[[",
        "{a: ",
        "- ",
        "-\n",
        "? ",
        ": ",
        "a: ",
        "a:\n",
        "a: b\n",
        "&a ",
        "*a ",
        "!",
        "!a ",
        "!!str ",
        "%",
        "%YAML 1.2\n",
        "---\n",
        "...\n",
        "\"",
        "'",
        "\"a\"",
        "\\",
        "|",
        "|\n",
        ">\n ",
        "#",
        " ",
        "\n",
        "\t",
        "\r",
        ",",
        "a",
        "0",
        "[],",
        "{},",
        "[a, ",
        "a,",
        "\u{feff}",
        "\u{1f600}",
        "\0",
        "~\n",
        "<<: *a\n",
        "\n - a",
        "a\n",
        "- - - ",
        "a b ",
        "$",
        "- a: 1\n",
        "[a]: b\n",
        "{a}: ",
        "é: ",
        "\u{85}",
        "\u{2028}",
        "@",
        "`",
        "- {}\n",
        "? - ",
        "-",
        "--- a\n",
        "[\"\\",
        "\"\\u0041",
        "&a [",
        "- &a a\n",
        "- *a\n",
        "- !!int 1\n",
        "x-: ",
    ] {
        codes(&filled(PART, "", unit, ""));
        codes(&filled(PART, head, unit, ""));
        codes(&filled(PART, "{", unit, ""));
        codes(&filled(PART, "{\"a\": \"", unit, ""));
        codes(&filled(PART, "{\"version\": \"v1\", \"steps\": [", unit, "]}"));
        codes(&filled(PART, "version: \"", unit, "\"\n"));
    }
}

#[test]
fn a_megabyte() {
    for unit in ["[", "{a: ", "- ", "a: ", "- {}\n", "[],", "a:\n", "\"", " ", "*a ", "&a ", "é"] {
        assert!(codes(&filled(WHOLE, "", unit, "")).len() <= 1_000);
        assert!(codes(&filled(WHOLE, "version: v1\nsteps:\n", unit, "")).len() <= 1_000);
    }
}

#[test]
fn aliases_cost_nothing() {
    // A billion laughs, laughs of laughs that stay below the count, and a snake eating its tail.
    let mut text = "x-0: &a0 [lol, lol, lol]\n".to_string();
    for level in 1..30 {
        let list = vec![format!("*a{}", level - 1); 9].join(", ");
        text += &format!("x-{level}: &a{level} [{list}]\n");
    }
    assert_eq!(codes(&text), [Code::UnsupportedYaml]);
    let large = format!("x-a: &a {}\nx-b: [{}]\n", "a".repeat(50_000), vec!["*a"; 50].join(", "));
    assert_eq!(codes(&large), [Code::UnsupportedYaml]);
    assert_eq!(codes("a: &a {b: [*a]}\n"), [Code::UnsupportedYaml]);
    // Depth by aliases: each doubles what the last one held.
    let open = "[".repeat(50);
    let close = "]".repeat(50);
    let deep = format!("x-a: &a {open}{close}\nx-b: {open}*a{close}\n");
    assert_eq!(codes(&deep), [Code::TooLarge]);
}

#[test]
fn expressions_are_bounded() {
    for unit in ["(", "!", "-", "$.a[", "$.a && ", "\"", "1", "$.a.", "!(", "a", "é", "`", "$"] {
        let text = filled(WHOLE, "", unit, "");
        assert!(Condition::parse(&text).is_err(), "{unit}");
        let _ = Path::parse(&text);
        let _ = Path::parse(&format!("$.{text}"));
    }
    let long = filled(WHOLE, "$", "[*]", "");
    assert!(Path::parse(&long).unwrap().find(&serde_json::json!([[[1]]])).is_some());
}
