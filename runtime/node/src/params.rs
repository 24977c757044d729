//! Settings that change while the node runs: `dora param set` and `dora param delete`.
//!
//! A change is read as the graph's text is: all settings again, by the same schema, into the same types. What does not
//! fit changes nothing. dora's command hears nothing of it: the log, the node's counters and its reports say what came of
//! it, and `millrace set` waits for the report.

use crate::inputs::Inputs;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::outputs::Outputs;
use crate::settings::{CommonSettings, RawSettings, Unread};
use millrace_graph::settings::{SettingFault, to_text};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a setting stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{key} is a JSON {found}; a setting is text, a number, true or false, or a list of these")]
    Shape { key: String, found: &'static str },
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(
        "{key} needs a restart: 'dora node replace {node} --from-yaml FILE', where FILE has the node's entry with the \
         new value; what can change while it runs: {live}"
    )]
    NeedsRestart { key: String, node: String, live: String },
    #[error("{key} cannot change now: {why}")]
    Kept { key: String, why: String },
}

/// Sets a setting, or with `None` puts the graph's value back, and says what came of it.
pub(crate) fn apply<N: Node>(
    raw_settings: &mut RawSettings,
    key: &str,
    value: Option<&Value>,
    node: &mut N,
    inputs: &mut Inputs,
    out: &mut Outputs,
    metrics: &Metrics,
) {
    let before = raw_settings.displayed(key);
    match attempt(raw_settings, key, value, node, inputs, out) {
        Ok(()) => {
            let now = raw_settings.displayed(key);
            tracing::info!("{key} changes from {before} to {now}, by dora param");
            metrics.count("params_applied", "", 1);
            metrics.param(key, Ok((before, now)));
        }
        Err(refusal) => {
            tracing::warn!("dora param of '{}' is refused, and nothing changes: {refusal}", raw_settings.node());
            metrics.count("params_refused", "", 1);
            metrics.param(key, Err(refusal.to_string()));
        }
    }
}

fn attempt<N: Node>(
    raw_settings: &mut RawSettings,
    key: &str,
    value: Option<&Value>,
    node: &mut N,
    inputs: &mut Inputs,
    out: &mut Outputs,
) -> Result<(), Refusal> {
    let (changed, own, common) = plan::<N::Settings>(raw_settings, key, value)?;
    let done = match key {
        _ if changed.is_own(key) => node.change(own),
        "LOG" => crate::log::change(common.log.as_str()),
        _ => {
            inputs.change(&common);
            out.change(common)
        }
    };
    done.map_err(|why| Refusal::Kept { key: key.to_owned(), why })?;
    *raw_settings = changed;
    Ok(())
}

/// All settings with the change, read again.
fn plan<S: DeserializeOwned>(
    raw_settings: &RawSettings,
    key: &str,
    value: Option<&Value>,
) -> Result<(RawSettings, S, CommonSettings), Refusal> {
    let docs = raw_settings.document();
    let Some(doc) = docs.iter().find(|doc| doc.key == key) else {
        let fault = SettingFault::unknown(key, docs.iter().map(|doc| doc.key.as_str()));
        return Err(Unread::Faults(vec![fault]).into());
    };
    if !doc.live {
        let live: Vec<&str> = docs.iter().filter(|doc| doc.live).map(|doc| doc.key.as_str()).collect();
        let (key, node) = (key.to_owned(), raw_settings.node().to_owned());
        return Err(Refusal::NeedsRestart { key, node, live: live.join(", ") });
    }
    let changed = raw_settings.with(key, value.map(|value| text_of(key, value)).transpose()?);
    let (own, common) = changed.read()?;
    Ok((changed, own, common))
}

/// The value as a graph would have it.
fn text_of(key: &str, value: &Value) -> Result<String, Refusal> {
    let nested = |value: &Value| value.is_array() || value.is_object();
    let found = match value {
        Value::Object(_) => "object",
        Value::Array(items) if items.iter().any(nested) => "list of lists or objects",
        _ => return Ok(to_text(value)),
    };
    Err(Refusal::Shape { key: key.to_owned(), found })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::link::Topology;
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
    struct Settings {
        /// What is found.
        #[schemars(range(min = 0.0, max = 1.0), extend("x-millrace-live" = true))]
        score: Option<f64>,
        /// Names.
        #[serde(default)]
        #[schemars(extend("x-millrace-live" = true))]
        names: Vec<String>,
        /// What to read.
        #[serde(default)]
        source: String,
    }

    fn raw_settings() -> RawSettings {
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        RawSettings::new::<Settings>(&Topology {
            node: "detect".to_owned(),
            env: [("SCORE", "0.25"), ("SOURCE", "rtsp://me:secret@cam/")].map(text).into(),
            root_env: [("HANDOVER", "blocking"), ("OTHERS", "1")].map(text).into(),
            ..Topology::default()
        })
    }

    fn planned(raw_settings: &RawSettings, key: &str, value: Value) -> (RawSettings, Settings, CommonSettings) {
        plan(raw_settings, key, Some(&value)).unwrap()
    }

    #[test]
    fn a_change_is_read_with_all_that_the_graph_gives() {
        let (changed, own, _) = planned(&raw_settings(), "SCORE", json!(0.75));
        assert_eq!((own.score, own.source.as_str()), (Some(0.75), "rtsp://me:secret@cam/"));
        assert_eq!(
            (raw_settings().displayed("SCORE"), changed.displayed("SCORE")),
            ("0.25".to_owned(), "0.75".to_owned())
        );
        // what a shell makes of numbers and words
        assert_eq!(planned(&changed, "SCORE", json!("0.5")).1.score, Some(0.5));
        assert_eq!(planned(&changed, "SCORE", json!(null)).1.score, None);
        assert_eq!(planned(&changed, "NAMES", json!(["a", "b"])).1.names, ["a", "b"]);
        // both, one after the other, and one taken back
        let (changed, ..) = planned(&changed, "HANDOVER", json!("event"));
        let (_, own, common) = planned(&changed, "NAMES", json!("a"));
        assert_eq!((own.score, common.handover), (Some(0.75), crate::settings::Handover::Event));
        let (_, own, common): (_, Settings, _) = plan(&changed, "HANDOVER", None).unwrap();
        assert_eq!((own.score, common.handover), (Some(0.75), crate::settings::Handover::Blocking));
    }

    #[test]
    fn refusals_say_what_is_wrong_and_what_would_be_right() {
        let refused =
            |key: &str, value: Value| plan::<Settings>(&raw_settings(), key, Some(&value)).unwrap_err().to_string();
        assert_eq!(refused("score", json!(0.5)), "no setting is called score; did you mean 'SCORE'?");
        assert!(
            refused("ELSE", json!(1)).starts_with("no setting is called ELSE; there are: SCORE, NAMES, SOURCE, FLOW, ")
        );
        assert_eq!(refused("SCORE", json!(7)), "SCORE is '7', which is not a number from 0 to 1, or empty for unset");
        assert_eq!(
            refused("HANDOVER", json!("blockin")),
            "HANDOVER is 'blockin', which is not one of event, blocking; did you mean 'blocking'?"
        );
        assert_eq!(
            refused("SCORE", json!({ "a": 1 })),
            "SCORE is a JSON object; a setting is text, a number, true or false, or a list of these"
        );
        assert!(refused("NAMES", json!([["a"]])).starts_with("NAMES is a JSON list of lists or objects; "));
        for key in ["SOURCE", "SLOTS", "EXCHANGE"] {
            let text = refused(key, json!("x"));
            let whole = format!(
                "{key} needs a restart: 'dora node replace detect --from-yaml FILE', where FILE has the node's entry \
                 with the new value; what can change while it runs: SCORE, NAMES, FLOW, BACKLOG, MAX_AGE_MS, LEASE_TIMEOUT_MS, DOORBELL, "
            );
            assert!(text.starts_with(&whole), "{text}");
        }
        let known = plan::<Settings>(&raw_settings(), "SOURCE", None).unwrap_err().to_string();
        assert!(known.starts_with("SOURCE needs a restart") && !known.contains("secret"), "{known}");
    }
}
