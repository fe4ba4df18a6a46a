//! Strict JSON to a tree of nodes with positions.
//!
//! JSON is nearly YAML, but not in its tabs and surrogate pairs. A text that begins with `{` is
//! tried here first; if it is not JSON, it is YAML in flow style.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Number;

use crate::language::cursor::Cursor;
use crate::language::node::{
    Entry, Node, NodeKind, Problems, Unreadable, index_path, key_path, problem,
};
use crate::language::read_yaml::duplicate_key;
use crate::language::{Code, DefinitionError, LanguageLimits, Position};

/// Reads a text that begins as an object of JSON; `None`: it is not JSON.
pub(crate) fn read(text: &str, limits: &LanguageLimits) -> Option<Result<Rc<Node>, Unreadable>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let cursor = Cursor::new(text);
    let mut reader =
        Reader { cursor, line: 1, line_start: 0, limits, problems: Problems::default() };
    let root = match reader.value(0, "$") {
        Ok(root) => root,
        Err(Stop::NotJson) => return None,
        Err(Stop::TooDeep(error)) => return Some(Err(vec![error])),
    };
    reader.space();
    if reader.cursor.peek().is_some() {
        return None;
    }
    Some(if reader.problems.is_empty() { Ok(root) } else { Err(reader.problems.into_vec()) })
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    line: u32,
    /// The offset of the first character of the line.
    line_start: usize,
    limits: &'a LanguageLimits,
    problems: Problems,
}

enum Stop {
    NotJson,
    TooDeep(DefinitionError),
}

type Read<T> = Result<T, Stop>;

impl Reader<'_> {
    /// The recursion ends at the limit of depth.
    fn value(&mut self, depth: usize, path: &str) -> Read<Rc<Node>> {
        self.space();
        let at = self.position();
        let kind = match self.cursor.peek().ok_or(Stop::NotJson)? {
            '{' | '[' if depth >= self.limits.max_depth => {
                let message = format!("nested more than {depth} deep");
                return Err(Stop::TooDeep(problem(Code::TooLarge, path.into(), at, message)));
            }
            '{' => self.object(depth, path)?,
            '[' => self.array(depth, path)?,
            '"' => NodeKind::Text(self.string()?),
            _ => self.literal()?,
        };
        Ok(Rc::new(Node::new(kind, at)))
    }

    fn object(&mut self, depth: usize, path: &str) -> Read<NodeKind> {
        self.cursor.next();
        let mut entries = Vec::new();
        let mut places: HashMap<String, Position> = HashMap::new();
        if self.eat("}") {
            return Ok(NodeKind::Map(entries));
        }
        loop {
            self.space();
            let at = self.position();
            let key = self.string()?;
            if !self.eat(":") {
                return Err(Stop::NotJson);
            }
            let value = self.value(depth + 1, &key_path(path, &key))?;
            match places.get(&key) {
                Some(&first) => self.problems.push(duplicate_key(path, &key, at, first)),
                None => {
                    places.insert(key.clone(), at);
                    entries.push(Entry { key, at, value });
                }
            }
            if self.eat("}") {
                return Ok(NodeKind::Map(entries));
            }
            if !self.eat(",") {
                return Err(Stop::NotJson);
            }
        }
    }

    fn array(&mut self, depth: usize, path: &str) -> Read<NodeKind> {
        self.cursor.next();
        let mut items = Vec::new();
        if self.eat("]") {
            return Ok(NodeKind::List(items));
        }
        loop {
            items.push(self.value(depth + 1, &index_path(path, items.len()))?);
            if self.eat("]") {
                return Ok(NodeKind::List(items));
            }
            if !self.eat(",") {
                return Err(Stop::NotJson);
            }
        }
    }

    fn string(&mut self) -> Read<String> {
        if !self.cursor.eat("\"") {
            return Err(Stop::NotJson);
        }
        self.cursor.quoted('"').map_err(|_| Stop::NotJson)
    }

    fn literal(&mut self) -> Read<NodeKind> {
        let word = self.cursor.take_while(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        Ok(match word {
            "null" => NodeKind::Null,
            "true" => NodeKind::Bool(true),
            "false" => NodeKind::Bool(false),
            _ => match serde_json::from_str::<Number>(word) {
                Ok(number) => NodeKind::Number(number),
                Err(_) => return Err(Stop::NotJson),
            },
        })
    }

    fn eat(&mut self, text: &str) -> bool {
        self.space();
        self.cursor.eat(text)
    }

    fn space(&mut self) {
        while let Some(c @ (' ' | '\t' | '\r' | '\n')) = self.cursor.peek() {
            self.cursor.next();
            if c == '\n' {
                self.line += 1;
                self.line_start = self.cursor.offset();
            }
        }
    }

    fn position(&self) -> Position {
        let column = self.cursor.offset() - self.line_start + 1;
        Position { line: self.line, column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}
