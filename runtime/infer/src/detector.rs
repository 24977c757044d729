//! From a tensor to detections, whatever the engine.

use crate::{Elements, Engine, EngineError, OnGpu};
use millrace_cuda::{Gpu, Span};
use millrace_detect::heads::{guesses, shape_text};
use millrace_detect::model::Thresholds;
use millrace_detect::{Boxes, Decoder, HeadError, Mapping, Model, ModelError, Port, Signature};
use millrace_frame::{Detections, Device, Item, Payload, Size, TensorDesc, TensorDtype, TensorLayout};
use millrace_node::Lease;

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
    #[error("{model}: the model file does not fit: {why}")]
    Misfit { model: String, why: String },
    #[error("{model}: {cause}{hint}")]
    Head { model: String, cause: HeadError, hint: String },
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
    engine: E,
    decoder: Decoder,
    model: Model,
}

const SAME_MODEL: &str = "give the converter the same MODEL";
const MEMORY: &str = "give its producer MEMORY=host";
const ENGINE_OR_MEMORY: &str = "set PROVIDER=cuda here, or give its producer MEMORY=host";

fn named(gpu: &Gpu) -> String {
    format!("{} ({})", gpu.ordinal(), gpu.name())
}

fn mapping(tensor: &TensorDesc) -> Mapping {
    Mapping { source_from_model: tensor.source_from_model, source_size: tensor.source_size }
}

fn misread(model: &Model, cause: HeadError) -> DetectError {
    DetectError::Head { model: model.path.display().to_string(), cause, hint: String::new() }
}

fn names(ports: &[Port]) -> String {
    ports.iter().map(|p| format!("'{}'", p.name)).collect::<Vec<_>>().join(", ")
}

/// Why the model file does not fit its description, or the engine, if it does not.
fn misfit<E: Engine>(model: &Model, signature: &Signature, engine: &E) -> Option<String> {
    let spec = &model.input;
    let Some(input) = signature.inputs.iter().find(|p| p.name == spec.name) else {
        return Some(format!("it has no input '{}'; it has {}", spec.name, names(&signature.inputs)));
    };
    if let Some(why) = other_inputs(model, signature) {
        return Some(why);
    }
    let want: Vec<usize> = spec.shape().iter().map(|&d| d as usize).collect();
    if let Some(shape) = &input.shape {
        let open = |(found, want): (&Option<usize>, &usize)| found.is_none_or(|found| found == *want);
        if shape.len() != 4 || !shape.iter().zip(&want).all(open) {
            return Some(format!(
                "its input '{}' has shape {}, 'input' of the description says {want:?} ({}, {}x{})",
                spec.name,
                shape_text(shape),
                spec.layout,
                spec.width_px,
                spec.height_px
            ));
        }
    }
    if let Some(dtype) = input.dtype.as_ref().filter(|d| *d != spec.dtype.as_str()) {
        return Some(format!("its input '{}' is {dtype}, 'input' of the description says {}", spec.name, spec.dtype));
    }
    if !engine.takes(spec.dtype) {
        return Some(format!(
            "its input is {}, which the CPU engines do not take; export it with an f32 or u8 input, or compute it on a GPU",
            spec.dtype
        ));
    }
    let fixed = input.shape.as_ref().is_some_and(|shape| shape[0].is_some());
    if engine.batch() > 1 && fixed {
        let most = engine.batch();
        return Some(format!(
            "its input '{}' is for 1 frame at a time, and BATCH is {most}: export it with an open batch axis, or leave BATCH out",
            spec.name
        ));
    }
    for name in model.head.outputs() {
        let Some(output) = signature.outputs.iter().find(|p| p.name == name) else {
            return Some(format!(
                "it has no output '{name}', which 'head' reads; it has {}",
                names(&signature.outputs)
            ));
        };
        if let Some(dtype) = output.dtype.as_ref().filter(|d| !engine.reads(d)) {
            return Some(format!("its output '{name}' is {dtype}, which is not read here; export it as f32"));
        }
    }
    None
}

/// Why the inputs beside the picture's cannot be fed, if they cannot: a head may know one more.
fn other_inputs(model: &Model, signature: &Signature) -> Option<String> {
    let others: Vec<&Port> = signature.inputs.iter().filter(|port| port.name != model.input.name).collect();
    let all = names(&signature.inputs);
    match (model.head.size_input(), &others[..]) {
        (None, []) => None,
        (None, [..]) => Some(format!(
            "it takes {all}; a detector takes one tensor, so export it with that input only (head 'dfine' feeds 'orig_target_sizes')"
        )),
        (Some(sizes), [port]) if port.name == sizes => {
            let dtype = port.dtype.as_deref().unwrap_or("i64");
            let fits = port.shape.as_ref().is_none_or(|shape| {
                shape.len() == 2
                    && shape.iter().zip([1, 2]).all(|(found, want)| found.is_none_or(|found| found == want))
            });
            (!fits || !["i32", "i64"].contains(&dtype)).then(|| {
                let shape = port.shape.as_deref().map_or(String::new(), shape_text);
                format!("its input '{sizes}' is {dtype} {shape}; head '{}' feeds i64 [1, 2]", model.head.kind())
            })
        }
        (Some(sizes), _) => {
            Some(format!("it takes {all}; head '{}' feeds '{}' and '{sizes}'", model.head.kind(), model.input.name))
        }
    }
}

/// What the outputs look like, for a description that they do not fit.
fn hint(signature: &Signature, model: &Model) -> String {
    let guesses = guesses(&signature.outputs, Size::new(model.input.width_px, model.input.height_px));
    let heads: Vec<String> = guesses.into_iter().map(|guess| format!("`head: {}`", guess.head)).collect();
    if heads.is_empty() { String::new() } else { format!(". By its outputs it may be {}", heads.join(" or ")) }
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
        crate::onnx::check_whole(file)?;
        let (mut engine, signature) = E::open(file, threads, settings)?;
        let shown = model.path.display().to_string();
        if let Some(why) = misfit(&model, &signature, &engine) {
            return Err(DetectError::Misfit { model: shown, why });
        }
        let mut decoder = Decoder::new(&model);
        decoder.set_thresholds(thresholds);
        let declared = model
            .head
            .outputs()
            .into_iter()
            .map(|name| signature.outputs.iter().find(|p| p.name == name).and_then(|p| p.shape.clone()));
        if let Some(declared) = declared.collect::<Option<Vec<_>>>() {
            let misread = |cause| DetectError::Head { model: shown.clone(), cause, hint: hint(&signature, &model) };
            decoder.check(&declared).map_err(misread)?;
        }
        engine.select(&model.input.name, &model.head.outputs())?;
        if let Some(sizes) = model.head.size_input() {
            engine.fix(sizes, [model.input.width_px, model.input.height_px].map(i64::from))?;
        }
        let mut detector = Self { engine, decoder, model };
        detector.try_zeros()?;
        let (shape, dtype) = (detector.shape(), detector.model.input.dtype);
        detector.engine.prepare(shape, dtype)?;
        Ok(detector)
    }

    /// The model's description, as its file has it.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What counts as found from the next frame on.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.decoder.set_thresholds(thresholds);
    }

    fn shape(&self) -> [usize; 4] {
        self.model.input.shape().map(|d| d as usize)
    }

    fn try_zeros(&mut self) -> Result<(), DetectError> {
        let elements = self.shape().iter().product();
        let one = Size::new(1, 1);
        let source_from_model = millrace_frame::Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
        let to = Mapping { source_from_model, source_size: one };
        match self.model.input.dtype {
            TensorDtype::U8 => self.run(Elements::U8(&vec![0; elements]), &to),
            TensorDtype::F16 => self.run(Elements::F16(&vec![0; elements]), &to),
            TensorDtype::F32 => self.run(Elements::F32(&vec![0.0; elements]), &to),
        }
        .map(|_| ())
    }

    fn run(&mut self, data: Elements<'_>, to: &Mapping) -> Result<Boxes, DetectError> {
        let shape = self.shape();
        let Self { engine, decoder, model } = self;
        let mut found = None;
        engine.run(shape, data, &mut |outputs| found = Some(decoder.detect(outputs, to)))?;
        let found = found.ok_or_else(|| EngineError::run("the engine gave no outputs"))?;
        found.map_err(|cause| misread(model, cause))
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

    /// The error of a tensor that lies where the engine does not read it.
    fn elsewhere(&self, item: &Item, found: String, cure: &'static str) -> DetectError {
        let model = self.model.path.display().to_string();
        let expected = match self.engine.stream() {
            Some(stream) => format!("a tensor in host memory or on the GPU {}", named(stream.gpu())),
            None => "a tensor in host memory".to_owned(),
        };
        DetectError::Item { model, frame_source: item.source.clone(), expected, found, cure }
    }

    /// The detections in the tensor that `item` describes and that stands at the start of `bytes`, in host memory.
    ///
    /// # Errors
    /// See [`DetectError::is_of_one_frame`].
    pub fn detect(&mut self, item: &Item, bytes: &[u8]) -> Result<Found, DetectError> {
        let tensor = self.tensor(item)?;
        if let Device::Cuda(ordinal) = item.device {
            let cure = if E::ON_GPU { ENGINE_OR_MEMORY } else { MEMORY };
            return Err(self.elsewhere(item, format!("a tensor on the GPU {ordinal} of its producer"), cure));
        }
        let to = mapping(tensor);
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
        let boxes = self.run(data, &to)?;
        Ok(self.found(item, boxes, &to))
    }

    /// How many frames on a GPU are computed together at most.
    pub fn batch(&self) -> usize {
        self.engine.batch()
    }

    /// The detections in each of at most [`batch`](Self::batch) frames, in host memory or on the engine's GPU, in their
    /// order. Those on the GPU go through the model together. When this returns, the GPU has done with them all.
    pub fn detect_all(&mut self, leases: &[Lease]) -> Vec<Result<Found, DetectError>> {
        let mut answers: Vec<Option<Result<Found, DetectError>>> = leases.iter().map(|_| None).collect();
        let mut together = Vec::with_capacity(leases.len());
        for (at, lease) in leases.iter().enumerate() {
            match lease.gpu() {
                Some(gpu) if self.engine.stream().is_some() => match self.on_gpu(lease, gpu) {
                    Ok((span, to)) => together.push((at, span, to)),
                    Err(e) => answers[at] = Some(Err(e)),
                },
                // from here the error says what to set
                Some(_) => answers[at] = Some(self.detect(lease.item(), &[])),
                None => answers[at] = Some(self.detect(lease.item(), lease.bytes())),
            }
        }
        for ((at, _, to), boxes) in together.iter().zip(self.run_on_gpu(&together)) {
            answers[*at] = Some(boxes.map(|boxes| self.found(leases[*at].item(), boxes, to)));
        }
        answers.into_iter().map(|answer| answer.expect("each was computed or refused")).collect()
    }

    /// Where the tensor of a frame on a GPU lies, once the engine's stream waits for it.
    fn on_gpu(&self, lease: &Lease, gpu: &Gpu) -> Result<(Span, Mapping), DetectError> {
        let tensor = self.tensor(lease.item())?;
        let stream = self.engine.stream().expect("asked for an engine on a GPU only");
        if stream.gpu().uuid() != gpu.uuid() {
            return Err(self.elsewhere(
                lease.item(),
                format!("one on the GPU {}", named(gpu)),
                "give both the same DEVICE",
            ));
        }
        let slot = lease.span(stream).map_err(EngineError::run)?;
        if tensor.bytes() > slot.bytes() {
            let text = format!("a tensor of {} bytes in a slot of {}", tensor.bytes(), slot.bytes());
            return Err(EngineError::run(text).into());
        }
        Ok((slot.part(0, tensor.bytes()), mapping(tensor)))
    }

    /// What was found in each tensor on the GPU.
    fn run_on_gpu(&mut self, inputs: &[(usize, Span, Mapping)]) -> Vec<Result<Boxes, DetectError>> {
        let (shape, dtype) = (self.shape(), self.model.input.dtype);
        let Self { engine, decoder, model } = self;
        let mut answers = Vec::with_capacity(inputs.len());
        for inputs in inputs.chunks(engine.batch().max(1)) {
            let tensors: Vec<Span> = inputs.iter().map(|(_, span, _)| *span).collect();
            let mut found: Vec<Option<Result<Boxes, DetectError>>> = inputs.iter().map(|_| None).collect();
            let done = engine.run_on_gpu(OnGpu { shape, dtype, tensors: &tensors }, &mut |n, outputs| {
                found[n] = Some(decoder.detect(outputs, &inputs[n].2).map_err(|cause| misread(model, cause)));
            });
            answers.extend(found.into_iter().map(|found| {
                let missing = || Err(EngineError::run("the engine gave no outputs").into());
                done.clone().map_err(DetectError::from).and_then(|()| found.unwrap_or_else(missing))
            }));
        }
        answers
    }

    fn found(&self, item: &Item, boxes: Boxes, to: &Mapping) -> Found {
        let Boxes { boxes, not_finite, over_limit, tally, doubt } = boxes;
        let detections = Detections {
            schema: Detections::SCHEMA,
            source: item.source.clone(),
            seq: item.seq,
            pts_ns: item.timing.pts_ns,
            boxes,
            capture_ns: item.timing.capture_ns,
            arrival_ns: item.timing.arrival_ns,
            sender_ns: item.timing.sender_ns,
            model: self.model.name.clone(),
            width_px: to.source_size.width_px,
            height_px: to.source_size.height_px,
        };
        let doubt = doubt.map(|text| format!("{}: {text}", self.model.path.display()));
        Found { detections, not_finite, over_limit, candidates: tally.boxes, impossible: tally.impossible(), doubt }
    }
}
