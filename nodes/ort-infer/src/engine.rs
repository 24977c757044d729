//! ONNX Runtime as an engine.

use crate::config::{Provider, Settings};
use crate::device::{Bound, InFlight, Plan, Streams};
use crate::provider;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use millrace_cuda::{DeviceMemory, Stream};
use millrace_frame::TensorDtype;
use millrace_infer::{
    Batch, DetectorSettings, Elements, Engine, EngineError, Flight, Grid, Port, RawTensor, Signature, Tensor,
    contained, second_input,
};
use millrace_node::{Findings, Flow};
use ort::session::Session;
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};
use std::borrow::Cow;
use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// For runs on zeros: the score of common models.
const ANY_SCORE: f32 = 0.5;

/// A model in ONNX Runtime.
pub struct Ort {
    // first, so that they go before the session
    on_gpu: Option<Gpu>,
    session: Session,
    input: String,
    names: Arc<[String]>,
    fixed: Option<(String, [i64; 2])>,
    notes: Vec<String>,
}

/// What a session on a GPU has more.
struct Gpu {
    streams: &'static Streams,
    /// Bindings that no batch uses.
    free: Vec<Bound>,
    /// Those of batches that are through come back here.
    back: (Sender<Bound>, Receiver<Bound>),
    /// For how many frames each was made.
    made: Vec<usize>,
    /// Batches in work at most: so many bindings are made for each number of frames.
    in_flight: usize,
    most: usize,
    /// How many frames go through the model whatever came, the missing ones on what was there before; nothing where the
    /// number may change. cuDNN plans each convolution anew when the number differs from the run before, which takes seconds
    /// for a model of a hundred nodes.
    padded_to: Option<usize>,
    /// How many go together was not asked for: 1 will do where the model cannot.
    batch_by_model: bool,
    plan: Plan,
}

/// A batch that ONNX Runtime has in work.
pub struct InOrt(Work);

enum Work {
    /// The outputs, computed.
    Cpu(Vec<DynValue>, Arc<[String]>),
    Gpu(Box<InFlight>),
}

impl Flight for InOrt {
    fn complete(self, read: &mut dyn FnMut(usize, &[RawTensor<'_>])) -> Result<(), EngineError> {
        let (values, names) = match self.0 {
            Work::Gpu(flight) => return flight.complete(read),
            Work::Cpu(values, names) => (values, names),
        };
        let mut data = Vec::with_capacity(values.len());
        for value in &values {
            let axes = value.dtype().tensor_shape().into_iter().flat_map(|shape| shape.iter());
            let shape: Vec<usize> = axes.map(|&axis| usize::try_from(axis).unwrap_or(0)).collect();
            data.push((shape, numbers(value)?));
        }
        let outputs: Vec<RawTensor<'_>> =
            names.iter().zip(&data).map(|(name, (shape, data))| RawTensor::whole(name, shape, data)).collect();
        read(0, &outputs);
        Ok(())
    }
}

fn port(outlet: &Outlet) -> Port {
    let (dtype, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let dtype = match ty {
                TensorElementType::Float32 => "f32".to_owned(),
                TensorElementType::Float16 => "f16".to_owned(),
                TensorElementType::Uint8 => "u8".to_owned(),
                TensorElementType::Int32 => "i32".to_owned(),
                TensorElementType::Int64 => "i64".to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            (dtype, Some(shape.iter().map(|&axis| usize::try_from(axis).ok()).collect()))
        }
        other => (format!("{other:?}"), None),
    };
    Port { name: outlet.name().to_owned(), dtype: Some(dtype), shape }
}

fn c_name(name: &str) -> Result<CString, EngineError> {
    CString::new(name).map_err(|e| EngineError::setup(format!("the name '{name}' of an input or output: {e}")))
}

impl Gpu {
    /// What was bound for other inputs goes.
    fn expect(&mut self, shape: [usize; 4], dtype: TensorDtype) {
        if (self.plan.shape, self.plan.dtype) != (shape, dtype) {
            (self.plan.shape, self.plan.dtype) = (shape, dtype);
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.back = channel();
        self.free.clear();
        self.made.clear();
    }

    /// A binding for so many frames. Where as many as there may be are in work, it waits for one.
    fn bound(&mut self, session: &mut Session, frames: usize) -> Result<Bound, EngineError> {
        loop {
            self.free.extend(self.back.1.try_iter());
            if let Some(at) = self.free.iter().position(|bound| bound.frames() == frames) {
                return Ok(self.free.swap_remove(at));
            }
            if self.made.iter().filter(|&&made| made == frames).count() < self.in_flight {
                self.made.push(frames);
                let bound = Bound::new(session, self.streams, &self.plan, frames, self.made.len());
                return bound.inspect_err(|_| {
                    self.made.pop();
                });
            }
            // every flight gives back what it has, and we have a sender, so this is no end
            self.free.extend(self.back.1.recv());
        }
    }

    fn submit(&mut self, session: &mut Session, tensors: &[Tensor<'_>], score: f32) -> Result<InFlight, EngineError> {
        let frames = self.padded_to.unwrap_or(tensors.len());
        if !(1..=frames).contains(&tensors.len()) {
            return Err(EngineError::run(format!("{} frames at once, and BATCH is {}", tensors.len(), self.most)));
        }
        let bound = self.bound(session, frames)?;
        bound.submit(session, self.streams, &self.plan, (tensors, score), &self.back.0)
    }

    /// Runs the model on zeros, with every number of frames and every binding that it is run with later.
    fn prepare(&mut self, session: &mut Session, zeros: Tensor<'_>) -> Result<(), EngineError> {
        let run = || {
            if let Some(padded_to) = &mut self.padded_to {
                *padded_to = self.most;
            }
            let least = self.padded_to.unwrap_or(1);
            (least..=self.most).try_for_each(|frames| {
                let tensors = vec![zeros; frames];
                let in_flight = 0..self.in_flight;
                let flights: Result<Vec<_>, _> = in_flight.map(|_| self.submit(session, &tensors, ANY_SCORE)).collect();
                flights?.into_iter().try_for_each(|flight| flight.complete(&mut |_, _| ()))
            })
        };
        contained("ONNX Runtime", run).map_err(EngineError::run)?
    }
}

/// The numbers of an output, copied where they are no `f32`.
fn numbers(value: &DynValue) -> Result<Cow<'_, [f32]>, EngineError> {
    let tensor = |ty| matches!(value.dtype(), ValueType::Tensor { ty: found, .. } if *found == ty);
    if tensor(TensorElementType::Float16) {
        let (_, data) = value.try_extract_tensor::<f16>().map_err(EngineError::run)?;
        return Ok(data.to_f32_vec().into());
    }
    if tensor(TensorElementType::Int64) {
        let (_, data) = value.try_extract_tensor::<i64>().map_err(EngineError::run)?;
        return Ok(data.iter().map(|&n| n as f32).collect());
    }
    if tensor(TensorElementType::Int32) {
        let (_, data) = value.try_extract_tensor::<i32>().map_err(EngineError::run)?;
        return Ok(data.iter().map(|&n| n as f32).collect());
    }
    value.try_extract_tensor::<f32>().map(|(_, data)| data.into()).map_err(EngineError::run)
}

impl Ort {
    /// The CPU computes one tensor in host memory.
    fn compute(&mut self, shape: [usize; 4], tensors: &[Tensor<'_>]) -> Result<Work, EngineError> {
        let [Tensor::Host(data)] = tensors else {
            return Err(EngineError::run("PROVIDER=cpu computes one tensor at a time, in host memory"));
        };
        let picture = match *data {
            Elements::F32(data) => TensorRef::from_array_view((shape, data)).map(|t| t.into_dyn()),
            Elements::U8(data) => TensorRef::from_array_view((shape, data)).map(|t| t.into_dyn()),
            Elements::F16(data) => {
                TensorRef::from_array_view((shape, data.reinterpret_cast::<f16>())).map(|t| t.into_dyn())
            }
        };
        let mut inputs = ort::inputs![self.input.as_str() => picture.map_err(EngineError::run)?];
        if let Some((name, numbers)) = &self.fixed {
            let sizes = TensorRef::from_array_view(([1usize, 2], numbers.as_slice())).map_err(EngineError::run)?;
            inputs.push((name.as_str().into(), sizes.into()));
        }
        let mut computed = self.session.run(inputs).map_err(EngineError::run)?;
        let value =
            |name: &String| computed.remove(name).ok_or_else(|| EngineError::run(format!("no output '{name}'")));
        let values = self.names.iter().map(value).collect::<Result<_, _>>()?;
        Ok(Work::Cpu(values, self.names.clone()))
    }
}

impl Engine for Ort {
    const NAME: &'static str = "ort-infer";
    const SUMMARY: &'static str = "ONNX detector over ONNX Runtime, on the CPU or a GPU";
    const ON_GPU: bool = true;
    type Settings = Settings;
    type Flight = InOrt;

    fn common(settings: &Settings) -> &DetectorSettings {
        &settings.common
    }

    fn in_flow(settings: Settings, flow: Flow) -> Settings {
        settings.in_flow(flow)
    }

    fn check(settings: &Settings, findings: &mut Findings<'_>) {
        settings.check(findings);
    }

    fn asked_batch(settings: &Settings) -> u32 {
        settings.batch.unwrap_or(1)
    }

    fn feeds_sizes(settings: &Settings) -> bool {
        settings.provider == Provider::Cpu
    }

    fn share(settings: &Settings, flow: Flow) -> Result<(usize, usize), EngineError> {
        settings.share(flow)
    }

    fn in_flight(settings: &Settings) -> usize {
        settings.in_flight()
    }

    fn open(file: &Path, threads: usize, settings: &Settings) -> Result<(Self, Signature), EngineError> {
        let streams = provider::streams(settings)?;
        let (session, notes) = provider::session(file, threads, settings, streams)?;
        let inputs: Vec<Port> = session.inputs().iter().map(port).collect();
        let outputs: Vec<Port> = session.outputs().iter().map(port).collect();
        let open_axis = |p: &Port| matches!(p.shape.as_deref(), Some([None, ..]));
        let most = settings.most(inputs.iter().chain(&outputs).all(open_axis));
        let on_gpu = streams.map(|streams| Gpu {
            streams,
            free: Vec::new(),
            back: channel(),
            made: Vec::new(),
            in_flight: settings.in_flight(),
            most: most as usize,
            // one at a time until the model is known to fit its description
            padded_to: (settings.provider == Provider::Cuda).then_some(1),
            batch_by_model: settings.batch_by_model,
            plan: Plan {
                input: CString::default(),
                dtype: TensorDtype::F32,
                shape: [0; 4],
                outputs: Vec::new(),
                grid: None,
                graph: settings.cuda_graph && settings.provider != Provider::Cpu,
            },
        });
        let engine = Self { on_gpu, session, input: String::new(), names: Arc::default(), fixed: None, notes };
        Ok((engine, Signature { inputs, outputs }))
    }

    fn select(&mut self, input: &str, outputs: &[&str]) -> Result<(), EngineError> {
        self.input = input.to_owned();
        self.names = outputs.iter().map(|name| (*name).to_owned()).collect();
        if let Some(gpu) = &mut self.on_gpu {
            let ports: Vec<Port> = self.session.outputs().iter().map(port).collect();
            let output = |name: &&str| {
                let port = ports.iter().find(|p| p.name == **name);
                let half = port.is_some_and(|p| p.dtype.as_deref() == Some("f16"));
                let dtype = if half { TensorDtype::F16 } else { TensorDtype::F32 };
                Ok::<_, EngineError>((c_name(name)?, port.and_then(|p| p.shape.clone()), dtype))
            };
            gpu.plan.input = c_name(input)?;
            gpu.plan.outputs = outputs.iter().map(output).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn spells(&mut self, grid: Grid) {
        if let Some(gpu) = &mut self.on_gpu {
            gpu.plan.grid = Some(grid);
        }
    }

    fn submit(&mut self, batch: Batch<'_>) -> Result<InOrt, EngineError> {
        let submit = || {
            let Some(gpu) = &mut self.on_gpu else { return self.compute(batch.shape, batch.tensors) };
            gpu.expect(batch.shape, batch.dtype);
            gpu.submit(&mut self.session, batch.tensors, batch.score).map(|flight| Work::Gpu(Box::new(flight)))
        };
        let submitted = contained("ONNX Runtime", submit).map_err(|panic| {
            // what was queued before it reads the tensors
            let waited = self.on_gpu.as_ref().map_or(Ok(()), |gpu| gpu.streams.synchronize());
            waited.map_or_else(EngineError::broken, |()| EngineError::run(panic))
        })?;
        submitted.map(InOrt)
    }

    fn takes(&self, _: TensorDtype) -> bool {
        true
    }

    fn reads(&self, dtype: &str) -> bool {
        ["f32", "f16"].contains(&dtype) || self.on_gpu.is_none() && ["i32", "i64"].contains(&dtype)
    }

    fn fix(&mut self, name: &str, numbers: [i64; 2]) -> Result<(), EngineError> {
        if self.on_gpu.is_some() {
            return Err(second_input(name));
        }
        self.fixed = Some((name.to_owned(), numbers));
        Ok(())
    }

    fn stream(&self) -> Option<&Stream> {
        self.on_gpu.as_ref().map(|gpu| &gpu.streams.into)
    }

    fn batch(&self) -> usize {
        self.on_gpu.as_ref().map_or(1, |gpu| gpu.most)
    }

    fn prepare(&mut self, shape: [usize; 4], dtype: TensorDtype) -> Result<(), EngineError> {
        let Self { on_gpu: Some(gpu), session, .. } = self else { return Ok(()) };
        gpu.expect(shape, dtype);
        let zeros = DeviceMemory::allocate(gpu.streams.into.gpu(), gpu.plan.bytes(), "a frame of zeros");
        let zeros = zeros.map_err(EngineError::setup)?;
        gpu.streams.into.fill(zeros.span(), 0).map_err(EngineError::setup)?;
        let tensor = Tensor::Gpu(zeros.span());
        let mut prepared = gpu.prepare(session, tensor);
        if let Err(e) = &prepared
            && gpu.batch_by_model
            && gpu.most > 1
        {
            // an open first axis of an output may be another than the frames'
            tracing::info!("the model computes frame by frame, since it did not compute {} together: {e}", gpu.most);
            gpu.most = 1;
            gpu.forget();
            prepared = gpu.prepare(session, tensor);
        }
        prepared
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
