//! What `/livez`, `/healthz` and `/readyz` answer.

use axum::http::StatusCode;
use millrace_frame::CameraState;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// An event loop that has not turned for so long hangs; one that is well turns ten times a second.
pub(crate) const HUNG: Duration = Duration::from_millis(2_500);
/// The page is ready while some live camera's detections are not older.
pub(crate) const DETECTIONS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Alive {
    status: &'static str,
    /// Since the node's event loop last turned; absent while the node opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    loop_age_ms: Option<u64>,
}

/// Whether the process works: its server answers, which this answer shows, and its event loop turns.
pub(crate) fn alive(loop_age: Option<Duration>) -> (StatusCode, String) {
    let hung = loop_age.is_some_and(|age| age >= HUNG);
    let (code, status) = if hung { (StatusCode::SERVICE_UNAVAILABLE, "hung") } else { (StatusCode::OK, "ok") };
    (code, text(&Alive { status, loop_age_ms: loop_age.map(|age| age.as_millis() as u64) }))
}

/// What is to be known of the cameras.
#[derive(Debug, Default)]
pub(crate) struct Cameras {
    /// How many there are, by state.
    pub(crate) by_state: BTreeMap<&'static str, usize>,
    /// A few that are to be live and are not: `door is refused: 401 Unauthorized`. One that has ended is not: its file is
    /// over, or it was removed.
    pub(crate) not_live: Vec<String>,
    /// Since the newest detections of a live camera; none where there were none.
    pub(crate) newest_detections: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct Ready<'a> {
    status: &'static str,
    /// What is not as it should be; empty when ready.
    missing: Vec<String>,
    cameras: &'a BTreeMap<&'static str, usize>,
}

/// Whether there is something to see: the loop turns, a camera is live, and its detections come.
pub(crate) fn ready(loop_age: Option<Duration>, cameras: &Cameras) -> (StatusCode, String) {
    let mut missing = Vec::new();
    match loop_age {
        None => missing.push("the node is still opening".to_owned()),
        Some(age) if age >= HUNG => {
            missing.push(format!("the node's event loop has not turned for {} s", age.as_secs()));
        }
        Some(_) => {}
    }
    if cameras.by_state.get(CameraState::Live.as_str()).copied().unwrap_or(0) == 0 {
        let ended = cameras.by_state.get(CameraState::Ended.as_str()).copied().unwrap_or(0);
        missing.push(match (cameras.not_live.is_empty(), ended) {
            (false, _) => format!("no camera is live: {}", cameras.not_live.join("; ")),
            (true, 0) => "no camera has come yet".to_owned(),
            (true, 1) => "no camera is live: 1 has ended or was removed".to_owned(),
            (true, ended) => format!("no camera is live: {ended} have ended or were removed"),
        });
    }
    match cameras.newest_detections {
        None => missing.push("no detections of a live camera have come".to_owned()),
        Some(age) if age > DETECTIONS_WITHIN => {
            missing.push(format!("no detections of a live camera have come for {} s", age.as_secs()));
        }
        Some(_) => {}
    }
    let (code, status) =
        if missing.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    (code, text(&Ready { status, missing, cameras: &cameras.by_state }))
}

fn text(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_else(|_| "{}".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::Value;

    fn answer((code, text): (StatusCode, String)) -> (u16, Value) {
        (code.as_u16(), serde_json::from_str(&text).unwrap())
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_loop_that_hangs_is_not_alive() {
        assert_eq!(answer(alive(None)), (200, serde_json::json!({"status": "ok"})));
        assert_eq!(answer(alive(Some(s(2)))), (200, serde_json::json!({"status": "ok", "loop_age_ms": 2000})));
        assert_eq!(answer(alive(Some(s(3)))), (503, serde_json::json!({"status": "hung", "loop_age_ms": 3000})));
    }

    #[test]
    fn what_is_missing_is_named() {
        let live = || Cameras {
            by_state: [("live", 1), ("refused", 1)].into(),
            not_live: vec!["door is refused: 401 Unauthorized".to_owned()],
            newest_detections: Some(s(1)),
        };
        let (code, body) = answer(ready(Some(s(0)), &live()));
        assert_eq!((code, body["missing"].to_string().as_str()), (200, "[]"));
        assert_eq!(body["cameras"]["refused"], 1);

        let missing = |loop_age, cameras: &Cameras| {
            let (code, body) = answer(ready(loop_age, cameras));
            assert_eq!((code, body["status"].as_str()), (503, Some("not ready")));
            body["missing"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(missing(Some(s(4)), &live()), ["the node's event loop has not turned for 4 s"]);
        assert_eq!(missing(None, &live()), ["the node is still opening"]);
        let old = Cameras { newest_detections: Some(s(12)), ..live() };
        assert_eq!(missing(Some(s(0)), &old), ["no detections of a live camera have come for 12 s"]);
        let refused = Cameras { by_state: [("refused", 1)].into(), newest_detections: None, ..live() };
        assert_eq!(
            missing(Some(s(0)), &refused),
            ["no camera is live: door is refused: 401 Unauthorized", "no detections of a live camera have come"]
        );
        let none = missing(Some(s(0)), &Cameras::default());
        assert_eq!(none[0], "no camera has come yet");
    }
}
