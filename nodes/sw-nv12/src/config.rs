//! The settings of `sw-nv12`.

use millrace_ingest::FeedSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// What the frames are published as. `nv12` is what the decoder gives; `bgr24` converts each frame at its full size
    /// first, as programs do that know no YCbCr: the slow arm of a comparison.
    #[serde(default)]
    pub(crate) format: Format,
    #[serde(flatten)]
    pub(crate) feed: FeedSettings,
}

/// `FORMAT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// Luma, and chroma at half the size: 1.5 bytes a pixel.
    #[default]
    Nv12,
    /// Blue, green, red: 3 bytes a pixel.
    Bgr24,
}
