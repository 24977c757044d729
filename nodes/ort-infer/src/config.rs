//! Settings of `ort-infer`.

use std::path::PathBuf;

/// Settings of `ort-infer`.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The model's description: a `model.yml` file. See docs/models.md.
    #[schemars(extend("x-millrace-kind" = "path"))]
    pub(crate) model: PathBuf,
    /// Boxes that score less are dropped, 0 to 1. In place of `thresholds.score` of the model.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) score: Option<f32>,
    /// Of two boxes of a class that overlap by more than this intersection over union, the lower score is dropped,
    /// 0 to 1. In place of `thresholds.iou` of the model.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) iou: Option<f32>,
    /// How many threads compute one frame. Left out, as many as the machine has cores.
    #[schemars(range(min = 1, max = 256))]
    pub(crate) threads: Option<u32>,
    /// The ONNX Runtime library, a `libonnxruntime.so` of version 1.24 or newer. Left out, it is looked for: see
    /// docs/nodes/ort-infer.md.
    #[schemars(extend("x-millrace-kind" = "path"))]
    pub(crate) library: Option<PathBuf>,
    /// Whether the threads wait for work in a busy loop. Only for a machine with cores to spare: on cores that are
    /// shared with other nodes it slows all of them, this one too.
    #[serde(default)]
    pub(crate) spin: bool,
}
