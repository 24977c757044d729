//! The driver's calls by their names, without the care that `millrace-cuda` takes: misuse has to be possible.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::Write;

pub(crate) type Handle = *mut c_void;

/// A module with the one kernel that the stand-in has a body for.
pub(crate) const PTX: &str = "
.version 7.0
.target sm_75
.visible .entry conformance_count(.param .u64 p_to, .param .u32 p_value, .param .u32 p_count) { ret; }
";

/// The library, and its primary context.
pub(crate) struct Driver(libloading::Library, Handle);

#[repr(C)]
struct Side {
    x_bytes: usize,
    y: usize,
    kind: c_uint,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

#[repr(C)]
struct Rows {
    from: Side,
    to: Side,
    width_bytes: usize,
    height: usize,
}

#[repr(C)]
struct Location {
    kind: c_uint,
    id: c_int,
}

#[repr(C)]
struct Prop {
    kind: c_uint,
    handle_types: c_uint,
    location: Location,
    rest: [u64; 3],
}

#[repr(C)]
struct Access {
    location: Location,
    flags: c_uint,
}

/// Calls a function of the library by its name, with the types of its arguments.
macro_rules! call {
    ($driver:expr, $name:literal, $($arg:expr => $type:ty),*) => {{
        // SAFETY: the function of this name takes these types; that some arguments are wrong is what is on trial.
        let code: u32 = unsafe {
            $driver.0.get::<unsafe extern "C" fn($($type),*) -> u32>($name.as_bytes()).unwrap()($($arg),*)
        };
        if code == 0 { Ok(()) } else { Err(code) }
    }};
}

pub(crate) type Answer<T = ()> = Result<T, u32>;

fn prop() -> Prop {
    Prop { kind: 1, handle_types: 1, location: Location { kind: 1, id: 0 }, rest: [0; 3] }
}

impl Driver {
    /// Loads it, with the primary context current.
    pub(crate) fn start() -> Self {
        // SAFETY: the stand-in, whose folder is the only one that is looked in first.
        let mut driver = Self(unsafe { libloading::Library::new("libcuda.so.1") }.unwrap(), std::ptr::null_mut());
        call!(driver, "cuInit", 0 => c_uint).unwrap();
        let mut name: [c_char; 64] = [0; 64];
        call!(driver, "cuDeviceGetName", name.as_mut_ptr() => *mut c_char, 64 => c_int, 0 => c_int).unwrap();
        let name: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        assert_eq!(name, b"stand-in (no GPU)", "a real driver is no place for misuse");
        let mut at = 0;
        assert_eq!(call!(driver, "cuMemAlloc_v2", &raw mut at => *mut u64, 1 => usize), Err(201), "no context yet");
        let mut context = std::ptr::null_mut();
        call!(driver, "cuDevicePrimaryCtxRetain", &raw mut context => *mut Handle, 0 => c_int).unwrap();
        assert_eq!(call!(driver, "cuMemAlloc_v2", &raw mut at => *mut u64, 1 => usize), Err(201), "not current");
        call!(driver, "cuCtxSetCurrent", context => Handle).unwrap();
        driver.1 = context;
        driver
    }

    pub(crate) fn release_context(&self) -> Answer {
        call!(self, "cuDevicePrimaryCtxRelease_v2", 0 => c_int)
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Answer<u64> {
        let mut at = 0;
        call!(self, "cuMemAlloc_v2", &raw mut at => *mut u64, bytes => usize).map(|()| at)
    }

    pub(crate) fn free(&self, at: u64) -> Answer {
        call!(self, "cuMemFree_v2", at => u64)
    }

    pub(crate) fn pinned(&self, bytes: usize) -> Answer<Handle> {
        let mut at = std::ptr::null_mut();
        call!(self, "cuMemHostAlloc", &raw mut at => *mut Handle, bytes => usize, 0 => c_uint).map(|()| at)
    }

    pub(crate) fn free_pinned(&self, at: Handle) -> Answer {
        call!(self, "cuMemFreeHost", at => Handle)
    }

    pub(crate) fn stream(&self) -> Handle {
        let mut stream = std::ptr::null_mut();
        call!(self, "cuStreamCreate", &raw mut stream => *mut Handle, 1 => c_uint).unwrap();
        stream
    }

    pub(crate) fn destroy_stream(&self, stream: Handle) -> Answer {
        call!(self, "cuStreamDestroy_v2", stream => Handle)
    }

    pub(crate) fn synchronize(&self, stream: Handle) -> Answer {
        call!(self, "cuStreamSynchronize", stream => Handle)
    }

    pub(crate) fn event(&self, flags: c_uint) -> Handle {
        let mut event = std::ptr::null_mut();
        call!(self, "cuEventCreate", &raw mut event => *mut Handle, flags => c_uint).unwrap();
        event
    }

    pub(crate) fn destroy_event(&self, event: Handle) -> Answer {
        call!(self, "cuEventDestroy_v2", event => Handle)
    }

    pub(crate) fn record(&self, event: Handle, stream: Handle) -> Answer {
        call!(self, "cuEventRecord", event => Handle, stream => Handle)
    }

    pub(crate) fn query(&self, event: Handle) -> Answer {
        call!(self, "cuEventQuery", event => Handle)
    }

    /// A host function that calls the driver.
    pub(crate) fn query_from_host_function(&self, event: Handle, stream: Handle) -> Answer {
        type Query = unsafe extern "C" fn(Handle) -> u32;
        unsafe extern "C" fn calls(data: Handle) {
            // SAFETY: the pair below, which lives until the stream was waited for.
            let (query, event) = unsafe { data.cast::<(Query, Handle)>().read() };
            // SAFETY: the driver's function, with an event.
            unsafe { query(event) };
        }
        // SAFETY: the function of this name is of this type.
        let mut data = (*unsafe { self.0.get::<Query>("cuEventQuery") }.unwrap(), event);
        let data = (&raw mut data).cast();
        call!(self, "cuLaunchHostFunc", stream => Handle, calls => unsafe extern "C" fn(Handle), data => Handle)?;
        self.synchronize(stream)
    }

    pub(crate) fn fill(&self, at: u64, bytes: usize, stream: Handle) -> Answer {
        call!(self, "cuMemsetD8Async", at => u64, 7 => u8, bytes => usize, stream => Handle)
    }

    pub(crate) fn copy(&self, to: u64, from: u64, bytes: usize, stream: Handle) -> Answer {
        call!(self, "cuMemcpyDtoDAsync_v2", to => u64, from => u64, bytes => usize, stream => Handle)
    }

    pub(crate) fn download(&self, to: Handle, from: u64, bytes: usize, stream: Handle) -> Answer {
        call!(self, "cuMemcpyDtoHAsync_v2", to => Handle, from => u64, bytes => usize, stream => Handle)
    }

    /// Rows of 64 bytes.
    pub(crate) fn copy_rows(&self, to: u64, from: u64, pitch: [usize; 2], height: usize, stream: Handle) -> Answer {
        let side = |device, pitch| Side { x_bytes: 0, y: 0, kind: 2, host: 0, device, array: 0, pitch };
        let rows = Rows { from: side(from, pitch[0]), to: side(to, pitch[1]), width_bytes: 64, height };
        call!(self, "cuMemcpy2DAsync_v2", &raw const rows => *const Rows, stream => Handle)
    }

    pub(crate) fn export_memory(&self, at: u64) -> Answer<[u8; 64]> {
        let mut handle = [0; 64];
        call!(self, "cuIpcGetMemHandle", &raw mut handle => *mut [u8; 64], at => u64).map(|()| handle)
    }

    pub(crate) fn open_memory(&self, handle: [u8; 64]) -> Answer<u64> {
        let mut at = 0;
        let handle = Bytes(handle);
        call!(self, "cuIpcOpenMemHandle_v2", &raw mut at => *mut u64, handle => Bytes, 1 => c_uint).map(|()| at)
    }

    pub(crate) fn close_memory(&self, at: u64) -> Answer {
        call!(self, "cuIpcCloseMemHandle", at => u64)
    }

    pub(crate) fn export_event(&self, event: Handle) -> Answer<[u8; 64]> {
        let mut handle = [0; 64];
        call!(self, "cuIpcGetEventHandle", &raw mut handle => *mut [u8; 64], event => Handle).map(|()| handle)
    }

    pub(crate) fn open_event(&self, handle: [u8; 64]) -> Answer<Handle> {
        let mut event = std::ptr::null_mut();
        let handle = Bytes(handle);
        call!(self, "cuIpcOpenEventHandle", &raw mut event => *mut Handle, handle => Bytes).map(|()| event)
    }

    pub(crate) fn physical(&self, bytes: usize) -> Answer<u64> {
        let (mut handle, prop) = (0, prop());
        let made = call!(self, "cuMemCreate",
            &raw mut handle => *mut u64, bytes => usize, &raw const prop => *const Prop, 0 => u64);
        made.map(|()| handle)
    }

    pub(crate) fn release(&self, handle: u64) -> Answer {
        call!(self, "cuMemRelease", handle => u64)
    }

    pub(crate) fn reserve(&self, bytes: usize) -> Answer<u64> {
        let mut at = 0;
        let made = call!(self, "cuMemAddressReserve",
            &raw mut at => *mut u64, bytes => usize, 0 => usize, 0 => u64, 0 => u64);
        made.map(|()| at)
    }

    pub(crate) fn give_back(&self, at: u64, bytes: usize) -> Answer {
        call!(self, "cuMemAddressFree", at => u64, bytes => usize)
    }

    pub(crate) fn map(&self, at: u64, bytes: usize, handle: u64) -> Answer {
        call!(self, "cuMemMap", at => u64, bytes => usize, 0 => usize, handle => u64, 0 => u64)
    }

    pub(crate) fn unmap(&self, at: u64, bytes: usize) -> Answer {
        call!(self, "cuMemUnmap", at => u64, bytes => usize)
    }

    /// Physical memory at reserved addresses, with or without an access, and its handle.
    pub(crate) fn mapping(&self, bytes: usize, access: Option<c_uint>) -> Answer<(u64, u64)> {
        let (at, handle) = (self.reserve(bytes)?, self.physical(bytes)?);
        self.map(at, bytes, handle)?;
        if let Some(flags) = access {
            let access = Access { location: Location { kind: 1, id: 0 }, flags };
            call!(self, "cuMemSetAccess",
                at => u64, bytes => usize, &raw const access => *const Access, 1 => usize)?;
        }
        Ok((at, handle))
    }

    pub(crate) fn module(&self, text: &str) -> Answer<Handle> {
        let (mut module, text) = (std::ptr::null_mut(), CString::new(text).unwrap());
        let none = std::ptr::null_mut();
        let loaded = call!(self, "cuModuleLoadDataEx",
            &raw mut module => *mut Handle, text.as_ptr() => *const c_char, 0 => c_uint, none => Handle, none => Handle);
        loaded.map(|()| module)
    }

    pub(crate) fn unload(&self, module: Handle) -> Answer {
        call!(self, "cuModuleUnload", module => Handle)
    }

    pub(crate) fn function(&self, text: &str, name: &str) -> (Handle, Handle) {
        let (module, name) = (self.module(text).unwrap(), CString::new(name).unwrap());
        let mut function = std::ptr::null_mut();
        call!(self, "cuModuleGetFunction",
            &raw mut function => *mut Handle, module => Handle, name.as_ptr() => *const c_char)
        .unwrap();
        (module, function)
    }

    pub(crate) fn launch(&self, text: &str, name: &str, at: u64, stream: Handle) -> Answer {
        let (_, function) = self.function(text, name);
        self.launch_function(function, at, stream)
    }

    pub(crate) fn launch_function(&self, function: Handle, at: u64, stream: Handle) -> Answer {
        let (mut to, mut value, mut count) = (at, 0u32, 10u32);
        let mut arguments: [Handle; 3] = [(&raw mut to).cast(), (&raw mut value).cast(), (&raw mut count).cast()];
        let none = std::ptr::null_mut();
        call!(self, "cuLaunchKernel",
            function => Handle, 1 => c_uint, 1 => c_uint, 1 => c_uint, 32 => c_uint, 1 => c_uint, 1 => c_uint,
            0 => c_uint, stream => Handle, arguments.as_mut_ptr() => *mut Handle, none => Handle)
    }

    /// Gives everything back that the child began with.
    pub(crate) fn clear(&self, memory: &[u64], stream: Handle, event: Handle) -> Answer {
        memory.iter().try_for_each(|&at| self.free(at))?;
        self.destroy_event(event)?;
        self.destroy_stream(stream)
    }
}

/// A handle, passed by value.
#[repr(C)]
struct Bytes([u8; 64]);

/// Calls that the manual answers with an error: no misuse, and the process goes on.
pub(crate) fn only_wrong(driver: &Driver, at: u64, stream: Handle) {
    assert_eq!(driver.allocate(0), Err(1));
    assert_eq!(driver.allocate(1 << 45), Err(2));
    assert_eq!(driver.physical(4096), Err(1), "less than the granularity");
    assert_eq!(driver.copy_rows(at, at + 8000, [63, 64], 2, stream), Err(1), "a pitch under the width");
    let event = driver.event(2);
    assert_eq!(driver.export_event(event), Err(1), "not made to be shared");
    driver.destroy_event(event).unwrap();
    assert_eq!(driver.module("nothing").unwrap_err(), 218);
    let handle = driver.export_memory(at).unwrap();
    assert_eq!(driver.open_memory(handle), Err(201), "its own");
    assert_eq!(driver.open_memory([0x5a; 64]), Err(1), "nobody's");
    assert_eq!(driver.open_event([0x5a; 64]).unwrap_err(), 1, "nobody's");
    let mut value = 0;
    for (attribute, expected) in [(75, Ok(())), (9999, Err(1))] {
        let answer = call!(driver, "cuDeviceGetAttribute",
            &raw mut value => *mut c_int, attribute => c_uint, 0 => c_int);
        assert_eq!(answer, expected, "attribute {attribute}");
    }
    assert_eq!(call!(driver, "cuCtxSetCurrent", std::ptr::null_mut() => Handle), Ok(()));
    assert_eq!(driver.allocate(1), Err(201), "no context");
    assert_eq!(call!(driver, "cuCtxSetCurrent", driver.1 => Handle), Ok(()));
}

pub(crate) fn hex(handle: [u8; 64]) -> String {
    handle.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> [u8; 64] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

pub(crate) fn say(what: impl std::fmt::Display) {
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}
