//! An engine on a GPU, and its runs.
#![allow(unsafe_code, reason = "calls into a C++ library")]

use super::abi::{Dims32, Dims64, Object, extents, method};
use super::calls::take_errors;
use super::library::{Opened, Tensorrt};
use super::network::{TOO_MANY_AXES, owned};
use super::{Dtype, Tensor, TensorrtError};
use crate::{DeviceMemory, Gpu, PinnedMemory, Span, Stream};
use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, PoisonError};

/// The alignment that TensorRT asks of an address: what `cuMemAlloc` gives.
const ALIGNMENT_BYTES: u64 = 256;

/// An engine, loaded. Copies share it.
#[derive(Clone, Debug)]
pub struct Engine {
    loaded: Arc<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    // deleted in this order: an engine goes before its runtime
    engine: Object,
    _runtime: Object,
    opened: &'static Opened,
    gpu: Gpu,
}

// SAFETY: of an engine only what it says about itself and `createExecutionContext` are called, the latter with the
// library's turn held; contexts are apart.
unsafe impl Sync for Loaded {}

fn c_text(name: &str) -> Result<CString, TensorrtError> {
    CString::new(name).map_err(|_| TensorrtError::misuse(name, "a name cannot hold a zero byte"))
}

impl Tensorrt {
    /// Loads a serialized engine on a GPU. The bytes are code: only those that this machine's TensorRT built are to be
    /// given here.
    ///
    /// # Errors
    /// TensorRT's: another version's or another GPU's engine, or no room on the GPU.
    pub fn load(&self, gpu: &Gpu, plan: &[u8]) -> Result<Engine, TensorrtError> {
        let opened = self.opened;
        let _turn = opened.turn.lock().unwrap_or_else(PoisonError::into_inner);
        gpu.enter()?;
        let _ = take_errors();
        let refused = |what| TensorrtError::Refused { what, said: take_errors() };
        // SAFETY: the factory of the opened version, with a logger of its layout; the bytes live during the call.
        unsafe {
            let runtime = Object::own((opened.make_runtime)(opened.logger, opened.number))
                .ok_or_else(|| refused("make a runtime"))?;
            let (place, data) = (opened.layout.runtime.deserialize, plan.as_ptr());
            // before 10 a factory of plugins follows, and later nothing looks at it
            let engine = method!(
                runtime.inner(), place,
                (*const u8: data, usize: plan.len(), *const c_void: std::ptr::null()) -> *mut c_void
            );
            let engine = Object::own(engine).ok_or_else(|| refused("load the engine"))?;
            Ok(Engine { loaded: Arc::new(Loaded { engine, _runtime: runtime, opened, gpu: gpu.clone() }) })
        }
    }
}

impl Engine {
    /// Its inputs and outputs.
    pub fn tensors(&self) -> Vec<Tensor> {
        let (engine, layout) = (self.loaded.engine.inner(), self.loaded.opened.layout);
        let places = &layout.engine;
        // SAFETY: an `ICudaEngine`; the names live as long as it.
        unsafe {
            let nth = |n| {
                let name = method!(engine, places.tensor_name, (i32: n) -> *const c_char);
                (!name.is_null()).then(|| Tensor {
                    name: owned(name),
                    dtype: Dtype(method!(engine, places.dtype, (*const c_char: name) -> i32)),
                    dims: extents!(layout.wide_dims, engine, places.shape, (*const c_char: name)).unwrap_or_default(),
                    is_input: method!(engine, places.io_mode, (*const c_char: name) -> i32) == 1,
                })
            };
            (0..method!(engine, places.tensors, () -> i32)).filter_map(nth).collect()
        }
    }

    /// Memory and a stream to run the engine with, for an input of at most these extents; the first axis is the batch.
    ///
    /// # Errors
    /// An engine of several inputs, or whose outputs' extents follow from the data; no room on the GPU.
    pub fn session(&self, most: &[i64]) -> Result<Session, TensorrtError> {
        let loaded = &self.loaded;
        let tensors = self.tensors();
        let inputs: Vec<&Tensor> = tensors.iter().filter(|t| t.is_input).collect();
        let [input] = inputs[..] else {
            return Err(TensorrtError::misuse("the engine", format!("it has {} inputs, 1 is expected", inputs.len())));
        };
        loaded.gpu.enter()?;
        let context = {
            let _turn = loaded.opened.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = take_errors();
            let place = loaded.opened.layout.engine.create_context;
            // SAFETY: an `ICudaEngine`; 0 is the strategy by which the context allocates for itself, the only one before 10,
            // where nothing looks at the argument.
            let made = unsafe { Object::own(method!(loaded.engine.inner(), place, (i32: 0) -> *mut c_void)) };
            made.ok_or_else(|| TensorrtError::Refused { what: "make a context", said: take_errors() })?
        };
        let context = Context { object: context, loaded: loaded.clone() };
        context.set_input_shape(&input.name, most)?;
        let place_of = |tensor: &Tensor| -> Result<Place, TensorrtError> {
            let dims = context.shape(&tensor.name)?;
            let misfit = |why: String| TensorrtError::misuse(format!("'{}' of the engine", tensor.name), why);
            let shape: Vec<usize> = dims.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
            if shape.len() != dims.len() || dims.first() != most.first() {
                return Err(misfit(format!(
                    "its shape {dims:?} follows from the data, or does not begin with the batch"
                )));
            }
            let size = tensor.dtype.bytes().ok_or_else(|| misfit(format!("it is {:?}", tensor.dtype)))?;
            let one = shape[1..].iter().try_fold(size, |n, &axis| n.checked_mul(axis as u64)).filter(|&n| n > 0);
            let bytes = one.and_then(|n| Some((n, n.checked_mul(shape[0] as u64).filter(|&n| n > 0)?)));
            let (bytes_each, bytes) = bytes.ok_or_else(|| misfit(format!("its shape is {dims:?}")))?;
            let memory = DeviceMemory::allocate(&loaded.gpu, bytes, &tensor.name)?;
            context.set_address(&tensor.name, memory.span())?;
            Ok(Place { name: tensor.name.clone(), dtype: tensor.dtype, shape, bytes_each, memory })
        };
        let input = place_of(input)?;
        let outputs = tensors.iter().filter(|t| !t.is_input).map(|tensor| {
            let place = place_of(tensor)?;
            let host = PinnedMemory::allocate(&loaded.gpu, place.memory.span().bytes() as usize, &place.name)?;
            Ok((place, host))
        });
        let outputs = outputs.collect::<Result<_, TensorrtError>>()?;
        let stream = Stream::new(&loaded.gpu)?;
        let batch = input.shape[0];
        Ok(Session { stream, context, input, outputs, batch, shaped_for: batch, bound_elsewhere: false })
    }
}

/// An `IExecutionContext`, which one thread uses at a time.
#[derive(Debug)]
struct Context {
    object: Object,
    // after it: a context goes before its engine
    loaded: Arc<Loaded>,
}

impl Context {
    fn said(&self, taken: bool, what: &'static str) -> Result<(), TensorrtError> {
        if taken { Ok(()) } else { Err(TensorrtError::Refused { what, said: take_errors() }) }
    }

    fn set_input_shape(&self, name: &str, extents: &[i64]) -> Result<(), TensorrtError> {
        let text = c_text(name)?;
        let (wide, narrow) = (Dims64::of(extents), Dims32::of(extents));
        let layout = self.loaded.opened.layout;
        let dims = match (layout.wide_dims, &wide, &narrow) {
            (true, Some(wide), _) => std::ptr::from_ref(wide).cast(),
            (false, _, Some(narrow)) => std::ptr::from_ref(narrow).cast(),
            _ => return Err(TensorrtError::misuse(name, TOO_MANY_AXES)),
        };
        // SAFETY: an `IExecutionContext`; name and extents live during the call.
        let taken = unsafe {
            method!(
                self.object.inner(), layout.context.set_input_shape,
                (*const c_char: text.as_ptr(), *const c_void: dims) -> bool
            )
        };
        self.said(taken, "take the shape of the input")
    }

    fn shape(&self, name: &str) -> Result<Vec<i64>, TensorrtError> {
        let text = c_text(name)?;
        let layout = self.loaded.opened.layout;
        let (object, place) = (self.object.inner(), layout.context.shape);
        // SAFETY: an `IExecutionContext`; the name lives during the call.
        let dims = unsafe { extents!(layout.wide_dims, object, place, (*const c_char: text.as_ptr())) };
        dims.ok_or_else(|| TensorrtError::Refused { what: "state a shape", said: take_errors() })
    }

    fn set_address(&self, name: &str, span: Span) -> Result<(), TensorrtError> {
        let text = c_text(name)?;
        let place = self.loaded.opened.layout.context.set_address;
        // SAFETY: an `IExecutionContext`; the name lives during the call, and the address is used by `enqueue` alone.
        let taken = unsafe {
            method!(
                self.object.inner(), place,
                (*const c_char: text.as_ptr(), *mut c_void: span.ptr() as usize as *mut c_void) -> bool
            )
        };
        self.said(taken, "take an address")
    }

    /// # Safety
    /// Every address that was set is memory of the tensor's length until the stream has come past this point.
    unsafe fn enqueue(&self, stream: &Stream) -> Result<(), TensorrtError> {
        let place = self.loaded.opened.layout.context.enqueue;
        // SAFETY: an `IExecutionContext` and a stream of its GPU; the memory is the caller's contract.
        let taken = unsafe { method!(self.object.inner(), place, (*mut c_void: stream.raw()) -> bool) };
        self.said(taken, "run the engine")
    }
}

/// A tensor's memory on the GPU.
#[derive(Debug)]
struct Place {
    name: String,
    dtype: Dtype,
    /// For a full batch.
    shape: Vec<usize>,
    /// Of one element of the batch.
    bytes_each: u64,
    memory: DeviceMemory,
}

/// An output of the last run, for one element of the batch.
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

/// A context of an engine with its stream and its memory.
#[derive(Debug)]
pub struct Session {
    stream: Stream,
    context: Context,
    input: Place,
    outputs: Vec<(Place, PinnedMemory)>,
    batch: usize,
    shaped_for: usize,
    bound_elsewhere: bool,
}

impl Session {
    /// The stream that it works in.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// How many inputs it takes together at most.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Runs the engine on one input of the host. The outputs are there when it returns.
    ///
    /// # Errors
    /// Another length than the input's; the GPU's.
    pub fn run(&mut self, input: &[u8]) -> Result<(), TensorrtError> {
        self.prepare(1)?;
        self.bind_own()?;
        self.stream.upload(input, self.input.memory.span().part(0, self.input.bytes_each))?;
        self.compute(1)
    }

    /// Runs the engine on inputs that lie on the GPU, together, after what is queued in [`stream`](Self::stream). The
    /// outputs are there, and the inputs are no longer read, when it returns. One input is read where it lies; several
    /// are copied side by side first.
    ///
    /// # Errors
    /// More than [`batch`](Self::batch), or none; another length than the input's; the GPU's.
    pub fn run_on(&mut self, inputs: &[Span]) -> Result<(), TensorrtError> {
        let (each, most) = (self.input.bytes_each, self.batch);
        let misuse = |why: String| TensorrtError::misuse(format!("input '{}'", self.input.name), why);
        if inputs.is_empty() || inputs.len() > most {
            return Err(misuse(format!("{} at once, 1 to {most} are taken", inputs.len())));
        }
        if let Some(other) = inputs.iter().find(|input| input.bytes() != each) {
            return Err(misuse(format!("{} B, {each} are expected", other.bytes())));
        }
        self.prepare(inputs.len())?;
        match inputs {
            [one] if one.ptr().is_multiple_of(ALIGNMENT_BYTES) => {
                self.bound_elsewhere = true;
                self.context.set_address(&self.input.name, *one)?;
            }
            _ => {
                self.bind_own()?;
                let own = self.input.memory.span();
                let queued =
                    (0u64..).zip(inputs).try_for_each(|(n, from)| self.stream.copy(*from, own.part(n * each, each)));
                if let Err(e) = queued {
                    // what was queued before reads the inputs
                    let _ = self.stream.synchronize();
                    return Err(e.into());
                }
            }
        }
        self.compute(inputs.len())
    }

    fn prepare(&mut self, inputs: usize) -> Result<(), TensorrtError> {
        self.stream.gpu().enter()?;
        let _ = take_errors();
        if self.shaped_for != inputs {
            let axes = [inputs].into_iter().chain(self.input.shape[1..].iter().copied());
            let extents: Vec<i64> = axes.map(|axis| axis as i64).collect();
            self.context.set_input_shape(&self.input.name, &extents)?;
            self.shaped_for = inputs;
        }
        Ok(())
    }

    fn bind_own(&mut self) -> Result<(), TensorrtError> {
        if std::mem::take(&mut self.bound_elsewhere) {
            self.context.set_address(&self.input.name, self.input.memory.span())?;
        }
        Ok(())
    }

    fn compute(&mut self, inputs: usize) -> Result<(), TensorrtError> {
        let queued = self.queue(inputs as u64);
        // also after an error: what was queued before it uses the memory
        let done = self.stream.synchronize();
        queued?;
        Ok(done?)
    }

    fn queue(&mut self, inputs: u64) -> Result<(), TensorrtError> {
        // SAFETY: the addresses are those of our memory and of the caller's input, each as long as its tensor, and
        // `compute` returns when the stream is done with them.
        unsafe { self.context.enqueue(&self.stream)? };
        for (place, host) in &mut self.outputs {
            let bytes = inputs * place.bytes_each;
            let to = &mut host.bytes_mut()[..bytes as usize];
            // SAFETY: the bytes are ours, and `compute` returns when the copy is done.
            unsafe { self.stream.download_unordered(place.memory.span().part(0, bytes), to)? };
        }
        Ok(())
    }

    /// The outputs of the last run for its input number `n`; zeros where none was run.
    ///
    /// # Panics
    /// When `n` is not less than [`batch`](Self::batch).
    pub fn outputs(&self, n: usize) -> impl Iterator<Item = Output<'_>> {
        assert!(n < self.batch, "input {n} of {}", self.batch);
        self.outputs.iter().map(move |(place, host)| {
            let each = place.bytes_each as usize;
            Output {
                name: &place.name,
                dtype: place.dtype,
                shape: &place.shape[1..],
                bytes: &host.bytes()[n * each..][..each],
            }
        })
    }
}
