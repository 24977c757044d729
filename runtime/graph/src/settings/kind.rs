//! What a setting's value may be, read off its schema.

use crate::nearest::nearest;
use serde_json::{Number, Value};
use std::fmt;

/// The type of one setting.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Bool,
    Integer {
        least: i128,
        most: i128,
    },
    Number {
        least: Bound,
        most: Bound,
    },
    Names(Vec<String>),
    Text {
        nonempty: bool,
    },
    List {
        item: Box<Kind>,
        least: usize,
        most: usize,
    },
    Optional(Box<Kind>),
    Either(Vec<Kind>),
    /// An object, or a schema that refers to itself: nothing that a line of a graph can hold.
    Unwritable,
}

/// One end of a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    None,
    At(f64),
    Beyond(f64),
}

/// References may lead to references; no schema that we derive comes near this.
const DEEPEST: usize = 16;

impl Kind {
    /// The kind that `property` describes, with references looked up in `root`.
    pub(super) fn of(property: &Value, root: &Value) -> Self {
        Self::at_depth(property, root, 0)
    }

    fn at_depth(property: &Value, root: &Value, depth: usize) -> Self {
        if depth > DEEPEST {
            return Self::Unwritable;
        }
        let inner = |schema: &Value| Self::at_depth(schema, root, depth + 1);
        if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
            let found = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return found.map_or(Self::Text { nonempty: false }, inner);
        }
        if let Some(names) = names_of(property) {
            return names;
        }
        if let Some([only]) = property.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return inner(only);
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(arms) = property.get(word).and_then(Value::as_array) {
                return Self::either(arms.iter().filter(|arm| !is_null(arm)).map(inner), arms.iter().any(is_null));
            }
        }
        match property.get("type") {
            Some(Value::Array(types)) => {
                let null = types.iter().any(|name| name == "null");
                let arms = types.iter().filter(|name| *name != "null");
                Self::either(arms.filter_map(Value::as_str).map(|name| Self::typed(name, property, inner)), null)
            }
            Some(Value::String(name)) => Self::typed(name, property, inner),
            _ => Self::Text { nonempty: false },
        }
    }

    fn either(arms: impl Iterator<Item = Self>, null: bool) -> Self {
        let mut names = Vec::new();
        let mut kinds: Vec<Self> = Vec::new();
        for arm in arms {
            match arm {
                Self::Names(more) => names.extend(more),
                Self::Either(more) => kinds.extend(more),
                other => kinds.push(other),
            }
        }
        if !names.is_empty() {
            kinds.insert(0, Self::Names(names));
        }
        let kind = match kinds.len() {
            0 => Self::Unwritable,
            1 => kinds.remove(0),
            _ => Self::Either(kinds),
        };
        if null { Self::Optional(Box::new(kind)) } else { kind }
    }

    fn typed(name: &str, schema: &Value, inner: impl Fn(&Value) -> Self) -> Self {
        let count = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        match name {
            "boolean" => Self::Bool,
            "integer" => integer(schema),
            "number" => Self::Number {
                least: bound(schema, "minimum", "exclusiveMinimum"),
                most: bound(schema, "maximum", "exclusiveMaximum"),
            },
            "array" => Self::List {
                item: Box::new(schema.get("items").map_or(Self::Text { nonempty: false }, inner)),
                least: count("minItems").unwrap_or(0),
                most: count("maxItems").unwrap_or(usize::MAX),
            },
            "object" => Self::Unwritable,
            _ => Self::Text { nonempty: count("minLength").is_some_and(|least| least > 0) },
        }
    }

    /// The value that `text` stands for, or none where it does not fit.
    pub(super) fn read(&self, text: &str) -> Option<Value> {
        match self {
            Self::Bool => match text {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::Integer { least, most } => {
                let value: i128 = text.parse().ok()?;
                (*least..=*most).contains(&value).then(|| Number::from_i128(value).map(Value::Number)).flatten()
            }
            Self::Number { least, most } => {
                let value: f64 = text.parse().ok()?;
                let above = match *least {
                    Bound::None => true,
                    Bound::At(least) => value >= least,
                    Bound::Beyond(least) => value > least,
                };
                let below = match *most {
                    Bound::None => true,
                    Bound::At(most) => value <= most,
                    Bound::Beyond(most) => value < most,
                };
                // A Number holds no infinity and no NaN.
                (above && below).then(|| Number::from_f64(value).map(Value::Number)).flatten()
            }
            Self::Names(names) => names.iter().any(|name| name == text).then(|| Value::from(text)),
            Self::Text { nonempty } => (!(*nonempty && text.is_empty())).then(|| Value::from(text)),
            Self::List { item, least, most } => {
                let items: Vec<Value> = if text.trim().is_empty() {
                    Vec::new()
                } else {
                    text.split(',').map(|part| item.read(part.trim())).collect::<Option<_>>()?
                };
                (*least..=*most).contains(&items.len()).then_some(Value::Array(items))
            }
            Self::Optional(kind) => {
                if text.is_empty() {
                    return Some(Value::Null);
                }
                kind.read(text)
            }
            Self::Either(kinds) => kinds.iter().find_map(|kind| kind.read(text)),
            Self::Unwritable => None,
        }
    }

    /// The value that was most likely meant by a text that does not fit.
    pub(super) fn nearest(&self, text: &str) -> Option<String> {
        match self {
            Self::Bool => match text.to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some("true".to_owned()),
                "false" | "no" | "off" | "0" => Some("false".to_owned()),
                _ => None,
            },
            Self::Names(names) => nearest(text, names.iter().map(String::as_str)).map(str::to_owned),
            Self::Optional(kind) => kind.nearest(text),
            Self::Either(kinds) => kinds.iter().find_map(|kind| kind.nearest(text)),
            _ => None,
        }
    }
}

/// `enum`, `const`, and `oneOf` of consts, as unit variants with and without documentation are derived.
fn names_of(schema: &Value) -> Option<Kind> {
    if let Some(name) = schema.get("const").and_then(Value::as_str) {
        return Some(Kind::Names(vec![name.to_owned()]));
    }
    let values = schema.get("enum")?.as_array()?;
    let names: Vec<String> = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let kind = Kind::Names(names);
    Some(if values.iter().any(Value::is_null) { Kind::Optional(Box::new(kind)) } else { kind })
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").is_some_and(|name| name == "null") || schema.get("const").is_some_and(Value::is_null)
}

fn bound(schema: &Value, at: &str, beyond: &str) -> Bound {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    match (number(at), number(beyond)) {
        (_, Some(value)) => Bound::Beyond(value),
        (Some(value), None) => Bound::At(value),
        (None, None) => Bound::None,
    }
}

/// The stated range, narrowed to what the Rust type (`format`) can hold.
fn integer(schema: &Value) -> Kind {
    let (mut least, mut most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (0, i128::from(u8::MAX)),
        Some("uint16") => (0, i128::from(u16::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        Some("uint64" | "uint") => (0, i128::from(u64::MAX)),
        Some("int8") => (i128::from(i8::MIN), i128::from(i8::MAX)),
        Some("int16") => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(u64::MAX)),
    };
    let whole = |key: &str| {
        let number = schema.get(key)?;
        let float = |value: f64| value as i128;
        number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)).or(number.as_f64().map(float))
    };
    least = whole("minimum").unwrap_or(least).max(least);
    least = whole("exclusiveMinimum").map_or(least, |value| least.max(value.saturating_add(1)));
    most = whole("maximum").unwrap_or(most).min(most);
    most = whole("exclusiveMaximum").map_or(most, |value| most.min(value.saturating_sub(1)));
    Kind::Integer { least, most }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Integer { least, most } => {
                let open_above = *most >= i128::from(u32::MAX);
                let open_below = *least <= i128::from(i32::MIN);
                match (open_below, open_above) {
                    (true, true) => f.write_str("a whole number"),
                    (false, true) => write!(f, "a whole number from {least}"),
                    (true, false) => write!(f, "a whole number up to {most}"),
                    (false, false) => write!(f, "a whole number from {least} to {most}"),
                }
            }
            Self::Number { least, most } => {
                f.write_str("a number")?;
                if let (Bound::At(least), Bound::At(most)) = (least, most) {
                    return write!(f, " from {least} to {most}");
                }
                match least {
                    Bound::None => {}
                    Bound::At(least) => write!(f, " from {least}")?,
                    Bound::Beyond(least) => write!(f, " over {least}")?,
                }
                match most {
                    Bound::None => Ok(()),
                    Bound::At(most) => write!(f, " up to {most}"),
                    Bound::Beyond(most) => write!(f, " below {most}"),
                }
            }
            Self::Names(names) => match names.as_slice() {
                [only] => f.write_str(only),
                _ => write!(f, "one of {}", names.join(", ")),
            },
            Self::Text { nonempty: true } => f.write_str("text that is not empty"),
            Self::Text { nonempty: false } => f.write_str("text"),
            Self::List { item, least, most } => {
                f.write_str("a list with commas between (each ")?;
                write!(f, "{item})")?;
                match (*least, *most) {
                    (0, usize::MAX) => Ok(()),
                    (least, usize::MAX) => write!(f, ", at least {least}"),
                    (least, most) if least == most => write!(f, ", exactly {least}"),
                    (least, most) => write!(f, ", {least} to {most} of them"),
                }
            }
            Self::Optional(kind) => write!(f, "{kind}, or empty for unset"),
            Self::Either(kinds) => {
                for (index, kind) in kinds.iter().enumerate() {
                    let joint = if index == 0 { "" } else { ", or " };
                    write!(f, "{joint}{kind}")?;
                }
                Ok(())
            }
            Self::Unwritable => f.write_str("anything that a graph can hold (the setting is an object)"),
        }
    }
}
