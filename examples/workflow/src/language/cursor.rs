//! Reading a short text character by character: what the path and condition parsers share.

/// A position in a text, in characters, and what may be read from there.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a str,
    offset: usize,
}

/// A quoted string that cannot be read: where, and why.
#[derive(Debug)]
pub(crate) struct QuoteError {
    pub(crate) offset: usize,
    pub(crate) message: String,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text, offset: 0 }
    }

    /// How many characters were read.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a str {
        self.rest
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        self.offset += 1;
        Some(c)
    }

    /// Reads `text` if it is next.
    pub(crate) fn eat(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        self.offset += text.chars().count();
        true
    }

    /// Reads while the characters are of this kind.
    pub(crate) fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.offset += taken.chars().count();
        taken
    }

    pub(crate) fn skip_space(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
    }

    /// Reads a string up to the closing `quote`, the opening one being read already; escapes are
    /// those of JSON, and the quote itself.
    pub(crate) fn quoted(&mut self, quote: char) -> Result<String, QuoteError> {
        let start = self.offset.saturating_sub(1);
        let mut text = String::new();
        loop {
            let offset = self.offset;
            match self.next() {
                Some(c) if c == quote => return Ok(text),
                Some('\\') => {
                    text.push(self.escape(quote).map_err(|message| QuoteError { offset, message })?)
                }
                Some(c) if c < ' ' => {
                    let message = format!("control character {c:?} in a string");
                    return Err(QuoteError { offset, message });
                }
                Some(c) => text.push(c),
                None => {
                    let message = format!("the string that opens here has no closing {quote}");
                    return Err(QuoteError { offset: start, message });
                }
            }
        }
    }

    fn escape(&mut self, quote: char) -> Result<char, String> {
        Ok(match self.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => self.unicode_escape()?,
            Some(c @ ('\\' | '/' | '"')) => c,
            Some(c) if c == quote => c,
            Some(c) => return Err(format!("unknown escape `\\{c}` in a string")),
            None => return Err("the string ends in an escape".into()),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, String> {
        let first = self.four_digits()?;
        let code = match first {
            0xD800..0xDC00 if self.eat("\\u") => match self.four_digits()? {
                second @ 0xDC00..0xE000 => 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                _ => first,
            },
            _ => first,
        };
        char::from_u32(code).ok_or_else(|| format!("`\\u{first:04x}` is half a character"))
    }

    fn four_digits(&mut self) -> Result<u32, String> {
        (0..4).try_fold(0, |code, _| {
            let digit = self.peek().and_then(|c| c.to_digit(16));
            let digit = digit.ok_or("`\\u` takes four hexadecimal digits")?;
            self.next();
            Ok(code * 16 + digit)
        })
    }
}
