//! A JSON Schema of graph files, for editors: dora's keys, and each Millrace node's settings and ports by its `path:`.

use crate::describe::Description;
use crate::dora::{INPUT_KEYS, NODE_KEYS, QUEUE_POLICIES, RESTART_POLICIES, ROOT_KEYS, Shape};
use crate::modules::{HEADER_KEYS, KEYS};
use crate::settings::environment_pattern;
use serde_json::{Map, Value, json};

/// The schema for graphs of these nodes.
///
/// It flags less than the check does: a setting may be given for all nodes at once or by `--set`, so none is required
/// here, and a value with a variable (`$NAME`) may become anything.
pub fn graph_schema<'a>(nodes: impl IntoIterator<Item = &'a Description>) -> Value {
    let mut definitions = Map::new();
    let mut common = Map::new();
    let mut cases = Vec::new();
    for node in nodes {
        let schema = node.schema();
        let prefix = format!("{}.", node.name);
        for (name, definition) in schema.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            definitions.insert(format!("{prefix}{name}"), relocated(definition, &prefix));
        }
        let mut properties = Map::new();
        for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let setting = setting(property, &prefix);
            common.entry(key.clone()).or_insert_with(|| described(property));
            properties.insert(key.clone(), setting);
        }
        let inputs: Map<String, Value> = node
            .inputs
            .iter()
            .map(|port| (port.name.clone(), json!({ "$ref": "#/$defs/input", "description": port.doc })))
            .collect();
        let further: Map<String, Value> = node
            .inputs
            .iter()
            .map(|port| {
                let what = format!("One more producer of '{}'. {}", port.name, port.doc);
                (format!("^{}\\.", port.name), json!({ "$ref": "#/$defs/input", "description": what }))
            })
            .collect();
        let outputs: Vec<&str> = node.outputs.iter().map(|port| port.name.as_str()).collect();
        let pattern = format!("(^|/){}$", node.name);
        cases.push(json!({
            "if": { "required": ["path"], "properties": { "path": { "type": "string", "pattern": pattern } } },
            "then": { "description": node.summary, "properties": {
                "env": { "properties": properties, "patternProperties": { environment_pattern(): true }, "additionalProperties": false },
                "inputs": { "properties": inputs, "patternProperties": further },
                "outputs": { "items": { "examples": outputs } }
            } }
        }));
    }
    let input = json!({ "anyOf": [
        { "type": "string", "description": "node/output, dora/timer/millis/100, or dora/logs" },
        closed(INPUT_KEYS, &[("queue_policy", QUEUE_POLICIES)], &["source"])
    ] });
    definitions.insert("input".to_owned(), input);
    definitions.insert("value".to_owned(), json!({ "type": ["string", "number", "boolean"] }));
    let mut node = closed(NODE_KEYS, &[("restart_policy", RESTART_POLICIES)], &["id"]);
    node["properties"]["inputs"] = json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/input" } });
    node["properties"]["env"] = json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/value" } });
    node["properties"]["outputs"] = json!({ "type": "array", "items": { "type": "string" } });
    node["allOf"] = Value::Array(cases);
    definitions.insert("node".to_owned(), node);
    let mut header = closed(HEADER_KEYS, &[], &["name"]);
    for key in ["inputs", "inputs_optional", "outputs"] {
        header["properties"][key]["items"] = json!({ "type": "string" });
    }
    let mut module = closed(KEYS, &[], &["module", "nodes"]);
    module["properties"]["module"] = header;
    module["properties"]["nodes"]["items"] = json!({ "$ref": "#/$defs/node" });
    let mut graph = closed(ROOT_KEYS, &[], &["nodes"]);
    graph["properties"]["nodes"] = json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/node" } });
    graph["properties"]["env"] =
        json!({ "type": "object", "properties": common, "additionalProperties": { "$ref": "#/$defs/value" } });
    // one file for both, and two forms: what has the key `module` is a module
    definitions.insert("module".to_owned(), module);
    let mut graph = json!({
        "if": { "required": ["module"] }, "then": { "$ref": "#/$defs/module" }, "else": graph,
    });
    graph["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    graph["title"] = json!("A Millrace graph, or a module of graphs (dora 1.1)");
    graph["$defs"] = Value::Object(definitions);
    graph
}

/// An object with these keys and no others.
fn closed(keys: &[(&str, Shape)], words: &[(&str, &[&str])], required: &[&str]) -> Value {
    let property = |(key, shape): &(&str, Shape)| {
        let schema = match (words.iter().find(|(word, _)| word == key), shape) {
            (Some((_, allowed)), _) => json!({ "enum": allowed }),
            (None, Shape::Text) => json!({ "type": "string" }),
            (None, Shape::Whole) => json!({ "type": "integer", "minimum": 0 }),
            (None, Shape::Number) => json!({ "type": "number" }),
            (None, Shape::Truth) => json!({ "type": "boolean" }),
            (None, Shape::List) => json!({ "type": "array" }),
            (None, Shape::Map) => json!({ "type": "object" }),
            (None, Shape::Size) => json!({ "type": ["string", "integer"] }),
            (None, Shape::Any) => json!(true),
        };
        ((*key).to_owned(), schema)
    };
    let properties: Map<String, Value> = keys.iter().map(property).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// What stands for a setting in a graph: its own type, a list as text with commas, or text with a variable in it.
fn setting(property: &Value, prefix: &str) -> Value {
    let is_list = property.get("type").is_some_and(|kind| kind == "array");
    let own = if is_list { json!({ "$ref": "#/$defs/value" }) } else { relocated(property, prefix) };
    // An optional setting takes empty text for unset; a text's value may look like a number.
    let is_text = property.get("type").is_some_and(|kind| {
        kind == "string" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "string"))
    });
    let mut arms = vec![own, json!({ "type": "string", "pattern": "\\$|^$" })];
    if is_text {
        arms.push(json!({ "$ref": "#/$defs/value" }));
    }
    let mut setting = described(property);
    setting["anyOf"] = Value::Array(arms);
    setting
}

fn described(property: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["description", "default"] {
        if let Some(value) = property.get(key).filter(|value| !value.is_null()) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    if property.get("x-millrace-live").is_some_and(|live| live == true) {
        let text = kept.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = format!("{text}\n\nLive: can change while the graph runs, by `dora param set`.");
        kept.insert("description".to_owned(), Value::String(text.trim_start().to_owned()));
    }
    Value::Object(kept)
}

/// References into the node's own definitions, led to where these stand in the graph's schema.
fn relocated(schema: &Value, prefix: &str) -> Value {
    const DEFINITIONS: &str = "#/$defs/";
    match schema {
        Value::Object(entries) => {
            let moved = |(key, value): (&String, &Value)| {
                let target =
                    if key == "$ref" { value.as_str().and_then(|to| to.strip_prefix(DEFINITIONS)) } else { None };
                let value = match target {
                    Some(name) => Value::String(format!("{DEFINITIONS}{prefix}{name}")),
                    None => relocated(value, prefix),
                };
                (key.clone(), value)
            };
            Value::Object(entries.iter().map(moved).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| relocated(item, prefix)).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(entries) => {
                found.extend(entries.get("$ref").and_then(Value::as_str).map(str::to_owned));
                entries.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/describe");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        let nodes: Vec<Description> = files.map(|json| Description::parse(&json).unwrap()).collect();
        let schema = graph_schema(&nodes);
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > nodes.len(), "{found:?}");
        for reference in found {
            assert!(schema.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
        }
        assert_eq!(schema["$defs"]["node"]["allOf"].as_array().unwrap().len(), nodes.len());
        assert_eq!(schema["else"]["properties"]["env"]["properties"]["FLOW"]["default"], "live");
        // editors show descriptions
        let live = |schema: &Value| schema["description"].as_str().is_some_and(|text| text.contains("dora param set"));
        let cases = schema["$defs"]["node"]["allOf"].as_array().unwrap();
        let decode = cases.iter().find(|case| case.to_string().contains("/)sw-nv12$")).unwrap();
        let env = &decode["then"]["properties"]["env"]["properties"];
        assert_eq!((live(&env["LOG"]), live(&env["PACE"])), (true, false));
    }
}
