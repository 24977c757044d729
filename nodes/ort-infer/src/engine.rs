//! ONNX Runtime as an engine.

use crate::config::{Provider, Settings};
use crate::device::{Bound, Input, Plan};
use crate::provider;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use millrace_cuda::{DeviceMemory, Span, Stream};
use millrace_frame::TensorDtype;
use millrace_infer::{
    Common, Elements, Engine, EngineError, OnGpu, Port, RawTensor, Signature, contained, second_input,
};
use millrace_node::Flow;
use ort::session::Session;
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};
use std::borrow::Cow;
use std::ffi::CString;
use std::path::Path;

/// A model in ONNX Runtime.
pub struct Ort {
    // first, so that they go before the session
    on_gpu: Option<Gpu>,
    session: Session,
    input: String,
    names: Vec<String>,
    fixed: Option<(String, [i64; 2])>,
}

/// What a session on a GPU has more.
struct Gpu {
    stream: &'static Stream,
    /// For one frame, for two, and so on, made when so many first come.
    bound: Vec<Option<Bound>>,
    /// Frames go through the model as many as BATCH says, or padded to it. cuDNN plans each convolution anew when the
    /// number differs from the run before, which takes seconds for a model of a hundred nodes.
    padded: bool,
    /// How many go together was not asked for: 1 will do where the model cannot.
    batch_by_model: bool,
    plan: Plan,
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
            self.bound.fill_with(|| None);
        }
    }

    fn run(
        &mut self,
        session: &mut Session,
        input: Input<'_>,
        read: &mut dyn FnMut(usize, &[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let Self { stream, bound, plan, .. } = self;
        let most = bound.len();
        let frames = match input {
            Input::Host(_) => 1,
            Input::Device(slots) if self.padded && (1..=most).contains(&slots.len()) => most,
            Input::Device(slots) => slots.len(),
        };
        let place = frames.checked_sub(1).and_then(|n| bound.get_mut(n));
        let place = place.ok_or_else(|| EngineError::run(format!("{frames} frames at once, and BATCH is {most}")))?;
        let bound = match place {
            Some(bound) => bound,
            None => place.insert(Bound::new(session, stream, plan, frames)?),
        };
        bound.run(session, stream, plan, input, read)
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
    /// The CPU computes what is in host memory.
    fn run_on_cpu(
        &mut self,
        shape: [usize; 4],
        data: Elements<'_>,
        read: &mut dyn FnMut(&[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let picture = match data {
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
        let computed = self.session.run(inputs).map_err(EngineError::run)?;
        let mut data = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let value = computed.get(name).ok_or_else(|| EngineError::run(format!("no output '{name}'")))?;
            let axes = value.dtype().tensor_shape().into_iter().flat_map(|shape| shape.iter());
            let shape: Vec<usize> = axes.map(|&axis| usize::try_from(axis).unwrap_or(0)).collect();
            data.push((shape, numbers(value)?));
        }
        let outputs = self.names.iter().zip(&data);
        let outputs: Vec<RawTensor<'_>> =
            outputs.map(|(name, (shape, data))| RawTensor { name, shape, data }).collect();
        read(&outputs);
        Ok(())
    }
}

/// Runs the model on zeros, with every number of frames that it is run with later.
fn prepare(gpu: &mut Gpu, session: &mut Session, zeros: Span) -> Result<(), EngineError> {
    let run = || {
        let least = if gpu.padded { gpu.bound.len() } else { 1 };
        (least..=gpu.bound.len()).try_for_each(|frames| {
            let tensors = vec![zeros; frames];
            gpu.run(session, Input::Device(&tensors), &mut |_, _| ())
        })
    };
    contained("ONNX Runtime", run).map_err(EngineError::run)?
}

impl Engine for Ort {
    const NAME: &'static str = "ort-infer";
    const SUMMARY: &'static str = "ONNX detector over ONNX Runtime, on the CPU or a GPU";
    const ON_GPU: bool = true;
    type Settings = Settings;

    fn common(settings: &Settings) -> &Common {
        &settings.common
    }

    fn in_flow(settings: Settings, flow: Flow) -> Settings {
        settings.in_flow(flow)
    }

    fn share(settings: &Settings, flow: Flow) -> Result<(usize, usize), EngineError> {
        settings.share(flow)
    }

    fn open(file: &Path, threads: usize, settings: &Settings) -> Result<(Self, Signature), EngineError> {
        let stream = provider::stream(settings)?;
        let session = provider::session(file, threads, settings, stream)?;
        let inputs: Vec<Port> = session.inputs().iter().map(port).collect();
        let outputs: Vec<Port> = session.outputs().iter().map(port).collect();
        let open_axis = |p: &Port| matches!(p.shape.as_deref(), Some([None, ..]));
        let most = settings.most(inputs.iter().chain(&outputs).all(open_axis));
        let on_gpu = stream.map(|stream| Gpu {
            stream,
            bound: (0..most).map(|_| None).collect(),
            padded: settings.provider == Provider::Cuda,
            batch_by_model: settings.batch_by_model,
            plan: Plan {
                input: CString::default(),
                dtype: TensorDtype::F32,
                shape: [0; 4],
                outputs: Vec::new(),
                graph: settings.cuda_graph && settings.provider != Provider::Cpu,
            },
        });
        let engine = Self { on_gpu, session, input: String::new(), names: Vec::new(), fixed: None };
        Ok((engine, Signature { inputs, outputs }))
    }

    fn select(&mut self, input: &str, outputs: &[&str]) -> Result<(), EngineError> {
        self.input = input.to_owned();
        self.names = outputs.iter().map(|name| (*name).to_owned()).collect();
        if let Some(gpu) = &mut self.on_gpu {
            let ports: Vec<Port> = self.session.outputs().iter().map(port).collect();
            let of = |name: &str| ports.iter().find(|p| p.name == name).and_then(|p| p.shape.clone());
            gpu.plan.input = c_name(input)?;
            gpu.plan.outputs = outputs.iter().map(|name| Ok((c_name(name)?, of(name)))).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn run(
        &mut self,
        shape: [usize; 4],
        data: Elements<'_>,
        read: &mut dyn FnMut(&[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let run = || {
            let Some(gpu) = &mut self.on_gpu else { return self.run_on_cpu(shape, data, read) };
            let (dtype, bytes) = match data {
                Elements::F32(data) => (TensorDtype::F32, bytemuck::cast_slice(data)),
                Elements::F16(data) => (TensorDtype::F16, bytemuck::cast_slice(data)),
                Elements::U8(data) => (TensorDtype::U8, data),
            };
            gpu.expect(shape, dtype);
            gpu.run(&mut self.session, Input::Host(bytes), &mut |_, outputs| read(outputs))
        };
        contained("ONNX Runtime", run).map_err(EngineError::run)?
    }

    fn takes(&self, _: TensorDtype) -> bool {
        true
    }

    fn reads(&self, dtype: &str) -> bool {
        dtype == "f32" || self.on_gpu.is_none() && ["f16", "i32", "i64"].contains(&dtype)
    }

    fn fix(&mut self, name: &str, numbers: [i64; 2]) -> Result<(), EngineError> {
        if self.on_gpu.is_some() {
            return Err(second_input(name));
        }
        self.fixed = Some((name.to_owned(), numbers));
        Ok(())
    }

    fn stream(&self) -> Option<&Stream> {
        self.on_gpu.as_ref().map(|gpu| gpu.stream)
    }

    fn batch(&self) -> usize {
        self.on_gpu.as_ref().map_or(1, |gpu| gpu.bound.len())
    }

    fn prepare(&mut self, shape: [usize; 4], dtype: TensorDtype) -> Result<(), EngineError> {
        let Self { on_gpu: Some(gpu), session, .. } = self else { return Ok(()) };
        gpu.expect(shape, dtype);
        let zeros = DeviceMemory::allocate(gpu.stream.gpu(), gpu.plan.bytes(), "a frame of zeros");
        let zeros = zeros.map_err(EngineError::setup)?;
        gpu.stream.fill(zeros.span(), 0).map_err(EngineError::setup)?;
        let mut prepared = prepare(gpu, session, zeros.span());
        if let Err(e) = &prepared
            && gpu.batch_by_model
            && gpu.bound.len() > 1
        {
            // an open first axis of an output may be another than the frames'
            tracing::info!(
                "the model computes frame by frame, since it did not compute {} together: {e}",
                gpu.bound.len()
            );
            gpu.bound = std::iter::once(None).collect();
            prepared = prepare(gpu, session, zeros.span());
        }
        prepared
    }

    fn run_on_gpu(
        &mut self,
        inputs: OnGpu<'_>,
        read: &mut dyn FnMut(usize, &[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let Self { on_gpu, session, .. } = self;
        let gpu = on_gpu.as_mut().ok_or_else(|| EngineError::run("PROVIDER=cpu reads host memory only"))?;
        gpu.expect(inputs.shape, inputs.dtype);
        let run = || gpu.run(session, Input::Device(inputs.tensors), read);
        contained("ONNX Runtime", run).map_err(EngineError::run)?
    }
}
