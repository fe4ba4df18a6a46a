//! The table of the goals bench: what was measured, against what, and whether the goal is met.
//!
//! It judges nothing but numbers that rows hand in, and knows no row.

/// What a figure has to be.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Shown, not judged: the row says it for whoever compares.
    Shown,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtMost(most) => Some(value <= most),
            Goal::AtLeast(least) => Some(value >= least),
            Goal::Shown => None,
        }
    }

    fn text(self) -> String {
        match self {
            Goal::AtMost(most) => format!("≤ {}", number(most)),
            Goal::AtLeast(least) => format!("≥ {}", number(least)),
            Goal::Shown => String::new(),
        }
    }
}

/// One line: `judged` is what the goal speaks of, a ratio or a figure.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The row's name, as `--row` takes it.
    pub(crate) row: &'static str,
    /// What was done, in which form.
    pub(crate) what: String,
    /// Ours with its unit.
    pub(crate) ours: String,
    /// The peer with its unit; empty if there is none.
    pub(crate) peer: String,
    /// Ours in relation to the peer, or ours alone.
    pub(crate) judged: f64,
    pub(crate) goal: Goal,
    pub(crate) stretch: Goal,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Line>,
    skipped: Vec<String>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// A row that cannot be measured here, and why.
    pub(crate) fn skip(&mut self, row: &str, why: &str) {
        self.skipped.push(format!("row {row}: skipped: {why}"));
    }

    pub(crate) fn print(&self) {
        println!("| row | what | ours | peer | ratio or figure | goal | stretch | met |");
        println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |");
        let (mut met, mut missed) = (0, 0);
        for line in &self.lines {
            let verdict = match (line.goal.is_met(line.judged), line.stretch.is_met(line.judged)) {
                (None, _) => "",
                (Some(false), _) => "MISSED",
                (Some(true), Some(true)) => "yes, stretch",
                (Some(true), _) => "yes",
            };
            met += usize::from(verdict.starts_with("yes"));
            missed += usize::from(verdict == "MISSED");
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {verdict} |",
                line.row,
                line.what,
                line.ours,
                line.peer,
                number(line.judged),
                line.goal.text(),
                line.stretch.text(),
            );
        }
        self.skipped.iter().for_each(|line| println!("{line}"));
        println!("goals: {met} met, {missed} missed, {} skipped", self.skipped.len());
    }
}

/// A number with as many digits as say something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
