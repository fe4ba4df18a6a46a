//! Conditions of choice steps: their values (F-40 to F-43).
//!
//! A condition is parsed once, with the definition, and evaluated on the input of the step. The
//! parser bounds the nesting, so the recursion here is bounded.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

use crate::language::Path;
use crate::language::condition_parse;

/// A parsed condition: `$.size > 100 && $.kind == "docx"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    expression: Expression,
}

/// Why a text is not a condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConditionError {
    /// Where in the condition, in characters from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

/// The structure of a condition; `&&` and `||` hold all their operands, so that a long chain is
/// no deep tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    Literal(Value),
    Path(Path),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Compare(Comparison, Box<Expression>, Box<Expression>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    ///
    /// What is outside the grammar (F-44), with its column.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        Ok(Self { text: text.into(), expression: condition_parse::parse(text)? })
    }

    /// The condition that is always or never true: `condition: true` as a boolean of YAML.
    pub fn constant(value: bool) -> Self {
        Self { text: value.to_string(), expression: Expression::Literal(value.into()) }
    }

    /// Whether the condition is true for this input of a step (F-43).
    pub fn matches(&self, input: &Value) -> bool {
        *self.expression.value(input) == Value::Bool(true)
    }

    /// The condition as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the condition is the literal `true`.
    pub fn is_always_true(&self) -> bool {
        self.expression == Expression::Literal(Value::Bool(true))
    }

    /// The condition with brackets around every operation: equal text means equal structure.
    pub fn structure(&self) -> String {
        self.expression.to_string()
    }
}

/// The condition as written.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for ConditionError {}

impl Expression {
    fn value<'a>(&'a self, input: &'a Value) -> Cow<'a, Value> {
        let is_true = |operand: &Self| *operand.value(input) == Value::Bool(true);
        let truth = match self {
            Self::Literal(value) => return Cow::Borrowed(value),
            Self::Path(path) => return path_value(path, input),
            Self::Negate(operand) => return Cow::Owned(negated(&operand.value(input))),
            Self::Not(operand) => !is_true(operand),
            Self::And(operands) => operands.iter().all(is_true),
            Self::Or(operands) => operands.iter().any(is_true),
            Self::Compare(comparison, left, right) => {
                comparison.holds(&left.value(input), &right.value(input))
            }
        };
        Cow::Owned(Value::Bool(truth))
    }
}

/// F-40: a missing path is `null`.
fn path_value<'a>(path: &Path, input: &'a Value) -> Cow<'a, Value> {
    if path.is_multi() {
        return Cow::Owned(path.find(input).unwrap_or_default());
    }
    path.find_one(input).map_or(Cow::Owned(Value::Null), Cow::Borrowed)
}

/// The negative of a number, `null` for everything else.
fn negated(value: &Value) -> Value {
    let Value::Number(number) = value else { return Value::Null };
    match integer(number) {
        // The negative zero of floats is no integer, the rest stays what it is where it fits.
        Some(integer) => match i64::try_from(-integer) {
            Ok(negative) => negative.into(),
            Err(_) => (-(integer as f64)).into(),
        },
        None => number.as_f64().map_or(Value::Null, |float| (-float).into()),
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        match self {
            Self::Equal => equal(left, right),
            Self::NotEqual => !equal(left, right),
            Self::Less => order(left, right).is_some_and(Ordering::is_lt),
            Self::LessOrEqual => order(left, right).is_some_and(Ordering::is_le),
            Self::Greater => order(left, right).is_some_and(Ordering::is_gt),
            Self::GreaterOrEqual => order(left, right).is_some_and(Ordering::is_ge),
            Self::In => contains(right, left),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}

/// F-40: different kinds are never equal, numbers are equal by value, arrays and objects deeply.
/// The depth of data is bounded by what read it.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            numeric_order(left, right) == Some(Ordering::Equal)
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, value): (&String, &Value)| {
                right.get(key).is_some_and(|other| equal(value, other))
            };
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}

/// F-41: numbers among numbers, strings among strings by code point; nothing else has an order.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => numeric_order(left, right),
        // UTF-8 sorts as its code points do.
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// F-42: an element of an array, a key of an object; otherwise false.
fn contains(container: &Value, wanted: &Value) -> bool {
    match (container, wanted) {
        (Value::Array(elements), _) => elements.iter().any(|element| equal(element, wanted)),
        (Value::Object(object), Value::String(key)) => object.contains_key(key),
        _ => false,
    }
}

/// Compares by value and exactly: integers are never rounded to floats.
fn numeric_order(left: &Number, right: &Number) -> Option<Ordering> {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        (Some(left), None) => Some(integer_to_float(left, right.as_f64()?)),
        (None, Some(right)) => Some(integer_to_float(right, left.as_f64()?).reverse()),
        (None, None) => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn integer_to_float(integer: i128, float: f64) -> Ordering {
    // Beyond this a float is larger than every 64-bit integer, so the cast may saturate.
    let whole = float.trunc();
    let fraction = if float > whole {
        Ordering::Less
    } else if float < whole {
        Ordering::Greater
    } else {
        Ordering::Equal
    };
    integer.cmp(&(whole as i128)).then(fraction)
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = |f: &mut fmt::Formatter<'_>, operands: &[Self], operator: &str| {
            f.write_str("(")?;
            for (index, operand) in operands.iter().enumerate() {
                write!(f, "{}{operand}", if index == 0 { "" } else { operator })?;
            }
            f.write_str(")")
        };
        match self {
            Self::Literal(value) => write!(f, "{value}"),
            Self::Path(path) => write!(f, "{path}"),
            Self::Not(operand) => write!(f, "!{operand}"),
            // With the blank `- 0` stays an operation; `-0` would be read as one number.
            Self::Negate(operand) => write!(f, "- {operand}"),
            Self::And(operands) => chain(f, operands, " && "),
            Self::Or(operands) => chain(f, operands, " || "),
            Self::Compare(comparison, left, right) => {
                write!(f, "({left} {} {right})", comparison.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(text: &str) -> bool {
        let input = json!({
            "zero": 0, "one": 1, "f": 1.0, "half": 0.5, "s": "b", "t": true, "n": null,
            "a": [1, "x", [2]], "b": [1.0, "x", [2]], "o": {"k": null, "d": {"e": 1}},
            "o2": {"d": {"e": 1.0}, "k": null},
            "max": u64::MAX, "min": i64::MIN, "big": 9_007_199_254_740_993_i64,
        });
        Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).matches(&input)
    }

    fn all(expected: bool, texts: &[&str]) {
        for text in texts {
            assert_eq!(matches(text), expected, "{text}");
        }
    }

    #[test]
    fn equality() {
        // F-40: missing is null; kinds differ; numbers by value; arrays and objects deeply.
        all(true, &["$.gone == null", "$.n == null", "$.gone == $.n", "$.one == $.f", "1 == 1.0"]);
        all(true, &["$.a == $.b", "$.o == $.o2", "$.one != \"1\"", "$.t == true", "$.gone != 1"]);
        all(false, &["$.zero == false", "$.one == \"1\"", "$.zero == null", "\"\" == null"]);
        all(false, &["$.a != $.b", "$.n != null", "$.t == 1", "$.a == $.a[0]"]);
        all(true, &["$.a[*] == $.a", "$.gone[*] != null", "$.big != 9007199254740992.0"]);
    }

    #[test]
    fn order_needs_two_numbers_or_two_strings() {
        // F-41: otherwise false, whichever way it is asked.
        all(
            true,
            &["$.half < $.one", "1 <= 1.0", "$.s > \"a\"", "\"a\" < \"aa\"", "\"Z\" < \"a\""],
        );
        all(true, &["$.max > $.min", "$.min < -1", "$.max > 1e10", "$.big > 9007199254740992.0"]);
        all(true, &["\"\u{ffff}\" < \"\u{10000}\"", "-$.one < 0", "-$.half == -0.5"]);
        all(false, &["$.gone > 3", "$.gone < 3", "$.gone <= null", "$.n >= null", "$.s > 1"]);
        all(false, &["$.s < 1", "$.t < true", "$.a < $.a", "$.a <= $.a", "true >= false"]);
        all(false, &["-$.s < 1", "-$.gone <= 0", "1 < 1", "1 > 1.0"]);
    }

    #[test]
    fn membership() {
        // F-42: an element of an array, a key of an object, otherwise false.
        all(true, &["1 in $.a", "1.0 in $.a", "\"x\" in $.a", "$.a[2] in $.b", "\"k\" in $.o"]);
        all(false, &["2 in $.a", "1 in $.o", "\"x\" in \"xyz\"", "null in $.a", "1 in $.gone"]);
        all(false, &["\"e\" in $.o", "null in $.o", "1 in 1"]);
        all(true, &["\"e\" in $.o.d", "1 in $.o.d.*", "null in $.o.*"]);
    }

    #[test]
    fn only_true_is_true() {
        // F-43: anything but true counts as false, the whole condition too.
        all(false, &["$.one", "$.s", "$.a", "\"true\"", "1", "null", "$.one && true", "!$.t"]);
        all(true, &["$.t", "!$.one", "!$.gone", "$.s || $.t", "!($.one && $.t)", "!!$.t"]);
        all(false, &["!!$.one", "false || $.one"]);
    }

    #[test]
    fn seed_and_documented_forms() {
        let polled = json!({"status": "running", "try_count": 4});
        let matches = |text: &str| Condition::parse(text).unwrap().matches(&polled);
        assert!(!matches("$.status == \"success\""));
        assert!(matches("$.try_count > 3"));
        assert!(matches("$input.try_count > 3 && $.status == `running`"));
        assert!(Condition::constant(true).matches(&polled));
        assert!(!Condition::constant(false).matches(&polled));
    }
}
