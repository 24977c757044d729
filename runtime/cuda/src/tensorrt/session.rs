//! Batches through an engine: several in work at once, inputs from the host or the GPU, outputs in host memory.
//!
//! TensorRT's contexts keep their addresses: each batch is copied to the one input and from the outputs within the GPU, in
//! the stream that computes. So a context is changed only when the number of inputs is, and its recorded work stays true.
#![allow(unsafe_code, reason = "memory that the GPU works on")]

use super::calls::take_errors;
use super::context::Context;
use super::engine::Engine;
use super::{Dtype, Tensor, TensorrtError};
use crate::{CudaError, DeviceMemory, Event, Graph, PinnedMemory, Span, Stream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// So many batches of one size come in a row before their work is recorded: recording costs the host more than one run.
const RUNS_BEFORE_RECORDING: u32 = 4;

/// What a session is made for.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The extents of the input; of the first axis, the batch, nothing is read.
    pub shape: &'a [i64],
    /// The least and the most inputs that go through together, for each profile of the engine in their order.
    pub batches: &'a [[usize; 2]],
    /// Batches in work at once, at least 1. Each has memory for its outputs.
    pub in_flight: usize,
    /// Whether the work of a batch is recorded as a CUDA graph and replayed. Where it cannot be recorded, a line in the log
    /// says so, and each batch is queued as without.
    pub replay: bool,
}

/// One input of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// In host memory.
    Host(&'a [u8]),
    /// On the engine's GPU. It is read until the flight is gone.
    Gpu(Span),
}

/// Is asked for each output, by its number: it may queue a copy of it in the stream by which outputs leave the GPU, and says
/// so. The output stays where it is until the flight is gone.
pub type Down<'d> = dyn FnMut(&Stream, usize, Span) -> bool + 'd;

/// A tensor's memory on the GPU.
#[derive(Debug)]
struct TensorBuffer {
    described: Described,
    /// For a full batch.
    memory: DeviceMemory,
}

#[derive(Clone, Debug)]
struct Described {
    name: String,
    dtype: Dtype,
    /// Without the batch's axis.
    shape: Vec<usize>,
    bytes_each: u64,
}

impl TensorBuffer {
    /// The part of the first `inputs` of a batch.
    fn of(&self, inputs: usize) -> Span {
        self.memory.span().part(0, inputs as u64 * self.described.bytes_each)
    }
}

/// An engine's work for the batches of one profile.
#[derive(Debug)]
struct Runner {
    recorded: Option<Graph>,
    context: Context,
    batches: [usize; 2],
    shaped_for: usize,
    /// With the number of inputs that it is shaped for.
    runs: u32,
}

impl Runner {
    fn shape(&mut self, stream: &Stream, input: &Described, inputs: usize) -> Result<(), TensorrtError> {
        if self.shaped_for != inputs {
            // recorded work is true for a context as it was, also while it runs
            if self.recorded.take().is_some() {
                stream.synchronize()?;
            }
            (self.runs, self.shaped_for) = (0, 0);
            let extents = [inputs].into_iter().chain(input.shape.iter().copied()).map(|axis| axis as i64);
            self.context.set_input_shape(&input.name, &extents.collect::<Vec<_>>())?;
            self.shaped_for = inputs;
        }
        Ok(())
    }

    /// Queues the work of a batch.
    ///
    /// # Safety
    /// The addresses that the context has been given are memory until the stream has come past this point.
    unsafe fn run(&mut self, stream: &Stream, replay: &mut bool) -> Result<(), TensorrtError> {
        if let Some(recorded) = self.recorded.as_mut().filter(|_| *replay) {
            // SAFETY: as the caller states; the recorded addresses are those of the context.
            return Ok(unsafe { stream.replay(recorded) }?);
        }
        // SAFETY: as the caller states.
        unsafe { self.context.enqueue(stream) }?;
        self.runs = self.runs.saturating_add(1);
        if *replay && self.runs >= RUNS_BEFORE_RECORDING {
            match self.record(stream) {
                Ok(recorded) => self.recorded = Some(recorded),
                Err(e) => {
                    tracing::warn!("the engine's work cannot be recorded, and each batch is queued by itself: {e}");
                    *replay = false;
                    // the library's next call may answer with the failed recording: this one computes the batch again
                    // SAFETY: as the caller states.
                    let _ = unsafe { self.context.enqueue(stream) };
                    let _ = take_errors();
                }
            }
        }
        Ok(())
    }

    fn record(&self, stream: &Stream) -> Result<Graph, TensorrtError> {
        // SAFETY: nothing runs now, and the caller of `replay` states that the memory is there.
        stream.record_graph(|| unsafe { self.context.enqueue(stream) })
    }
}

/// What one batch in work has for itself.
#[derive(Debug)]
struct Slot {
    staged: Option<(PinnedMemory, DeviceMemory)>,
    /// Each output, on the GPU and in host memory.
    outputs: Vec<(DeviceMemory, PinnedMemory)>,
    arrived: Event,
    computed: Event,
    /// The outputs are in host memory.
    done: Event,
}

/// A batch in work. Where it is gone, nothing reads its inputs any more.
#[derive(Debug)]
pub struct Flight {
    /// There until the flight is dropped.
    slot: Option<Slot>,
    outputs: Arc<[Described]>,
    inputs: usize,
    back: Sender<Slot>,
}

/// An output of a batch, for one of its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Output<'s> {
    /// Its name.
    pub name: &'s str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Extent of its axes, without the batch's.
    pub shape: &'s [usize],
    /// Its elements.
    pub bytes: &'s [u8],
}

impl Flight {
    fn slot(&self) -> &Slot {
        self.slot.as_ref().expect("it goes back when the flight is dropped")
    }

    /// How many inputs it has.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Sleeps until the outputs are there.
    ///
    /// # Errors
    /// The GPU's, after which it computes nothing else in this process.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.slot().done.synchronize()
    }

    /// The outputs of its input number `n`, in the order of the engine's; they are whole after [`wait`](Self::wait).
    ///
    /// # Panics
    /// When `n` is not less than [`inputs`](Self::inputs).
    pub fn outputs(&self, n: usize) -> impl Iterator<Item = Output<'_>> {
        assert!(n < self.inputs, "input {n} of {}", self.inputs);
        self.outputs.iter().zip(&self.slot().outputs).map(move |(described, (_, host))| {
            let Described { name, dtype, shape, bytes_each } = described;
            let each = *bytes_each as usize;
            Output { name, dtype: *dtype, shape, bytes: &host.bytes()[n * each..][..each] }
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            // an error of the GPU was the answer to `wait`
            let _ = slot.done.synchronize();
            let _ = self.back.send(slot);
        }
    }
}

/// An engine with its memory and its streams.
#[derive(Debug)]
pub struct Session {
    into: Stream,
    compute: Stream,
    out: Stream,
    runners: Vec<Runner>,
    input: TensorBuffer,
    outputs: Vec<TensorBuffer>,
    described: Arc<[Described]>,
    free: Vec<Slot>,
    back: (Sender<Slot>, Receiver<Slot>),
    most: usize,
    replay: bool,
}

impl Engine {
    /// Memory, streams and contexts to run the engine with.
    ///
    /// # Errors
    /// An engine of several inputs, or whose outputs' extents follow from the data; no room on the GPU.
    pub fn session(&self, work: &Work<'_>) -> Result<Session, TensorrtError> {
        let loaded = &self.loaded;
        let gpu = &loaded.gpu;
        let tensors = self.tensors();
        let inputs: Vec<&Tensor> = tensors.iter().filter(|t| t.is_input).collect();
        let [input] = inputs[..] else {
            return Err(TensorrtError::misuse("the engine", format!("it has {} inputs, 1 is expected", inputs.len())));
        };
        gpu.enter()?;
        let (into, compute, out) = (Stream::new(gpu)?, Stream::new(gpu)?, Stream::new(gpu)?);
        let several = work.batches.len() > 1;
        let scratch = match loaded.scratch_bytes().filter(|_| several) {
            Some(bytes) => Some(Arc::new(DeviceMemory::allocate(gpu, bytes.max(1), "memory between layers")?)),
            None => None,
        };
        let mut runners = Vec::with_capacity(work.batches.len());
        for (profile, &batches) in work.batches.iter().enumerate() {
            // SAFETY: all contexts compute in one stream, one after the other.
            let context = unsafe { Context::new(loaded, scratch.clone()) }?;
            if several {
                context.set_profile(profile, &compute)?;
            }
            let extents: Vec<i64> = [batches[1] as i64].into_iter().chain(work.shape.iter().skip(1).copied()).collect();
            context.set_input_shape(&input.name, &extents)?;
            runners.push(Runner { recorded: None, context, batches, shaped_for: batches[1], runs: 0 });
        }
        let largest = runners.iter().max_by_key(|runner| runner.batches[1]);
        let largest = largest.ok_or_else(|| TensorrtError::misuse("the engine", "no batch is to be computed"))?;
        let most = largest.batches[1];
        let buffer_of = |tensor: &Tensor| {
            let buffer = buffer(&largest.context, tensor, most, gpu)?;
            for runner in &runners {
                runner.context.set_address(&tensor.name, buffer.memory.span())?;
            }
            Ok(buffer)
        };
        let input = buffer_of(input)?;
        let outputs =
            tensors.iter().filter(|t| !t.is_input).map(buffer_of).collect::<Result<Vec<_>, TensorrtError>>()?;
        compute.synchronize()?;
        let slot = |_| {
            let copy = |buffer: &TensorBuffer| {
                let (bytes, name) = (buffer.memory.span().bytes(), &buffer.described.name);
                Ok((DeviceMemory::allocate(gpu, bytes, name)?, PinnedMemory::allocate(gpu, bytes as usize, name)?))
            };
            let outputs = outputs.iter().map(copy).collect::<Result<_, CudaError>>()?;
            let (arrived, computed, done) = (Event::new(gpu)?, Event::new(gpu)?, Event::new(gpu)?);
            Ok(Slot { staged: None, outputs, arrived, computed, done })
        };
        let free = (0..work.in_flight.max(1)).map(slot).collect::<Result<_, CudaError>>()?;
        let described = outputs.iter().map(|buffer| buffer.described.clone()).collect();
        let (back, replay) = (channel(), work.replay);
        Ok(Session { into, compute, out, runners, input, outputs, described, free, back, most, replay })
    }
}

/// Memory for a tensor of `most` inputs, by the shape that the context states.
fn buffer(context: &Context, tensor: &Tensor, most: usize, gpu: &crate::Gpu) -> Result<TensorBuffer, TensorrtError> {
    let dims = context.shape(&tensor.name)?;
    let misfit = |why: String| TensorrtError::misuse(format!("'{}' of the engine", tensor.name), why);
    let shape: Vec<usize> = dims.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
    if shape.len() != dims.len() || shape.first() != Some(&most) {
        return Err(misfit(format!("its shape {dims:?} follows from the data, or does not begin with the batch")));
    }
    let size = tensor.dtype.bytes().ok_or_else(|| misfit(format!("it is {:?}", tensor.dtype)))?;
    let one = shape[1..].iter().try_fold(size, |n, &axis| n.checked_mul(axis as u64)).filter(|&n| n > 0);
    let bytes = one.and_then(|n| Some((n, n.checked_mul(most as u64).filter(|&n| n > 0)?)));
    let (bytes_each, bytes) = bytes.ok_or_else(|| misfit(format!("its shape is {dims:?}")))?;
    let memory = DeviceMemory::allocate(gpu, bytes, &tensor.name)?;
    let described =
        Described { name: tensor.name.clone(), dtype: tensor.dtype, shape: shape[1..].to_vec(), bytes_each };
    Ok(TensorBuffer { described, memory })
}

impl Session {
    /// The stream in which it waits for inputs: what is queued there before [`submit`](Self::submit) comes before its work.
    pub fn stream(&self) -> &Stream {
        &self.into
    }

    /// How many inputs it accepts together at most.
    pub fn batch(&self) -> usize {
        self.most
    }

    /// Bytes of one input.
    pub fn input_bytes(&self) -> u64 {
        self.input.described.bytes_each
    }

    /// Whether work is recorded and replayed, as far as it has come.
    pub fn replays(&self) -> bool {
        self.replay
    }

    /// The engine's outputs: name, and extents without the batch's axis.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.described.iter().map(|output| (output.name.as_str(), &output.shape[..]))
    }

    /// Waits until nothing is queued.
    ///
    /// # Errors
    /// The GPU's.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        [&self.into, &self.compute, &self.out].into_iter().try_for_each(Stream::synchronize)
    }

    /// Queues a batch and returns. Where as many are in work as there may be, it waits until one of them is gone. Inputs of the
    /// host are not read any more when it returns.
    ///
    /// # Errors
    /// No input, or more than [`batch`](Self::batch); another length than the input's; the GPU's and TensorRT's. Nothing reads
    /// the inputs then.
    pub fn submit(&mut self, inputs: &[Input<'_>]) -> Result<Flight, TensorrtError> {
        self.submit_with(inputs, &mut |_, _, _| false)
    }

    /// As [`submit`](Self::submit). The outputs that `down` copies are not to be read from [`Flight::outputs`].
    ///
    /// # Errors
    /// As [`submit`](Self::submit)'s.
    pub fn submit_with(&mut self, inputs: &[Input<'_>], down: &mut Down<'_>) -> Result<Flight, TensorrtError> {
        let Described { name, bytes_each, .. } = &self.input.described;
        let misuse = |why: String| TensorrtError::misuse(format!("input '{name}'"), why);
        if inputs.is_empty() || inputs.len() > self.most {
            return Err(misuse(format!("{} at once, 1 to {} are expected", inputs.len(), self.most)));
        }
        let lengths = inputs.iter().map(|input| match input {
            Input::Host(bytes) => bytes.len() as u64,
            Input::Gpu(span) => span.bytes(),
        });
        if let Some(other) = lengths.into_iter().find(|bytes| bytes != bytes_each) {
            return Err(misuse(format!("{other} B, {bytes_each} are expected")));
        }
        let mut slot = self.slot();
        let queued = self.queue(&mut slot, inputs, down);
        // also after an error: what was queued before it uses the memory
        let waited = if queued.is_err() { self.synchronize() } else { Ok(()) };
        let flight = Flight {
            slot: Some(slot),
            outputs: self.described.clone(),
            inputs: inputs.len(),
            back: self.back.0.clone(),
        };
        queued?;
        waited?;
        Ok(flight)
    }

    fn slot(&mut self) -> Slot {
        loop {
            self.free.extend(self.back.1.try_iter());
            match self.free.pop() {
                Some(slot) => return slot,
                // every flight gives its slot back, and there is a sender here
                None => self.free.extend(self.back.1.recv()),
            }
        }
    }

    fn queue(&mut self, slot: &mut Slot, inputs: &[Input<'_>], down: &mut Down<'_>) -> Result<(), TensorrtError> {
        self.into.gpu().enter()?;
        let _ = take_errors();
        let count = inputs.len();
        let staged = self.stage(slot, inputs)?;
        self.into.record(&slot.arrived)?;
        self.compute.wait(&slot.arrived)?;
        let each = self.input.described.bytes_each;
        for (n, input) in (0u64..).zip(inputs) {
            let from = match (input, staged) {
                (Input::Gpu(span), _) => *span,
                (Input::Host(_), Some(staged)) => staged.part(n * each, each),
                (Input::Host(_), None) => unreachable!("inputs of the host are staged"),
            };
            self.compute.copy(from, self.input.memory.span().part(n * each, each))?;
        }
        self.run(count)?;
        for (buffer, (memory, _)) in self.outputs.iter().zip(&slot.outputs) {
            let from = buffer.of(count);
            self.compute.copy(from, memory.span().part(0, from.bytes()))?;
        }
        self.compute.record(&slot.computed)?;
        self.out.wait(&slot.computed)?;
        for (n, (buffer, (memory, host))) in self.outputs.iter().zip(&mut slot.outputs).enumerate() {
            let bytes = buffer.of(count).bytes();
            if down(&self.out, n, memory.span().part(0, bytes)) {
                continue;
            }
            let to = &mut host.bytes_mut()[..bytes as usize];
            // SAFETY: both are the slot's, which is used again, and read, when `done` is reached.
            unsafe { self.out.download_unordered(memory.span().part(0, bytes), to) }?;
        }
        Ok(self.out.record(&slot.done)?)
    }

    /// Queues the engine's work on what the input's memory will hold.
    fn run(&mut self, inputs: usize) -> Result<(), TensorrtError> {
        let runner = self.runner_for(inputs)?;
        let runner = &mut self.runners[runner];
        runner.shape(&self.compute, &self.input.described, inputs)?;
        // SAFETY: the contexts have the addresses of this session's memory, which goes when the stream is done.
        unsafe { runner.run(&self.compute, &mut self.replay) }
    }

    /// Which of the runners is for so many inputs.
    fn runner_for(&self, inputs: usize) -> Result<usize, TensorrtError> {
        let fits = |runner: &Runner| (runner.batches[0]..=runner.batches[1]).contains(&inputs);
        self.runners.iter().position(fits).ok_or_else(|| {
            let why = format!("no profile of it is for {inputs} of at most {} inputs", self.most);
            TensorrtError::misuse("the engine", why)
        })
    }

    /// Copies the host's inputs to memory of the slot; where there are none, there is no such memory.
    fn stage(&self, slot: &mut Slot, inputs: &[Input<'_>]) -> Result<Option<Span>, TensorrtError> {
        let Described { name, bytes_each, .. } = &self.input.described;
        let (gpu, each, bytes) = (self.into.gpu(), *bytes_each as usize, self.input.memory.span().bytes());
        if inputs.iter().all(|input| matches!(input, Input::Gpu(_))) {
            return Ok(None);
        }
        if slot.staged.is_none() {
            let pinned = PinnedMemory::allocate(gpu, bytes as usize, name)?;
            slot.staged = Some((pinned, DeviceMemory::allocate(gpu, bytes, name)?));
        }
        let Some((pinned, memory)) = &mut slot.staged else { return Ok(None) };
        for (n, input) in inputs.iter().enumerate() {
            if let Input::Host(from) = input {
                let part = &mut pinned.bytes_mut()[n * each..][..each];
                part.copy_from_slice(from);
                let to = memory.span().part(n as u64 * bytes_each, *bytes_each);
                // SAFETY: pinned memory of the slot, which is used again when `done` is reached.
                unsafe { self.into.upload_unordered(part, to) }?;
            }
        }
        Ok(Some(memory.span()))
    }

    /// TensorRT's own time for a batch, in milliseconds: `runs` of them in a row with nothing between, by the GPU's clock, on
    /// whatever the input's memory holds. For measurements.
    ///
    /// # Errors
    /// As [`submit`](Self::submit)'s; work that cannot be recorded, where it is to be replayed.
    pub fn alone_ms(&mut self, inputs: usize, runs: u32, replay: bool) -> Result<f32, TensorrtError> {
        self.synchronize()?;
        // shaped, and warm
        self.run(inputs)?;
        let runner = &self.runners[self.runner_for(inputs)?];
        let mut recorded = if replay { Some(runner.record(&self.compute)?) } else { None };
        let mut queue = || match &mut recorded {
            // SAFETY: recorded with the addresses of this session's memory, which goes when the stream is done.
            Some(recorded) => unsafe { self.compute.replay(recorded) }.map_err(TensorrtError::from),
            // SAFETY: the context has the addresses of this session's memory, which goes when the stream is done.
            None => unsafe { runner.context.enqueue(&self.compute) },
        };
        let gpu = self.compute.gpu();
        let (begin, end) = (Event::timed(gpu)?, Event::timed(gpu)?);
        queue()?;
        self.compute.record(&begin)?;
        let queued = (0..runs.max(1)).try_for_each(|_| queue());
        let waited = self.compute.record(&end).and_then(|()| self.compute.synchronize());
        queued?;
        waited?;
        Ok(end.ms_since(&begin)? / runs.max(1) as f32)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // its memory is worked on until then; a GPU that cannot say so works on nothing
        let _ = self.synchronize();
    }
}
