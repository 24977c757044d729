//! What a source reports beside pictures and losses.

use millrace_frame::CameraState;

/// What a source is doing, reported at each change and after each failed attempt to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// What it is doing.
    pub state: CameraState,
    /// The last error, without credentials; empty where there was none.
    pub last_error: String,
    /// Attempts to connect since it was last live.
    pub tries: u32,
}

/// Something that happened to a stream and is worth a counter, but loses no picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// A name that stays: it is a metric's label.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// What happened, for the log.
    pub detail: String,
}
