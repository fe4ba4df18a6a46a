//! JSON that is carried, not looked into: arguments and results.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// A JSON text, known to be valid. Cheap to clone: clones share the text, and so does the message
/// that carries it; a short one needs no memory of its own.
#[derive(Clone)]
pub struct Json(Text);

#[derive(Clone)]
enum Text {
    Short { length: u8, bytes: [u8; SHORT] },
    Shared(Bytes),
}

/// Texts of at most so many bytes are kept in place; as many as fit without making it larger.
const SHORT: usize = 23;

/// Bytes that are written on the stack first.
const USUAL: usize = 256;

impl Json {
    /// A value as JSON.
    ///
    /// # Errors
    ///
    /// What cannot be written as JSON, such as a map whose keys are no strings.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        let mut text = SmallVec::<[u8; USUAL]>::new();
        serde_json::to_writer(&mut text, value)?;
        Ok(match text.spilled() {
            true => Self(Text::Shared(text.into_boxed_slice().into())),
            false => Self::copy_of(&text),
        })
    }

    /// A text that has to be one JSON value.
    ///
    /// # Errors
    ///
    /// Where the text is no JSON.
    pub fn from_text(text: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        let raw: &RawValue = serde_json::from_slice(&text)?;
        if raw.get().len() == text.len() && text.len() > SHORT {
            return Ok(Self(Text::Shared(text)));
        }
        // Without the white space around it.
        Ok(Self::copy_of(raw.get().as_bytes()))
    }

    /// `null`.
    pub const fn null() -> Self {
        Self(Text::Shared(Bytes::from_static(b"null")))
    }

    fn copy_of(text: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        Self(match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text);
                Text::Short { length, bytes }
            }
            _ => Text::Shared(Bytes::copy_from_slice(text)),
        })
    }

    /// The value as a type of yours.
    ///
    /// # Errors
    ///
    /// Where the text does not fit the type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.as_slice())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_slice()).unwrap_or("null")
    }

    fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Text::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Text::Shared(bytes) => bytes,
        }
    }

    /// The text as bytes, which are shared unless it is short.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Text::Short { .. } => Bytes::copy_from_slice(self.as_slice()),
            Text::Shared(bytes) => bytes.clone(),
        }
    }

    /// Whether it has no memory of its own to share.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.0, Text::Short { .. })
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Never: the shortest JSON has one character.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Whether both say the same, white space and order of keys aside.
    pub fn means(&self, other: &Json) -> bool {
        let value = |json: &Json| json.parse::<serde_json::Value>().ok();
        self == other || value(self).is_some_and(|one| Some(one) == value(other))
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Json {}

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
        if raw.get().len() <= SHORT {
            return Ok(Self::copy_of(raw.get().as_bytes()));
        }
        let text: Box<str> = raw.into();
        Ok(Self(Text::Shared(text.into_boxed_bytes().into())))
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
    fn short_and_long_texts_are_alike() {
        assert_eq!(size_of::<Json>(), size_of::<Bytes>());
        for length in [2, SHORT - 1, SHORT, SHORT + 1, USUAL, USUAL + 1, 3 * USUAL] {
            let text = "x".repeat(length - 2);
            let json = Json::of(&text).unwrap();
            assert_eq!((json.len(), json.as_str()), (length, format!("\"{text}\"").as_str()));
            assert_eq!(json.parse::<String>().unwrap(), text);
            assert_eq!(json, Json::from_text(json.to_bytes()).unwrap());
            assert_eq!(json, serde_json::from_str(json.as_str()).unwrap());
        }
    }

    #[test]
    fn deep_nesting_is_an_error_where_it_is_looked_into() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let json = Json::from_text(deep).unwrap();
        assert!(json.parse::<serde_json::Value>().is_err());
        assert!(!json.means(&Json::from_text("[".repeat(500) + &"]".repeat(500)).unwrap()));
    }
}
