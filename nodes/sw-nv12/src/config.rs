//! The settings of `sw-nv12`.

use millrace_ingest::FeedSettings;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `sw-nv12`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Settings {
    /// What to decode: a file or an `rtsp://` URL. MP4/MOV and Annex-B streams of H.264 and H.265 are told apart by their
    /// content.
    #[schemars(extend("x-millrace-kind" = "path"))]
    pub(crate) source: String,
    /// The camera's id, which every frame carries. By default the node's id.
    #[serde(default)]
    pub(crate) camera: Option<String>,
    #[serde(flatten)]
    pub(crate) feed: FeedSettings,
}
