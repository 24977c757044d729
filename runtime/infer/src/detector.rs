//! From a tensor to detections, whatever the engine.

use crate::{Elements, Engine, EngineError, Port, Signature};
use millrace_detect::{Boxes, Decoder, HeadError, Mapping, Model, ModelError};
use millrace_frame::{Detections, Device, Item, Payload, Size, TensorDesc, TensorDtype, TensorLayout};

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

/// Detections; with them how many candidates were not finite and how many over the limit.
pub type Found = (Detections, u64, u64);

/// A model, its engine and its head.
#[derive(Debug)]
pub struct Detector<E> {
    engine: E,
    decoder: Decoder,
    model: Model,
}

const SAME_MODEL: &str = "give the converter the same MODEL";

fn names(ports: &[Port]) -> String {
    ports.iter().map(|p| format!("'{}'", p.name)).collect::<Vec<_>>().join(", ")
}

fn shape_text(shape: &[Option<usize>]) -> String {
    let axes: Vec<String> = shape.iter().map(|d| d.map_or("?".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", axes.join(", "))
}

/// Why the model file does not fit its description, if it does not.
fn misfit(model: &Model, signature: &Signature) -> Option<String> {
    let spec = &model.input;
    let Some(input) = signature.inputs.iter().find(|p| p.name == spec.name) else {
        return Some(format!("it has no input '{}'; it has {}", spec.name, names(&signature.inputs)));
    };
    if signature.inputs.len() > 1 {
        let all = names(&signature.inputs);
        return Some(format!("it takes {all}; a detector takes one tensor, so export it with that input only"));
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
    if spec.dtype == TensorDtype::F16 {
        return Some(
            "its input is f16, which the CPU engines do not take; export it with an f32 or u8 input".to_owned(),
        );
    }
    for name in model.head.outputs() {
        let Some(output) = signature.outputs.iter().find(|p| p.name == name) else {
            return Some(format!(
                "it has no output '{name}', which 'head' reads; it has {}",
                names(&signature.outputs)
            ));
        };
        if let Some(dtype) = output.dtype.as_ref().filter(|d| *d != "f32") {
            return Some(format!("its output '{name}' is {dtype}; a head reads f32"));
        }
    }
    None
}

impl<E: Engine> Detector<E> {
    /// Opens the model that `settings` names for so many threads, checks it against its description and runs it once on zeros: a model
    /// that cannot run, or whose outputs are not those of its head, is found here and not at the first frame.
    ///
    /// # Errors
    /// Every one names the description or the model file and what to change.
    pub fn open(settings: &E::Settings, threads: usize) -> Result<Self, DetectError> {
        let common = E::common(settings);
        let mut model = Model::load(&common.model)?;
        for (setting, value, place) in
            [("SCORE", common.score, &mut model.thresholds.score), ("IOU", common.iou, &mut model.thresholds.iou)]
        {
            match value {
                Some(value) if (0.0..=1.0).contains(&value) => *place = value,
                Some(value) => return Err(DetectError::Threshold { setting, value }),
                None => {}
            }
        }
        let file = model.file()?;
        crate::onnx::check_whole(file)?;
        let (mut engine, signature) = E::open(file, threads, settings)?;
        let shown = model.path.display().to_string();
        if let Some(why) = misfit(&model, &signature) {
            return Err(DetectError::Misfit { model: shown, why });
        }
        let decoder = Decoder::new(&model);
        let declared = model
            .head
            .outputs()
            .into_iter()
            .map(|name| signature.outputs.iter().find(|p| p.name == name).and_then(|p| p.shape.clone()));
        if let Some(declared) = declared.collect::<Option<Vec<_>>>() {
            decoder.check(&declared).map_err(|cause| DetectError::Head { model: shown, cause })?;
        }
        engine.select(&model.input.name, &model.head.outputs())?;
        let mut detector = Self { engine, decoder, model };
        detector.try_zeros()?;
        Ok(detector)
    }

    /// The model's description, with the settings' thresholds.
    pub fn model(&self) -> &Model {
        &self.model
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
            _ => self.run(Elements::F32(&vec![0.0; elements]), &to),
        }
        .map(|_| ())
    }

    fn run(&mut self, data: Elements<'_>, to: &Mapping) -> Result<Boxes, DetectError> {
        let shape = self.shape();
        let Self { engine, decoder, model } = self;
        let mut found = None;
        engine.run(shape, data, &mut |outputs| found = Some(decoder.detect(outputs, to)))?;
        let found = found.ok_or_else(|| EngineError::run("the engine gave no outputs"))?;
        found.map_err(|cause| DetectError::Head { model: model.path.display().to_string(), cause })
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
        if item.device != Device::Host {
            return Err(error(
                format!("a tensor in memory of {:?}", item.device),
                "let the converter write host memory",
            ));
        }
        if tensor.shape != spec.shape() || tensor.dtype != spec.dtype || tensor.layout != spec.layout {
            let layout: TensorLayout = tensor.layout;
            return Err(error(format!("{} {layout} {:?}", tensor.dtype, tensor.shape), SAME_MODEL));
        }
        Ok(tensor)
    }

    /// The detections in the tensor that `item` describes and that stands at the start of `bytes`.
    ///
    /// # Errors
    /// See [`DetectError::is_of_one_frame`].
    pub fn detect(&mut self, item: &Item, bytes: &[u8]) -> Result<Found, DetectError> {
        let tensor = self.tensor(item)?;
        let to = Mapping { source_from_model: tensor.source_from_model, source_size: tensor.source_size };
        let whole = usize::try_from(tensor.bytes()).ok().and_then(|n| bytes.get(..n)).ok_or_else(|| {
            EngineError::run(format!("a tensor of {} bytes in a slot of {}", tensor.bytes(), bytes.len()))
        })?;
        let data = match tensor.dtype {
            TensorDtype::U8 => Elements::U8(whole),
            _ => Elements::F32(bytemuck::try_cast_slice(whole).map_err(|e| {
                EngineError::run(format!("the tensor does not begin at a multiple of 4 bytes in memory: {e}"))
            })?),
        };
        let Boxes { boxes, not_finite, over_limit } = self.run(data, &to)?;
        let found = Detections {
            schema: Detections::SCHEMA,
            source: item.source.clone(),
            seq: item.seq,
            pts_ns: item.timing.pts_ns,
            boxes,
            capture_ns: item.timing.capture_ns,
            model: self.model.name.clone(),
            width_px: to.source_size.width_px,
            height_px: to.source_size.height_px,
        };
        Ok((found, not_finite, over_limit))
    }
}
