//! Any text is a definition or has errors: sorted, in the text, and the same each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use workflow::Definition;
use workflow::language::{Goto, LanguageLimits, Step, StepKind};

fuzz_target!(|text: &str| {
    let checked = Definition::check(text, &LanguageLimits::default());
    assert_eq!(checked, Definition::check(text, &LanguageLimits::default()));
    assert_eq!(checked.definition.is_some(), checked.errors.is_empty());
    assert!(checked.errors.is_sorted() && checked.warnings.is_sorted());
    let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap_or(u32::MAX);
    for problem in checked.errors.iter().chain(&checked.warnings) {
        let position = problem.position;
        assert!((1..=lines + 1).contains(&position.line) && position.column >= 1, "{problem}");
        assert!(problem.path.starts_with('$') && !problem.message.is_empty(), "{problem}");
    }
    if let Some(definition) = checked.definition {
        let mut ids = Vec::new();
        list(&definition.steps, &mut ids);
        assert_eq!(ids, (0..definition.step_count).collect::<Vec<_>>());
    }
});

/// Steps are numbered in order, and gotos lead to the step they name.
fn list(steps: &[Step], ids: &mut Vec<usize>) {
    for step in steps {
        ids.push(step.id);
        if let StepKind::Choice(choice) = &step.kind {
            let branches = choice.choices.iter().map(|branch| &branch.then);
            let targets = branches.chain(&choice.default).flat_map(|then| &then.goto);
            targets.for_each(|it| goto(it, steps));
        }
        if let Some(handling) = step.handling() {
            handling.catch.iter().for_each(|catch| goto(&catch.goto, steps));
        }
        step.lists().into_iter().for_each(|nested| list(nested, ids));
    }
}

fn goto(goto: &Goto, steps: &[Step]) {
    assert_eq!(steps[goto.index].name, goto.step);
}
