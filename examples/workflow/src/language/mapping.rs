//! Mappings: targets and the sources they are filled from (F-02 to F-05, F-12 to F-14).

use std::cell::OnceCell;

use serde_json::Value;

use crate::language::{Object, Path, PathError, Root};

/// One entry of `inputMappings`, `outputMappings` or `errorMappings`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// The key that is filled.
    pub target: String,
    /// What it is filled from.
    pub source: Source,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// This value, taken as it is.
    Constant(Value),
    /// What the path finds.
    Path(Path),
}

/// What the roots of paths stand for at one place of a running flow.
#[derive(Debug)]
pub struct Roots<'a> {
    input: &'a Value,
    local: &'a Value,
    context: &'a Value,
    /// What `$` stands for where it is not the input; made when it is first asked for.
    overlaid: Option<OnceCell<Value>>,
}

/// The outcome of mappings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapped {
    /// Every target whose source was found, in the order of the mappings.
    pub object: Object,
    /// The targets whose source was missing, in order (F-14).
    pub missing: Vec<String>,
}

impl<'a> Roots<'a> {
    /// The roots of `inputMappings` (F-03): the parent's input and local; `$` is the input
    /// overlaid by the local.
    pub fn of_parent(input: &'a Value, local: &'a Value, context: &'a Value) -> Self {
        Self { input, local, context, overlaid: Some(OnceCell::new()) }
    }

    /// The roots of everything else (F-05): the step's own input and local; `$` is the input.
    pub fn of_step(input: &'a Value, local: &'a Value, context: &'a Value) -> Self {
        Self { input, local, context, overlaid: None }
    }

    fn value(&self, root: Root) -> &Value {
        match root {
            Root::Input => self.input,
            Root::Local => self.local,
            Root::Context => self.context,
            Root::Whole => match &self.overlaid {
                None => self.input,
                Some(made) => made.get_or_init(|| overlay(self.input, self.local).into()),
            },
        }
    }
}

/// The input of a step without `inputMappings`: the parent's input overlaid by the parent's local,
/// the local winning (F-02). What is not an object counts as an empty one.
pub fn overlay(input: &Value, local: &Value) -> Object {
    let mut object = input.as_object().cloned().unwrap_or_default();
    let local = local.as_object().into_iter().flatten();
    object.extend(local.map(|(key, value)| (key.clone(), value.clone())));
    object
}

/// Evaluates mappings in order; a missing source leaves its target out (F-14), of two mappings to
/// one target the later wins.
pub fn evaluate_mappings(mappings: &[Mapping], roots: &Roots<'_>) -> Mapped {
    let mut mapped = Mapped::default();
    for Mapping { target, source } in mappings {
        match source.evaluate(roots) {
            Some(value) => {
                mapped.object.insert(target.clone(), value);
            }
            None => mapped.missing.push(target.clone()),
        }
    }
    mapped
}

impl Source {
    /// Takes a `source` as it stands in a definition: text that begins with `$` is a path, with
    /// `$$` a literal without the first `$`; everything else is a constant.
    ///
    /// # Errors
    ///
    /// Text that begins with one `$` and is no path of F-12.
    pub fn parse(value: Value) -> Result<Self, PathError> {
        match value.as_str() {
            Some(text) if text.starts_with("$$") => {
                Ok(Self::Constant(text.chars().skip(1).collect::<String>().into()))
            }
            Some(text) if text.starts_with('$') => Path::parse(text).map(Self::Path),
            _ => Ok(Self::Constant(value)),
        }
    }

    /// The value of the source; `None` when its path is missing.
    pub fn evaluate(&self, roots: &Roots<'_>) -> Option<Value> {
        match self {
            Self::Constant(value) => Some(value.clone()),
            Self::Path(path) => path.evaluate(roots),
        }
    }
}

impl Path {
    /// What the path finds from its root, as [`Path::find`] says it.
    pub fn evaluate(&self, roots: &Roots<'_>) -> Option<Value> {
        self.find(roots.value(self.root))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping(target: &str, source: Value) -> Mapping {
        Mapping { target: target.into(), source: Source::parse(source).unwrap() }
    }

    #[test]
    fn roots_by_place() {
        let (input, local) = (json!({"a": 1, "b": 1}), json!({"b": 2, "c": 2}));
        let context = json!({"execution": {"name": "exec-1"}});
        let mappings = [
            mapping("input", json!("$input.b")),
            mapping("local", json!("$local.b")),
            mapping("whole", json!("$")),
            mapping("name", json!("$context.execution.name")),
        ];
        // F-03: `$` is the parent's input overlaid by its local; F-02: local wins.
        let parent = evaluate_mappings(&mappings, &Roots::of_parent(&input, &local, &context));
        let whole = json!({"a": 1, "b": 2, "c": 2});
        let expected = json!({"input": 1, "local": 2, "whole": whole, "name": "exec-1"});
        assert_eq!(Value::from(parent.object), expected);
        // F-05: `$` is the step's own input.
        let step = evaluate_mappings(&mappings, &Roots::of_step(&input, &local, &context));
        assert_eq!(step.object.get("whole"), Some(&input));
    }

    #[test]
    fn missing_leaves_the_target_out() {
        // F-14: no error, the target is listed; null is not missing.
        let (input, none) = (json!({"n": null}), json!({}));
        let mappings = [
            mapping("gone", json!("$input.x.y")),
            mapping("null", json!("$input.n")),
            mapping("all", json!("$input.x[*]")),
        ];
        let mapped = evaluate_mappings(&mappings, &Roots::of_step(&input, &none, &none));
        assert_eq!(Value::from(mapped.object), json!({"null": null, "all": []}));
        assert_eq!(mapped.missing, ["gone"]);
    }

    #[test]
    fn the_later_mapping_wins() {
        let none = json!({});
        let mappings = [mapping("a", json!(1)), mapping("b", json!(2)), mapping("a", json!(3))];
        let mapped = evaluate_mappings(&mappings, &Roots::of_step(&none, &none, &none));
        assert_eq!(Value::from(mapped.object), json!({"a": 3, "b": 2}));
    }

    #[test]
    fn constants_are_taken_as_they_are() {
        for constant in [json!(["$.a", {"b": "$local"}]), json!(1.5), json!(null), json!("a$b")] {
            assert_eq!(Source::parse(constant.clone()), Ok(Source::Constant(constant)));
        }
        assert_eq!(Source::parse(json!("$$.a")), Ok(Source::Constant(json!("$.a"))));
        assert_eq!(Source::parse(json!("$$")), Ok(Source::Constant(json!("$"))));
        assert!(Source::parse(json!("$foo")).is_err());
        assert!(Source::parse(json!("$100")).is_err());
    }

    #[test]
    fn one_value_or_all_matches() {
        // F-13: without wildcard or slice the one value or missing, with them always an array.
        let value = json!({"a": [{"n": 1}, {"m": 2}, {"n": 3}], "o": {"x": 1, "y": 2}});
        let find = |text: &str| Path::parse(text).unwrap().find(&value);
        assert_eq!(find("$.a[-1].n"), Some(json!(3)));
        assert_eq!(find("$.a[3]"), None);
        assert_eq!(find("$.a[-4]"), None);
        assert_eq!(find("$.a.n"), None);
        assert_eq!(find("$.o[0]"), None);
        assert_eq!(find("$.a[*].n"), Some(json!([1, 3])));
        assert_eq!(find("$.o.*"), Some(json!([1, 2])));
        assert_eq!(find("$.a[1:].m"), Some(json!([2])));
        assert_eq!(find("$.a[-2:-1].m"), Some(json!([2])));
        assert_eq!(find("$.a[2:1]"), Some(json!([])));
        assert_eq!(find("$.a[:9][0]"), Some(json!([])));
        assert_eq!(find("$.zz[*]"), Some(json!([])));
        assert_eq!(find("$.a[-9:1].n"), Some(json!([1])));
    }
}
