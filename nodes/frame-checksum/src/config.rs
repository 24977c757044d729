//! The settings of `frame-checksum`.

use millrace_node::FilePath;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `frame-checksum`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The file to write. Its folder must exist; an existing file is replaced.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "write"))]
    pub(crate) path: FilePath,
}
