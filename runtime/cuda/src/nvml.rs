//! What the driver tells of a GPU's use while programs run, by its management library (NVML): for reports.
//!
//! The library comes with the driver, beside `nvidia-smi`, and is opened when it is first asked for. It needs no context on
//! the device, and takes no memory there.
#![allow(unsafe_code, reason = "a library is opened, and functions of it called")]

use crate::error::loader_words;
use crate::{CudaError, device_uuid};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

const LIBRARY: &str = "libnvidia-ml.so.1";
const BRINGS: &str =
    "NVIDIA's driver brings it; a container gets it by NVIDIA_DRIVER_CAPABILITIES=compute,video,utility";
const INSTEAD: &str = "reports have no use of the GPU in them";
const SUCCESS: c_uint = 0;

/// `nvmlDevice_t`.
type Handle = *mut c_void;

/// `nvmlUtilization_t` of `nvml.h`.
#[repr(C)]
#[derive(Default)]
struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_t` of `nvml.h`.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// The functions that are called, as `nvml.h` declares them.
#[allow(non_snake_case, reason = "the library's names")]
struct Api {
    nvmlInit_v2: unsafe extern "C" fn() -> c_uint,
    nvmlErrorString: unsafe extern "C" fn(c_uint) -> *const c_char,
    nvmlSystemGetDriverVersion: unsafe extern "C" fn(*mut c_char, c_uint) -> c_uint,
    nvmlDeviceGetName: unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> c_uint,
    nvmlDeviceGetHandleByUUID: unsafe extern "C" fn(*const c_char, *mut Handle) -> c_uint,
    nvmlDeviceGetUtilizationRates: unsafe extern "C" fn(Handle, *mut Utilization) -> c_uint,
    nvmlDeviceGetDecoderUtilization: unsafe extern "C" fn(Handle, *mut c_uint, *mut c_uint) -> c_uint,
    nvmlDeviceGetMemoryInfo: unsafe extern "C" fn(Handle, *mut Memory) -> c_uint,
}

impl Api {
    /// The functions of the library; the name of the first that it lacks.
    fn of(library: &Library) -> Result<Self, &'static str> {
        macro_rules! functions {
            ($($name:ident),* $(,)?) => {
                Self { $($name: {
                    let symbol = concat!(stringify!($name), "\0").as_bytes();
                    // SAFETY: the type is what `nvml.h` declares for the function of this name, whose versions have
                    // names of their own.
                    unsafe { library.get(symbol) }.map(|function| *function).map_err(|_| stringify!($name))?
                }),* }
            };
        }
        Ok(functions!(
            nvmlInit_v2,
            nvmlErrorString,
            nvmlSystemGetDriverVersion,
            nvmlDeviceGetName,
            nvmlDeviceGetHandleByUUID,
            nvmlDeviceGetUtilizationRates,
            nvmlDeviceGetDecoderUtilization,
            nvmlDeviceGetMemoryInfo,
        ))
    }

    fn error(&self, call: &'static str, what: &str, device: u32, code: c_uint) -> CudaError {
        // SAFETY: takes any number, and gives a static string.
        let text = unsafe { (self.nvmlErrorString)(code).as_ref().map(|text| CStr::from_ptr(text)) };
        CudaError::Call {
            call,
            what: what.to_owned(),
            device,
            code,
            name: "NVML".to_owned(),
            text: text.map_or_else(|| "no text".to_owned(), |text| text.to_string_lossy().into_owned()),
            hint: "nvidia-smi asks the same library",
        }
    }
}

/// The library, opened and initialized once a process. A failure is kept too.
fn api() -> Result<&'static Api, CudaError> {
    static API: OnceLock<Result<Api, CudaError>> = OnceLock::new();
    let loaded = API.get_or_init(|| {
        // SAFETY: the driver's library, whose initializers are made to run in any process.
        let library = unsafe { Library::new(LIBRARY) }.map_err(|e| CudaError::Library {
            library: LIBRARY.to_owned(),
            cause: loader_words(&e),
            brings: BRINGS,
            instead: INSTEAD,
        })?;
        let api = Api::of(&library).map_err(|symbol| CudaError::Symbol {
            library: LIBRARY.to_owned(),
            symbol,
            since: "driver 525",
            instead: INSTEAD,
        })?;
        // it is never unloaded: its functions are used to the end of the process
        std::mem::forget(library);
        // SAFETY: the library's first call, which takes nothing.
        match unsafe { (api.nvmlInit_v2)() } {
            SUCCESS => Ok(api),
            code => Err(api.error("nvmlInit_v2", "this process", 0, code)),
        }
    });
    loaded.as_ref().map_err(Clone::clone)
}

/// One look at a device. What the driver does not tell of a device (of a part of one, by MIG, it tells little) is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Share of the driver's last sample period (1/6 s to 1 s) in which a kernel ran, in percent.
    pub gpu_percent: Option<u32>,
    /// Share of it in which the device's memory was read or written, in percent.
    pub memory_percent: Option<u32>,
    /// Use of the video decoders, in percent.
    pub nvdec_percent: Option<u32>,
    /// Memory in use by all programs, in bytes.
    pub memory_bytes: Option<u64>,
}

/// A device to look at.
#[derive(Debug)]
pub struct Monitor {
    handle: Handle,
}

// SAFETY: NVML's handles are names that are valid for the whole process, and the library states of its functions that
// they are thread-safe ("NVML is thread-safe" in its reference).
unsafe impl Send for Monitor {}

impl Monitor {
    /// The device of this number among those that the process sees.
    ///
    /// # Errors
    /// No driver, no such device, no library.
    pub fn open(ordinal: u32) -> Result<Self, CudaError> {
        let api = api()?;
        // numbers of the driver and of this library count differently
        let name = uuid_text(device_uuid(ordinal)?);
        let text = CString::new(name.clone()).map_err(|e| CudaError::misuse(name.clone(), e.to_string()))?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the string ends with a zero, and the pointer to the handle is valid for writes until the call returns.
        match unsafe { (api.nvmlDeviceGetHandleByUUID)(text.as_ptr(), &raw mut handle) } {
            SUCCESS => Ok(Self { handle }),
            code => Err(api.error("nvmlDeviceGetHandleByUUID", &name, ordinal, code)),
        }
    }

    /// Its name, as `nvidia-smi` has it.
    pub fn name(&self) -> Option<String> {
        // SAFETY: the handle is one that the library gave, and the buffer has the length that is passed.
        text(|place, length| Some(unsafe { (api().ok()?.nvmlDeviceGetName)(self.handle, place, length) }))
    }

    /// Looks now.
    pub fn look(&self) -> Use {
        let Ok(api) = api() else { return Use::default() };
        let (mut rates, mut memory) = (Utilization::default(), Memory::default());
        let (mut nvdec, mut period_us) = (0, 0);
        // SAFETY: the library's own handle, and places of the types that the calls write.
        let [rates_status, nvdec_status, memory_status] = unsafe {
            [
                (api.nvmlDeviceGetUtilizationRates)(self.handle, &raw mut rates),
                (api.nvmlDeviceGetDecoderUtilization)(self.handle, &raw mut nvdec, &raw mut period_us),
                (api.nvmlDeviceGetMemoryInfo)(self.handle, &raw mut memory),
            ]
        };
        let has = |code| code == SUCCESS;
        Use {
            gpu_percent: has(rates_status).then_some(rates.gpu),
            memory_percent: has(rates_status).then_some(rates.memory),
            nvdec_percent: has(nvdec_status).then_some(nvdec),
            memory_bytes: has(memory_status).then_some(memory.used),
        }
    }
}

/// The driver's version, as `nvidia-smi` has it.
pub fn driver_version() -> Option<String> {
    // SAFETY: the buffer has the length that is passed.
    text(|place, length| Some(unsafe { (api().ok()?.nvmlSystemGetDriverVersion)(place, length) }))
}

/// A text that a call writes into a place of this length; `None` where it fails.
fn text(call: impl FnOnce(*mut c_char, c_uint) -> Option<c_uint>) -> Option<String> {
    let mut place = [0u8; 96];
    // the last byte stays a zero
    if call(place.as_mut_ptr().cast(), place.len() as c_uint - 1)? != SUCCESS {
        return None;
    }
    CStr::from_bytes_until_nul(&place).ok().map(|text| text.to_string_lossy().into_owned())
}

/// A UUID as the driver's tools write it: `GPU-` and the usual groups of hexadecimal digits.
fn uuid_text(uuid: [u8; 16]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("GPU-{}", groups.join("-"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The example of `nvidia-smi -L` in NVIDIA's documentation of CUDA_VISIBLE_DEVICES has this form.
    #[test]
    fn a_uuid_is_written_as_the_drivers_tools_write_it() {
        let uuid = [0x89, 0x32, 0xf9, 0x37, 0xd7, 0x2c, 0x41, 0x06, 0xc1, 0x2f, 0x20, 0xbd, 0x9f, 0xae, 0xd9, 0xf6];
        assert_eq!(uuid_text(uuid), "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6");
    }

    /// Passes on a machine with a GPU by looking, and on one without by the reason.
    #[test]
    fn a_device_is_looked_at_or_the_reason_is_given() {
        match Monitor::open(0) {
            Ok(monitor) => {
                let used = monitor.look();
                assert!(used.memory_bytes.is_some_and(|bytes| bytes > 0), "{used:?}");
                assert!(used.gpu_percent.is_some_and(|percent| percent <= 100), "{used:?}");
            }
            Err(e) => assert!(e.to_string().contains("libnvidia-ml.so.1 cannot be opened"), "{e}"),
        }
    }
}
