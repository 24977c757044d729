//! Limits of one setting where another has a certain value: the mark `x-millrace-limits` of a schema.

use super::{FaultKind, SettingFault, properties, to_text};
use serde_json::{Map, Value};

pub(super) const MARK: &str = "x-millrace-limits";

/// `setting` is at most `most` where the setting `of` is one of `is`.
#[derive(serde::Deserialize)]
struct Limit {
    setting: String,
    most: f64,
    of: String,
    is: Vec<String>,
    why: String,
}

/// The settings that are over a limit, by their typed values.
pub(super) fn faults(schema: &Value, values: &Map<String, Value>) -> Vec<SettingFault> {
    let limits: Vec<Limit> =
        schema.get(MARK).and_then(|limits| serde_json::from_value(limits.clone()).ok()).unwrap_or_default();
    let properties = properties(schema);
    let fault = |limit: Limit| {
        let given = values.get(&limit.setting).filter(|value| value.as_f64().is_some_and(|n| n > limit.most))?;
        let other = values.get(&limit.of).or_else(|| properties.get(&limit.of)?.get("default")).map(to_text)?;
        limit.is.contains(&other).then(|| SettingFault {
            key: limit.setting,
            what: FaultKind::Value { given: to_text(given) },
            allowed: format!("at most {}, as {} is {other}: {}", limit.most, limit.of, limit.why),
            nearest: None,
        })
    };
    limits.into_iter().filter_map(fault).collect()
}
