//! Schemas as schemars really derives them, for a struct as nodes have them: that what the settings module reads off a
//! schema is what serde then takes.

#![allow(clippy::unwrap_used)]

use millrace_graph::settings::{document, resolve};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that a setting can be.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
struct Settings {
    /// What to decode.
    #[schemars(extend("x-millrace-kind" = "path"))]
    source: PathBuf,
    /// How fast. Second sentence.
    #[serde(default)]
    #[schemars(extend("x-millrace-live" = true))]
    pace: Pace,
    #[serde(default)]
    plain: Option<Plain>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default = "one")]
    threads: u8,
    #[serde(default)]
    #[schemars(range(min = 2, max = 64))]
    slots: u32,
    #[serde(default)]
    delta: i32,
    #[serde(default)]
    score: f32,
    #[serde(default)]
    #[schemars(range(min = 0.001, max = 1000.0))]
    rate: Option<f64>,
    #[serde(default)]
    ids: Vec<u32>,
    #[serde(default)]
    limit: Option<Vec<f32>>,
    #[serde(default)]
    repeat: bool,
    #[serde(default)]
    big: u64,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Pace {
    /// As fast as it goes.
    #[default]
    AsFast,
    /// As recorded.
    Realtime,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Plain {
    One,
    Two,
}

fn one() -> u8 {
    1
}

fn read(given: &[(&str, &str)]) -> Result<Settings, String> {
    let schema = schemars::schema_for!(Settings).to_value();
    let values = resolve(&schema, given.iter().copied())
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    // What the settings module lets pass, serde must take.
    Ok(serde_json::from_value(values.into()).unwrap())
}

#[test]
fn serde_takes_what_passes() {
    let found = read(&[
        ("SOURCE", "a.mp4"),
        ("PACE", "realtime"),
        ("PLAIN", "two"),
        ("LABEL", "1.10"),
        ("PORT", "65535"),
        ("THREADS", "255"),
        ("SLOTS", "64"),
        ("DELTA", "-2147483648"),
        ("SCORE", "0.5"),
        ("RATE", "29.97"),
        ("IDS", "1, 4294967295"),
        ("LIMIT", "0.5,1"),
        ("REPEAT", "true"),
        ("BIG", "18446744073709551615"),
    ]);
    let expected = Settings {
        source: "a.mp4".into(),
        pace: Pace::Realtime,
        plain: Some(Plain::Two),
        label: Some("1.10".into()),
        port: Some(65_535),
        threads: 255,
        slots: 64,
        delta: i32::MIN,
        score: 0.5,
        rate: Some(29.97),
        ids: vec![1, u32::MAX],
        limit: Some(vec![0.5, 1.0]),
        repeat: true,
        big: u64::MAX,
    };
    assert_eq!(found, Ok(expected));
}

#[test]
fn left_out_and_empty_is_the_default() {
    let left_out = read(&[("SOURCE", "a")]).unwrap();
    assert_eq!((left_out.threads, left_out.pace, left_out.port), (1, Pace::AsFast, None));
    let empty =
        read(&[("SOURCE", "a"), ("PORT", ""), ("PLAIN", ""), ("RATE", ""), ("LIMIT", ""), ("IDS", "")]).unwrap();
    assert_eq!((empty.port, empty.plain, empty.rate, empty.limit, empty.ids), (None, None, None, None, vec![]));
}

#[test]
fn refuses_what_serde_would() {
    for (key, text) in [
        ("PACE", "fast"),
        ("PLAIN", "three"),
        ("PORT", "65536"),
        ("THREADS", "256"),
        ("THREADS", "-1"),
        ("SLOTS", "65"),
        ("SLOTS", "4294967296"),
        ("DELTA", "2147483648"),
        ("RATE", "0"),
        ("RATE", "inf"),
        ("IDS", "4294967296"),
        ("IDS", "a"),
        ("REPEAT", "yes"),
        ("BIG", "18446744073709551616"),
        ("OTHER", "1"),
    ] {
        assert!(read(&[("SOURCE", "a"), (key, text)]).is_err(), "{key}={text}");
    }
    assert!(read(&[]).unwrap_err().contains("SOURCE is required"));
}

#[test]
fn the_manual_knows_types_defaults_and_words() {
    let docs = document(&schemars::schema_for!(Settings).to_value());
    let of = |key: &str| docs.iter().find(|doc| doc.key == key).unwrap();
    assert_eq!((of("SOURCE").allowed.as_str(), of("SOURCE").required, of("SOURCE").is_path), ("a path", true, true));
    assert_eq!(of("PACE").allowed, "one of as_fast, realtime");
    assert_eq!(of("PACE").default, Some("as_fast".into()));
    assert_eq!((of("PACE").live, of("PLAIN").live), (true, false));
    assert_eq!(of("PACE").doc, "How fast. Second sentence.");
    assert_eq!(of("PLAIN").allowed, "one of one, two, or empty for unset");
    assert_eq!(of("THREADS").allowed, "a whole number from 0 to 255");
    assert_eq!(of("SLOTS").allowed, "a whole number from 2 to 64");
    assert_eq!(of("RATE").allowed, "a number from 0.001 to 1000, or empty for unset");
}
