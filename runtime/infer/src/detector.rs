//! From a tensor to detections, whatever the engine.

use crate::fit::misfit;
use crate::{Batch, Elements, Engine, EngineError, Flight, Tensor};
use millrace_cuda::{Gpu, Span};
use millrace_detect::model::Thresholds;
use millrace_detect::{Boxes, Decoder, HeadError, Mapping, Model, ModelError, Unfit, onnx};
use millrace_frame::{Detections, Device, Item, Payload, Size, TensorDesc, TensorDtype, TensorLayout, Timing};
use millrace_node::FrameLease;
use std::sync::Arc;
use std::time::Instant;

/// Why there are no detections.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum DetectError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{setting} is {value}; expected a number from 0 to 1")]
    Threshold { setting: &'static str, value: f32 },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{model}: {why}")]
    Unfit { model: String, why: Unfit },
    #[error("{model}: {cause}")]
    Head { model: String, cause: HeadError },
    #[error("{model} takes {expected}, but a frame of '{frame_source}' came as {found}: {cure}")]
    Item { model: String, frame_source: String, expected: String, found: String, cure: &'static str },
}

impl DetectError {
    /// Whether only this frame is lost: everything else is a fault of the set-up, which the next frame has too.
    pub fn is_of_one_frame(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Run { .. }) | Self::Head { .. })
    }
}

/// What was found in a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The boxes.
    pub detections: Detections,
    /// Candidates that were dropped because a number was NaN or infinite.
    pub not_finite: u64,
    /// Candidates that were dropped because there were more than `max_candidates`.
    pub over_limit: u64,
    /// Boxes of at least the score, before suppression.
    pub candidates: u64,
    /// Candidates that no picture has: see [`Tally`](millrace_detect::doubt::Tally).
    pub impossible: u64,
    /// Once, a sentence that says why the boxes are most likely wrong.
    pub doubt: Option<String>,
}

/// A model, its engine and its head.
#[derive(Debug)]
pub struct Detector<E> {
    feeder: Feeder<E>,
    reader: Reader,
}

/// The half of a detector that gives tensors to the engine.
#[derive(Debug)]
pub(crate) struct Feeder<E> {
    engine: E,
    model: Arc<Model>,
    /// What counts as found, as the reader has it.
    score: f32,
}

/// The half of a detector that makes boxes of the engine's outputs.
#[derive(Debug)]
pub(crate) struct Reader {
    decoder: Decoder,
    model: Arc<Model>,
    /// What the page shows of the model: what it is for, and what the engine says of how it is computed.
    about: String,
}

/// Frames that were given to the engine, or refused.
pub(crate) struct InWork<F> {
    // before the leases: it is gone when nothing reads the frames any more
    flight: Option<Result<F, EngineError>>,
    frames: Vec<(FrameLease, Result<Mapping, DetectError>)>,
}

/// When each frame was, and what was found in it.
type Answers = Vec<(Timing, Result<Found, DetectError>)>;

/// A batch that the engine has computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ComputedBatch {
    /// When its outputs were in host memory.
    pub(crate) at: Instant,
    pub(crate) frames: usize,
}

const SAME_MODEL: &str = "give the converter the same MODEL";
const MEMORY: &str = "give its producer MEMORY=host";
const ENGINE_OR_MEMORY: &str = "set PROVIDER=cuda here, or give its producer MEMORY=host";

fn gpu_label(gpu: &Gpu) -> String {
    format!("{} ({})", gpu.ordinal(), gpu.name())
}

fn mapping(tensor: &TensorDesc) -> Mapping {
    Mapping { source_from_model: tensor.source_from_model, source_size: tensor.source_size }
}

fn misread(model: &Model, cause: HeadError) -> DetectError {
    DetectError::Head { model: model.path.display().to_string(), cause }
}

impl<E: Engine> Detector<E> {
    /// Opens the model that `settings` names for so many threads, checks it against its description and runs it once on zeros: a model
    /// that cannot run, or whose outputs are not those of its head, is found here and not at the first frame.
    ///
    /// # Errors
    /// Every one names the description or the model file and what to change.
    pub fn open(settings: &E::Settings, threads: usize) -> Result<Self, DetectError> {
        let common = E::common(settings);
        let model = Model::load(&common.model)?;
        let thresholds = common.thresholds(model.thresholds)?;
        let file = model.file()?;
        onnx::check_whole(file).map_err(EngineError::from)?;
        let (mut engine, signature) = E::open(file, threads, settings)?;
        let shown = model.path.display().to_string();
        let unfit = |why| DetectError::Unfit { model: shown.clone(), why };
        model.fits(&signature).map_err(unfit)?;
        if let Some(why) = misfit(&model, &signature, &engine) {
            return Err(unfit(Unfit::File(why)));
        }
        let mut decoder = Decoder::new(&model);
        decoder.set_thresholds(thresholds);
        engine.select(&model.input.name, &model.head.outputs())?;
        if let Some(grid) = decoder.grid() {
            engine.spells(grid);
        }
        if let Some(sizes) = model.head.size_input() {
            engine.fix(sizes, [model.input.width_px, model.input.height_px].map(i64::from))?;
        }
        let model = Arc::new(model);
        let about = model.about.iter().cloned().chain(engine.notes()).collect::<Vec<_>>().join("; ");
        let reader = Reader { decoder, model: model.clone(), about };
        let mut detector = Self { feeder: Feeder { engine, model, score: thresholds.score }, reader };
        detector.try_zeros()?;
        let Feeder { engine, model, .. } = &mut detector.feeder;
        engine.prepare(shape(model), model.input.dtype)?;
        Ok(detector)
    }

    /// The model's description, as its file has it.
    pub fn model(&self) -> &Model {
        &self.feeder.model
    }

    /// What counts as found from the next frame on.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.feeder.set_thresholds(thresholds);
        self.reader.set_thresholds(thresholds);
    }

    /// How many frames are computed together at most.
    pub fn batch(&self) -> usize {
        self.feeder.engine.batch()
    }

    /// What the user should know of how the model is computed.
    pub fn notes(&self) -> Vec<String> {
        self.feeder.engine.notes()
    }

    pub(crate) fn shared_model(&self) -> Arc<Model> {
        self.feeder.model.clone()
    }

    /// Its halves, for two threads.
    pub(crate) fn split(self) -> (Feeder<E>, Reader) {
        (self.feeder, self.reader)
    }

    fn try_zeros(&mut self) -> Result<(), DetectError> {
        let elements = shape(self.model()).iter().product();
        let one = Size::new(1, 1);
        let source_from_model = millrace_frame::Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
        let to = Mapping { source_from_model, source_size: one };
        match self.model().input.dtype {
            TensorDtype::U8 => self.run(Elements::U8(&vec![0; elements]), to),
            TensorDtype::F16 => self.run(Elements::F16(&vec![0; elements]), to),
            TensorDtype::F32 => self.run(Elements::F32(&vec![0.0; elements]), to),
        }?;
        // a doubt is said once: of the first pictures, and not here, where nobody reads it
        self.reader.decoder.begin();
        Ok(())
    }

    fn run(&mut self, data: Elements<'_>, to: Mapping) -> Result<Boxes, DetectError> {
        let flight = self.feeder.submit(&[Tensor::Host(data)])?;
        self.reader.boxes(flight, &[&to]).0.pop().expect("an answer for each tensor")
    }

    /// The detections in the tensor that `item` describes and that is at the start of `bytes`, in host memory.
    ///
    /// # Errors
    /// See [`DetectError::is_of_one_frame`].
    pub fn detect(&mut self, item: &Item, bytes: &[u8]) -> Result<Found, DetectError> {
        let (data, to) = self.feeder.in_host_memory(item, bytes)?;
        let boxes = self.run(data, to)?;
        Ok(self.reader.found(item, boxes, &to))
    }
}

fn shape(model: &Model) -> [usize; 4] {
    model.input.shape().map(|d| d as usize)
}

impl<E: Engine> Feeder<E> {
    fn submit(&mut self, tensors: &[Tensor<'_>]) -> Result<E::Flight, EngineError> {
        let Self { engine, model, score } = self;
        engine.submit(Batch { shape: shape(model), dtype: model.input.dtype, tensors, score: *score })
    }

    /// What counts as found in the frames from here on. Their reader is to know it before it completes them.
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.score = thresholds.score;
    }

    /// Gives the engine at most as many frames as it computes together, in host memory or on its GPU. Those that are not the
    /// model's input are refused alone.
    pub(crate) fn accept(&mut self, leases: Vec<FrameLease>) -> InWork<E::Flight> {
        let mut tensors = Vec::with_capacity(leases.len());
        let looked_at = leases.iter().map(|lease| -> Result<Mapping, DetectError> {
            let (tensor, to) = match lease.gpu() {
                Some(gpu) if self.engine.stream().is_some() => self.on_gpu(lease, gpu)?,
                // from here the error says what to set
                Some(_) => self.in_host_memory(lease.item(), &[]).map(|(data, to)| (Tensor::Host(data), to))?,
                None => self.in_host_memory(lease.item(), lease.bytes()).map(|(data, to)| (Tensor::Host(data), to))?,
            };
            tensors.push(tensor);
            Ok(to)
        });
        let looked_at: Vec<Result<Mapping, DetectError>> = looked_at.collect();
        let flight = (!tensors.is_empty()).then(|| self.submit(&tensors));
        drop(tensors);
        InWork { flight, frames: leases.into_iter().zip(looked_at).collect() }
    }

    /// Why `item` cannot be the model's input, if it cannot.
    fn tensor<'i>(&self, item: &'i Item) -> Result<&'i TensorDesc, DetectError> {
        let spec = &self.model.input;
        let error = |found: String, cure| DetectError::Item {
            model: self.model.path.display().to_string(),
            frame_source: item.source.clone(),
            expected: format!("{} {} {:?}", spec.dtype, spec.layout, spec.shape()),
            found,
            cure,
        };
        let Payload::Tensor(tensor) = &item.payload else {
            let found = format!("{:?}", item.payload.kind()).to_lowercase();
            return Err(error(found, "put nv12-to-rgb before this node"));
        };
        if tensor.shape != spec.shape() || tensor.dtype != spec.dtype || tensor.layout != spec.layout {
            let layout: TensorLayout = tensor.layout;
            return Err(error(format!("{} {layout} {:?}", tensor.dtype, tensor.shape), SAME_MODEL));
        }
        Ok(tensor)
    }

    /// The error of a tensor that is where the engine does not read it.
    fn elsewhere(&self, item: &Item, found: String, cure: &'static str) -> DetectError {
        let model = self.model.path.display().to_string();
        let expected = match self.engine.stream() {
            Some(stream) => format!("a tensor in host memory or on the GPU {}", gpu_label(stream.gpu())),
            None => "a tensor in host memory".to_owned(),
        };
        DetectError::Item { model, frame_source: item.source.clone(), expected, found, cure }
    }

    /// The tensor that `item` describes, at the start of `bytes`.
    fn in_host_memory<'b>(&self, item: &Item, bytes: &'b [u8]) -> Result<(Elements<'b>, Mapping), DetectError> {
        let tensor = self.tensor(item)?;
        if let Device::Cuda(ordinal) = item.device {
            let cure = if E::ON_GPU { ENGINE_OR_MEMORY } else { MEMORY };
            return Err(self.elsewhere(item, format!("a tensor on the GPU {ordinal} of its producer"), cure));
        }
        let whole = usize::try_from(tensor.bytes()).ok().and_then(|n| bytes.get(..n)).ok_or_else(|| {
            EngineError::run(format!("a tensor of {} bytes in a slot of {}", tensor.bytes(), bytes.len()))
        })?;
        let unaligned = |n: usize, e| {
            EngineError::run(format!("the tensor does not begin at a multiple of {n} bytes in memory: {e}"))
        };
        let data = match tensor.dtype {
            TensorDtype::U8 => Elements::U8(whole),
            TensorDtype::F16 => Elements::F16(bytemuck::try_cast_slice(whole).map_err(|e| unaligned(2, e))?),
            TensorDtype::F32 => Elements::F32(bytemuck::try_cast_slice(whole).map_err(|e| unaligned(4, e))?),
        };
        Ok((data, mapping(tensor)))
    }

    /// Where the tensor of a frame on a GPU is, once the engine's stream waits for it.
    fn on_gpu(&self, lease: &FrameLease, gpu: &Gpu) -> Result<(Tensor<'static>, Mapping), DetectError> {
        let tensor = self.tensor(lease.item())?;
        let stream = self.engine.stream().expect("asked for an engine on a GPU only");
        if stream.gpu().uuid() != gpu.uuid() {
            return Err(self.elsewhere(
                lease.item(),
                format!("one on the GPU {}", gpu_label(gpu)),
                "give both the same DEVICE",
            ));
        }
        let slot: Span = lease.span(stream).map_err(EngineError::run)?;
        if tensor.bytes() > slot.bytes() {
            let text = format!("a tensor of {} bytes in a slot of {}", tensor.bytes(), slot.bytes());
            return Err(EngineError::run(text).into());
        }
        Ok((Tensor::Gpu(slot.part(0, tensor.bytes())), mapping(tensor)))
    }
}

impl Reader {
    /// What counts as found from the next frame on.
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.decoder.set_thresholds(thresholds);
    }

    /// Waits for the engine, and gives what was found in each frame, in their order. Their leases are given back. Where the
    /// engine computed a batch of them, that is said too.
    pub(crate) fn complete<F: Flight>(&mut self, work: InWork<F>) -> (Answers, Option<ComputedBatch>) {
        let to: Vec<&Mapping> = work.frames.iter().filter_map(|(_, to)| to.as_ref().ok()).collect();
        let (boxes, computed) = match work.flight {
            Some(Ok(flight)) => self.boxes(flight, &to),
            Some(Err(e)) => (to.iter().map(|_| Err(e.clone().into())).collect(), None),
            None => (Vec::new(), None),
        };
        let mut boxes = boxes.into_iter();
        let answer = |(lease, to): (FrameLease, Result<Mapping, DetectError>)| {
            let found = to.and_then(|to| {
                let boxes = boxes.next().expect("an answer for each tensor")?;
                Ok(self.found(lease.item(), boxes, &to))
            });
            (lease.item().timing, found)
        };
        (work.frames.into_iter().map(answer).collect(), computed)
    }

    /// The boxes in each tensor of a batch, and when the engine had computed it.
    fn boxes(
        &mut self,
        flight: impl Flight,
        to: &[&Mapping],
    ) -> (Vec<Result<Boxes, DetectError>>, Option<ComputedBatch>) {
        let Self { decoder, model, .. } = self;
        let mut found: Vec<Option<Result<Boxes, DetectError>>> = to.iter().map(|_| None).collect();
        let mut computed = None;
        let done = flight.complete(&mut |n, outputs| {
            // the outputs are there; making boxes of them is not the engine's work
            computed.get_or_insert_with(|| ComputedBatch { at: Instant::now(), frames: to.len() });
            found[n] = Some(decoder.detect(outputs, to[n]).map_err(|cause| misread(model, cause)));
        });
        let missing = || Err(EngineError::run("the engine gave no outputs").into());
        let answer =
            |found: Option<_>| done.clone().map_err(DetectError::from).and_then(|()| found.unwrap_or_else(missing));
        (found.into_iter().map(answer).collect(), computed.filter(|_| done.is_ok()))
    }

    fn found(&self, item: &Item, boxes: Boxes, to: &Mapping) -> Found {
        let Boxes { boxes, classes, not_finite, over_limit, tally, doubt } = boxes;
        let detections = Detections {
            schema: Detections::SCHEMA,
            source: item.source.clone(),
            seq: item.seq,
            pts_ns: item.timing.pts_ns,
            boxes,
            classes,
            capture_ns: item.timing.capture_ns,
            arrival_ns: item.timing.arrival_ns,
            sender_ns: item.timing.sender_ns,
            model: self.model.name.clone(),
            about: self.about.clone(),
            width_px: to.source_size.width_px,
            height_px: to.source_size.height_px,
        };
        let doubt = doubt.map(|text| format!("{}: {text}", self.model.path.display()));
        Found { detections, not_finite, over_limit, candidates: tally.boxes, impossible: tally.impossible(), doubt }
    }
}
