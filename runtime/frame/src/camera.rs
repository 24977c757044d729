//! The state of a camera, as the node that reads it reports it to every node behind.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a camera is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraState {
    /// A connection is being made, or was lost and is tried again, or no picture has come yet.
    #[default]
    Connecting,
    /// Pictures come.
    Live,
    /// The connection is open, but no picture has arrived for longer than the stall timeout.
    Stalled,
    /// The camera or its server says no (401, 403, 404, 503, an unknown codec). It is tried again.
    Refused,
    /// The file is over, or the camera was removed or disabled: nothing more comes.
    Ended,
}

impl CameraState {
    /// Its name, as messages, metrics and tables have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Stalled => "stalled",
            Self::Refused => "refused",
            Self::Ended => "ended",
        }
    }
}

/// A camera's state, and what led to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CameraStatus {
    /// Camera id.
    pub source: String,
    /// What it is doing.
    pub state: CameraState,
    /// Since when, in nanoseconds of the Unix clock.
    pub since_ns: i64,
    /// The last error, without credentials; empty where there was none.
    pub last_error: String,
    /// Attempts to connect since it was last live.
    pub tries: u32,
    /// When its last frame arrived, in nanoseconds of the Unix clock; 0 where none has.
    pub last_frame_ns: i64,
    /// Its share of a consumer that cannot serve all cameras, relative to the others'. 1 where nothing is set.
    pub weight: f32,
}

/// A camera's state as the publishers write it: in `state` and `stats` of `docs/wire-schema.md`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CameraMessage<'a> {
    source: &'a str,
    state: CameraState,
    since_ns: i64,
    /// Absent where there was no error.
    #[serde(skip_serializing_if = "str::is_empty")]
    last_error: &'a str,
    tries: u32,
    /// Absent before the first frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_frame_ns: Option<i64>,
}

impl<'a> From<&'a CameraStatus> for CameraMessage<'a> {
    fn from(status: &'a CameraStatus) -> Self {
        Self {
            source: &status.source,
            state: status.state,
            since_ns: status.since_ns,
            last_error: &status.last_error,
            tries: status.tries,
            last_frame_ns: (status.last_frame_ns != 0).then_some(status.last_frame_ns),
        }
    }
}

/// The reason of a camera that its source no longer has.
const REMOVED: &str = "removed";
/// The reason of a camera whose entry in the cameras file was changed.
const CHANGED: &str = "its entry in the cameras file has changed, and it is opened again";

impl CameraStatus {
    /// How long a camera that was removed is still shown, as removed.
    pub const REMOVED_SHOWN: Duration = Duration::from_secs(20);

    /// The last state of a camera that its source no longer has.
    pub fn removed(source: impl Into<String>) -> Self {
        Self { state: CameraState::Ended, last_error: REMOVED.to_owned(), ..Self::new(source) }
    }

    /// The camera is one that its source no longer has.
    pub fn is_removed(&self) -> bool {
        self.state == CameraState::Ended && self.last_error == REMOVED
    }

    /// Why a camera connects whose entry in the cameras file was changed.
    pub const fn changed() -> &'static str {
        CHANGED
    }

    /// The camera connects because its entry in the cameras file was changed: that is no outage.
    pub fn is_changed(&self) -> bool {
        self.state == CameraState::Connecting && self.last_error == CHANGED
    }

    /// A camera of which nothing is known yet.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), since_ns: crate::unix_ns(), weight: 1.0, ..Self::default() }
    }
}
