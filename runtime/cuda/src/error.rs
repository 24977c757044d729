//! What can go wrong with a GPU, with the call, its size, its device and what to do.

use crate::sys;
use std::ffi::CStr;

/// Why something on a GPU failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum CudaError {
    #[error("{library} cannot be opened: {cause}. {brings}; without it, {instead}")]
    Library { library: String, cause: String, brings: &'static str, instead: &'static str },
    #[error("{library} has no '{symbol}': it is older than {since}; install that or a newer one, or {instead}")]
    Symbol { library: String, symbol: &'static str, since: &'static str, instead: &'static str },
    #[error("{call} for {what} on device {device}: {name} ({code}): {text}; {hint}")]
    Call { call: &'static str, what: String, device: u32, code: u32, name: String, text: String, hint: &'static str },
    #[error("there is no CUDA device {ordinal}: the driver shows {count}; look at CUDA_VISIBLE_DEVICES and nvidia-smi")]
    NoSuchDevice { ordinal: u32, count: u32 },
    #[error("{what}: {why}")]
    Misuse { what: String, why: String },
}

impl CudaError {
    /// [`CudaError::Misuse`].
    pub fn misuse(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Misuse { what: what.into(), why: why.into() }
    }

    /// The driver's status code, where the driver gave one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Call { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What a user can do about the driver's commonest answers.
fn hint(code: u32) -> &'static str {
    match code {
        sys::OUT_OF_MEMORY => "lower SLOTS, or free the GPU (nvidia-smi shows who uses it)",
        3 | 4 => "the driver is shutting down or was not initialized in this process",
        46 | 805 => "the device is unavailable or busy: nvidia-smi shows its compute mode and who holds it",
        100 => "no GPU is visible: look at nvidia-smi, CUDA_VISIBLE_DEVICES and the container's device options",
        101 => "no device has this number: look at CUDA_VISIBLE_DEVICES",
        201 | 709 => "the context is gone; start the node again",
        208 => "it is opened in this process already",
        218 | 222 => "the driver is older than the kernels: docs/hardware.md has the minimum",
        209 => "this GPU is older than the kernels: docs/hardware.md has the minimum",
        304 => "the operating system refused: /dev/shm, the container's IPC namespace or its device nodes",
        700 | 716 | 717 | 719 => {
            "the GPU's work broke down; the node has to be started again, and compute-sanitizer finds the cause"
        }
        801 => "this GPU, driver or container does not offer it",
        802..=804 => "the system is not ready for CUDA: driver and libcuda.so.1 must be of one version",
        _ => "https://docs.nvidia.com/cuda/cuda-driver-api names every code",
    }
}

/// The error of a call that returned `code`.
pub(crate) fn call_error(
    api: &sys::Api,
    call: &'static str,
    what: impl Into<String>,
    device: u32,
    code: u32,
) -> CudaError {
    let text_of = |lookup: unsafe extern "C" fn(u32, *mut *const std::ffi::c_char) -> u32| {
        let mut text = std::ptr::null();
        #[allow(unsafe_code, reason = "asks the driver for a static string")]
        // SAFETY: `&raw mut text` is valid for writes until the call returns; on success it points to a string that the
        // driver keeps for ever.
        unsafe {
            if lookup(code, &raw mut text) == sys::SUCCESS && !text.is_null() {
                return CStr::from_ptr(text).to_string_lossy().into_owned();
            }
        }
        "a code that this driver has no text for".to_owned()
    };
    CudaError::Call {
        call,
        what: what.into(),
        device,
        code,
        name: text_of(api.cuGetErrorName),
        text: text_of(api.cuGetErrorString),
        hint: hint(code),
    }
}

/// What the system's loader said, which libloading's error keeps to itself.
pub(crate) fn loader_words(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Runs a driver call and names it in the error: `driver!(gpu, "what", cuEventRecord(event, stream))`.
macro_rules! driver {
    ($gpu:expr, $what:expr, $call:ident($($arg:expr),* $(,)?)) => {{
        let gpu: &$crate::Gpu = $gpu;
        gpu.enter().and_then(|()| {
            #[allow(unused_unsafe, reason = "some callers are in an unsafe block already")]
            // SAFETY: the caller states at the call why its arguments are valid.
            let code = unsafe { (gpu.api().$call)($($arg),*) };
            if code == $crate::sys::SUCCESS {
                Ok(())
            } else {
                Err($crate::error::call_error(gpu.api(), stringify!($call), $what, gpu.ordinal(), code))
            }
        })
    }};
}
pub(crate) use driver;
