//! The settings of `tensor-compare`.

use millrace_node::FilePath;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `tensor-compare`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The file to write. Its folder must exist; an existing file is replaced.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "write"))]
    pub(crate) path: FilePath,
    /// How much may be kept of frames whose partner has not come, in MiB, where one side is far ahead of the other.
    #[serde(default = "default_budget_mib")]
    pub(crate) budget_mib: u64,
}

fn default_budget_mib() -> u64 {
    1024
}
