//! Settings of `ort-infer`.

use millrace_infer::Common;
use std::path::PathBuf;

/// Settings of `ort-infer`. The harness has refused unknown names, which serde cannot do beside a flattened field.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Settings {
    #[serde(flatten)]
    pub(crate) common: Common,
    /// The ONNX Runtime library, a `libonnxruntime.so` of version 1.24 or newer. Left out, it is looked for: see
    /// docs/nodes/ort-infer.md.
    #[schemars(extend("x-millrace-kind" = "path"))]
    pub(crate) library: Option<PathBuf>,
    /// Whether the threads wait for work in a busy loop. Only for a machine with cores to spare: on cores that are
    /// shared with other nodes it slows all of them, this one too.
    #[serde(default)]
    pub(crate) spin: bool,
}
