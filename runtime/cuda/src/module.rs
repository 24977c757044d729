//! Kernels: modules of PTX, which the driver compiles for the GPU at hand and caches, and their launches.
#![allow(unsafe_code, reason = "calls of the driver")]

use crate::sys::{self, Handle};
use crate::{CudaError, Gpu, Stream, driver};
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    gpu: Gpu,
    raw: Handle,
    name: String,
}

// SAFETY: the driver's calls on a module may come from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads PTX text.
    ///
    /// # Errors
    /// PTX that this driver is too old for, or that is damaged: the compiler's own words are in the error.
    pub fn load(gpu: &Gpu, name: &str, ptx: &str) -> Result<Arc<Self>, CudaError> {
        let image = CString::new(ptx).map_err(|e| CudaError::misuse(format!("module {name}"), e.to_string()))?;
        let mut raw = std::ptr::null_mut();
        const LOG_BYTES: usize = 8192;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [sys::JIT_ERROR_LOG_BUFFER, sys::JIT_ERROR_LOG_BUFFER_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
        // the image ends with a zero; the options are two, each with its value: the log's address, and its length by value
        driver!(
            gpu,
            format!("module {name}"),
            cuModuleLoadDataEx(&raw mut raw, image.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr())
        )
        .map_err(|e| match e {
            CudaError::Call { call, device, code, name: code_name, text, hint, .. } => {
                let log: Vec<u8> = log.iter().copied().take_while(|&b| b != 0).collect();
                let what = format!("module {name} [{}]", String::from_utf8_lossy(&log).trim());
                CudaError::Call { call, what, device, code, name: code_name, text, hint }
            }
            other => other,
        })?;
        Ok(Arc::new(Self { gpu: gpu.clone(), raw, name: name.to_owned() }))
    }

    /// A kernel of the module.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<Function, CudaError> {
        let symbol = CString::new(name).map_err(|e| CudaError::misuse(format!("kernel {name}"), e.to_string()))?;
        let mut raw = std::ptr::null_mut();
        // the pointer to the handle is valid for writes until the call returns; the name ends with a zero
        driver!(
            &self.gpu,
            format!("kernel {name} of module {}", self.name),
            cuModuleGetFunction(&raw mut raw, self.raw, symbol.as_ptr())
        )?;
        Ok(Function { module: self.clone(), raw, name: name.to_owned() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // no function of it is left: each holds the module
        let _ = driver!(&self.gpu, "a module", cuModuleUnload(self.raw)).inspect_err(|e| tracing::debug!("{e}"));
    }
}

/// A kernel.
#[derive(Clone, Debug)]
pub struct Function {
    module: Arc<Module>,
    raw: Handle,
    name: String,
}

// SAFETY: the driver's calls on a function may come from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// How many threads a launch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y, z.
    pub blocks: [u32; 3],
    /// Threads of a block along x, y, z.
    pub threads: [u32; 3],
}

impl Function {
    /// Queues a launch. `arguments` are pointers to the kernel's parameters, in order.
    ///
    /// # Errors
    /// A grid that the GPU does not take; the driver's. Errors of the kernel itself come from a later call.
    ///
    /// # Safety
    /// There are as many arguments as the kernel has parameters, each pointing to a value of its type; and what the
    /// kernel reaches through them is memory of this GPU until the launch is done.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        grid: Grid,
        shared_bytes: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        let ([bx, by, bz], [tx, ty, tz]) = (grid.blocks, grid.threads);
        // the function's module is held; the arguments are the caller's contract, and are copied by the call
        driver!(
            &self.module.gpu,
            format!("kernel {} with {grid:?}", self.name),
            cuLaunchKernel(
                self.raw,
                bx,
                by,
                bz,
                tx,
                ty,
                tz,
                shared_bytes,
                stream.raw(),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        )
    }
}
