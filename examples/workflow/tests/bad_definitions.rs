//! Bad definitions: the folder `bad`, every code in it, and the judge itself.
//!
//! `bad/expected.json` says for each file the error that must be among those reported (section
//! 3.12), with its path and, where given, its place in the text.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;

use workflow::bad_cases::{BadCase, judge_text, run_bad_cases};
use workflow::language::{Code, Definition, DefinitionError};

#[test]
fn every_bad_definition_is_refused_as_expected() {
    let cases = run_bad_cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("bad")).unwrap();
    let mut codes = BTreeSet::new();
    for case in &cases {
        assert!(case.failures.is_empty(), "{}: {:#?}", case.file.display(), case);
        codes.extend(case.reported.iter().map(|error| error.code));
    }
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let errors: BTreeSet<Code> =
        Code::ALL.iter().copied().filter(|code| !code.is_warning()).collect();
    assert_eq!(errors.difference(&codes).collect::<Vec<_>>(), Vec::<&Code>::new());
}

#[test]
fn an_expectation_that_is_not_met_fails() {
    let text = "version: v1\ntype: flow\nsteps: [{type: pass}]\n";
    let failures = |expected: &str| judge_text(text, &serde_json::from_str(expected).unwrap()).1;
    let met = r#"{"code": "FDL005", "path": "$.steps[0]", "message_contains": ["NAME"]}"#;
    assert_eq!(failures(met), Vec::<String>::new());
    for unmet in [
        r#"{"code": "FDL006"}"#,
        r#"{"code": "FDL005", "path": "$.steps[1]"}"#,
        r#"{"code": "FDL005", "path": null, "message_contains": ["name", "nom"]}"#,
        r#"{"code": "FDL005", "line": 4}"#,
        r#"{"code": "FDL005", "also": ["FDL006"]}"#,
        r#"{"code": "FDL005", "also": [{"code": "FDL005", "path": "$"}]}"#,
        "{}",
    ] {
        assert_eq!(failures(unmet).len(), 1, "{unmet}");
    }
    // A missing field may be named in the path, and no other.
    assert_eq!(failures(r#"{"code": "FDL005", "path": "$.steps[0].name"}"#).len(), 0);
    assert_eq!(failures(r#"{"code": "FDL005", "path": "$.steps[0].type"}"#).len(), 1);
    let good = "version: v1\ntype: flow\nsteps: [{type: pass, name: a}]\n";
    assert_eq!(judge_text(good, &serde_json::json!({"code": "FDL005"})).1.len(), 2);
}

fn parse(text: &str) -> Vec<DefinitionError> {
    Definition::parse(text).unwrap_err()
}

#[test]
fn all_errors_at_once_by_position() {
    // Section 3.12: all problems, ordered by position.
    let errors = parse(include_str!("../bad/999-many.yaml"));
    let found: Vec<_> = errors.iter().map(|error| error.code.as_str()).collect();
    assert_eq!(
        found,
        ["FDL005", "FDL006", "FDL004", "FDL008", "FDL013", "FDL010", "FDL009"],
        "{errors:#?}"
    );
    assert!(errors.is_sorted());
}

#[test]
fn what_cannot_be_read_has_no_other_errors() {
    // Section 3.12: only FDL001, FDL018 and FDL020 are reported then.
    for text in [
        "version: v2\ntype: flow\ntype: flow\nsteps: []\n",
        "version: v2\nsteps: !Ref x\n",
        "version: v2\nsteps: [\n",
    ] {
        let unreadable = [Code::Syntax, Code::DuplicateKey, Code::UnsupportedYaml];
        assert!(parse(text).iter().all(|error| unreadable.contains(&error.code)), "{text}");
    }
}

#[test]
fn an_error_prints_its_place_code_path_words_and_hint() {
    let errors = parse("version: v1\ntype: flow\nsteps: [{type: pass, name: a, nam: b}]\n");
    assert_eq!(
        errors[0].to_string(),
        "3:31 FDL006 at $.steps[0].nam: unknown field `nam` in a pass step (did you mean `name`?)"
    );
    assert_eq!(
        serde_json::to_string(&errors[0]).unwrap(),
        concat!(
            r#"{"code":"FDL006","path":"$.steps[0].nam","line":3,"column":31,"#,
            r#""message":"unknown field `nam` in a pass step","#,
            r#""hint":"did you mean `name`?"}"#,
        )
    );
}

#[test]
fn limits_on_both_sides() {
    let flow = |steps: &str| format!("version: v1\ntype: flow\nsteps:\n{steps}");
    let wait = |seconds: &str| flow(&format!("- {{type: wait, name: w, duration: {seconds}}}\n"));
    assert!(Definition::parse(&wait("172800")).is_ok());
    assert_eq!(parse(&wait("172800.001"))[0].code, Code::OutOfRange);
    let branches = |count: usize| {
        let branch = |index| format!("{{steps: [{{type: pass, name: s{index}}}]}}");
        let branches: Vec<_> = (0..count).map(branch).collect();
        flow(&format!("- {{type: parallel, name: p, branches: [{}]}}\n", branches.join(", ")))
    };
    assert!(Definition::parse(&branches(100)).is_ok());
    assert_eq!(parse(&branches(101))[0].code, Code::TooLarge);
    let nested = |lists: usize| {
        let mut steps = "[{type: pass, name: leaf}]".to_string();
        for level in 1..lists {
            steps = format!("[{{type: parallel, name: p{level}, branches: [{{steps: {steps}}}]}}]");
        }
        format!("version: v1\ntype: flow\nsteps: {steps}\n")
    };
    assert!(Definition::parse(&nested(10)).is_ok());
    assert_eq!(parse(&nested(11))[0].code, Code::TooLarge);
    let data = |levels: usize| {
        let value = "[".repeat(levels) + &"]".repeat(levels);
        format!("x-a: {value}\nversion: v1\ntype: flow\nsteps: [{{type: pass, name: a}}]\n")
    };
    assert!(Definition::parse(&data(63)).is_ok());
    assert_eq!(parse(&data(64))[0].code, Code::TooLarge);
    let sized = |bytes: usize| {
        let rest = "version: v1\ntype: flow\nsteps: [{type: pass, name: a}]\n";
        format!("#{}\n{rest}", "x".repeat(bytes - rest.len() - 2))
    };
    assert!(Definition::parse(&sized(1 << 20)).is_ok());
    assert_eq!(parse(&sized((1 << 20) + 1))[0].code, Code::TooLarge);
    let aliases = |count: usize| {
        let list = vec!["*a"; count].join(", ");
        format!("x-a: &a 1\nx-b: [{list}]\n{}", flow("- {type: pass, name: a}\n"))
    };
    assert!(Definition::parse(&aliases(100)).is_ok());
    assert_eq!(parse(&aliases(101))[0].code, Code::UnsupportedYaml);
    let named = |length: usize| flow(&format!("- {{type: pass, name: {}}}\n", "a".repeat(length)));
    assert!(Definition::parse(&named(128)).is_ok());
    assert_eq!(parse(&named(129))[0].code, Code::BadName);
}

#[test]
fn the_readme_lists_every_code_and_its_example() {
    let readme = include_str!("../README.md");
    for code in Code::ALL {
        let row = format!("| {code} | {} |", code.title());
        assert!(readme.contains(&row), "{row}");
    }
    let example = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let errors = parse(example.unwrap());
    assert_eq!(errors.len(), 2);
    for error in errors {
        let line = format!(
            "flow.yaml:{}: error {} {}: {}\n",
            error.position, error.code, error.path, error.message
        );
        assert!(readme.contains(&line), "{line}");
    }
}

#[test]
fn expectations_come_in_several_forms() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "version: v1\ntype: flow\nsteps: [{type: pass, nam: a}]\n";
    let judged = |expected: &str| {
        std::fs::write(folder.path().join("a.yaml"), bad).unwrap();
        std::fs::write(folder.path().join("expected.json"), expected).unwrap();
        let cases = run_bad_cases(folder.path())?;
        Ok::<_, String>(cases.iter().map(|case| case.failures.len()).collect::<Vec<_>>())
    };
    for (expected, failures) in [
        (r#"{"code": "FDL005"}"#, 0),
        (r#"{"code": "FDL001"}"#, 1),
        (r#"{"about": "a remark", "a.yaml": {"code": "FDL006"}}"#, 0),
        (r#"{"a": {"code": "FDL001"}}"#, 1),
        (r#"{"a.yaml": [{"code": "FDL005"}, {"code": "FDL001"}]}"#, 1),
        (r#"{"a.yaml": "FDL005"}"#, 0),
        (r#"[{"file": "a.yaml", "code": "FDL001"}]"#, 1),
        (r#"{"cases": [{"name": "a", "code": "FDL005"}]}"#, 0),
    ] {
        assert_eq!(judged(expected), Ok(vec![failures]), "{expected}");
    }
    for odd in ["", "7", "{}", r#"[{"code": "FDL001"}]"#] {
        assert!(judged(odd).is_err(), "{odd}");
    }
    // An expectation without its definition fails, and a definition without its expectation.
    assert_eq!(judged(r#"{"b.yaml": {"code": "FDL001"}}"#), Ok(vec![1, 1]));
}

#[test]
fn expectations_stand_in_several_places() {
    let bad = "version: v1\ntype: flow\nsteps: [{type: pass, nam: a}]\n";
    let judged = |files: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let cases = run_bad_cases(folder.path())?;
        let outcome = |case: &BadCase| (case.name.clone(), case.failures.len());
        Ok::<_, String>(cases.iter().map(outcome).collect::<Vec<_>>())
    };
    let expected = r#"{"code": "FDL005", "path": "$.steps[0]", "message_contains": ["name"]}"#;
    let one = |name: &str| Ok(vec![(name.to_owned(), 0)]);
    assert_eq!(judged(&[("a.yaml", bad), ("a.expected.json", expected)]), one("a"));
    assert_eq!(judged(&[("a.yml", bad), ("a.json", expected)]), one("a"));
    let nested = [("a/flow.yaml", bad), ("a/expected.json", expected), ("a/input.json", "{}")];
    assert_eq!(judged(&nested), one("a"));
    assert_eq!(
        judged(&[("b/a.json", "{}"), ("b/expected.json", r#"{"a": "FDL002"}"#)]),
        one("b/a")
    );
    assert!(judged(&[("a.yaml", bad)]).unwrap_err().contains("no bad definitions"));
    assert!(run_bad_cases(Path::new("/nowhere")).is_err());
}
