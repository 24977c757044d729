//! The settings of `ab-sink`.

use millrace_node::FilePath;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `ab-sink`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The file that the records are written to at the end. Its folder must exist; an existing file is replaced.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "write"))]
    pub(crate) path: FilePath,
    /// Keep what was found in each frame, where detections come in.
    #[serde(default)]
    pub(crate) boxes: bool,
}
