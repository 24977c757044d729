//! An engine on a GPU.
#![allow(unsafe_code, reason = "calls into a C++ library")]

use super::abi::{Object, extents, method};
use super::calls::take_errors;
use super::library::{Opened, Tensorrt};
use super::network::owned;
use super::{Dtype, Tensor, TensorrtError};
use crate::Gpu;
use std::ffi::{c_char, c_void};
use std::sync::{Arc, PoisonError};

/// An engine, loaded. Copies share it.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) loaded: Arc<Loaded>,
}

#[derive(Debug)]
pub(super) struct Loaded {
    // deleted in this order: an engine goes before its runtime
    pub(super) engine: Object,
    _runtime: Object,
    pub(super) opened: &'static Opened,
    pub(super) gpu: Gpu,
}

impl Loaded {
    /// The memory that contexts of this engine can share; `None` for a release in which each has its own.
    pub(super) fn scratch_bytes(&self) -> Option<u64> {
        let place = self.opened.layout.engine.memory_bytes?;
        // SAFETY: an `ICudaEngine`.
        Some(unsafe { method!(self.engine.inner(), place, () -> usize) } as u64)
    }
}

// SAFETY: of an engine only what it says about itself and `createExecutionContext` are called, the latter with the
// library's turn held; contexts are apart.
unsafe impl Sync for Loaded {}

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
}
