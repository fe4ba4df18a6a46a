//! JSON that is carried, not looked into: arguments and results.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON text, known to be valid. Cheap to clone: clones share the text, and so does the message
/// that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Bytes);

impl Json {
    /// A value as JSON.
    ///
    /// # Errors
    ///
    /// What cannot be written as JSON, such as a map whose keys are no strings.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|text| Self(text.into()))
    }

    /// A text that has to be one JSON value.
    ///
    /// # Errors
    ///
    /// Where the text is no JSON.
    pub fn from_text(text: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        let raw: &RawValue = serde_json::from_slice(&text)?;
        if raw.get().len() == text.len() {
            return Ok(Self(text));
        }
        // Without the white space around it.
        Ok(Self(Bytes::copy_from_slice(raw.get().as_bytes())))
    }

    /// `null`.
    pub const fn null() -> Self {
        Self(Bytes::from_static(b"null"))
    }

    /// The value as a type of yours.
    ///
    /// # Errors
    ///
    /// Where the text does not fit the type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    /// The text as bytes that are shared.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: the shortest JSON has one character.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both say the same, white space and order of keys aside.
    pub fn means(&self, other: &Json) -> bool {
        let value = |json: &Json| json.parse::<serde_json::Value>().ok();
        self == other || value(self).is_some_and(|one| Some(one) == value(other))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue =
            serde_json::from_str(self.as_str()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text: Box<str> = raw.into();
        Ok(Self(Bytes::from(text.into_boxed_bytes().into_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_value_is_json() {
        for text in ["", "{", "{} {}", "nul", "\u{feff}{}"] {
            assert!(Json::from_text(text.to_owned()).is_err(), "{text:?}");
        }
        let json = Json::from_text(" {\"a\": 1} \n".to_owned()).unwrap();
        assert_eq!(json.as_str(), "{\"a\": 1}");
    }

    #[test]
    fn meaning_ignores_space_and_order() {
        let json = |text: &str| Json::from_text(text.to_owned()).unwrap();
        assert!(json("{\"a\":1,\"b\":2}").means(&json("{ \"b\":2, \"a\":1 }")));
        assert!(!json("{\"a\":1}").means(&json("{\"a\":2}")));
    }

    #[test]
    fn deep_nesting_is_an_error_where_it_is_looked_into() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let json = Json::from_text(deep).unwrap();
        assert!(json.parse::<serde_json::Value>().is_err());
        assert!(!json.means(&Json::from_text("[".repeat(500) + &"]".repeat(500)).unwrap()));
    }
}
