//! An execution context: the calls of it that a [`Session`](super::Session) is made of.
#![allow(unsafe_code, reason = "calls into a C++ library")]

use super::TensorrtError;
use super::abi::{Dims32, Dims64, Object, extents, method};
use super::calls::take_errors;
use super::engine::Loaded;
use super::network::TOO_MANY_AXES;
use crate::{DeviceMemory, Span, Stream};
use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, PoisonError};

fn c_text(name: &str) -> Result<CString, TensorrtError> {
    CString::new(name).map_err(|_| TensorrtError::misuse(name, "a name cannot hold a zero byte"))
}

/// An `IExecutionContext`, which one thread uses at a time.
#[derive(Debug)]
pub(super) struct Context {
    object: Object,
    // after it: a context goes before what it computes in, and before its engine
    _scratch: Option<Arc<DeviceMemory>>,
    loaded: Arc<Loaded>,
}

impl Context {
    /// A context that has memory of its own for the tensors between its layers, or computes in `scratch`, which is then as long
    /// as the engine [asks for](Loaded::scratch_bytes).
    ///
    /// # Safety
    /// Of the contexts that share `scratch` one computes at a time.
    pub(super) unsafe fn new(loaded: &Arc<Loaded>, scratch: Option<Arc<DeviceMemory>>) -> Result<Self, TensorrtError> {
        let _turn = loaded.opened.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = take_errors();
        let layout = loaded.opened.layout;
        let (engine, places) = (loaded.engine.inner(), &layout.engine);
        // SAFETY: an `ICudaEngine`; 0 is the strategy by which the context allocates for itself, the only one before 10, where
        // nothing looks at the argument. The memory is as long as the engine asks for and lives as long as the context.
        let made = unsafe {
            match (&scratch, places.create_context_without_memory, layout.context.set_memory) {
                (Some(scratch), Some(create), Some(set_memory)) => {
                    let made = Object::own(method!(engine, create, () -> *mut c_void));
                    let address = scratch.span().ptr() as usize as *mut c_void;
                    made.inspect(|made| method!(made.inner(), set_memory, (*mut c_void: address) -> ()))
                }
                _ => Object::own(method!(engine, places.create_context, (i32: 0) -> *mut c_void)),
            }
        };
        let object = made.ok_or_else(|| TensorrtError::Refused { what: "make a context", said: take_errors() })?;
        Ok(Self { object, _scratch: scratch, loaded: loaded.clone() })
    }

    /// Selects one of the engine's profiles, which no other context has.
    pub(super) fn set_profile(&self, profile: usize, stream: &Stream) -> Result<(), TensorrtError> {
        let (place, profile) = (self.loaded.opened.layout.context.set_profile, profile as i32);
        // SAFETY: an `IExecutionContext` and a stream of its GPU.
        let taken = unsafe { method!(self.object.inner(), place, (i32: profile, *mut c_void: stream.raw()) -> bool) };
        self.said(taken, "select a profile")
    }

    fn said(&self, taken: bool, what: &'static str) -> Result<(), TensorrtError> {
        if taken { Ok(()) } else { Err(TensorrtError::Refused { what, said: take_errors() }) }
    }

    pub(super) fn set_input_shape(&self, name: &str, extents: &[i64]) -> Result<(), TensorrtError> {
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

    pub(super) fn shape(&self, name: &str) -> Result<Vec<i64>, TensorrtError> {
        let text = c_text(name)?;
        let layout = self.loaded.opened.layout;
        let (object, place) = (self.object.inner(), layout.context.shape);
        // SAFETY: an `IExecutionContext`; the name lives during the call.
        let dims = unsafe { extents!(layout.wide_dims, object, place, (*const c_char: text.as_ptr())) };
        dims.ok_or_else(|| TensorrtError::Refused { what: "state a shape", said: take_errors() })
    }

    pub(super) fn set_address(&self, name: &str, span: Span) -> Result<(), TensorrtError> {
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
    pub(super) unsafe fn enqueue(&self, stream: &Stream) -> Result<(), TensorrtError> {
        let place = self.loaded.opened.layout.context.enqueue;
        // SAFETY: an `IExecutionContext` and a stream of its GPU; the memory is the caller's contract.
        let taken = unsafe { method!(self.object.inner(), place, (*mut c_void: stream.raw()) -> bool) };
        self.said(taken, "run the engine")
    }
}
