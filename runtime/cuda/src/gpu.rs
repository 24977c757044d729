//! The driver and its devices.
#![allow(unsafe_code, reason = "calls of the driver")]

use crate::error::{call_error, loader_words};
use crate::sys::{self, Api, Handle};
use crate::{CudaError, driver};
use std::sync::{Arc, OnceLock};

const LIBRARY: &str = "libcuda.so.1";
const BRINGS: &str = "NVIDIA's driver, 525 or newer, brings it (in a container: its runtime, with the 'compute' and 'video' capabilities)";
const INSTEAD: &str = "use the CPU nodes: sw-nv12 for nvdec-nv12, cpu-infer or ort-infer for the detector";

/// The driver, loaded and initialized once a process. A failure is kept too: a driver does not appear later.
pub(crate) fn api() -> Result<&'static Api, CudaError> {
    static API: OnceLock<Result<Api, CudaError>> = OnceLock::new();
    let loaded = API.get_or_init(|| {
        // SAFETY: the driver's library, whose initializers are made to run in any process.
        let library = unsafe { libloading::Library::new(LIBRARY) }.map_err(|e| CudaError::Library {
            library: LIBRARY.to_owned(),
            cause: loader_words(&e),
            brings: BRINGS,
            instead: INSTEAD,
        })?;
        let api = Api::of(&library).map_err(|symbol| CudaError::Symbol {
            library: LIBRARY.to_owned(),
            symbol,
            since: "driver 525 (CUDA 12.0)",
            instead: INSTEAD,
        })?;
        // it is never unloaded: its functions are used to the end of the process
        std::mem::forget(library);
        // SAFETY: the first call of the driver, with the one flag value that exists.
        match unsafe { (api.cuInit)(0) } {
            sys::SUCCESS => Ok(api),
            code => Err(call_error(&api, "cuInit", "this process", 0, code)),
        }
    });
    loaded.as_ref().map_err(Clone::clone)
}

/// The newest CUDA version that the driver offers, as 1000 x major + 10 x minor.
///
/// # Errors
/// No driver, or one that does not start.
pub fn driver_version() -> Result<u32, CudaError> {
    let api = api()?;
    let mut version = 0;
    // SAFETY: the pointer to the number is valid for writes until the call returns.
    match unsafe { (api.cuDriverGetVersion)(&raw mut version) } {
        sys::SUCCESS => Ok(version.unsigned_abs()),
        code => Err(call_error(api, "cuDriverGetVersion", "the driver", 0, code)),
    }
}

/// How many devices the driver shows.
///
/// # Errors
/// No driver, or one that does not start.
pub fn device_count() -> Result<u32, CudaError> {
    let api = api()?;
    let mut count = 0;
    // SAFETY: the pointer to the number is valid for writes until the call returns.
    match unsafe { (api.cuDeviceGetCount)(&raw mut count) } {
        sys::SUCCESS => Ok(count.unsigned_abs()),
        sys::NO_DEVICE => Ok(0),
        code => Err(call_error(api, "cuDeviceGetCount", "the driver", 0, code)),
    }
}

/// What tells a device from every other, in every process. Opens no context on it.
///
/// # Errors
/// No driver; no device of that number.
pub fn device_uuid(ordinal: u32) -> Result<[u8; 16], CudaError> {
    let api = api()?;
    let device = device(api, ordinal)?;
    let mut uuid = [0; 16];
    // SAFETY: `uuid` has the 16 bytes that the call writes, and the device is one that the driver gave.
    match unsafe { (api.cuDeviceGetUuid_v2)(&raw mut uuid, device) } {
        sys::SUCCESS => Ok(uuid),
        code => Err(call_error(api, "cuDeviceGetUuid", "its name", ordinal, code)),
    }
}

fn device(api: &'static Api, ordinal: u32) -> Result<sys::Device, CudaError> {
    let count = device_count()?;
    if ordinal >= count {
        return Err(CudaError::NoSuchDevice { ordinal, count });
    }
    let mut device = 0;
    // SAFETY: the pointer to the answer is valid for writes until the call returns.
    match unsafe { (api.cuDeviceGet)(&raw mut device, ordinal as i32) } {
        sys::SUCCESS => Ok(device),
        code => Err(call_error(api, "cuDeviceGet", "opening it", ordinal, code)),
    }
}

/// Facts that the driver states about a device; the numbers are those of `CUdevice_attribute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the driver's")]
pub enum Attribute {
    MultiprocessorCount = 16,
    AsyncEngineCount = 40,
    UnifiedAddressing = 41,
    ComputeCapabilityMajor = 75,
    ComputeCapabilityMinor = 76,
    VirtualMemoryManagementSupported = 102,
    HandleTypePosixFileDescriptorSupported = 103,
    IpcEventSupported = 125,
    L2CacheBytes = 38,
}

/// A device and its primary context, which this process shares with every library in it. Clones share it.
#[derive(Clone, Debug)]
pub struct Gpu {
    inner: Arc<Inner>,
}

struct Inner {
    api: &'static Api,
    ordinal: u32,
    device: sys::Device,
    context: Handle,
    name: String,
    uuid: [u8; 16],
}

// SAFETY: a context may be current on several threads at once, and every driver call on it is thread-safe (the driver
// API's "thread safety" note); `Inner` itself never changes.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "device {} ({})", self.ordinal, self.name)
    }
}

impl Gpu {
    /// Opens a device: retains its primary context, in which a thread that waits for the GPU sleeps instead of spinning.
    ///
    /// # Errors
    /// No driver; no device of that number; a device that refuses.
    pub fn open(ordinal: u32) -> Result<Self, CudaError> {
        let api = api()?;
        let device = device(api, ordinal)?;
        let uuid = device_uuid(ordinal)?;
        let check = |call: &'static str, code: u32| match code {
            sys::SUCCESS => Ok(()),
            code => Err(call_error(api, call, "opening it", ordinal, code)),
        };
        let mut context = std::ptr::null_mut();
        let mut name = [0; 128];
        // SAFETY: each place has the size that the call writes, and `device` is the driver's own answer.
        unsafe {
            check("cuDeviceGetName", (api.cuDeviceGetName)(name.as_mut_ptr(), 127, device))?;
            // the context may be active already, for another library's sake: then its owner chose
            (api.cuDevicePrimaryCtxSetFlags_v2)(device, sys::CTX_SCHED_BLOCKING_SYNC);
            check("cuDevicePrimaryCtxRetain", (api.cuDevicePrimaryCtxRetain)(&raw mut context, device))?;
        }
        let name: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Self { inner: Arc::new(Inner { api, ordinal, device, context, name, uuid }) })
    }

    /// Its number among the devices that this process sees.
    pub fn ordinal(&self) -> u32 {
        self.inner.ordinal
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What tells it from every other device, in every process: numbers depend on `CUDA_VISIBLE_DEVICES`.
    pub fn uuid(&self) -> [u8; 16] {
        self.inner.uuid
    }

    /// A fact about it.
    ///
    /// # Errors
    /// A driver that does not know the attribute.
    pub fn attribute(&self, attribute: Attribute) -> Result<i32, CudaError> {
        let mut value = 0;
        // the pointer to the number is valid for writes until the call returns, and the device is one that the driver
        // gave
        driver!(
            self,
            format!("{attribute:?}"),
            cuDeviceGetAttribute(&raw mut value, attribute as u32, self.inner.device)
        )?;
        Ok(value)
    }

    /// Compute capability, major and minor.
    ///
    /// # Errors
    /// The driver's.
    pub fn compute_capability(&self) -> Result<(i32, i32), CudaError> {
        Ok((self.attribute(Attribute::ComputeCapabilityMajor)?, self.attribute(Attribute::ComputeCapabilityMinor)?))
    }

    /// Free and total memory, in bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn memory_bytes(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0, 0);
        // places for the two numbers
        driver!(self, "its memory", cuMemGetInfo_v2(&raw mut free, &raw mut total))?;
        Ok((free as u64, total as u64))
    }

    /// The PCI bus id, as `nvidia-smi` shows it.
    ///
    /// # Errors
    /// The driver's.
    pub fn pci_bus_id(&self) -> Result<String, CudaError> {
        let mut text = [0; 32];
        // the driver writes at most the 32 characters that `text` has
        driver!(self, "its bus id", cuDeviceGetPCIBusId(text.as_mut_ptr(), 32, self.inner.device))?;
        let text: Vec<u8> = text.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Makes the device's context current on this thread, which every call needs. The calls of this crate do it
    /// themselves; other libraries' may need it.
    ///
    /// # Errors
    /// A context that broke down.
    pub fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained for as long as `self` lives.
        match unsafe { (self.inner.api.cuCtxSetCurrent)(self.inner.context) } {
            sys::SUCCESS => Ok(()),
            code => Err(call_error(self.inner.api, "cuCtxSetCurrent", "this thread", self.inner.ordinal, code)),
        }
    }

    /// The context, as other C libraries want it.
    pub fn raw_context(&self) -> *mut std::ffi::c_void {
        self.inner.context
    }

    pub(crate) fn api(&self) -> &'static Api {
        self.inner.api
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: retained in `open`, released once.
        let _ = unsafe { (self.api.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}
