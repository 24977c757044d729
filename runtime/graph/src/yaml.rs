//! YAML as a tree that knows where in the file each part stands.
//!
//! Unlike a loader into maps this keeps doubled keys, so that both can be pointed at.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashMap;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The text that it lies in, by its number in the report: 0 is the graph, others are its modules.
    pub source: u16,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Length in characters, on this line.
    pub len: usize,
}

/// A part of a YAML document.
#[derive(Clone, Debug, PartialEq)]
pub struct Yaml {
    /// Where it starts.
    pub span: Span,
    /// What it is.
    pub data: Data,
    /// The number of its anchor (`&name`), which its aliases (`*name`) have too: they are one value in several places.
    pub shared: Option<usize>,
}

/// What a part of a document is.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Text, a number, a truth value or nothing.
    Scalar(Scalar),
    /// A list.
    List(Vec<Yaml>),
    /// Keys with their values, in the order of the file; a key may come twice.
    Map(Vec<(Yaml, Yaml)>),
}

/// One scalar as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scalar {
    /// Its characters, without quotes.
    pub text: String,
    /// It is written without quotes, so that `5` is a number and `true` a truth value.
    pub plain: bool,
}

/// Text that is not YAML, or more of it than a graph can need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SyntaxFault {
    /// Where.
    pub span: Span,
    /// What is wrong.
    pub what: String,
    /// How it is mended, where that is known.
    pub fix: Option<String>,
}

/// Far deeper than any graph, and shallow enough to walk by recursion.
const DEEPEST: usize = 48;
/// Parts of a document, repeated ones included: aliases of aliases grow exponentially.
pub(crate) const MOST_PARTS: usize = 200_000;

impl Yaml {
    /// The first document of a text. An empty text is an empty scalar.
    ///
    /// # Errors
    /// The first place that is not YAML, that is nested deeper than 48 levels, or where the document outgrows
    /// 200,000 parts.
    pub fn parse(text: &str) -> Result<Self, SyntaxFault> {
        Self::parse_as(text, 0)
    }

    /// The same, of the text with this number: places and anchors are told from those of other texts.
    ///
    /// # Errors
    /// As `parse`.
    pub fn parse_as(text: &str, source: u16) -> Result<Self, SyntaxFault> {
        let in_source = |mut fault: SyntaxFault| {
            fault.span.source = source;
            fault
        };
        Builder { source, ..Builder::default() }.build(text).map_err(in_source)
    }

    /// Plain text at a place.
    pub(crate) fn plain(span: Span, text: impl Into<String>) -> Self {
        Self { span, data: Data::Scalar(Scalar { text: text.into(), plain: true }), shared: None }
    }

    /// The value that `get` gives, to be changed.
    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        let Data::Map(entries) = &mut self.data else { return None };
        entries.iter_mut().rev().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }

    /// Gives a key of a mapping this value; a new key stands where its value does.
    pub(crate) fn set(&mut self, name: &str, value: Self) {
        if let Some(there) = self.get_mut(name) {
            *there = value;
        } else if let Data::Map(entries) = &mut self.data {
            entries.push((Self::plain(value.span, name), value));
        }
    }

    /// The scalar, where it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        if let Data::Scalar(scalar) = &self.data { Some(scalar) } else { None }
    }

    /// The characters of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        self.scalar().filter(|scalar| !scalar.is_null()).map(|scalar| scalar.text.as_str())
    }

    /// The value of the last key of this name.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Data::Map(entries) = &self.data else { return None };
        entries.iter().rev().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
            Data::Scalar(scalar) if scalar.is_null() => "nothing",
            Data::Scalar(_) => "a single value",
        }
    }
}

impl Scalar {
    /// Nothing: `null`, `~` or no characters at all.
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// A list or mapping that is still open.
struct Open {
    span: Span,
    anchor: usize,
    parts: Vec<Yaml>,
    is_map: bool,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Yaml>,
    parts: usize,
    root: Option<Yaml>,
    source: u16,
}

/// More anchors than [`MOST_PARTS`] allow.
const ANCHORS_A_SOURCE: usize = 1 << 20;

fn fault(span: Span, what: impl Into<String>) -> SyntaxFault {
    SyntaxFault { span, what: what.into(), fix: None }
}

fn place(start: Marker, end: Marker) -> Span {
    let len = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 0 };
    Span { source: 0, line: start.line().max(1), column: start.col() + 1, len }
}

pub(crate) fn count_parts(yaml: &Yaml) -> usize {
    1 + match &yaml.data {
        Data::Scalar(_) => 0,
        Data::List(items) => items.iter().map(count_parts).sum(),
        Data::Map(entries) => entries.iter().map(|(key, value)| count_parts(key) + count_parts(value)).sum(),
    }
}

fn depth(yaml: &Yaml) -> usize {
    1 + match &yaml.data {
        Data::Scalar(_) => 0,
        Data::List(items) => items.iter().map(depth).max().unwrap_or(0),
        Data::Map(entries) => entries.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0),
    }
}

impl Builder {
    fn build(mut self, text: &str) -> Result<Yaml, SyntaxFault> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| not_yaml(text, *error.marker(), error.info()))?;
            let span = Span { source: self.source, ..place(span.start, span.end) };
            match event {
                Event::Scalar(value, style, anchor, _tag) => {
                    let scalar = Scalar { text: value.into_owned(), plain: style == ScalarStyle::Plain };
                    self.add(Yaml { span, data: Data::Scalar(scalar), shared: None }, anchor)?;
                }
                Event::SequenceStart(anchor, _) => self.open(span, anchor, false)?,
                Event::MappingStart(anchor, _) => self.open(span, anchor, true)?,
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(anchor) => {
                    let Some(target) = self.anchors.get(&anchor).cloned() else {
                        return Err(fault(span, "an alias (*name) of something that is not complete here"));
                    };
                    self.parts += count_parts(&target);
                    if self.open.len() + depth(&target) > DEEPEST {
                        return Err(fault(span, format!("nested deeper than {DEEPEST} levels")));
                    }
                    self.add(Yaml { span, data: target.data, shared: Some(self.shared(anchor)) }, 0)?;
                }
                Event::DocumentStart(_) if self.root.is_some() => {
                    let what = "a second YAML document begins here, which would be ignored; one is expected";
                    let fix = Some("leave out the line '---', or put what follows into a file of its own".to_owned());
                    return Err(SyntaxFault { span, what: what.to_owned(), fix });
                }
                _ => {}
            }
        }
        let empty = Scalar { text: String::new(), plain: true };
        let span = Span { source: self.source, line: 1, column: 1, len: 0 };
        Ok(self.root.unwrap_or(Yaml { span, data: Data::Scalar(empty), shared: None }))
    }

    fn shared(&self, anchor: usize) -> usize {
        usize::from(self.source) * ANCHORS_A_SOURCE + anchor
    }

    fn open(&mut self, span: Span, anchor: usize, is_map: bool) -> Result<(), SyntaxFault> {
        if self.open.len() >= DEEPEST {
            return Err(fault(span, format!("nested deeper than {DEEPEST} levels")));
        }
        self.open.push(Open { span, anchor, parts: Vec::new(), is_map });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxFault> {
        let Some(Open { span, anchor, parts, is_map }) = self.open.pop() else { return Ok(()) };
        let data = if is_map {
            let mut entries = Vec::with_capacity(parts.len() / 2);
            let mut parts = parts.into_iter();
            while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
                entries.push((key, value));
            }
            Data::Map(entries)
        } else {
            Data::List(parts)
        };
        self.add(Yaml { span, data, shared: None }, anchor)
    }

    fn add(&mut self, mut part: Yaml, anchor: usize) -> Result<(), SyntaxFault> {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(fault(part.span, format!("more than {MOST_PARTS} values; this is not a graph")));
        }
        if anchor > 0 {
            part.shared = Some(self.shared(anchor));
            self.anchors.insert(anchor, part.clone());
        }
        match self.open.last_mut() {
            Some(parent) => parent.parts.push(part),
            None => self.root = Some(part),
        }
        Ok(())
    }
}

/// A tab in the indentation is the usual reason, and the parser's words for it are hard to understand.
fn not_yaml(text: &str, marker: Marker, info: &str) -> SyntaxFault {
    match tab_indent(text) {
        Some((line, column)) if line <= marker.line() + 1 => SyntaxFault {
            span: Span { source: 0, line, column, len: 1 },
            what: "this line is indented with a tab; YAML allows spaces only".to_owned(),
            fix: Some("indent with spaces".to_owned()),
        },
        _ => match key_without_blank(text, marker).filter(|_| info.contains("simple key")) {
            Some((span, key)) => SyntaxFault {
                span,
                what: format!("a blank is missing between '{key}:' and its value, so that this is no key"),
                fix: Some(format!("{key}: …")),
            },
            None => fault(place(marker, marker), format!("this is not valid YAML: {info}")),
        },
    }
}

/// The last line before a fault that is `KEY:value`, which is one text to YAML, and its key.
fn key_without_blank(text: &str, marker: Marker) -> Option<(Span, String)> {
    let lines: Vec<&str> = text.lines().take(marker.line()).collect();
    lines.iter().enumerate().rev().find_map(|(index, line)| {
        let content = line.trim_start();
        let (key, value) = content.split_once(':')?;
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        let is_value = value.starts_with(|c: char| !c.is_whitespace() && c != '/') && !value.contains(": ");
        let column = line.chars().count() - content.chars().count() + 1;
        let span = Span { source: 0, line: index + 1, column, len: content.chars().count() };
        (is_key && is_value).then(|| (span, key.to_owned()))
    })
}

/// Line and column of the first tab before a line's first character.
fn tab_indent(text: &str) -> Option<(usize, usize)> {
    text.lines().enumerate().find_map(|(index, line)| {
        let indent = line.chars().take_while(|c| *c == ' ' || *c == '\t');
        let column = indent.enumerate().find(|(_, c)| *c == '\t')?.0 + 1;
        let blank = line.trim().is_empty() || line.trim_start().starts_with('#');
        (!blank).then_some((index + 1, column))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn knows_places_in_characters() {
        let yaml = Yaml::parse("# é\nä: é\nnodes:\n  - id: \"a b\"\n").unwrap();
        assert_eq!(yaml.get("ä").unwrap().span, Span { source: 0, line: 2, column: 4, len: 1 });
        let Data::List(nodes) = &yaml.get("nodes").unwrap().data else { panic!("a list") };
        assert_eq!(nodes[0].get("id").unwrap().span, Span { source: 0, line: 4, column: 9, len: 5 });
        assert!(!nodes[0].get("id").unwrap().scalar().unwrap().plain);
    }

    #[test]
    fn keeps_doubled_keys_and_follows_aliases() {
        let yaml = Yaml::parse("a: &x [1, 2]\na: 3\nb: *x\n").unwrap();
        let Data::Map(entries) = &yaml.data else { panic!("a mapping") };
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[2].1.data, entries[0].1.data);
        assert!(entries[2].1.shared.is_some() && entries[2].1.shared == entries[0].1.shared);
        assert_eq!(entries[1].1.shared, None);
        assert_eq!(yaml.get("a").unwrap().text(), Some("3"));
    }

    #[test]
    fn refuses_what_would_not_end() {
        assert!(Yaml::parse(&"[".repeat(60)).unwrap_err().what.contains("nested deeper"));
        assert!(Yaml::parse(&"[".repeat(100_000)).is_err());
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let refs = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        assert!(Yaml::parse(&bomb).unwrap_err().what.contains("more than"));
        assert!(Yaml::parse("a: &a [*a]").unwrap_err().what.contains("not complete"));
    }

    #[test]
    fn names_tabs() {
        let found = Yaml::parse("nodes:\n\t- id: a\n").unwrap_err();
        assert_eq!((found.span.line, found.span.column), (2, 1));
        assert!(found.what.contains("tab"));
    }

    #[test]
    fn empty_is_nothing() {
        for text in ["", "# only a comment\n", "---\n"] {
            assert_eq!(Yaml::parse(text).unwrap().kind(), "nothing");
        }
    }
}
