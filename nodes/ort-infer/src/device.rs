//! A session's tensors in a GPU's memory, bound by their addresses, and what else of ONNX Runtime's C interface has no
//! safe form in `ort`.
#![allow(unsafe_code, reason = "calls of ONNX Runtime's C interface with addresses of a GPU's memory")]

use millrace_cuda::{CudaError, DeviceMemory, PinnedMemory, Span, Stream};
use millrace_frame::TensorDtype;
use millrace_infer::{EngineError, RawTensor};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::sys::{self, ONNXTensorElementDataType as ElementType};
use ort::{AsPointer, ep};
use std::ffi::{CStr, CString};

/// The CUDA provider, to work in this stream.
pub(crate) fn cuda_in(stream: &'static Stream, cuda: ep::CUDA) -> ep::CUDA {
    // SAFETY: a CUDA stream that lives to the end of the process.
    unsafe { cuda.with_compute_stream(stream.raw().cast()) }
}

/// The TensorRT provider, to work in this stream.
pub(crate) fn tensorrt_in(stream: &'static Stream, tensorrt: ep::TensorRT) -> ep::TensorRT {
    // SAFETY: a CUDA stream that lives to the end of the process.
    unsafe { tensorrt.with_compute_stream(stream.raw().cast()) }
}

/// What a call of the C interface came to.
fn done(status: sys::OrtStatusPtr) -> Result<(), ort::Error> {
    // SAFETY: the status that a call has just returned, passed on once.
    unsafe { ort::Error::result_from_status(status) }
}

/// The providers that a session's nodes were given to, and how many each; for a session with
/// `session.record_ep_graph_assignment_info`.
pub(crate) fn places(session: &Session) -> Result<Vec<(String, usize)>, ort::Error> {
    let api = ort::api();
    let mut places: Vec<(String, usize)> = Vec::new();
    let (mut parts, mut count) = (std::ptr::null(), 0);
    // SAFETY: the session lives; places for its list and for the length.
    done(unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut parts, &raw mut count) })?;
    for n in 0..count {
        let (mut name, mut nodes, mut node_count) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: the list has `count` entries, which live as long as the session.
        let part = unsafe { *parts.add(n) };
        // SAFETY: an entry of the list, and places for what it says.
        unsafe {
            done((api.EpAssignedSubgraph_GetEpName)(part, &raw mut name))?;
            done((api.EpAssignedSubgraph_GetNodes)(part, &raw mut nodes, &raw mut node_count))?;
        }
        // SAFETY: on success a string that lives as long as the session.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        match places.iter_mut().find(|(place, _)| *place == name) {
            Some((_, nodes)) => *nodes += node_count,
            None => places.push((name.into_owned(), node_count)),
        }
    }
    Ok(places)
}

/// What a binding is made for.
pub(crate) struct Plan {
    pub(crate) input: CString,
    pub(crate) dtype: TensorDtype,
    /// Shape of the input for one frame.
    pub(crate) shape: [usize; 4],
    /// The outputs, and what the model file says of their shapes.
    pub(crate) outputs: Vec<(CString, Option<Vec<Option<usize>>>)>,
    /// The session records its work: every address has to stay.
    pub(crate) graph: bool,
}

impl Plan {
    fn element(&self) -> ElementType {
        match self.dtype {
            TensorDtype::F32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            TensorDtype::F16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
            TensorDtype::U8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        }
    }

    /// Bytes of the input of one frame.
    pub(crate) fn bytes(&self) -> u64 {
        self.shape.iter().map(|&axis| axis as u64).product::<u64>() * self.dtype.bytes()
    }

    /// The shapes of all outputs for `frames`, where the model file states them.
    fn declared(&self, frames: usize) -> Option<Vec<Vec<usize>>> {
        let whole = |shape: &Option<Vec<Option<usize>>>| {
            let shape = shape.as_ref()?;
            let axes = shape.iter().enumerate();
            axes.map(|(n, axis)| if n == 0 { Some(axis.unwrap_or(frames)) } else { *axis }).collect()
        };
        self.outputs.iter().map(|(_, shape)| whole(shape)).collect()
    }
}

/// Where the frames of a run lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// One frame in host memory.
    Host(&'a [u8]),
    /// Each in the GPU's memory.
    Device(&'a [Span]),
}

/// A session's input and outputs for one number of frames, in the GPU's memory.
pub(crate) struct Bound {
    // first, so that it goes before the memory that it names
    binding: IoBinding,
    options: RunOptions,
    bound: Option<Span>,
    /// The session's own input, where the frames' slots cannot be bound.
    own: Option<DeviceMemory>,
    outputs: Vec<Output>,
    frames: usize,
}

struct Output {
    name: String,
    shape: Vec<usize>,
    memory: DeviceMemory,
    host: PinnedMemory,
}

fn on_gpu(stream: &Stream) -> Result<MemoryInfo<'static>, ort::Error> {
    let ordinal = i32::try_from(stream.gpu().ordinal()).unwrap_or(i32::MAX);
    MemoryInfo::new(AllocationDevice::CUDA, ordinal, AllocatorType::Device, MemoryType::Default)
}

/// A value of ONNX Runtime's over memory that it does not own.
struct Value(*mut sys::OrtValue);

impl Value {
    /// # Safety
    /// Work on the value, and on a binding that it is bound by, ends before the memory of `span` goes.
    unsafe fn new(stream: &Stream, span: Span, shape: &[usize], element: ElementType) -> Result<Self, ort::Error> {
        let info = on_gpu(stream)?;
        let shape: Vec<i64> = shape.iter().map(|&axis| i64::try_from(axis).unwrap_or(i64::MAX)).collect();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the address and length of a span of the GPU that `info` names, a whole shape, and a place for the value;
        // the call checks that the shape fits the length.
        done(unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                info.ptr(),
                span.ptr() as usize as *mut _,
                span.bytes() as usize,
                shape.as_ptr(),
                shape.len(),
                element,
                &raw mut raw,
            )
        })?;
        Ok(Self(raw))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: made by the matching call and released once; a binding has a count of its own.
        unsafe { (ort::api().ReleaseValue)(self.0) };
    }
}

impl Bound {
    /// Memory and bindings for `frames` frames of a session that works in `stream`.
    pub(crate) fn new(session: &mut Session, stream: &Stream, plan: &Plan, frames: usize) -> Result<Self, EngineError> {
        let mut options = RunOptions::new().map_err(EngineError::setup)?;
        // the download below waits, and sleeps meanwhile
        options.disable_device_sync().map_err(EngineError::setup)?;
        if plan.graph {
            // a recording for each number of frames
            options.set("gpu_graph_id", frames.to_string()).map_err(EngineError::setup)?;
        }
        let binding = session.create_binding().map_err(EngineError::setup)?;
        let mut bound = Self { binding, options, bound: None, own: None, outputs: Vec::new(), frames };
        let shapes = match plan.declared(frames) {
            Some(shapes) => shapes,
            None if plan.graph => {
                let text = "CUDA_GRAPH takes a model whose output shapes are fixed, and this one leaves an axis open: \
                            export it with fixed axes, or leave CUDA_GRAPH out";
                return Err(EngineError::setup(text));
            }
            None => bound.shapes_by_a_run(session, stream, plan)?,
        };
        for ((name, _), shape) in plan.outputs.iter().zip(shapes) {
            let text = name.to_string_lossy().into_owned();
            if frames > 1 && shape.first() != Some(&frames) {
                return Err(EngineError::setup(format!(
                    "BATCH is {frames} or more, but output '{text}' of {frames} frames has shape {shape:?}: leave BATCH out"
                )));
            }
            let bytes = shape.iter().product::<usize>() * size_of::<f32>();
            let memory =
                DeviceMemory::allocate(stream.gpu(), bytes.max(1) as u64, &text).map_err(EngineError::setup)?;
            let host = PinnedMemory::allocate(stream.gpu(), bytes, &text).map_err(EngineError::setup)?;
            let span = memory.span().part(0, bytes as u64);
            // SAFETY: `memory` goes after the binding, and each run waits for its work.
            unsafe {
                let float = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
                let value = Value::new(stream, span, &shape, float).map_err(EngineError::setup)?;
                let binding = bound.binding.ptr_mut();
                done((ort::api().BindOutput)(binding, name.as_ptr(), value.0)).map_err(EngineError::setup)?;
            }
            bound.outputs.push(Output { name: text, shape, memory, host });
        }
        Ok(bound)
    }

    /// The shapes of the outputs, for a model file that does not state them: those of a run on zeros.
    fn shapes_by_a_run(
        &mut self,
        session: &mut Session,
        stream: &Stream,
        plan: &Plan,
    ) -> Result<Vec<Vec<usize>>, EngineError> {
        let own = self.own(stream, plan)?;
        stream.synchronize().map_err(EngineError::setup)?;
        self.bind(stream, plan, own).map_err(EngineError::setup)?;
        let host = MemoryInfo::default();
        for (name, _) in &plan.outputs {
            let name = name.to_string_lossy().into_owned();
            self.binding.bind_output_to_device(name, &host).map_err(EngineError::setup)?;
        }
        let outputs = session.run_binding(&self.binding).map_err(EngineError::run)?;
        let shape = |(name, _): &(CString, _)| {
            let name = name.to_string_lossy();
            let value = outputs.get(&name).ok_or_else(|| EngineError::run(format!("no output '{name}'")))?;
            let axes = value.dtype().tensor_shape().map(|shape| shape.iter().copied().collect::<Vec<i64>>());
            let axes = axes.ok_or_else(|| EngineError::run(format!("output '{name}' is no tensor")))?;
            Ok(axes.into_iter().map(|axis| usize::try_from(axis).unwrap_or(0)).collect())
        };
        let shapes = plan.outputs.iter().map(shape).collect();
        drop(outputs);
        self.binding.clear_outputs();
        shapes
    }

    /// The session's own input, of zeros at first.
    fn own(&mut self, stream: &Stream, plan: &Plan) -> Result<Span, EngineError> {
        if self.own.is_none() {
            let bytes = plan.bytes() * self.frames as u64;
            let what = plan.input.to_string_lossy();
            let memory = DeviceMemory::allocate(stream.gpu(), bytes, &what).map_err(EngineError::setup)?;
            stream.fill(memory.span(), 0).map_err(EngineError::setup)?;
            self.own = Some(memory);
        }
        Ok(self.own.as_ref().expect("allocated above").span())
    }

    fn bind(&mut self, stream: &Stream, plan: &Plan, span: Span) -> Result<(), ort::Error> {
        if self.bound == Some(span) {
            return Ok(());
        }
        self.bound = None;
        let [_, a, b, c] = plan.shape;
        // SAFETY: `span` is memory of this binding's, or of the frame of the run that follows; that run waits for its work,
        // and the next one binds anew.
        unsafe {
            let value = Value::new(stream, span, &[self.frames, a, b, c], plan.element())?;
            done((ort::api().BindInput)(self.binding.ptr_mut(), plan.input.as_ptr(), value.0))?;
        }
        self.bound = Some(span);
        Ok(())
    }

    /// Runs the session on the frames, at most as many as this was made for (what is missing is computed on what stood
    /// there), waits for it, asleep, and hands each frame's outputs to `read`. When it returns, the GPU does not use the
    /// frames any more.
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        stream: &Stream,
        plan: &Plan,
        input: Input<'_>,
        read: &mut dyn FnMut(usize, &[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let frames = match input {
            Input::Host(_) => 1,
            Input::Device(slots) => slots.len(),
        };
        let queued = self.queue(session, stream, plan, input);
        // asleep until all of it is done: the context is told to block (`Gpu::open`)
        let waited = stream.synchronize();
        queued?;
        waited.map_err(EngineError::broken)?;
        let mut data = Vec::with_capacity(self.outputs.len());
        for output in &mut self.outputs {
            let bytes = output.host.bytes().len() as u64;
            let from = output.memory.span().part(0, bytes);
            stream.download(from, output.host.bytes_mut()).map_err(EngineError::broken)?;
        }
        for output in &self.outputs {
            data.push(bytemuck::cast_slice::<u8, f32>(output.host.bytes()));
        }
        let shapes: Vec<Vec<usize>> = self.outputs.iter().map(|output| of_one(&output.shape, self.frames)).collect();
        for frame in 0..frames {
            let outputs: Vec<RawTensor<'_>> = (self.outputs.iter().zip(&shapes).zip(&data))
                .map(|((output, shape), data)| {
                    let each = data.len() / self.frames;
                    RawTensor { name: &output.name, shape, data: &data[frame * each..(frame + 1) * each] }
                })
                .collect();
            read(frame, &outputs);
        }
        Ok(())
    }

    fn queue(
        &mut self,
        session: &mut Session,
        stream: &Stream,
        plan: &Plan,
        input: Input<'_>,
    ) -> Result<(), EngineError> {
        let gpu = |e: CudaError| EngineError::broken(e);
        let span = match input {
            Input::Host(bytes) => {
                let own = self.own(stream, plan)?;
                stream.upload(bytes, own.part(0, bytes.len() as u64)).map_err(gpu)?;
                own
            }
            Input::Device(&[slot]) if !plan.graph && self.frames == 1 => slot,
            Input::Device(slots) => {
                let own = self.own(stream, plan)?;
                for (n, slot) in slots.iter().enumerate() {
                    stream.copy(*slot, own.part(n as u64 * plan.bytes(), plan.bytes())).map_err(gpu)?;
                }
                own
            }
        };
        self.bind(stream, plan, span).map_err(EngineError::run)?;
        session.run_binding_with_options(&self.binding, &self.options).map(drop).map_err(EngineError::run)
    }
}

/// The shape of one frame's part of an output of `frames`.
fn of_one(shape: &[usize], frames: usize) -> Vec<usize> {
    match shape {
        [_, rest @ ..] if frames > 1 => std::iter::once(1).chain(rest.iter().copied()).collect(),
        _ => shape.to_vec(),
    }
}
