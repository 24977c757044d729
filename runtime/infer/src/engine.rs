//! What an inference engine does for a detector.

use crate::DetectError;
use millrace_cuda::{Span, Stream};
use millrace_detect::model::Thresholds;
use millrace_detect::onnx::Declared;
use millrace_detect::{FileError, Grid, RawTensor, Signature};
use millrace_frame::TensorDtype;
use millrace_kernels::cuda::KeptPlaces;
use millrace_node::{FilePath, Findings, Flow};
use std::path::Path;

/// The settings that every detector node has. One that has more flattens these into its own.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct DetectorSettings {
    /// The model's description: a `model.yml` file. See docs/models.md.
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "model"))]
    pub model: FilePath,
    /// Boxes that score less are dropped, 0 to 1. In place of `thresholds.score` of the model.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-millrace-live" = true))]
    pub score: Option<f32>,
    /// Of two boxes of a class that overlap by more than this intersection over union, the lower score is dropped,
    /// 0 to 1. In place of `thresholds.iou` of the model.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-millrace-live" = true))]
    pub iou: Option<f32>,
    /// How many frames are computed at the same time, each by its own copy of the model. One worker gives the lowest
    /// latency; one worker for each core gives the highest rate. Left out, 1 in live flow, and in lossless flow one for
    /// each core, at most 4. Each worker holds a slot of the converter's pool: set `SLOTS` of the converter higher than
    /// `WORKERS`.
    #[schemars(range(min = 1, max = 32))]
    pub workers: Option<u32>,
    /// How many threads compute one frame. Left out, the cores of the machine divided among `WORKERS`.
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u32>,
    /// How long a frame waits for others to be computed with it, in milliseconds: until the frames that go through the
    /// model together are there, or this time is over. With 0 no frame waits. Left out, a frame waits up to 4 ms, but
    /// only if about six frames (or a full batch, if that is fewer) are expected in that time at their current rate.
    #[serde(default)]
    #[schemars(range(max = 10_000), extend("x-millrace-live" = true))]
    pub batch_wait_ms: Option<u32>,
    /// How many batches each of `WORKERS` has in flight at once: while one batch is computed, the next is copied in,
    /// and the boxes of the previous one are made. Left out, 2 on a GPU and 1 on the CPU. Each batch holds slots of the
    /// converter's pool: see `SLOTS`.
    #[schemars(range(min = 1, max = 8))]
    pub in_flight: Option<u32>,
    /// How long the engine may return nothing while a batch is in flight, in milliseconds. After that the batch's
    /// frames are counted as lost, and the node ends.
    #[serde(default = "batch_timeout_ms")]
    #[schemars(range(min = 100, max = 3_600_000))]
    pub batch_timeout_ms: u32,
}

fn batch_timeout_ms() -> u32 {
    30_000
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self {
            model: FilePath::default(),
            score: None,
            iou: None,
            workers: None,
            threads: None,
            batch_wait_ms: None,
            in_flight: None,
            batch_timeout_ms: batch_timeout_ms(),
        }
    }
}

/// The most workers where nothing is said: with the 8 slots that a pool has where nothing is said, as many tensors
/// are being made as are being read.
const MAX_DEFAULT_WORKERS: usize = 4;

impl DetectorSettings {
    /// The model's thresholds, with those that are set in their place.
    ///
    /// # Errors
    /// One that is no number from 0 to 1.
    pub fn thresholds(&self, mut of_model: Thresholds) -> Result<Thresholds, DetectError> {
        for (setting, value, place) in
            [("SCORE", self.score, &mut of_model.score), ("IOU", self.iou, &mut of_model.iou)]
        {
            match value {
                Some(value) if (0.0..=1.0).contains(&value) => *place = value,
                Some(value) => return Err(DetectError::Threshold { setting, value }),
                None => {}
            }
        }
        Ok(of_model)
    }

    /// Frames at a time, and threads for each, on this machine.
    pub fn share(&self, flow: Flow) -> (usize, usize) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let most = match flow {
            Flow::Live => 1,
            Flow::Lossless => cores.min(MAX_DEFAULT_WORKERS),
        };
        let workers = self.workers.map_or(most, |n| n as usize).max(1);
        (workers, self.threads.map_or(cores / workers, |n| n as usize).max(1))
    }
}

/// The elements of a tensor in host memory, the last axis fastest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 16-bit floats (IEEE 754 binary16), as their bits.
    F16(&'a [u16]),
    /// Bytes.
    U8(&'a [u8]),
}

impl Elements<'_> {
    /// Their type.
    pub fn dtype(&self) -> TensorDtype {
        match self {
            Self::F32(_) => TensorDtype::F32,
            Self::F16(_) => TensorDtype::F16,
            Self::U8(_) => TensorDtype::U8,
        }
    }

    /// Their bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(data) => bytemuck::cast_slice(data),
            Self::F16(data) => bytemuck::cast_slice(data),
            Self::U8(data) => data,
        }
    }
}

/// Where a tensor of a batch is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tensor<'a> {
    /// In host memory.
    Host(Elements<'a>),
    /// In the memory of the engine's GPU, from its first element to its last.
    Gpu(Span),
}

/// Tensors of one shape and type that go through the model together, one for each frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    /// Shape of each; the batch axis is 1.
    pub shape: [usize; 4],
    /// Type of their elements.
    pub dtype: TensorDtype,
    /// At least one, and no more than [`Engine::batch`].
    pub tensors: &'a [Tensor<'a>],
    /// No box that scores less is wanted.
    pub score: f32,
}

/// A batch that an engine has accepted. Where it is gone, completed or dropped, nothing reads the batch's tensors any more.
pub trait Flight: Send + 'static {
    /// Waits until the batch is computed, and calls `read` for each of its tensors in their order: with its number, and with
    /// the selected outputs, whose first axis is 1.
    ///
    /// # Errors
    /// [`EngineError::Run`]: these frames are lost; [`EngineError::Broken`]: so is each one after them.
    fn complete(self, read: &mut dyn FnMut(usize, &[RawTensor<'_>])) -> Result<(), EngineError>;
}

/// As [`RawTensor`].
#[derive(Clone, Debug)]
struct Output {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
    /// As [`KeptPlaces`].
    kept: Option<(Vec<u32>, usize, bool)>,
}

impl Output {
    fn of(&RawTensor { name, shape, data, kept }: &RawTensor<'_>) -> Self {
        let kept = kept.map(|KeptPlaces { places, all, outside }| (places.to_vec(), all, outside));
        Self { name: name.to_owned(), shape: shape.to_vec(), data: data.to_vec(), kept }
    }

    fn raw(&self) -> RawTensor<'_> {
        let Self { name, shape, data, kept } = self;
        let kept = kept.as_ref().map(|&(ref places, all, outside)| KeptPlaces { places, all, outside });
        RawTensor { name, shape, data, kept }
    }
}

/// The batch of an engine that has computed it when it accepts it: for each tensor its outputs.
#[derive(Clone, Debug, Default)]
pub struct Computed(Vec<Vec<Output>>);

impl Computed {
    /// Copies the outputs of the next tensor.
    pub fn push(&mut self, outputs: &[RawTensor<'_>]) {
        self.0.push(outputs.iter().map(Output::of).collect());
    }
}

impl Flight for Computed {
    fn complete(self, read: &mut dyn FnMut(usize, &[RawTensor<'_>])) -> Result<(), EngineError> {
        for (n, outputs) in self.0.iter().enumerate() {
            read(n, &outputs.iter().map(Output::raw).collect::<Vec<_>>());
        }
        Ok(())
    }
}

/// Why an engine did not do its work. `cause` is the engine's own text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum EngineError {
    #[error("the engine cannot be set up: {cause}")]
    Setup { cause: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("'{file}' cannot be computed here: {why}")]
    Unsupported { file: String, why: String },
    #[error("inference failed: {cause}")]
    Run { cause: String },
    #[error("the engine cannot go on: {cause}")]
    Broken { cause: String },
}

impl EngineError {
    /// That `file` cannot be loaded.
    pub fn load(file: &Path, cause: impl std::fmt::Display) -> Self {
        Self::File(FileError::load(file, cause))
    }

    /// [`EngineError::Run`].
    pub fn run(cause: impl std::fmt::Display) -> Self {
        Self::Run { cause: cause.to_string() }
    }

    /// [`EngineError::Setup`].
    pub fn setup(cause: impl std::fmt::Display) -> Self {
        Self::Setup { cause: cause.to_string() }
    }

    /// [`EngineError::Broken`]: no later frame can be computed either.
    pub fn broken(cause: impl std::fmt::Display) -> Self {
        Self::Broken { cause: cause.to_string() }
    }
}

/// An inference engine with one model loaded. It is opened and used on one thread, and its batches are completed on another.
pub trait Engine: Sized + 'static {
    /// The node's name.
    const NAME: &'static str;
    /// The node in one line.
    const SUMMARY: &'static str;
    /// Whether it can take tensors that lie on a GPU; with some settings it may still not ([`stream`](Self::stream)).
    const ON_GPU: bool = false;
    /// The node's settings.
    type Settings: serde::de::DeserializeOwned + schemars::JsonSchema + Send + Sync + 'static;
    /// A batch in work.
    type Flight: Flight;

    /// The part of the settings that all detectors have.
    fn common(settings: &Self::Settings) -> &DetectorSettings;

    /// The settings as they work in this flow, where what is left out depends on it.
    fn in_flow(settings: Self::Settings, flow: Flow) -> Self::Settings {
        let _ = flow;
        settings
    }

    /// Says which of the settings exclude each other or have no effect, as [`Node::check`](millrace_node::Node::check) does.
    fn check(settings: &Self::Settings, findings: &mut Findings<'_>) {
        let _ = (settings, findings);
    }

    /// How many frames are asked to go through the model together.
    fn asked_batch(settings: &Self::Settings) -> u32 {
        let _ = settings;
        1
    }

    /// Whether a second input ([`fix`](Self::fix)) is fed with these settings.
    fn feeds_sizes(settings: &Self::Settings) -> bool {
        let _ = settings;
        true
    }

    /// Why the engine does not compute a model file that declares this, whatever the settings.
    fn refuses(declared: &Declared) -> Option<String> {
        let _ = declared;
        None
    }

    /// How many copies of the model compute at the same time, and by how many threads each.
    ///
    /// # Errors
    /// [`EngineError::Setup`] for settings that exclude each other.
    fn share(settings: &Self::Settings, flow: Flow) -> Result<(usize, usize), EngineError> {
        Ok(Self::common(settings).share(flow))
    }

    /// How many batches each copy has in work at once.
    fn in_flight(settings: &Self::Settings) -> usize {
        Self::common(settings).in_flight.map_or(1, |n| n as usize).max(1)
    }

    /// Loads the model file, to be computed by so many threads, and says what it declares.
    ///
    /// # Errors
    /// [`EngineError::Setup`] or [`EngineError::File`]; a panic of the engine is one of them ([`contained`]).
    fn open(file: &Path, threads: usize, settings: &Self::Settings) -> Result<(Self, Signature), EngineError>;

    /// Does now what the first start with these settings would spend its time on, for `millrace model build`, and says what
    /// was done.
    ///
    /// # Errors
    /// [`EngineError::Setup`] where there is nothing to be done ahead; those of [`open`](Self::open).
    fn build(settings: &Self::Settings) -> Result<String, EngineError> {
        let _ = settings;
        Err(EngineError::setup(format!("{} computes a model file as it is: there is nothing to build", Self::NAME)))
    }

    /// Tells the engine, once after [`Self::select`], that the first of these outputs spells candidates. One on a GPU may then
    /// leave those out that cannot become boxes of a batch's [`score`](Batch::score); see [`Outlet`](crate::Outlet).
    fn spells(&mut self, grid: Grid) {
        let _ = grid;
    }

    /// Tells the engine, once after [`Self::open`], the input and the outputs that [`Self::submit`] is about.
    ///
    /// # Errors
    /// [`EngineError::File`] when the model has none of that name; the caller has checked that it has.
    fn select(&mut self, input: &str, outputs: &[&str]) -> Result<(), EngineError>;

    /// Accepts a batch. An engine on a GPU queues its work and returns; one on a CPU computes it here. What the caller has
    /// queued in [`stream`](Self::stream) comes before the engine's work. Tensors in host memory are not read any more when
    /// this returns; those on a GPU are until the flight is gone.
    ///
    /// # Errors
    /// As [`Flight::complete`]'s, and nothing of the batch is in work; a panic of the engine is one of them ([`contained`]).
    fn submit(&mut self, batch: Batch<'_>) -> Result<Self::Flight, EngineError>;

    /// Runs the model on one tensor in host memory, waits for it and hands the selected outputs, in their order, to `read`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`Flight::complete`].
    fn run(
        &mut self,
        shape: [usize; 4],
        data: Elements<'_>,
        read: &mut dyn FnMut(&[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let batch = Batch { shape, dtype: data.dtype(), tensors: &[Tensor::Host(data)], score: 0.0 };
        self.submit(batch)?.complete(&mut |_, outputs| read(outputs))
    }

    /// Whether its input may have elements of this type.
    fn takes(&self, dtype: TensorDtype) -> bool {
        dtype != TensorDtype::F16
    }

    /// Whether an output may have elements of this type, named as in [`Port`](millrace_detect::Port).
    fn reads(&self, dtype: &str) -> bool {
        dtype == "f32"
    }

    /// Gives the input `name` of the model, `i64` `[1, 2]`, these numbers in every run.
    ///
    /// # Errors
    /// [`EngineError::Setup`] where it has one input only.
    fn fix(&mut self, name: &str, numbers: [i64; 2]) -> Result<(), EngineError> {
        let _ = numbers;
        Err(second_input(name))
    }

    /// The stream in which it waits for the tensors of a batch, where it works on a GPU: what the caller queues there before
    /// [`submit`](Self::submit) comes before the engine's work.
    fn stream(&self) -> Option<&Stream> {
        None
    }

    /// How many tensors it computes together at most. More than one only for a model whose batch axis is open.
    fn batch(&self) -> usize {
        1
    }

    /// Readies itself for every number of tensors that [`submit`](Self::submit) may get, and for as many batches in work as
    /// [`in_flight`](Self::in_flight) says, so that none of them is slow when it first comes. Called once, before the first
    /// frame.
    ///
    /// # Errors
    /// What would else fail at a frame.
    fn prepare(&mut self, shape: [usize; 4], dtype: TensorDtype) -> Result<(), EngineError> {
        let _ = (shape, dtype);
        Ok(())
    }

    /// What the user should know of how the model is computed, a sentence each: parts of it that are not where they were
    /// asked to be.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The refusal of a model whose second input is not fed.
pub fn second_input(name: &str) -> EngineError {
    EngineError::setup(format!(
        "the model has a second input, '{name}', which is fed on a CPU only; compute it with cpu-infer, or with ort-infer and \
         PROVIDER=cpu, or export the model without its post-processing and read it with the head 'rtdetr'"
    ))
}

/// Runs what belongs to others and turns its panic into an error text.
///
/// # Errors
/// The message of the panic.
pub fn contained<T>(what: &str, run: impl FnOnce() -> T) -> Result<T, String> {
    // after a panic the caller gives the engine up or reports the frame as lost; nothing half-made is read
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        format!("{what} panicked: {text}")
    })
}
