//! A node's settings: from text in a graph's `env:` to typed values, by the JSON Schema that the node declares.
//!
//! A schema is what `schemars` 1.x derives (JSON Schema 2020-12) for a struct whose fields are booleans, integers,
//! numbers, text, enums of unit variants, lists of these, and `Option`s of these. In a graph a value is one scalar:
//!
//! | type | text |
//! |---|---|
//! | boolean | `true` or `false` |
//! | integer, number | decimal digits; no `inf`, no `nan` |
//! | enum | one of its names, as written |
//! | list | items joined by commas; empty text is the empty list |
//! | optional | as its type; empty text leaves it unset |
//!
//! Three marks beside JSON Schema's own: `"x-millrace-kind": "path"`; with it `"x-millrace-file"`, which says what the node
//! does with what is there, so that the check looks at it before anything is started ([`FileUse`]); and
//! `"x-millrace-live": true`, which is on a setting that can change while the node runs. The schema as a whole may have
//! `"x-millrace-limits"`: a setting is at most so much where another has one of these values.
//!
//! [`resolve`] is the one place that reads them: the graph check calls it before anything starts and the harness of
//! each node when it starts, so the two cannot disagree.

mod file;
mod kind;
mod limits;
#[cfg(test)]
mod tests;

pub use file::{file_path, file_text, is_url};

use crate::nearest::nearest;
use crate::redact::{is_secret, redact};
use kind::Kind;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// What is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SettingFault {
    /// The setting's name, as it was given.
    pub key: String,
    /// What is wrong.
    pub what: FaultKind,
    /// What is allowed: for an unknown setting the names there are, otherwise the values that fit.
    pub allowed: String,
    /// The name or value that was most likely meant.
    pub nearest: Option<String>,
}

/// The ways in which a setting can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No setting has this name.
    Unknown,
    /// The value does not fit; credentials in it are masked.
    Value {
        /// The text that was given.
        given: String,
    },
    /// A required setting was not given.
    Missing,
    /// The same setting was given twice.
    Twice,
}

impl SettingFault {
    /// That none of the settings `known` is called `key`.
    pub fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> Self {
        let near = nearest(key, known.clone()).map(str::to_owned);
        let names: Vec<&str> = known.collect();
        let allowed = if names.is_empty() { "none, the node has no settings".to_owned() } else { names.join(", ") };
        Self { key: key.to_owned(), what: FaultKind::Unknown, allowed, nearest: near }
    }
}

impl fmt::Display for SettingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, what, allowed, nearest } = self;
        match what {
            FaultKind::Unknown => write!(f, "no setting is called {key}")?,
            FaultKind::Value { given } => write!(f, "{key} is '{given}', which is not {allowed}")?,
            FaultKind::Missing => write!(f, "{key} is required and not set: {allowed}")?,
            FaultKind::Twice => write!(f, "{key} is set twice")?,
        }
        if let Some(nearest) = nearest {
            write!(f, "; did you mean '{nearest}'?")?;
        } else if *what == FaultKind::Unknown {
            write!(f, "; there are: {allowed}")?;
        }
        Ok(())
    }
}

/// One setting, as its schema describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingDoc {
    /// Its name.
    pub key: String,
    /// Its documentation; the first sentence is short.
    pub doc: String,
    /// What it may be, in words: `an integer from 0 to 255`.
    pub allowed: String,
    /// Its default; none where it is required or an optional setting is unset.
    pub default: Option<Value>,
    /// It has to be given.
    pub required: bool,
    /// Without a value it is unset. Otherwise it has a default, although the schema may not state it.
    pub optional: bool,
    /// Its value is a path, relative to the graph file's folder.
    pub is_path: bool,
    /// What the node does with the file or folder that it names, where it says so.
    pub file: Option<FileUse>,
    /// It can change while the node runs.
    pub live: bool,
}

/// What a node does with the file that a setting names: the mark `x-millrace-file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUse {
    /// `read`: it is there.
    Read,
    /// `source`: it is there, and may be a folder. A camera's URL is the decoder's business.
    Source,
    /// `model`: it is there, and describes a model (`model.yml`).
    Model,
    /// `write`: it is emptied, or made in a folder that is there.
    Write,
    /// `folder`: the node writes into it, and it is there.
    Folder,
    /// `made`: as `folder`, and the node makes it where it is not there.
    Made,
}

/// The typed values of the `given` settings, or all that is wrong with them.
///
/// Nothing is filled in: a setting that was not given is absent, and serde's defaults apply when the map is read into
/// the settings struct. `schema` is taken as it comes; what it does not describe in a form known here is text.
///
/// # Errors
/// Every unknown, wrong, doubled and missing setting, in the order given and then of the schema.
pub fn resolve<'a>(
    schema: &Value,
    given: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Map<String, Value>, Vec<SettingFault>> {
    let properties = properties(schema);
    let open = schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
    let mut values = Map::new();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for (key, text) in given {
        let fault = |what, allowed, nearest| SettingFault { key: key.to_owned(), what, allowed, nearest };
        if !seen.insert(key) {
            faults.push(fault(FaultKind::Twice, String::new(), None));
            continue;
        }
        let Some(property) = properties.get(key) else {
            if open {
                values.insert(key.to_owned(), Value::String(text.to_owned()));
            } else {
                faults.push(SettingFault::unknown(key, properties.keys().map(String::as_str)));
            }
            continue;
        };
        if let Some(why) = file_path(text).err().filter(|_| is_path(property)) {
            let given = FaultKind::Value { given: redacted(key, text) };
            faults.push(fault(given, format!("the URL of a file here: {why}"), None));
            continue;
        }
        if text.trim().is_empty() && is_path(property) && is_required(schema, key) {
            faults.push(fault(FaultKind::Value { given: text.to_owned() }, "a path".to_owned(), None));
            continue;
        }
        let kind = Kind::of(property, schema);
        match kind.read(text) {
            Some(value) => {
                values.insert(key.to_owned(), value);
            }
            None => {
                let near = kind.nearest(text);
                faults.push(fault(FaultKind::Value { given: redacted(key, text) }, kind.to_string(), near));
            }
        }
    }
    for (key, property) in &properties {
        if is_required(schema, key) && !seen.contains(key.as_str()) {
            faults.push(SettingFault {
                key: key.clone(),
                what: FaultKind::Missing,
                allowed: missing_hint(property, &Kind::of(property, schema)),
                nearest: None,
            });
        }
    }
    faults.extend(limits::faults(schema, &values));
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// The defaults that the schema states, by name.
pub fn defaults(schema: &Value) -> Map<String, Value> {
    properties(schema)
        .into_iter()
        .filter_map(|(key, property)| Some((key, property.get("default")?.clone())))
        .filter(|(_, default)| !default.is_null())
        .collect()
}

/// Every setting of the schema, in its order: the material of a manual's table.
pub fn document(schema: &Value) -> Vec<SettingDoc> {
    properties(schema)
        .iter()
        .map(|(key, property)| SettingDoc {
            key: key.clone(),
            doc: description(property),
            allowed: if is_path(property) { "a path".to_owned() } else { Kind::of(property, schema).to_string() },
            default: property.get("default").filter(|default| !default.is_null()).cloned(),
            required: is_required(schema, key),
            optional: matches!(Kind::of(property, schema), Kind::Optional(_)),
            is_path: is_path(property),
            file: file_use(property),
            live: is_live(property),
        })
        .collect()
}

/// One schema with the settings of both; where both have one, the first one's counts.
pub fn merge(first: &Value, second: &Value) -> Value {
    // Types of two crates may have the same name, so the second's definitions get names of their own.
    let second = with_own_definitions(second);
    let mut merged = Map::new();
    merged.insert("type".to_owned(), Value::from("object"));
    for part in ["properties", "$defs"] {
        let mut entries = Map::new();
        for schema in [first, &second] {
            for (key, value) in schema.get(part).and_then(Value::as_object).into_iter().flatten() {
                if !entries.contains_key(key) {
                    entries.insert(key.clone(), value.clone());
                }
            }
        }
        merged.insert(part.to_owned(), Value::Object(entries));
    }
    let of_both = |key| -> Vec<Value> {
        let lists = [first, &second].into_iter().filter_map(|schema| schema.get(key).and_then(Value::as_array));
        lists.flatten().cloned().collect()
    };
    merged.insert("required".to_owned(), of_both("required").into());
    let limits = of_both(limits::MARK);
    if !limits.is_empty() {
        merged.insert(limits::MARK.to_owned(), limits.into());
    }
    merged.insert("additionalProperties".to_owned(), Value::Bool(false));
    Value::Object(merged)
}

/// Puts `common.` before the name of each definition and in each reference to one.
fn with_own_definitions(schema: &Value) -> Value {
    const DEFINITIONS: &str = "#/$defs/";
    match schema {
        Value::Object(entries) => {
            let mut renamed = Map::new();
            for (key, value) in entries {
                let value = match (key.as_str(), value) {
                    ("$ref", Value::String(to)) => match to.strip_prefix(DEFINITIONS) {
                        Some(name) => Value::String(format!("{DEFINITIONS}common.{name}")),
                        None => value.clone(),
                    },
                    ("$defs", Value::Object(definitions)) => {
                        let own =
                            |(name, value): (&String, &Value)| (format!("common.{name}"), with_own_definitions(value));
                        Value::Object(definitions.iter().map(own).collect())
                    }
                    _ => with_own_definitions(value),
                };
                renamed.insert(key.clone(), value);
            }
            Value::Object(renamed)
        }
        Value::Array(items) => Value::Array(items.iter().map(with_own_definitions).collect()),
        other => other.clone(),
    }
}

/// How a typed value is written in a graph: the inverse of reading it.
pub fn to_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(to_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A value as it may be shown: credentials masked, and all of it where the name says that it is secret.
pub fn redacted(key: &str, text: &str) -> String {
    if is_secret(key) { "***".to_owned() } else { redact(text) }
}

// PARAM_: what dora gives to the nodes of a module that has params.
const VARIABLES: [&str; 10] =
    ["PATH", "HOME", "TMPDIR", "TZ", "LANG", "NO_COLOR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "RAYON_NUM_THREADS"];
const VARIABLE_PREFIXES: [&str; 13] = [
    "PARAM_",
    "RUST_",
    "DORA_",
    "OTEL_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "ZENOH_",
    "MILLRACE_",
    "LC_",
    "LD_",
    "OMP_",
    "ORT_",
];

/// Variables that any process may be given and that are nobody's setting.
pub fn is_environment(key: &str) -> bool {
    VARIABLES.contains(&key) || VARIABLE_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// A regular expression for the names that [`is_environment`].
pub fn environment_pattern() -> String {
    format!("^(({})$|{})", VARIABLES.join("|"), VARIABLE_PREFIXES.join("|"))
}

fn properties(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn is_required(schema: &Value, key: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|keys| keys.iter().any(|name| name.as_str() == Some(key)))
}

fn is_path(property: &Value) -> bool {
    property.get("x-millrace-kind").and_then(Value::as_str) == Some("path")
}

fn file_use(property: &Value) -> Option<FileUse> {
    match property.get("x-millrace-file").and_then(Value::as_str)? {
        "read" => Some(FileUse::Read),
        "source" => Some(FileUse::Source),
        "model" => Some(FileUse::Model),
        "write" => Some(FileUse::Write),
        "folder" => Some(FileUse::Folder),
        "made" => Some(FileUse::Made),
        _ => None,
    }
}

fn is_live(property: &Value) -> bool {
    property.get("x-millrace-live").and_then(Value::as_bool) == Some(true)
}

fn description(property: &Value) -> String {
    let text = property.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first sentence of a text.
pub fn first_sentence(text: &str) -> &str {
    let end = text.match_indices(". ").map(|(at, _)| at).find(|&at| !text[..at].ends_with("e.g"));
    text[..end.unwrap_or(text.len())].trim_end_matches('.')
}

fn missing_hint(property: &Value, kind: &Kind) -> String {
    let doc = description(property);
    let kind = if is_path(property) { "a path".to_owned() } else { kind.to_string() };
    if doc.is_empty() { kind } else { format!("{kind}: {}", first_sentence(&doc)) }
}
