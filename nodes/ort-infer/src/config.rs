//! Settings of `ort-infer`.

use millrace_infer::{DetectorSettings, EngineError};
use millrace_node::{FilePath, Findings, Flow};
use ort::ep::cuda::ConvAlgorithmSearch;
use std::path::PathBuf;

/// Settings of `ort-infer`. The harness has refused unknown names, which serde cannot do beside a flattened field.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schemars(extend("x-millrace-limits" = [
    { "setting": "WORKERS", "most": 1, "of": "PROVIDER", "is": ["cuda", "tensorrt"], "why": ONE_COPY }
]))]
pub struct Settings {
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its own documentation would stand in the settings of the node")]
    pub common: DetectorSettings,
    /// The ONNX Runtime library, a `libonnxruntime.so` of version 1.24 or newer. Left out, it is looked for: see
    /// docs/nodes/ort-infer.md.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "read"))]
    pub library: Option<FilePath>,
    /// Whether the threads wait for work in a busy loop. Use it only on a machine with idle cores: on cores that other
    /// nodes use too, it slows all of them, including this node.
    #[serde(default)]
    pub spin: bool,
    /// The library that computes the model. `cuda` and `tensorrt` need an NVIDIA GPU and the GPU build of the library.
    /// If they are missing, the node ends: it never uses another provider instead.
    #[serde(default)]
    pub provider: Provider,
    /// Number of the GPU, as `nvidia-smi` and `CUDA_VISIBLE_DEVICES` count.
    #[serde(default)]
    pub device: u32,
    /// The most frames on the GPU that go through the model together, of those that are there at once. More than 1
    /// requires a model whose batch axis is open. Left out, 8 in live flow with `PROVIDER: cuda` and such a model, else
    /// 1.
    #[schemars(range(min = 1, max = 64))]
    pub batch: Option<u32>,
    /// Set by the flow: `BATCH` is left out, and frames are to go through the model together where it can do that.
    #[serde(skip)]
    #[schemars(skip)]
    pub batch_by_model: bool,
    /// Whether the GPU's work of a frame is recorded once and then launched as a whole, which is less work for the CPU.
    /// It requires a model whose layers all run on the GPU and whose shapes are fixed.
    #[serde(default)]
    pub cuda_graph: bool,
    /// Whether 32-bit floats are multiplied with a mantissa of 10 bits, which is faster on some GPUs.
    #[serde(default = "yes")]
    pub tf32: bool,
    /// Whether the CUDA provider computes convolutions with the channels last, which is faster on some GPUs. The
    /// provider adds operations that transpose tensors if that is faster in total.
    #[serde(default)]
    pub prefer_nhwc: bool,
    /// How cuDNN's algorithm for each convolution is chosen: by trying all of them (the slowest start), by cuDNN's
    /// estimate, or always the same algorithm.
    #[serde(default)]
    pub conv_search: ConvSearch,
    /// Whether cuDNN's algorithms may use as much memory as they want. With `false` some fast algorithms are left out.
    #[serde(default = "yes")]
    pub conv_max_workspace: bool,
    /// Whether the GridSample operations of a 16-bit model are computed with 32-bit floats. The CUDA provider has no
    /// 16-bit GridSample, and operations that it does not have run on the CPU. Results are rounded to 16 bits as
    /// before.
    #[serde(default = "yes")]
    pub grid_sample_f32: bool,
    /// Where TensorRT keeps what it has built of models. Left out, `millrace/tensorrt` in the user's cache folder.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "made"))]
    pub engine_cache: Option<FilePath>,
}

/// `PROVIDER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// The cores of this machine.
    #[default]
    Cpu,
    /// A GPU, by ONNX Runtime's CUDA provider.
    Cuda,
    /// A GPU, by TensorRT. Layers that TensorRT does not support run on the CUDA provider.
    Tensorrt,
}

/// `CONV_SEARCH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConvSearch {
    /// Each algorithm is measured.
    #[default]
    Exhaustive,
    /// cuDNN estimates which is fastest.
    Heuristic,
    /// The same algorithm for all.
    Fixed,
}

impl From<ConvSearch> for ConvAlgorithmSearch {
    fn from(search: ConvSearch) -> Self {
        match search {
            ConvSearch::Exhaustive => Self::Exhaustive,
            ConvSearch::Heuristic => Self::Heuristic,
            ConvSearch::Fixed => Self::Default,
        }
    }
}

impl Provider {
    /// Its name in a graph.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }
}

/// Frames that go through a model together in live flow where nothing is set: about as many as many cameras have within a few
/// milliseconds. What is missing of them is computed all the same, so more would cost a few cameras time.
const LIVE_BATCH: u32 = 8;

/// Why `WORKERS` is 1 on a GPU. One of four runs with two, on an H200, had ended with a segmentation fault.
const ONE_COPY: &str = "two copies of a model in one process have crashed in ONNX Runtime's CUDA provider. Leave WORKERS out; \
                        IN_FLIGHT is how many batches are in work at once, and BATCH how many frames are in each";

fn yes() -> bool {
    true
}

impl Settings {
    /// The settings for this model where nothing else is said.
    pub fn of_model(model: PathBuf) -> Self {
        Self {
            common: DetectorSettings { model: model.into(), ..DetectorSettings::default() },
            library: None,
            spin: false,
            provider: Provider::Cpu,
            device: 0,
            batch: None,
            batch_by_model: false,
            cuda_graph: false,
            tf32: yes(),
            prefer_nhwc: false,
            conv_search: ConvSearch::default(),
            conv_max_workspace: yes(),
            grid_sample_f32: yes(),
            engine_cache: None,
        }
    }

    /// The settings with what the flow says of those that are left out.
    pub(crate) fn in_flow(mut self, flow: Flow) -> Self {
        self.batch_by_model =
            self.batch.is_none() && flow == Flow::Live && self.provider == Provider::Cuda && !self.cuda_graph;
        self
    }

    /// Frames that go through the model together at most, where its batch axis is open or not.
    pub(crate) fn most(&self, open_axis: bool) -> u32 {
        self.batch.unwrap_or(if self.batch_by_model && open_axis { LIVE_BATCH } else { 1 }).max(1)
    }

    /// Batches in work at once. On a GPU the second fills the time in which the first is copied and boxes are made of it.
    pub(crate) fn in_flight(&self) -> usize {
        // a graph that TensorRT's provider has recorded is for one set of addresses
        let one = self.provider == Provider::Cpu || self.provider == Provider::Tensorrt && self.cuda_graph;
        let usual = if one { 1 } else { 2 };
        self.common.in_flight.map_or(usual, |n| n as usize).max(1)
    }

    /// Those that exclude each other, and why.
    fn excluded(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if self.provider == Provider::Cpu {
            let for_gpu =
                [("BATCH", self.batch > Some(1)), ("CUDA_GRAPH", self.cuda_graph), ("PREFER_NHWC", self.prefer_nhwc)];
            for (setting, _) in for_gpu.into_iter().filter(|(_, asked)| *asked) {
                let cure = format!("set PROVIDER=cuda, or leave {setting} out");
                all.push((setting, format!("{setting} is for a GPU, and PROVIDER is cpu: {cure}")));
            }
            return all;
        }
        if let Some(workers @ 2..) = self.common.workers {
            let provider = self.provider.name();
            all.push((
                "WORKERS",
                format!("WORKERS is {workers}, and at most 1 where PROVIDER is {provider}: {ONE_COPY}"),
            ));
        }
        if self.cuda_graph && self.provider == Provider::Tensorrt && (self.most(false) > 1 || self.in_flight() > 1) {
            let text = "CUDA_GRAPH of TensorRT is for one size of input and one batch in flight: leave BATCH and IN_FLIGHT \
                        out, or CUDA_GRAPH";
            all.push(("CUDA_GRAPH", text.to_owned()));
        }
        all
    }

    /// Says which of them exclude each other or have no effect.
    pub(crate) fn check(&self, findings: &mut Findings<'_>) {
        self.excluded().into_iter().for_each(|(setting, why)| findings.refuse(setting, why));
        let provider = self.provider.name();
        let on_gpu = ["DEVICE", "TF32", "CONV_SEARCH", "CONV_MAX_WORKSPACE", "GRID_SAMPLE_F32"];
        if self.provider == Provider::Cpu {
            findings.no_effect(&on_gpu, format!("where PROVIDER is {provider}: it is for a GPU"));
        }
        if self.provider != Provider::Tensorrt {
            findings.no_effect(&["ENGINE_CACHE"], format!("where PROVIDER is {provider}: it is for tensorrt"));
        }
    }

    /// Copies of the model, and threads for each. A GPU computes one batch with all that it has, and one thread feeds it.
    pub(crate) fn share(&self, flow: Flow) -> Result<(usize, usize), EngineError> {
        match self.excluded().into_iter().next() {
            Some((_, why)) => Err(EngineError::setup(why)),
            None if self.provider == Provider::Cpu => Ok(self.common.share(flow)),
            None => Ok((1, self.common.threads.map_or(1, |n| n as usize).max(1))),
        }
    }

    /// The folder of TensorRT's cache.
    pub(crate) fn engine_cache(&self) -> Result<PathBuf, EngineError> {
        if let Some(folder) = &self.engine_cache {
            return Ok(folder.to_path_buf());
        }
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        let cache = cache.ok_or_else(|| {
            EngineError::setup("neither XDG_CACHE_HOME nor HOME is set: name a folder by ENGINE_CACHE")
        })?;
        Ok(cache.join("millrace/tensorrt"))
    }
}
