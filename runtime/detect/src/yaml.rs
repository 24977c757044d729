//! Reading YAML so that every fault of a file is reported at once, each with its place, its cause and its cure.

use saphyr::{AnnotatedMapping, LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, what is expected and how to mend it.
    pub text: String,
}

pub(crate) type Node<'a> = MarkedYaml<'a>;

/// The faults found so far. Every reader returns `None` after it has noted why.
#[derive(Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

/// A mapping whose keys were all checked against the ones that are known.
pub(crate) struct Section<'n, 'a> {
    node: &'n Node<'a>,
    what: &'static str,
    map: &'n AnnotatedMapping<'a, Node<'a>>,
}

impl<'n, 'a> Section<'n, 'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node<'a>> {
        self.map.iter().find(|(k, _)| k.data.as_str() == Some(key)).map(|(_, v)| v)
    }
}

/// The one document of `text`.
pub(crate) fn document(text: &str) -> Result<Node<'_>, Fault> {
    let first_place = |text: &str| Fault { line: 1, column: 1, text: text.to_owned() };
    let mut documents = MarkedYaml::load_from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
        let mark = e.marker();
        let what = format!("not YAML: {}; mend the indentation, brackets or quotes here", e.info());
        Fault { line: mark.line().max(1), column: mark.col() + 1, text: what }
    })?;
    match documents.len() {
        0 => Err(first_place("the file is empty; expected a mapping that begins with 'schema: 1'")),
        1 => Ok(documents.remove(0)),
        n => Err(first_place(&format!("{n} YAML documents in one file; expected one: remove the '---' lines"))),
    }
}

/// What a node is, in words.
fn describe(node: &Node<'_>) -> String {
    match &node.data {
        YamlData::Value(Scalar::Null) => "empty".into(),
        YamlData::Value(Scalar::Boolean(v)) => format!("the boolean {v}"),
        YamlData::Value(Scalar::Integer(v)) => format!("the integer {v}"),
        YamlData::Value(Scalar::FloatingPoint(v)) => format!("the number {v}"),
        YamlData::Value(Scalar::String(v)) => format!("the text '{v}'"),
        YamlData::Sequence(v) => format!("a list of {}", v.len()),
        YamlData::Mapping(_) => "a mapping".into(),
        YamlData::Tagged(tag, _) => format!("tagged '{tag}'"),
        _ => "not a YAML value".into(),
    }
}

impl Faults {
    pub(crate) fn at(&mut self, node: &Node<'_>, text: impl Into<String>) {
        let start = node.span.start;
        self.0.push(Fault { line: start.line().max(1), column: start.col() + 1, text: text.into() });
    }

    /// `node` as a mapping with no other keys than `keys`.
    pub(crate) fn section<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        what: &'static str,
        keys: &[&str],
    ) -> Option<Section<'n, 'a>> {
        let Some(map) = node.data.as_mapping() else {
            self.at(node, format!("{what} is {}; expected a mapping of: {}", describe(node), keys.join(", ")));
            return None;
        };
        for key in map.keys() {
            match key.data.as_str() {
                Some(name) if keys.contains(&name) => {}
                Some(name) => {
                    let hint = nearest(name, keys).map_or(String::new(), |n| format!("; did you mean '{n}'?"));
                    self.at(key, format!("{what} has no key '{name}'{hint} (known: {})", keys.join(", ")));
                }
                None => self
                    .at(key, format!("a key of {what} is {}; expected one of: {}", describe(key), keys.join(", "))),
            }
        }
        Some(Section { node, what, map })
    }

    pub(crate) fn required<'n, 'a>(&mut self, section: &Section<'n, 'a>, key: &str, like: &str) -> Option<&'n Node<'a>> {
        let found = section.get(key);
        if found.is_none() {
            self.at(section.node, format!("{} lacks '{key}'; write for example `{key}: {like}`", section.what));
        }
        found
    }

    pub(crate) fn text(&mut self, node: &Node<'_>, key: &str) -> Option<String> {
        match node.data.as_str() {
            Some(text) if !text.trim().is_empty() => Some(text.to_owned()),
            Some(_) => {
                self.at(node, format!("'{key}' is empty; expected a text"));
                None
            }
            None => {
                self.at(node, format!("'{key}' is {}; expected a text, in quotes if need be", describe(node)));
                None
            }
        }
    }

    pub(crate) fn integer(&mut self, node: &Node<'_>, key: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let value = node.data.as_integer().and_then(|v| u32::try_from(v).ok()).filter(|v| range.contains(v));
        if value.is_none() {
            let (lo, hi) = (range.start(), range.end());
            self.at(node, format!("'{key}' is {}; expected an integer from {lo} to {hi}", describe(node)));
        }
        value
    }

    pub(crate) fn number(&mut self, node: &Node<'_>, key: &str, range: std::ops::RangeInclusive<f32>) -> Option<f32> {
        let value = match &node.data {
            YamlData::Value(Scalar::Integer(v)) => Some(*v as f32),
            YamlData::Value(Scalar::FloatingPoint(v)) => Some(v.0 as f32),
            _ => None,
        };
        let value = value.filter(|v| range.contains(v));
        if value.is_none() {
            let (lo, hi) = (range.start(), range.end());
            self.at(node, format!("'{key}' is {}; expected a number from {lo} to {hi}", describe(node)));
        }
        value
    }

    /// Three numbers, one per channel.
    pub(crate) fn triple(
        &mut self,
        node: &Node<'_>,
        key: &str,
        range: std::ops::RangeInclusive<f32>,
    ) -> Option<[f32; 3]> {
        match node.data.as_sequence().map(Vec::as_slice) {
            Some([a, b, c]) => {
                let [a, b, c] = [a, b, c].map(|n| self.number(n, key, range.clone()));
                Some([a?, b?, c?])
            }
            _ => {
                let found = describe(node);
                self.at(node, format!("'{key}' is {found}; expected one number per channel: `{key}: [1, 1, 1]`"));
                None
            }
        }
    }

    /// One of the `allowed` words.
    pub(crate) fn choice<T: Copy>(&mut self, node: &Node<'_>, key: &str, allowed: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
        let word = node.data.as_str();
        let found = allowed.iter().find(|(name, _)| Some(*name) == word).map(|(_, value)| *value);
        if found.is_none() {
            let hint = word.and_then(|w| nearest(w, &names)).map_or(String::new(), |n| format!("; did you mean '{n}'?"));
            self.at(node, format!("'{key}' is {}{hint} (allowed: {})", describe(node), names.join(", ")));
        }
        found
    }
}

/// The name most like `word`, if any is like it.
fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let word = word.to_lowercase();
    let far = |name: &&str| (edits(&word, name), name.len());
    let best = names.iter().copied().min_by_key(far)?;
    (edits(&word, best) <= (best.chars().count() / 3).max(1) + 1 || (word.len() > 2 && best.starts_with(&word)))
        .then_some(best)
}

/// Insertions, deletions and substitutions from `a` to `b` (Levenshtein's distance).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_the_textbook_ones() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("flaw", "lawn"), 2);
        assert_eq!(edits("same", "same"), 0);
    }

    #[test]
    fn a_hint_is_given_only_for_something_alike() {
        assert_eq!(nearest("widthpx", &["name", "width_px", "height_px"]), Some("width_px"));
        assert_eq!(nearest("yolo", &["centre", "yolox", "yolov5"]), Some("yolox"));
        assert_eq!(nearest("banana", &["centre", "yolox"]), None);
    }
}
