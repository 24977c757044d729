//! The settings of `jsonl-writer`.

use millrace_node::FilePath;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `jsonl-writer`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The file to write. Its folder must exist; an existing file is replaced unless `APPEND` is set.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "write"))]
    pub(crate) path: FilePath,
    /// Write behind what the file already holds, instead of replacing it.
    #[serde(default)]
    pub(crate) append: bool,
}
