//! Settings of `trt-infer`.

use millrace_infer::{DetectorSettings, EngineError};
use millrace_node::{FilePath, Findings};
use std::path::PathBuf;

/// Settings of `trt-infer`. The harness has refused unknown names, which serde cannot do beside a flattened field.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Settings {
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its own documentation would stand in the settings of the node")]
    pub common: DetectorSettings,
    /// The TensorRT library, a `libnvinfer.so.8`, `libnvinfer.so.10` or `libnvinfer.so.11`, with the ONNX parser beside it.
    /// Left out, the newest that the system's loader finds.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "read"))]
    pub library: Option<FilePath>,
    /// Number of the GPU, as `nvidia-smi` and `CUDA_VISIBLE_DEVICES` count.
    #[serde(default)]
    pub device: u32,
    /// The most frames on the GPU that go through the model together, of those that are there at once. More than 1
    /// requires a model whose batch axis is open.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub batch: u32,
    /// If `BATCH` is more than 1: whether the engine also has kernels chosen for a single frame. A build then takes
    /// about twice as long, and a single frame is not computed by kernels that are fastest for the full batch.
    #[serde(default)]
    pub profile_for_one: bool,
    /// Whether the GPU's work of a batch is recorded once and then started as a whole: less work for the CPU. Recorded for one
    /// frame, and for the number of frames that comes several times in a row. Where TensorRT's work cannot be recorded, a line
    /// in the log says so.
    #[serde(default)]
    pub cuda_graph: bool,
    /// Whether, while an engine of these settings is built, the last engine of the same model file, input, `BATCH`,
    /// `PROFILE_FOR_ONE`, TensorRT, GPU and driver computes the frames: one with another `PRECISION`, `TF32`, `BUILD_LEVEL` or
    /// `TACTICS`. A line in the log says when it begins and ends. Otherwise the node is not ready until its engine is built.
    #[serde(default)]
    pub serve_while_building: bool,
    /// Where built engines are kept. Left out, `millrace/trt-infer` in the user's cache folder.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "made"))]
    pub engine_cache: Option<FilePath>,
    /// In what the engine computes: in the types of the model file (`model`), or in 16-bit floats where that is faster (`f16`,
    /// TensorRT 8 only). Later releases have types from the file alone: export it in 16 bits.
    #[serde(default)]
    pub precision: Precision,
    /// Whether 32-bit floats are multiplied with a mantissa of 10 bits, which is faster on some GPUs.
    #[serde(default = "yes")]
    pub tf32: bool,
    /// How long a build searches for fast implementations, 0 to 5: a low level builds sooner, a high one may compute faster.
    /// Left out, TensorRT's own, which is 3. TensorRT 8.5 has none.
    #[schemars(range(max = 5))]
    pub build_level: Option<u32>,
    /// Where implementations of layers come from. Left out, TensorRT's own choice; of TensorRT 8 only what needs no other
    /// library: `edge_mask_convolutions,jit_convolutions`. The first three need their library installed, and TensorRT 11 has
    /// none of them.
    #[serde(default)]
    pub tactics: Vec<Tactic>,
    /// The longest that a build may take, in seconds. After that the node ends and says what to do.
    #[serde(default = "half_an_hour_s")]
    #[schemars(range(min = 1, max = 86_400))]
    pub build_limit_s: u32,
}

/// `PRECISION`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// The types of the model file.
    #[default]
    Model,
    /// 16-bit floats where that is faster.
    F16,
}

/// One of `TACTICS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tactic {
    /// cuBLAS.
    Cublas,
    /// cuBLASLt.
    CublasLt,
    /// cuDNN.
    Cudnn,
    /// Convolutions with a mask of edges.
    EdgeMaskConvolutions,
    /// Convolutions that are compiled for the model.
    JitConvolutions,
}

impl Tactic {
    /// Its name, in a graph and for the binding.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cublas => "cublas",
            Self::CublasLt => "cublas_lt",
            Self::Cudnn => "cudnn",
            Self::EdgeMaskConvolutions => "edge_mask_convolutions",
            Self::JitConvolutions => "jit_convolutions",
        }
    }
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn half_an_hour_s() -> u32 {
    1_800
}

impl Settings {
    /// Says which of them have no effect.
    pub(crate) fn check(&self, findings: &mut Findings<'_>) {
        if self.batch == 1 {
            findings.no_effect(&["PROFILE_FOR_ONE"], "where BATCH is 1: all kernels are for a frame alone");
        }
    }

    /// Copies of the model, and threads for each. A GPU computes one batch with all that it has, and one thread feeds it.
    pub(crate) fn share(&self) -> (usize, usize) {
        (self.common.workers.map_or(1, |n| n as usize).max(1), 1)
    }

    /// Batches in work at once: the second fills the time in which boxes are made of the first one's outputs.
    pub(crate) fn in_flight(&self) -> usize {
        self.common.in_flight.map_or(2, |n| n as usize).max(1)
    }

    /// The folder of the engines.
    pub(crate) fn engine_cache(&self) -> Result<PathBuf, EngineError> {
        if let Some(folder) = &self.engine_cache {
            return Ok(folder.to_path_buf());
        }
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        let cache = cache.ok_or_else(|| {
            EngineError::setup("neither XDG_CACHE_HOME nor HOME is set: name a folder by ENGINE_CACHE")
        })?;
        Ok(cache.join("millrace/trt-infer"))
    }
}
