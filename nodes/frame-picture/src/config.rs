//! The settings of `frame-picture`.

use millrace_node::FilePath;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `frame-picture`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The folder to write into, which must exist. A picture is called `CAMERA-SEQ.jpg`.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "folder"))]
    pub(crate) folder: FilePath,
    /// Which frames of every camera, by their numbers.
    pub(crate) frames: Vec<u64>,
    /// JPEG quality.
    #[serde(default = "default_quality")]
    #[schemars(range(min = 1, max = 100))]
    pub(crate) quality: u8,
}

fn default_quality() -> u8 {
    85
}
