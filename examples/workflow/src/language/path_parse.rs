//! Text to [`Path`]: the grammar of F-12, with hints for what is near it.

use crate::language::cursor::{Cursor, QuoteError};
use crate::language::path::{Path, PathError, Root, Segment, is_name_part, is_name_start};

const ROOTS: [(&str, Root); 3] =
    [("input", Root::Input), ("local", Root::Local), ("context", Root::Context)];

impl Path {
    /// Parses a path: `$.a`, `$input['b']`, `$local.items[0]`, `$context.task.token`.
    ///
    /// # Errors
    ///
    /// What is outside the grammar of F-12, with its place in the text.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let mut cursor = Cursor::new(text);
        let path = Self::parse_prefix(&mut cursor)?;
        match cursor.peek() {
            None => Ok(path),
            Some(c) => Err(error(&cursor, format!("unexpected `{c}` in a path"), trailing(c))),
        }
    }

    /// Reads the longest path that is next.
    pub(crate) fn parse_prefix(cursor: &mut Cursor<'_>) -> Result<Self, PathError> {
        if !cursor.eat("$") {
            return Err(error(cursor, "a path starts with `$`".into(), None));
        }
        let root = root(cursor)?;
        let mut segments = Vec::new();
        loop {
            if cursor.rest().starts_with("..") {
                let hint = "`..` is not part of the language; name every key on the way".into();
                return Err(error(cursor, "`..` in a path".into(), Some(hint)));
            }
            let open = cursor.clone();
            if cursor.eat(".") {
                segments.push(dotted(cursor)?);
            } else if cursor.eat("[") {
                segments.push(bracketed(&open, cursor)?);
            } else {
                return Ok(Self { root, segments });
            }
        }
    }
}

fn root(cursor: &mut Cursor<'_>) -> Result<Root, PathError> {
    let at = cursor.clone();
    let word = cursor.take_while(is_name_part);
    if word.is_empty() {
        return Ok(Root::Whole);
    }
    let known = ROOTS.iter().find(|(name, _)| *name == word);
    known.map(|(_, root)| *root).ok_or_else(|| {
        let near = ROOTS.map(|(name, _)| name);
        let hint = match crate::language::suggest::nearest(word, &near) {
            Some(name) => format!("did you mean `${name}`?"),
            None => format!("the roots are $input, $local, $context and $; a key is `$.{word}`"),
        };
        error(&at, format!("`${word}` is not a root"), Some(hint))
    })
}

fn dotted(cursor: &mut Cursor<'_>) -> Result<Segment, PathError> {
    if cursor.eat("*") {
        return Ok(Segment::Wildcard);
    }
    if cursor.peek().is_some_and(is_name_start) {
        return Ok(Segment::Key(cursor.take_while(is_name_part).into()));
    }
    let hint = "other keys are written in brackets: ['any key']".into();
    let message = match cursor.peek() {
        Some(c) => format!("`{c}` cannot begin a key after `.`"),
        None => "the path ends after `.`".into(),
    };
    Err(error(cursor, message, Some(hint)))
}

fn bracketed(open: &Cursor<'_>, cursor: &mut Cursor<'_>) -> Result<Segment, PathError> {
    cursor.skip_space();
    let segment = match cursor.peek() {
        Some(quote @ ('\'' | '"')) => {
            cursor.next();
            Segment::Key(cursor.quoted(quote).map_err(from_quote)?)
        }
        Some('*') => {
            cursor.next();
            Segment::Wildcard
        }
        Some('?') => {
            let hint = "filter in the worker, or map the array and choose in a step".into();
            return Err(error(cursor, "filters are not part of the language".into(), Some(hint)));
        }
        _ => index_or_slice(cursor)?,
    };
    cursor.skip_space();
    if cursor.eat("]") {
        return Ok(segment);
    }
    Err(match cursor.peek() {
        Some(c) => error(cursor, format!("expected `]`, found `{c}`"), None),
        None => error(open, "the bracket that opens here is not closed".into(), None),
    })
}

fn index_or_slice(cursor: &mut Cursor<'_>) -> Result<Segment, PathError> {
    let start = integer(cursor)?;
    cursor.skip_space();
    if cursor.eat(":") {
        cursor.skip_space();
        return Ok(Segment::Slice(start, integer(cursor)?));
    }
    start.map(Segment::Index).ok_or_else(|| {
        let hint = "in brackets: 'key', an index, `*`, or a slice such as 0:2".into();
        error(cursor, "bad bracket in a path".into(), Some(hint))
    })
}

fn integer(cursor: &mut Cursor<'_>) -> Result<Option<i64>, PathError> {
    let at = cursor.clone();
    let minus = if cursor.eat("-") { "-" } else { "" };
    let digits = cursor.take_while(|c| c.is_ascii_digit());
    if digits.is_empty() && minus.is_empty() {
        return Ok(None);
    }
    let odd = (digits.starts_with('0') && digits.len() > 1) || (minus == "-" && digits == "0");
    match format!("{minus}{digits}").parse() {
        Ok(index) if !odd => Ok(Some(index)),
        _ => Err(error(&at, format!("`{minus}{digits}` is not an index"), None)),
    }
}

fn trailing(c: char) -> Option<String> {
    let hint = match c {
        ' ' => "a path has no blanks",
        '+' | '*' | '/' => "there is no arithmetic; compute in a worker",
        '(' => "there are no functions; compute in a worker",
        _ => return None,
    };
    Some(hint.into())
}

fn from_quote(quote: QuoteError) -> PathError {
    PathError { offset: quote.offset, message: quote.message, hint: None }
}

fn error(cursor: &Cursor<'_>, message: String, hint: Option<String>) -> PathError {
    PathError { offset: cursor.offset(), message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    #[test]
    fn grammar() {
        // F-12: every form of the grammar.
        let path = parse(r#"$local.a-b._c['d e']["f"][0][-1][*].*[1:2][:2][1:][:]"#);
        assert_eq!(path.root, Root::Local);
        let key = |key: &str| Segment::Key(key.into());
        assert_eq!(
            path.segments,
            [
                key("a-b"),
                key("_c"),
                key("d e"),
                key("f"),
                Segment::Index(0),
                Segment::Index(-1),
                Segment::Wildcard,
                Segment::Wildcard,
                Segment::Slice(Some(1), Some(2)),
                Segment::Slice(None, Some(2)),
                Segment::Slice(Some(1), None),
                Segment::Slice(None, None),
            ]
        );
        assert_eq!(parse(&path.to_string()), path);
        assert_eq!(parse("$"), Path { root: Root::Whole, segments: vec![] });
        assert_eq!(parse("$context").root, Root::Context);
        assert_eq!(parse(r"$['it\'s']").segments, [key("it's")]);
        assert_eq!(parse(r#"$["\ud83d\ude00"]"#).segments, [key("😀")]);
    }

    #[test]
    fn outside_the_grammar() {
        // F-12: filters and descendants are not accepted, nor anything else.
        for (text, offset) in [
            ("", 0),
            ("a", 0),
            ("$x", 1),
            ("$Input.a", 1),
            ("$.", 2),
            ("$..a", 1),
            ("$.a..b", 3),
            ("$.1a", 2),
            ("$[", 2),
            ("$[]", 2),
            ("$[a]", 2),
            ("$[?(@.x)]", 2),
            ("$['a]", 2),
            ("$['a'", 1),
            ("$['a','b']", 5),
            ("$[01]", 2),
            ("$[-0]", 2),
            ("$[-]", 2),
            ("$[99999999999999999999]", 2),
            ("$[0:1:2]", 5),
            ("$.a b", 3),
            ("$.a + 1", 3),
            ("$.é", 2),
            (r"$['\x']", 3),
            (r#"$["\ud83d"]"#, 3),
        ] {
            let error = Path::parse(text).unwrap_err();
            assert_eq!(error.offset, offset, "{text}: {error:?}");
        }
    }

    #[test]
    fn near_misses_have_a_hint() {
        let hint = |text| Path::parse(text).unwrap_err().hint.unwrap();
        assert!(hint("$inputs.a").contains("`$input`"));
        assert!(hint("$name").contains("`$.name`"));
        assert!(hint("$..a").contains("not part of the language"));
    }
}
