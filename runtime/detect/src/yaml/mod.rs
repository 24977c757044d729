//! Reading YAML so that every fault of a file is reported at once, each with its place, its cause and its cure.

mod tree;

pub(crate) use tree::{Data, Node, document};

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, what is expected and how to correct it.
    pub text: String,
}

/// The faults found so far. Every reader returns `None` after it has noted why.
#[derive(Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

/// A mapping whose keys were all checked against the ones that are known.
pub(crate) struct Section<'n> {
    node: &'n Node,
    what: &'static str,
    map: &'n [(Node, Node)],
}

impl<'n> Section<'n> {
    /// The mapping itself, for a fault of the whole.
    pub(crate) fn node(&self) -> &'n Node {
        self.node
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.map.iter().find(|(k, _)| k.text() == Some(key)).map(|(_, v)| v)
    }
}

impl Faults {
    pub(crate) fn fault_at(&mut self, node: &Node, text: impl Into<String>) {
        self.0.push(Fault { line: node.line, column: node.column, text: text.into() });
    }

    /// `node` as a mapping with no other keys than `keys`.
    pub(crate) fn section<'n>(&mut self, node: &'n Node, what: &'static str, keys: &[&str]) -> Option<Section<'n>> {
        let Some(map) = node.map() else {
            self.fault_at(node, format!("{what} is {}; expected a mapping of: {}", node.words(), keys.join(", ")));
            return None;
        };
        for (i, (key, _)) in map.iter().enumerate() {
            match key.text() {
                Some(name) if keys.contains(&name) => {
                    if map[..i].iter().any(|(before, _)| before.text() == Some(name)) {
                        self.fault_at(key, format!("{what} has '{name}' twice; remove one"));
                    }
                }
                Some(name) => {
                    let hint = nearest(name, keys).map_or(String::new(), |n| format!("; did you mean '{n}'?"));
                    self.fault_at(key, format!("{what} has no key '{name}'{hint} (known: {})", keys.join(", ")));
                }
                None => self
                    .fault_at(key, format!("a key of {what} is {}; expected one of: {}", key.words(), keys.join(", "))),
            }
        }
        Some(Section { node, what, map })
    }

    pub(crate) fn required<'n>(&mut self, section: &Section<'n>, key: &str, like: &str) -> Option<&'n Node> {
        let found = section.get(key);
        if found.is_none() {
            self.fault_at(section.node, format!("{} lacks '{key}'; write for example `{key}: {like}`", section.what));
        }
        found
    }

    pub(crate) fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        match node.text() {
            Some(text) if !text.trim().is_empty() => Some(text.to_owned()),
            Some(_) => {
                self.fault_at(node, format!("'{key}' is empty; expected a text"));
                None
            }
            None => {
                self.fault_at(node, format!("'{key}' is {}; expected a text, in quotes if need be", node.words()));
                None
            }
        }
    }

    pub(crate) fn integer(&mut self, node: &Node, key: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let value = match node.data {
            Data::Integer(v) => u32::try_from(v).ok().filter(|v| range.contains(v)),
            _ => None,
        };
        if value.is_none() {
            let (lo, hi) = (range.start(), range.end());
            self.fault_at(node, format!("'{key}' is {}; expected an integer from {lo} to {hi}", node.words()));
        }
        value
    }

    pub(crate) fn number(&mut self, node: &Node, key: &str, range: std::ops::RangeInclusive<f32>) -> Option<f32> {
        let value = match node.data {
            Data::Integer(v) => Some(v as f32),
            Data::Number(v) => Some(v as f32),
            _ => None,
        };
        let value = value.filter(|v| range.contains(v));
        if value.is_none() {
            let (lo, hi) = (range.start(), range.end());
            self.fault_at(node, format!("'{key}' is {}; expected a number from {lo} to {hi}", node.words()));
        }
        value
    }

    /// Three numbers, one per channel.
    pub(crate) fn triple(&mut self, node: &Node, key: &str, range: std::ops::RangeInclusive<f32>) -> Option<[f32; 3]> {
        match node.list() {
            Some([a, b, c]) => {
                let [a, b, c] = [a, b, c].map(|n| self.number(n, key, range.clone()));
                Some([a?, b?, c?])
            }
            _ => {
                let found = node.words();
                self.fault_at(node, format!("'{key}' is {found}; expected one number per channel: `{key}: [1, 1, 1]`"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, node: &Node, key: &str) -> Option<bool> {
        if let Data::Boolean(value) = node.data {
            return Some(value);
        }
        self.fault_at(node, format!("'{key}' is {}; expected true or false", node.words()));
        None
    }

    /// One of the `allowed` words.
    pub(crate) fn choice<T: Copy>(&mut self, node: &Node, key: &str, allowed: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
        let word = node.text();
        let found = allowed.iter().find(|(name, _)| Some(*name) == word).map(|(_, value)| *value);
        if found.is_none() {
            let hint =
                word.and_then(|w| nearest(w, &names)).map_or(String::new(), |n| format!("; did you mean '{n}'?"));
            self.fault_at(node, format!("'{key}' is {}{hint} (allowed: {})", node.words(), names.join(", ")));
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
