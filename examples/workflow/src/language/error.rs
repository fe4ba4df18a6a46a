//! Errors and warnings about a definition: code, place, words and a hint.

use std::fmt;

use serde::{Serialize, Serializer};

/// A place in the text; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// Something wrong in a definition, or worth a warning ([`Code::is_warning`]).
///
/// The order is by position, then by code and path: the order in which they are reported.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DefinitionError {
    /// What kind of mistake it is.
    pub code: Code,
    /// Where it is in the document, as a JSONPath: `$.steps[2].choices[0].goto`.
    pub path: String,
    /// Where it is in the text.
    #[serde(flatten)]
    pub position: Position,
    /// What is wrong, in words.
    pub message: String,
    /// What may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

macro_rules! codes {
    ($($name:ident $text:literal $words:literal),* $(,)?) => {
        /// The kind of a definition error (`FDL…`) or warning (`FDLW…`).
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Code {
            $(#[doc = $words] $name,)*
        }

        impl Code {
            /// Every code, errors first.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code as reported: `FDL009`, `FDLW01`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// What the code stands for, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $words,)* }
            }
        }
    };
}

codes! {
    Syntax "FDL001" "YAML syntax",
    TopLevelMissing "FDL002" "top-level key missing",
    VersionOrType "FDL003" "value of version or type",
    UnknownStepType "FDL004" "unknown step type",
    MissingField "FDL005" "missing field",
    UnknownField "FDL006" "unknown field",
    BadName "FDL007" "bad name",
    DuplicateStepName "FDL008" "duplicate step name",
    GotoNotSibling "FDL009" "goto is not a sibling",
    ConditionSyntax "FDL010" "condition syntax",
    BadSource "FDL011" "bad source expression",
    WaitOneOfTwo "FDL012" "wait takes one of duration and timestamp",
    OutOfRange "FDL013" "number out of range",
    WrongType "FDL014" "wrong value type",
    ResourceOrPattern "FDL015" "resourceArn or pattern",
    TooLarge "FDL016" "too many branches, nesting or size",
    TokenOutsideCallback "FDL017" "token outside waitForCallback",
    DuplicateKey "FDL018" "duplicate key",
    EmptyList "FDL019" "empty list",
    UnsupportedYaml "FDL020" "unsupported YAML",
    UnreachableStep "FDLW01" "unreachable step",
    TargetMappedTwice "FDLW02" "target mapped twice",
    SpinningLoop "FDLW03" "goto loop without wait or task",
    TokenNotPassed "FDLW04" "waitForCallback whose input never carries the token",
    HiddenCatch "FDLW05" "catch that an earlier catch hides",
}

impl Code {
    /// Whether it is a warning: the definition can be executed all the same.
    pub fn is_warning(self) -> bool {
        self >= Self::UnreachableStep
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}: {}", self.position, self.code, self.path, self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for DefinitionError {}

impl Ord for DefinitionError {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |error: &Self| (error.position, error.code);
        (key(self), &self.path, &self.message).cmp(&(key(other), &other.path, &other.message))
    }
}

impl PartialOrd for DefinitionError {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
