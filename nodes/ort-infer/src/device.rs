//! A session's tensors in a GPU's memory, bound by their addresses, and what else of ONNX Runtime's C interface has no
//! safe form in `ort`.
#![allow(unsafe_code, reason = "calls of ONNX Runtime's C interface with addresses of a GPU's memory")]

use millrace_cuda::{CudaError, DeviceMemory, Event, Gpu, PinnedMemory, Span, Stream};
use millrace_frame::TensorDtype;
use millrace_infer::{EngineError, Flight, Grid, Outlet, RawTensor, Tensor};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::sys::{self, ONNXTensorElementDataType as ElementType};
use ort::{AsPointer, ep};
use std::ffi::{CStr, CString, c_char};
use std::sync::mpsc::Sender;

/// The streams of a session: a batch is copied in by one, computed by another and copied out by a third, so that these
/// overlap for batches that follow each other.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) into: Stream,
    pub(crate) compute: Stream,
    pub(crate) out: Stream,
    /// For what is copied out after all, when the next batch's copies are queued already.
    late: Stream,
}

impl Streams {
    /// Streams that are never destroyed: ONNX Runtime may use one for as long as anything of the session is left, and a node
    /// has few.
    pub(crate) fn leaked(gpu: &Gpu) -> Result<&'static Self, CudaError> {
        let stream = || Stream::new(gpu);
        Ok(Box::leak(Box::new(Self { into: stream()?, compute: stream()?, out: stream()?, late: stream()? })))
    }

    /// Waits until nothing is queued.
    pub(crate) fn synchronize(&self) -> Result<(), CudaError> {
        [&self.into, &self.compute, &self.out].into_iter().try_for_each(Stream::synchronize)
    }
}

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

/// Which nodes of a model a provider computes.
#[derive(Debug)]
pub(crate) struct Part {
    /// The provider's name.
    pub(crate) provider: String,
    /// The operator of each node.
    pub(crate) operators: Vec<String>,
}

/// The parts of a model that the session's providers compute; for a session with `session.record_ep_graph_assignment_info`.
pub(crate) fn parts(session: &Session) -> Result<Vec<Part>, ort::Error> {
    let api = ort::api();
    let mut parts = Vec::new();
    let (mut list, mut count) = (std::ptr::null(), 0);
    // SAFETY: the session lives; places for its list and for the length.
    done(unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut list, &raw mut count) })?;
    for n in 0..count {
        let (mut name, mut nodes, mut node_count) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: the list has `count` entries, which live as long as the session.
        let part = unsafe { *list.add(n) };
        // SAFETY: an entry of the list, and places for what it says.
        unsafe {
            done((api.EpAssignedSubgraph_GetEpName)(part, &raw mut name))?;
            done((api.EpAssignedSubgraph_GetNodes)(part, &raw mut nodes, &raw mut node_count))?;
        }
        let operators = (0..node_count).map(|n| {
            let mut operator = std::ptr::null();
            // SAFETY: the part has `node_count` nodes, which live as long as the session; a place for the name.
            done(unsafe { (api.EpAssignedNode_GetOperatorType)(*nodes.add(n), &raw mut operator) })?;
            // SAFETY: on success a string that lives as long as the session.
            Ok(unsafe { text(operator) })
        });
        let operators = operators.collect::<Result<_, ort::Error>>()?;
        // SAFETY: on success a string that lives as long as the session.
        parts.push(Part { provider: unsafe { text(name) }, operators });
    }
    Ok(parts)
}

/// # Safety
/// A string that ends with a zero.
unsafe fn text(string: *const c_char) -> String {
    // SAFETY: the caller's contract.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// What a model file says of an output's shape: nothing, or its axes, of which some are open.
type Stated = Option<Vec<Option<usize>>>;

/// What a binding is made for.
pub(crate) struct Plan {
    pub(crate) input: CString,
    pub(crate) dtype: TensorDtype,
    /// Shape of the input for one frame.
    pub(crate) shape: [usize; 4],
    /// The outputs, and what the model file says of their shapes and types.
    pub(crate) outputs: Vec<(CString, Stated, TensorDtype)>,
    /// How the first of them spells candidates.
    pub(crate) grid: Option<Grid>,
    /// The session records its work: every address has to stay.
    pub(crate) graph: bool,
}

fn element(dtype: TensorDtype) -> ElementType {
    match dtype {
        TensorDtype::F32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        TensorDtype::F16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        TensorDtype::U8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
    }
}

impl Plan {
    /// Bytes of the input of one frame.
    pub(crate) fn bytes(&self) -> u64 {
        self.shape.iter().map(|&axis| axis as u64).product::<u64>() * self.dtype.bytes()
    }

    /// The shapes of all outputs for `frames`, where the model file states them.
    fn declared(&self, frames: usize) -> Option<Vec<Vec<usize>>> {
        let whole = |shape: &Stated| {
            let shape = shape.as_ref()?;
            let axes = shape.iter().enumerate();
            axes.map(|(n, axis)| if n == 0 { Some(axis.unwrap_or(frames)) } else { *axis }).collect()
        };
        self.outputs.iter().map(|(_, shape, _)| whole(shape)).collect()
    }
}

/// A session's input and outputs for one number of frames, in the GPU's memory: what one batch in work needs.
pub(crate) struct Bound {
    // first, so that it goes before the memory that it names
    binding: IoBinding,
    options: RunOptions,
    bound: Option<Span>,
    /// The session's own input, where the frames' slots cannot be bound.
    own: Option<DeviceMemory>,
    /// Where frames of the host are put for the GPU to copy.
    staging: Option<PinnedMemory>,
    outputs: Vec<Output>,
    frames: usize,
    arrived: Event,
    computed: Event,
    /// Nothing that was queued for a batch is left.
    done: Event,
}

/// A batch in work.
pub(crate) struct InFlight {
    /// Always there until it goes back.
    bound: Option<Bound>,
    late: &'static Stream,
    tensors: usize,
    back: Sender<Bound>,
}

impl Flight for InFlight {
    fn complete(mut self, read: &mut dyn FnMut(usize, &[RawTensor<'_>])) -> Result<(), EngineError> {
        let bound = self.bound.as_mut().expect("it goes back when the flight is dropped");
        // asleep until all of it is done: the event is made to block
        bound.done.synchronize().map_err(EngineError::broken)?;
        bound.outputs.iter_mut().try_for_each(|output| output.outlet.arrive(self.late))?;
        for frame in 0..self.tensors {
            let outputs: Vec<RawTensor<'_>> = bound.outputs.iter().map(|output| output.outlet.tensor(frame)).collect();
            read(frame, &outputs);
        }
        Ok(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(bound) = self.bound.take() {
            // a GPU that cannot say so has said so to whoever completes a batch
            let _ = bound.done.synchronize();
            let _ = self.back.send(bound);
        }
    }
}

struct Output {
    // first: it may still read the memory
    outlet: Outlet,
    memory: DeviceMemory,
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
    /// Memory and bindings for `frames` frames of a session that works in `streams`. `id` tells it from the session's others.
    pub(crate) fn new(
        session: &mut Session,
        streams: &Streams,
        plan: &Plan,
        frames: usize,
        id: usize,
    ) -> Result<Self, EngineError> {
        let stream = &streams.compute;
        let mut options = RunOptions::new().map_err(EngineError::setup)?;
        // who completes the batch waits, and sleeps meanwhile
        options.disable_device_sync().map_err(EngineError::setup)?;
        if plan.graph {
            // a recording for each set of addresses
            options.set("gpu_graph_id", id.to_string()).map_err(EngineError::setup)?;
        }
        let binding = session.create_binding().map_err(EngineError::setup)?;
        let event = || Event::new(stream.gpu()).map_err(EngineError::setup);
        let mut bound = Self {
            binding,
            options,
            bound: None,
            own: None,
            staging: None,
            outputs: Vec::new(),
            frames,
            arrived: event()?,
            computed: event()?,
            done: event()?,
        };
        let shapes = match plan.declared(frames) {
            Some(shapes) => shapes,
            None if plan.graph => {
                let text = "CUDA_GRAPH takes a model whose output shapes are fixed, and this one leaves an axis open: \
                            export it with fixed axes, or leave CUDA_GRAPH out";
                return Err(EngineError::setup(text));
            }
            None => bound.shapes_by_a_run(session, streams, plan)?,
        };
        for (n, ((name, _, dtype), shape)) in plan.outputs.iter().zip(shapes).enumerate() {
            let text = name.to_string_lossy().into_owned();
            if frames > 1 && shape.first() != Some(&frames) {
                return Err(EngineError::setup(format!(
                    "BATCH is {frames} or more, but output '{text}' of {frames} frames has shape {shape:?}: leave BATCH out"
                )));
            }
            let bytes = shape.iter().product::<usize>() as u64 * dtype.bytes();
            let memory = DeviceMemory::allocate(stream.gpu(), bytes.max(1), &text).map_err(EngineError::setup)?;
            let grid = plan.grid.clone().filter(|_| n == 0);
            let outlet = Outlet::new(stream.gpu(), &text, of_one(&shape, frames), frames, *dtype, grid)?;
            let span = memory.span().part(0, bytes);
            // SAFETY: `memory` goes after the binding, and a flight waits for its work before it gives the binding back.
            unsafe {
                let value = Value::new(stream, span, &shape, element(*dtype)).map_err(EngineError::setup)?;
                let binding = bound.binding.ptr_mut();
                done((ort::api().BindOutput)(binding, name.as_ptr(), value.0)).map_err(EngineError::setup)?;
            }
            bound.outputs.push(Output { outlet, memory });
        }
        Ok(bound)
    }

    /// The shapes of the outputs, for a model file that does not state them: those of a run on zeros.
    fn shapes_by_a_run(
        &mut self,
        session: &mut Session,
        streams: &Streams,
        plan: &Plan,
    ) -> Result<Vec<Vec<usize>>, EngineError> {
        let own = self.own(&streams.into, plan)?;
        streams.into.synchronize().map_err(EngineError::setup)?;
        self.bind(&streams.compute, plan, own).map_err(EngineError::setup)?;
        let host = MemoryInfo::default();
        for (name, ..) in &plan.outputs {
            let name = name.to_string_lossy().into_owned();
            self.binding.bind_output_to_device(name, &host).map_err(EngineError::setup)?;
        }
        let outputs = session.run_binding(&self.binding).map_err(EngineError::run)?;
        let shape = |(name, ..): &(CString, _, _)| {
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

    /// How many frames it is for.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    fn bind(&mut self, stream: &Stream, plan: &Plan, span: Span) -> Result<(), ort::Error> {
        if self.bound == Some(span) {
            return Ok(());
        }
        self.bound = None;
        let [_, a, b, c] = plan.shape;
        // SAFETY: `span` is memory of this binding's, or of the frame of the run that follows; that run's flight is gone
        // before the frame is, and the next one binds anew.
        unsafe {
            let value = Value::new(stream, span, &[self.frames, a, b, c], element(plan.dtype))?;
            done((ort::api().BindInput)(self.binding.ptr_mut(), plan.input.as_ptr(), value.0))?;
        }
        self.bound = Some(span);
        Ok(())
    }

    /// Queues the session's work on the tensors, at most as many as this was made for: what is missing is computed on what
    /// was there before. Where it fails it goes back at once, and nothing reads the tensors.
    pub(crate) fn submit(
        mut self,
        session: &mut Session,
        streams: &'static Streams,
        plan: &Plan,
        (tensors, score): (&[Tensor<'_>], f32),
        back: &Sender<Self>,
    ) -> Result<InFlight, EngineError> {
        let queued = self.queue(session, streams, plan, tensors, score);
        // also after an error: what was queued before it reads the tensors
        let waited = if queued.is_err() { streams.synchronize() } else { Ok(()) };
        let flight = InFlight { bound: Some(self), late: &streams.late, tensors: tensors.len(), back: back.clone() };
        waited.map_err(EngineError::broken)?;
        queued.map(|()| flight)
    }

    fn queue(
        &mut self,
        session: &mut Session,
        streams: &Streams,
        plan: &Plan,
        tensors: &[Tensor<'_>],
        score: f32,
    ) -> Result<(), EngineError> {
        let span = match tensors {
            &[Tensor::Gpu(slot)] if !plan.graph && self.frames == 1 => slot,
            _ => self.put_together(&streams.into, plan, tensors)?,
        };
        let Streams { into, compute, out, .. } = streams;
        let order = |from: &Stream, event: &Event, to: &Stream| from.record(event).and_then(|()| to.wait(event));
        order(into, &self.arrived, compute).map_err(EngineError::broken)?;
        self.bind(compute, plan, span).map_err(EngineError::run)?;
        session.run_binding_with_options(&self.binding, &self.options).map(drop).map_err(EngineError::run)?;
        order(compute, &self.computed, out).map_err(EngineError::broken)?;
        for Output { outlet, memory } in &mut self.outputs {
            // of this binding, which the flight gives back when it has read them
            outlet.queue(out, memory.span(), tensors.len(), score)?;
        }
        out.record(&self.done).map_err(EngineError::broken)
    }

    /// Queues copies of the tensors side by side into the session's own input.
    fn put_together(&mut self, into: &Stream, plan: &Plan, tensors: &[Tensor<'_>]) -> Result<Span, EngineError> {
        let (own, each) = (self.own(into, plan)?, plan.bytes());
        for (n, tensor) in (0u64..).zip(tensors) {
            let to = own.part(n * each, each);
            match tensor {
                Tensor::Gpu(slot) => into.copy(*slot, to).map_err(EngineError::broken)?,
                Tensor::Host(data) if data.bytes().len() as u64 != each => {
                    return Err(EngineError::run(format!(
                        "a tensor of {} B, {each} B are expected",
                        data.bytes().len()
                    )));
                }
                Tensor::Host(data) => {
                    let (start, end) = ((n * each) as usize, ((n + 1) * each) as usize);
                    let staged = &mut self.staging(into.gpu(), plan)?.bytes_mut()[start..end];
                    staged.copy_from_slice(data.bytes());
                    // SAFETY: of this binding, which a flight gives back when the copy is done.
                    unsafe { into.upload_unordered(staged, to) }.map_err(EngineError::broken)?;
                }
            }
        }
        Ok(own)
    }

    fn staging(&mut self, gpu: &Gpu, plan: &Plan) -> Result<&mut PinnedMemory, EngineError> {
        if self.staging.is_none() {
            let bytes = plan.bytes() as usize * self.frames;
            let memory = PinnedMemory::allocate(gpu, bytes, &plan.input.to_string_lossy());
            self.staging = Some(memory.map_err(EngineError::setup)?);
        }
        Ok(self.staging.as_mut().expect("allocated above"))
    }
}

/// The shape of one frame's part of an output of `frames`.
fn of_one(shape: &[usize], frames: usize) -> Vec<usize> {
    match shape {
        [_, rest @ ..] if frames > 1 => std::iter::once(1).chain(rest.iter().copied()).collect(),
        _ => shape.to_vec(),
    }
}
