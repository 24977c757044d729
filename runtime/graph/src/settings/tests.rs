#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

/// A schema in the form that schemars 1.2 derives; `tests/derived.rs` has really derived ones.
fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "SOURCE": { "type": "string", "description": "What to decode. A file.", "x-millrace-kind": "path" },
            "PACE": { "$ref": "#/$defs/Pace", "default": "fast" },
            "PLAIN": { "$ref": "#/$defs/Plain", "description": "Plain", "default": "one" },
            "THREADS": { "type": "integer", "format": "uint8", "minimum": 1, "maximum": 255, "default": 1 },
            "BIG": { "type": "integer", "format": "uint64", "minimum": 0, "default": 0 },
            "DELTA": { "type": "integer", "format": "int32", "default": -1 },
            "SCORE": { "type": "number", "format": "float", "minimum": 0.0, "exclusiveMaximum": 1.0, "default": 0.25 },
            "LABEL": { "type": ["string", "null"], "default": null },
            "PORT": { "type": ["integer", "null"], "format": "uint16", "minimum": 0, "maximum": 65535 },
            "MAYBE": { "anyOf": [{ "$ref": "#/$defs/Pace" }, { "type": "null" }] },
            "IDS": { "type": "array", "items": { "type": "integer", "format": "uint32", "minimum": 0 }, "default": [] },
            "ON": { "type": "boolean", "default": true, "x-millrace-live": true }
        },
        "required": ["SOURCE"],
        "additionalProperties": false,
        "$defs": {
            "Pace": { "oneOf": [
                { "type": "string", "const": "fast", "description": "As fast as it goes." },
                { "type": "string", "const": "realtime", "description": "As recorded." }
            ]},
            "Plain": { "type": "string", "enum": ["one", "two"] }
        }
    })
}

fn read(key: &str, text: &str) -> Result<Value, SettingFault> {
    let mut given = vec![(key, text)];
    if key != "SOURCE" {
        given.push(("SOURCE", "x"));
    }
    resolve(&schema(), given).map(|map| map[key].clone()).map_err(|mut faults| faults.remove(0))
}

fn refused(key: &str, text: &str) -> String {
    read(key, text).unwrap_err().to_string()
}

#[test]
fn reads_each_type() {
    assert_eq!(read("SOURCE", "a b.mp4"), Ok(json!("a b.mp4")));
    assert_eq!(read("PACE", "realtime"), Ok(json!("realtime")));
    assert_eq!(read("PLAIN", "two"), Ok(json!("two")));
    assert_eq!(read("THREADS", "255"), Ok(json!(255)));
    assert_eq!(read("BIG", "18446744073709551615"), Ok(json!(u64::MAX)));
    assert_eq!(read("DELTA", "-7"), Ok(json!(-7)));
    assert_eq!(read("SCORE", "0.5"), Ok(json!(0.5)));
    assert_eq!(read("SCORE", "0"), Ok(json!(0.0)));
    assert_eq!(read("LABEL", "1.10"), Ok(json!("1.10")));
    assert_eq!(read("LABEL", ""), Ok(Value::Null));
    assert_eq!(read("PORT", "8080"), Ok(json!(8080)));
    assert_eq!(read("PORT", ""), Ok(Value::Null));
    assert_eq!(read("MAYBE", "fast"), Ok(json!("fast")));
    assert_eq!(read("IDS", "1, 2,3"), Ok(json!([1, 2, 3])));
    assert_eq!(read("IDS", ""), Ok(json!([])));
    assert_eq!(read("ON", "false"), Ok(json!(false)));
}

#[test]
fn refuses_what_does_not_fit() {
    assert_eq!(
        refused("PACE", "realtme"),
        "PACE is 'realtme', which is not one of fast, realtime; did you mean 'realtime'?"
    );
    assert_eq!(refused("PLAIN", "three"), "PLAIN is 'three', which is not one of one, two");
    assert_eq!(refused("THREADS", "0"), "THREADS is '0', which is not a whole number from 1 to 255");
    assert_eq!(refused("THREADS", "256"), "THREADS is '256', which is not a whole number from 1 to 255");
    assert_eq!(refused("THREADS", "1.5"), "THREADS is '1.5', which is not a whole number from 1 to 255");
    assert_eq!(refused("BIG", "-1"), "BIG is '-1', which is not a whole number from 0");
    assert_eq!(
        refused("BIG", "18446744073709551616"),
        "BIG is '18446744073709551616', which is not a whole number from 0"
    );
    assert_eq!(refused("DELTA", "2147483648"), "DELTA is '2147483648', which is not a whole number up to 2147483647");
    assert_eq!(refused("SCORE", "1"), "SCORE is '1', which is not a number from 0 below 1");
    assert_eq!(refused("SCORE", "nan"), "SCORE is 'nan', which is not a number from 0 below 1");
    assert_eq!(refused("SCORE", "-inf"), "SCORE is '-inf', which is not a number from 0 below 1");
    assert_eq!(
        refused("PORT", "70000"),
        "PORT is '70000', which is not a whole number from 0 to 65535, or empty for unset"
    );
    assert_eq!(
        refused("IDS", "1,,2"),
        "IDS is '1,,2', which is not a list with commas between (each a whole number from 0)"
    );
    assert_eq!(refused("ON", "yes"), "ON is 'yes', which is not true or false; did you mean 'true'?");
    assert_eq!(refused("ON", "TRUE"), "ON is 'TRUE', which is not true or false; did you mean 'true'?");
}

#[test]
fn names_unknown_and_missing_together() {
    let faults = resolve(&schema(), [("SORCE", "x"), ("ZZZ", "1"), ("ON", "true"), ("ON", "true")]).unwrap_err();
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "no setting is called SORCE; did you mean 'SOURCE'?");
    assert!(texts[1].starts_with("no setting is called ZZZ; there are: SOURCE, PACE, "));
    assert_eq!(texts[2], "ON is set twice");
    assert_eq!(texts[3], "SOURCE is required and not set: a path: What to decode");
    assert_eq!(texts.len(), 4);
}

#[test]
fn shows_no_credentials() {
    let schema = json!({ "properties": { "URL": { "type": "integer" }, "API_TOKEN": { "type": "integer" } } });
    let faults = resolve(&schema, [("URL", "rtsp://me:pw@cam/1"), ("API_TOKEN", "hunter2")]).unwrap_err();
    assert_eq!(faults[0].to_string(), "URL is 'rtsp://***@cam/1', which is not a whole number");
    assert_eq!(faults[1].to_string(), "API_TOKEN is '***', which is not a whole number");
}

#[test]
fn states_defaults_and_manual() {
    let defaults = defaults(&schema());
    assert_eq!(defaults["PACE"], json!("fast"));
    assert!(!defaults.contains_key("LABEL") && !defaults.contains_key("SOURCE"));
    let docs = document(&schema());
    assert_eq!(docs[0].key, "SOURCE");
    assert!(docs[0].is_path && docs[0].required);
    assert_eq!(docs[0].doc, "What to decode. A file.");
    assert_eq!(docs[1].allowed, "one of fast, realtime");
    let live: Vec<&str> = docs.iter().filter(|doc| doc.live).map(|doc| doc.key.as_str()).collect();
    assert_eq!(live, ["ON"]);
}

#[test]
fn merges_two_schemas() {
    let common = json!({
        "properties": { "FLOW": { "$ref": "#/$defs/Pace" }, "ON": { "type": "string" } },
        "required": ["FLOW"],
        "$defs": { "Pace": { "enum": ["live", "lossless"] } }
    });
    let both = merge(&schema(), &common);
    let values = resolve(&both, [("SOURCE", "x"), ("FLOW", "live"), ("ON", "true"), ("PACE", "fast")]).unwrap();
    assert_eq!(values["ON"], json!(true));
    assert_eq!(resolve(&both, [("SOURCE", "x")]).unwrap_err()[0].key, "FLOW");
}

#[test]
fn takes_any_schema_without_panic() {
    let endless = json!({ "properties": { "A": { "$ref": "#/properties/A" }, "B": { "type": "object" } } });
    assert_eq!(resolve(&endless, [("A", "x"), ("B", "{}")]).unwrap_err().len(), 2);
    for odd in [json!(null), json!(true), json!({ "properties": 3 }), json!({ "properties": { "A": 3 } })] {
        let _ = resolve(&odd, [("A", "1")]);
        let _ = document(&odd);
    }
    assert_eq!(resolve(&json!({ "properties": { "A": { "$ref": "#/nowhere" } } }), [("A", "1")]).unwrap()["A"], "1");
}

#[test]
fn text_survives_a_round_trip() {
    for (key, text) in [("SCORE", "0.125"), ("IDS", "4,5"), ("ON", "false"), ("LABEL", "a b"), ("BIG", "9")] {
        let value = read(key, text).unwrap();
        assert_eq!(to_text(&value), text);
        assert_eq!(read(key, &to_text(&value)), Ok(value));
    }
}

#[test]
fn cuts_the_first_sentence() {
    assert_eq!(first_sentence("One. Two."), "One");
    assert_eq!(first_sentence("A path, e.g. x. More"), "A path, e.g. x");
    assert_eq!(first_sentence(""), "");
}

#[test]
fn a_limit_counts_where_the_other_setting_has_the_value() {
    let mut schema = schema();
    schema["x-millrace-limits"] =
        json!([{ "setting": "THREADS", "most": 2, "of": "PACE", "is": ["fast"], "why": "it is a test" }]);
    let read = |given: &[(&str, &str)]| {
        let all = [&[("SOURCE", "x")], given].concat();
        resolve(&schema, all).map(drop).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(read(&[("THREADS", "2")]), Ok(()));
    let text = "THREADS is '3', which is not at most 2, as PACE is fast: it is a test";
    assert_eq!(read(&[("THREADS", "3"), ("PACE", "fast")]), Err(vec![text.to_owned()]));
    assert_eq!(read(&[("THREADS", "3")]), Err(vec![text.to_owned()]), "by default it has the value");
    assert_eq!(read(&[("THREADS", "3"), ("PACE", "realtime")]), Ok(()));
    // also where another schema's settings are beside it
    let merged = merge(&schema, &json!({ "properties": { "MORE": { "type": "boolean" } } }));
    assert!(resolve(&merged, [("SOURCE", "x"), ("THREADS", "3")]).is_err());
    assert!(merged.get("x-millrace-limits").is_some());
}
