//! A model, parsed, and the engine that is built of it.
#![allow(unsafe_code, reason = "calls into a C++ library")]

use super::abi::{self, Object, extents, method};
use super::calls::{Monitor, Progress, take_errors};
use super::config::Config;
use super::library::{Opened, Tensorrt};
use super::{Dtype, Tensor, TensorrtError};
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

pub(super) const TOO_MANY_AXES: &str = "more than 8 axes, or an axis that is too long";

/// A parsed model. It borrows the file's bytes, which have its weights, and the only turn at TensorRT.
#[derive(Debug)]
pub struct Network<'m> {
    // in this order they are deleted: what was made of another goes first
    _parser: Parser,
    network: Object,
    builder: Object,
    opened: &'static Opened,
    _turn: MutexGuard<'static, ()>,
    _model: PhantomData<&'m [u8]>,
}

/// An `IParser`, which is no `INoCopy`.
#[derive(Debug)]
struct Parser {
    raw: *mut c_void,
    delete: usize,
}

impl Drop for Parser {
    fn drop(&mut self) {
        // SAFETY: made for us by the library's factory, deleted once, by its own deleting destructor.
        unsafe { method!(self.raw, self.delete, () -> ()) }
    }
}

/// A range of the extents that an input will have whose model leaves some open.
#[derive(Clone, Copy, Debug)]
pub struct OpenInput<'a> {
    /// Its name.
    pub name: &'a str,
    /// The least of each axis.
    pub least: &'a [i64],
    /// The most of each axis, for which the engine is made fast.
    pub most: &'a [i64],
}

/// How an engine is built. What is left out has TensorRT's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions<'a> {
    /// Ranges of extents of the input that the model leaves some open of: a profile for each, in this order.
    pub profiles: &'a [OpenInput<'a>],
    /// Whether the builder may compute in 16 bits where that is faster. Releases from 10 on have types from the model alone.
    pub f16: bool,
    /// Whether 32-bit floats are multiplied with all of their bits, and not as TF32.
    pub exact: bool,
    /// How long the builder searches, 0 to 5.
    pub level: Option<u32>,
    /// Where implementations of layers may come from, by name.
    pub tactics: Option<&'a [&'a str]>,
    /// Timings that an earlier build measured ([`Plan::timings`]); those of another GPU or release are ignored.
    pub timings: &'a [u8],
}

/// Memory of the library: an `IHostMemory`.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) object: Object,
    pub(super) opened: &'static Opened,
}

impl Memory {
    pub(super) fn bytes(&self) -> &[u8] {
        let places = &self.opened.layout.host_memory;
        // SAFETY: an `IHostMemory`; the bytes live and stay as they are until it is deleted.
        unsafe {
            let inner = self.object.inner();
            let data = method!(inner, places.data, () -> *const u8);
            let size = method!(inner, places.size, () -> usize);
            if data.is_null() { &[] } else { std::slice::from_raw_parts(data, size) }
        }
    }
}

/// A serialized engine.
#[derive(Debug)]
pub struct Plan {
    memory: Memory,
    timings: Vec<u8>,
}

impl Plan {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The timings that were known to the build and those that it measured, for [`BuildOptions::timings`] of the next.
    pub fn timings(&self) -> &[u8] {
        &self.timings
    }
}

impl AsRef<[u8]> for Plan {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// # Safety
/// `text` is null or a C string that lives during the call.
pub(crate) unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller states.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Tensorrt {
    /// Parses an ONNX model. Files of weights that it names are looked for beside `file`. Of one process, one at a time:
    /// a second call waits until the first network is dropped.
    ///
    /// # Errors
    /// [`TensorrtError::Model`] with the operator that TensorRT cannot read.
    pub fn parse<'m>(&self, model: &'m [u8], file: &Path) -> Result<Network<'m>, TensorrtError> {
        let opened = self.opened;
        let turn = opened.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = take_errors();
        let refused = |what| TensorrtError::Refused { what, said: take_errors() };
        let path = CString::new(file.as_os_str().as_bytes())
            .map_err(|_| TensorrtError::misuse(file.display().to_string(), "a path cannot hold a zero byte"))?;
        let places = &opened.layout.builder;
        // SAFETY: the factories of the opened version, with a logger of its layout; each object is one that the header
        // says the call returns, and the model's bytes outlive the network (`'m`).
        unsafe {
            let builder = Object::own((opened.make_builder)(opened.logger, opened.number))
                .ok_or_else(|| refused("make a builder"))?;
            let flags = opened.layout.network_flags;
            let network = method!(builder.inner(), places.create_network, (u32: flags) -> *mut c_void);
            let network = Object::own(network).ok_or_else(|| refused("make a network"))?;
            let parser = (opened.make_parser)(network.raw(), opened.logger, opened.parser_number);
            if parser.is_null() {
                return Err(refused("make an ONNX parser"));
            }
            let parser = Parser { raw: parser, delete: opened.layout.parser.delete };
            let (data, size) = (model.as_ptr(), model.len());
            let place = opened.layout.parser.parse;
            if !method!(parser.raw, place, (*const u8: data, usize: size, *const c_char: path.as_ptr()) -> bool) {
                return Err(TensorrtError::Model { why: parser.errors(opened) });
            }
            Ok(Network { _parser: parser, network, builder, opened, _turn: turn, _model: PhantomData })
        }
    }
}

impl Parser {
    /// What it says is wrong with the model.
    fn errors(&self, opened: &Opened) -> String {
        let (places, error) = (&opened.layout.parser, &opened.layout.parser_error);
        // SAFETY: an `IParser` and its `IParserError`s, which live until it is deleted, with their texts.
        let errors: Vec<String> = unsafe {
            let count = method!(self.raw, places.errors, () -> i32);
            let nth = |n| method!(self.raw, places.error, (i32: n) -> *mut c_void);
            let describe = |e: *mut c_void| {
                let text = owned(method!(e, error.text, () -> *const c_char));
                let lacking = |place: Option<usize>| place.map(|place| owned(method!(e, place, () -> *const c_char)));
                let node = method!(e, error.node, () -> i32);
                match (lacking(error.operator).as_deref(), lacking(error.node_name)) {
                    (Some(""), _) if node < 0 => text,
                    (Some(operator), Some(name)) => format!("node {node} '{name}' ({operator}): {text}"),
                    _ if node < 0 => text,
                    _ => format!("node {node}: {text}"),
                }
            };
            (0..count).map(nth).filter(|e| !e.is_null()).map(describe).collect()
        };
        if errors.is_empty() { take_errors() } else { errors.join("; ") }
    }
}

impl Network<'_> {
    /// The model's inputs and outputs.
    pub fn tensors(&self) -> Vec<Tensor> {
        let layout = self.opened.layout;
        let (places, tensor, network) = (&layout.network, &layout.tensor, self.network.inner());
        let mut tensors = Vec::new();
        for (is_input, count, nth) in [(true, places.inputs, places.input), (false, places.outputs, places.output)] {
            // SAFETY: an `INetworkDefinition` and its `ITensor`s, which live as long as it.
            unsafe {
                for n in 0..method!(network, count, () -> i32) {
                    let interface = method!(network, nth, (i32: n) -> *mut c_void);
                    if interface.is_null() {
                        continue;
                    }
                    let one = abi::inner(interface);
                    tensors.push(Tensor {
                        name: owned(method!(one, tensor.name, () -> *const c_char)),
                        dtype: Dtype(method!(one, tensor.dtype, () -> i32)),
                        dims: extents!(layout.wide_dims, one, tensor.dims, ()).unwrap_or_default(),
                        is_input,
                    });
                }
            }
        }
        tensors
    }

    /// Builds an engine as `options` say; `report` is called with the progress, from threads of the library, where the
    /// release reports any.
    ///
    /// # Errors
    /// What TensorRT says against it; an option that this release does not have; with full TensorRT, that there is no GPU.
    pub fn build(
        self,
        options: &BuildOptions<'_>,
        report: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Plan, TensorrtError> {
        let (builder, layout) = (self.builder.inner(), self.opened.layout);
        // a file with such inputs or outputs is refused where the builder may not compute so
        let f16_in_file = !layout.typed_by_model && self.tensors().iter().any(|tensor| tensor.dtype == Dtype::F16);
        let monitor = Monitor::new(report);
        // SAFETY: the builder and the monitor live until the configuration is deleted, which is declared after them; each
        // object is one that the header says the call takes or returns.
        unsafe {
            let mut config = Config::make(self.opened, builder)?;
            config.watch(&monitor);
            options.profiles.iter().try_for_each(|profile| config.add_profile(builder, profile))?;
            config.apply(&BuildOptions { f16: options.f16 || f16_in_file, ..*options })?;
            let place = layout.builder.build;
            let plan = method!(
                builder, place, (*mut c_void: self.network.raw(), *mut c_void: config.raw()) -> *mut c_void
            );
            let object = Object::own(plan)
                .ok_or_else(|| TensorrtError::Refused { what: "build an engine", said: take_errors() })?;
            Ok(Plan { memory: Memory { object, opened: self.opened }, timings: config.timings() })
        }
    }
}
