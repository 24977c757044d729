//! A graph as it is handed to dora: settings of the command line applied, programs by absolute path.

use crate::check::Set;
use crate::dora;
use crate::model::{Graph, Node};
use crate::yaml::{Data, Scalar, Yaml};
use serde_json::{Map, Value};

/// The graph as JSON, which is YAML too.
///
/// `path` gives the program of each node that is to have another than the file says.
pub fn to_json(graph: &Graph, sets: &[Set], path: &dyn Fn(&Node) -> Option<String>) -> Value {
    let mut root = value_of(&graph.root);
    let Some(Value::Array(items)) = root.get_mut("nodes") else { return root };
    for node in &graph.nodes {
        let Some(Value::Object(item)) = items.get_mut(node.index) else { continue };
        if let Some(path) = path(node) {
            item.insert("path".to_owned(), Value::String(path));
        }
        // It is built by now.
        item.remove("build");
        let own = sets.iter().filter(|set| set.node == node.id.value);
        for set in own {
            let env = item.entry("env").or_insert_with(|| Value::Object(Map::new()));
            if env.is_null() {
                *env = Value::Object(Map::new());
            }
            if let Value::Object(env) = env {
                env.insert(set.key.clone(), Value::String(carried(&set.value).to_owned()));
            }
        }
    }
    root
}

/// A value of `env:` as dora can carry it: empty where dora would expand it. The script that starts the node then has it word
/// for word.
pub fn carried(value: &str) -> &str {
    if dora::stays(value) { value } else { "" }
}

fn value_of(yaml: &Yaml) -> Value {
    match &yaml.data {
        Data::Scalar(scalar) => scalar_value(scalar),
        Data::List(items) => Value::Array(items.iter().map(value_of).collect()),
        Data::Map(entries) => {
            let pair = |(key, value): &(Yaml, Yaml)| Some((key.text()?.to_owned(), value_of(value)));
            Value::Object(entries.iter().filter_map(pair).collect())
        }
    }
}

fn scalar_value(scalar: &Scalar) -> Value {
    let text = scalar.text.as_str();
    if scalar.is_null() {
        return Value::Null;
    }
    if !scalar.plain {
        return Value::from(text);
    }
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(value) = text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok()) {
            return Value::from(value);
        }
    }
    // Digits after a leading zero are text to dora's reader, which counts where a text is wanted.
    let digits = text.trim_start_matches(['-', '+']);
    let padded = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if padded || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Value::from(text);
    }
    if let Ok(value) = text.parse::<i64>() {
        return Value::from(value);
    }
    if let Ok(value) = text.parse::<u64>() {
        return Value::from(value);
    }
    let float = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    float.map_or_else(|| Value::from(text), Value::Number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fault::Report;
    use serde_json::json;

    #[test]
    fn applies_sets_and_keeps_the_rest() {
        let text = "exit_when_nodes_finish: true\nnodes:\n  - id: a\n    path: ../a\n    build: make\n    env: {N: 1, T: \"1\", F: 1.5}\n  - id: 007\n    path: b\n    env:\n";
        let graph = Graph::read(text, &mut Report::default()).unwrap();
        let sets = ["a.T=x y", "a.F=$5", "007.K=1"].map(|set| set.parse().unwrap());
        let json = to_json(&graph, &sets, &|node| (node.id.value == "a").then(|| "/abs/a".to_owned()));
        let expected = json!({
            "exit_when_nodes_finish": true,
            "nodes": [
                { "id": "a", "path": "/abs/a", "env": { "N": 1, "T": "x y", "F": "" } },
                { "id": "007", "path": "b", "env": { "K": "1" } }
            ]
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn reads_scalars_as_dora_does() {
        for (text, value) in [
            ("1", json!(1)),
            ("-2", json!(-2)),
            ("0x1f", json!(31)),
            ("0010", json!("0010")),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("1.2.3", json!("1.2.3")),
            ("yes", json!("yes")),
            ("True", json!(true)),
            ("~", Value::Null),
            ("inf", json!("inf")),
            (".", json!(".")),
        ] {
            assert_eq!(scalar_value(&Scalar { text: text.to_owned(), plain: true }), value, "{text}");
        }
    }
}
