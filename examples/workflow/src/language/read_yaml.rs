//! YAML 1.2 with the core schema to a tree of nodes, within limits (section 3.1).
//!
//! The events come from `saphyr-parser`; scalars, anchors, duplicate keys and limits are decided
//! here. The stack of open collections is a vector and never deeper than the limit.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::language::node::{
    Entry, Node, NodeKind, Problems, Unreadable, index_path, key_path, problem, shortened,
};
use crate::language::scalar;
use crate::language::{Code, DefinitionError, LanguageLimits, Position};

/// Reads one document; an empty one is `null`.
pub(crate) fn read(text: &str, limits: &LanguageLimits) -> Result<Rc<Node>, Unreadable> {
    let mut reader = Reader {
        limits,
        open: Vec::new(),
        root: None,
        anchors: BTreeMap::new(),
        expansions: 0,
        weight: 0,
        problems: Problems::default(),
    };
    if let Err(fatal) = reader.run(text) {
        reader.problems.push(fatal);
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems.into_vec());
    }
    let empty = || Node::new(NodeKind::Null, Position { line: 1, column: 1 });
    Ok(reader.root.unwrap_or_else(|| Rc::new(empty())))
}

struct Reader<'a> {
    limits: &'a LanguageLimits,
    /// The collections that are open, outermost first.
    open: Vec<Open>,
    root: Option<Rc<Node>>,
    /// What each finished anchor stands for.
    anchors: BTreeMap<usize, Anchored>,
    /// Aliases expanded so far, those inside of what was expanded included.
    expansions: usize,
    /// Nodes and bytes of scalars so far, with every alias expanded.
    weight: usize,
    problems: Problems,
}

/// An anchored node and what one alias of it costs.
struct Anchored {
    node: Rc<Node>,
    expansions: usize,
    weight: usize,
}

struct Open {
    at: Position,
    anchor: usize,
    /// The reader's counters when it was opened.
    expansions: usize,
    weight: usize,
    collection: Collection,
}

enum Collection {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, places: HashMap<String, Position>, key: Option<Key> },
}

struct Key {
    text: String,
    at: Position,
    /// The key stands in the map already; its value is read and dropped.
    is_duplicate: bool,
}

type Step = Result<(), DefinitionError>;

impl Reader<'_> {
    fn run(&mut self, text: &str) -> Step {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            if self.problems.is_full() {
                return Ok(());
            }
            let (event, span) = event.map_err(|error| self.syntax(&error))?;
            let at = position(&span);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let message = "more than one document in the text".into();
                        return Err(problem(Code::UnsupportedYaml, "$".into(), at, message));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.scalar(&text, style, anchor, tag.as_deref(), at);
                }
                Event::SequenceStart(anchor, tag) => {
                    self.collection_tag(tag.as_deref(), "seq", at);
                    self.start(Collection::List(Vec::new()), anchor, at)?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.collection_tag(tag.as_deref(), "map", at);
                    let (entries, places) = (Vec::new(), HashMap::new());
                    self.start(Collection::Map { entries, places, key: None }, anchor, at)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end(),
                Event::Alias(anchor) => self.alias(anchor, at)?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
            if self.expansions > 0 && self.weight > self.limits.max_document_bytes {
                return Err(self.here(
                    Code::UnsupportedYaml,
                    at,
                    "the aliases expand to more than the largest document (alias bomb)".into(),
                ));
            }
        }
        Ok(())
    }

    fn start(&mut self, collection: Collection, anchor: usize, at: Position) -> Step {
        if self.open.len() >= self.limits.max_depth {
            return Err(self.too_deep(at));
        }
        let (expansions, weight) = (self.expansions, self.weight);
        self.weight += 1;
        self.open.push(Open { at, anchor, expansions, weight, collection });
        Ok(())
    }

    fn end(&mut self) {
        let Some(open) = self.open.pop() else { return };
        let kind = match open.collection {
            Collection::List(items) => NodeKind::List(items),
            Collection::Map { entries, .. } => NodeKind::Map(entries),
        };
        let node = Rc::new(Node::new(kind, open.at));
        self.anchor(open.anchor, &node, open.expansions, open.weight);
        self.attach(node);
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: Position,
    ) {
        let (expansions, weight) = (self.expansions, self.weight);
        // A scalar of a document is never longer than the document; what is counted here beyond
        // its bytes is only the node itself, and only once an alias repeats it.
        let is_plain = style == ScalarStyle::Plain;
        if self.expects_key() {
            if is_plain && tag.is_none() && text == "<<" {
                let message = "merge keys (`<<`) are not supported".into();
                let mut error = self.here(Code::UnsupportedYaml, at, message);
                error.hint = Some("write the keys out".into());
                self.problems.push(error);
            }
            if let Some(tag) = tag.filter(|tag| !is_core(tag, "str")) {
                self.refuse_tag(tag, at);
            }
            let node = Rc::new(Node::new(NodeKind::Text(text.into()), at));
            self.anchor_scalar(anchor, &node, text, expansions, weight);
            return self.key(text.into(), at);
        }
        let kind = match scalar::resolve(text, is_plain, tag) {
            Ok(kind) => kind,
            Err(message) => {
                let error = self.here(Code::UnsupportedYaml, at, message);
                self.problems.push(error);
                NodeKind::Text(text.into())
            }
        };
        let node = Rc::new(Node::new(kind, at));
        self.anchor_scalar(anchor, &node, text, expansions, weight);
        self.attach(node);
    }

    fn anchor_scalar(
        &mut self,
        anchor: usize,
        node: &Rc<Node>,
        text: &str,
        expansions: usize,
        weight: usize,
    ) {
        self.weight += text.len();
        self.anchor(anchor, node, expansions, weight);
    }

    fn anchor(&mut self, anchor: usize, node: &Rc<Node>, expansions: usize, weight: usize) {
        if anchor > 0 {
            let expansions = self.expansions - expansions;
            let weight = self.weight - weight;
            self.anchors.insert(anchor, Anchored { node: Rc::clone(node), expansions, weight });
        }
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Step {
        let Some(anchored) = self.anchors.get(&anchor) else {
            let message = "an alias inside of what it names (alias bomb)".into();
            return Err(self.here(Code::UnsupportedYaml, at, message));
        };
        self.expansions += 1 + anchored.expansions;
        self.weight += 1 + anchored.weight;
        if self.expansions > self.limits.max_alias_expansions {
            let most = self.limits.max_alias_expansions;
            let message = format!("more than {most} aliases are expanded (alias bomb)");
            return Err(self.here(Code::UnsupportedYaml, at, message));
        }
        let node = Rc::clone(&anchored.node);
        if self.open.len() + node.height > self.limits.max_depth {
            return Err(self.too_deep(at));
        }
        self.attach(node);
        Ok(())
    }

    /// Puts a finished node where it belongs: a value, a key, or the root.
    fn attach(&mut self, node: Rc<Node>) {
        if self.expects_key() {
            if let NodeKind::Text(text) = &node.kind {
                return self.key(text.clone(), node.at);
            }
            let message = format!("{} as a key; keys are strings", node.describe());
            let error = self.here(Code::UnsupportedYaml, node.at, message);
            self.problems.push(error);
            return self.key(String::new(), node.at);
        }
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some(node),
            Some(Collection::List(items)) => items.push(node),
            Some(Collection::Map { entries, key, .. }) => {
                if let Some(Key { text, at, is_duplicate: false }) = key.take() {
                    entries.push(Entry { key: text, at, value: node });
                }
            }
        }
    }

    fn expects_key(&self) -> bool {
        let open = self.open.last().map(|open| &open.collection);
        matches!(open, Some(Collection::Map { key: None, .. }))
    }

    fn key(&mut self, text: String, at: Position) {
        let path = self.path();
        let Some(Collection::Map { places, key, .. }) =
            self.open.last_mut().map(|open| &mut open.collection)
        else {
            return;
        };
        let first = places.get(&text).copied();
        places.entry(text.clone()).or_insert(at);
        if let Some(first) = first {
            self.problems.push(duplicate_key(&path, &text, at, first));
        }
        *key = Some(Key { text, at, is_duplicate: first.is_some() });
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, expected: &str, at: Position) {
        if let Some(tag) = tag.filter(|tag| !is_core(tag, expected)) {
            self.refuse_tag(tag, at);
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, at: Position) {
        let error = self.here(Code::UnsupportedYaml, at, scalar::unsupported_tag(tag));
        self.problems.push(error);
    }

    fn syntax(&self, error: &saphyr_parser::ScanError) -> DefinitionError {
        let marker = error.marker();
        let at = Position { line: number(marker.line()), column: number(marker.col() + 1) };
        let mut syntax = problem(Code::Syntax, self.path(), at, shortened(error.info()));
        if error.info().contains('\t') || error.info().contains("tab") {
            syntax.hint = Some("YAML is indented by blanks, not tabs".into());
        }
        syntax
    }

    fn too_deep(&self, at: Position) -> DefinitionError {
        let message = format!("nested more than {} deep", self.limits.max_depth);
        self.here(Code::TooLarge, at, message)
    }

    /// A problem at the value that comes next.
    fn here(&self, code: Code, at: Position, message: String) -> DefinitionError {
        problem(code, self.path(), at, message)
    }

    /// The path of the value that comes next.
    fn path(&self) -> String {
        self.open.iter().fold("$".into(), |path, open| match &open.collection {
            Collection::List(items) => index_path(&path, items.len()),
            Collection::Map { key: Some(key), .. } => key_path(&path, &key.text),
            Collection::Map { key: None, .. } => path,
        })
    }
}

/// FDL018 at the second of two equal keys.
pub(crate) fn duplicate_key(
    parent: &str,
    key: &str,
    at: Position,
    first: Position,
) -> DefinitionError {
    let message =
        format!("duplicate key `{}`; the first is in line {}", shortened(key), first.line);
    let mut error = problem(Code::DuplicateKey, key_path(parent, key), at, message);
    error.hint = Some("remove one of the two".into());
    error
}

fn is_core(tag: &Tag, suffix: &str) -> bool {
    scalar::is_unspecific(tag) || (tag.is_yaml_core_schema() && tag.suffix == suffix)
}

fn position(span: &Span) -> Position {
    Position { line: number(span.start.line()), column: number(span.start.col() + 1) }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
