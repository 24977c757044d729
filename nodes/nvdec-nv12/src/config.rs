//! The settings of `nvdec-nv12`.

use millrace_cameras::CameraSettings;
use millrace_node::GpuSettings;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `nvdec-nv12`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Settings {
    #[serde(flatten)]
    pub(crate) cameras: CameraSettings,
    /// The GPU, by its number among those that the process sees.
    #[serde(default)]
    pub(crate) device: u32,
    /// Give out each picture as soon as its place in presentation order is known. With `false` up to four more pictures
    /// are held back, so that the decoder is never without work. The default is `true` in live flow and `false` in
    /// lossless flow, by the flow when the node starts.
    #[serde(default)]
    pub(crate) low_delay: Option<bool>,
    /// Where the frames are published.
    #[serde(default)]
    pub(crate) memory: Memory,
    /// CUDA streams for the cameras' work: one for each camera (`per_camera`), or one for all (`one`), as the slower
    /// arm of a comparison.
    #[serde(default)]
    pub(crate) streams: Streams,
    #[serde(flatten)]
    pub(crate) gpu: GpuSettings,
}

/// Where the frames are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Memory {
    /// In the GPU's memory.
    #[default]
    Cuda,
    /// Copied to host memory: for consumers on the CPU, and the slower arm of a comparison.
    Host,
}

/// In how many CUDA streams the cameras' work is queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Streams {
    /// Each camera has one.
    #[default]
    PerCamera,
    /// All cameras share one.
    One,
}

impl AsRef<CameraSettings> for Settings {
    fn as_ref(&self) -> &CameraSettings {
        &self.cameras
    }
}
