//! A YAML document as a tree in which each part knows its place.

use super::Fault;
use saphyr_parser::{Event, Parser, ScalarStyle};

/// A part of the document.
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) data: Data,
}

pub(crate) enum Data {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may be there twice.
    Map(Vec<(Node, Node)>),
}

/// A description has four levels. The bound keeps every walk, the destructor's too, off the end of the stack.
const DEEPEST: usize = 16;

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        if let Data::Text(text) = &self.data { Some(text) } else { None }
    }

    pub(crate) fn list(&self) -> Option<&[Self]> {
        if let Data::List(list) = &self.data { Some(list) } else { None }
    }

    pub(crate) fn map(&self) -> Option<&[(Self, Self)]> {
        if let Data::Map(map) = &self.data { Some(map) } else { None }
    }

    /// What it is, in words.
    pub(crate) fn words(&self) -> String {
        match &self.data {
            Data::Null => "empty".into(),
            Data::Boolean(v) => format!("the boolean {v}"),
            Data::Integer(v) => format!("the integer {v}"),
            Data::Number(v) => format!("the number {v}"),
            Data::Text(v) => format!("the text '{v}'"),
            Data::List(v) => format!("a list of {}", v.len()),
            Data::Map(_) => "a mapping".into(),
        }
    }
}

/// What a scalar means, by the core schema of YAML 1.2.
fn resolve(text: &str, style: ScalarStyle) -> Data {
    if style != ScalarStyle::Plain {
        return Data::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Boolean(true),
        "false" | "False" | "FALSE" => return Data::Boolean(false),
        ".nan" | ".NaN" | ".NAN" => return Data::Number(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Data::Number(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Data::Number(f64::NEG_INFINITY),
        _ => {}
    }
    if let Ok(integer) = text.parse() {
        return Data::Integer(integer);
    }
    // `inf` and `nan` are words to YAML, numbers to Rust
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text.parse() {
        Ok(number) if numeric => Data::Number(number),
        _ => Data::Text(text.to_owned()),
    }
}

/// A list or mapping that is still open.
struct Open {
    line: usize,
    column: usize,
    parts: Vec<Node>,
    is_map: bool,
}

impl Open {
    fn close(self) -> Node {
        let Self { line, column, parts, is_map } = self;
        if !is_map {
            return Node { line, column, data: Data::List(parts) };
        }
        let mut entries = Vec::with_capacity(parts.len() / 2);
        let mut parts = parts.into_iter();
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            entries.push((key, value));
        }
        Node { line, column, data: Data::Map(entries) }
    }
}

/// The one document of `text`.
pub(crate) fn document(text: &str) -> Result<Node, Fault> {
    let at = |line: usize, column: usize, text: String| Fault { line: line.max(1), column: column + 1, text };
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = event.map_err(|e| {
            let what = format!("not YAML: {}; mend the indentation, brackets or quotes here", e.info());
            at(e.marker().line(), e.marker().col(), what)
        })?;
        let (line, column) = (span.start.line(), span.start.col());
        let refuse = |what: &str| Err(at(line, column, format!("{what} are not read here; write the value out")));
        let done = match event {
            Event::Alias(_) => return refuse("aliases (*name)"),
            Event::Scalar(.., Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return refuse("tags (!name)");
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= DEEPEST {
                    return Err(at(
                        line,
                        column,
                        format!("nested deeper than {DEEPEST} levels; a description has four"),
                    ));
                }
                let is_map = matches!(event, Event::MappingStart(..));
                open.push(Open { line: line.max(1), column: column + 1, parts: Vec::new(), is_map });
                continue;
            }
            Event::Scalar(text, style, ..) => {
                Some(Node { line: line.max(1), column: column + 1, data: resolve(&text, style) })
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(Open::close),
            _ => continue,
        };
        let Some(node) = done else { continue };
        match open.last_mut() {
            Some(parent) => parent.parts.push(node),
            None if root.is_none() => root = Some(node),
            None => {
                let text = "a second document; remove the '---' before it".to_owned();
                return Err(Fault { line: node.line, column: node.column, text });
            }
        }
    }
    root.filter(|root| !matches!(root.data, Data::Null))
        .ok_or_else(|| at(1, 0, "the file is empty; expected a mapping that begins with 'schema: 1'".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

    use super::*;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        let words = |text: &str| resolve(text, ScalarStyle::Plain).words();
        for (text, want) in [
            ("12", "the integer 12"),
            ("+3", "the integer 3"),
            ("-0.5", "the number -0.5"),
            ("1e-3", "the number 0.001"),
            ("1.", "the number 1"),
            ("inf", "the text 'inf'"),
            ("nan", "the text 'nan'"),
            (".inf", "the number inf"),
            ("yes", "the text 'yes'"),
            ("true", "the boolean true"),
            ("~", "empty"),
            ("1.2.3", "the text '1.2.3'"),
            ("e", "the text 'e'"),
        ] {
            assert_eq!(words(text), want, "{text}");
        }
        assert_eq!(resolve("12", ScalarStyle::DoubleQuoted).words(), "the text '12'");
    }

    impl Data {
        fn words(self) -> String {
            Node { line: 1, column: 1, data: self }.words()
        }
    }

    #[test]
    fn what_would_need_expansion_is_refused() {
        let refusal = |text: &str| document(text).map(|_| ()).unwrap_err();
        assert_eq!(refusal("a: &x 1\nb: *x\n").text, "aliases (*name) are not read here; write the value out");
        assert_eq!((refusal("a: &x 1\nb: *x\n").line, refusal("a: &x 1\nb: *x\n").column), (2, 4));
        assert!(refusal("a: !!int 7").text.starts_with("tags"));
    }
}
