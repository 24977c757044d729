//! The driver's entry points that Millrace calls, looked up in `libcuda.so.1` when they are first needed.
//!
//! Status codes are plain numbers here: a newer driver may return one that this build has no name for. Symbols are
//! those of CUDA 12.0, which every driver since 525 has; `cuda.h` states each signature.
#![allow(non_snake_case, reason = "the driver's own names")]
#![allow(unsafe_code, reason = "functions of a C library, looked up by name")]

use std::ffi::{c_char, c_int, c_uint, c_void};

/// A status code; 0 is success.
pub(crate) type StatusCode = u32;
/// `CUdevice`.
pub(crate) type Device = c_int;
/// `CUdeviceptr`.
pub(crate) type DevicePtr = u64;
/// `CUcontext`, `CUstream`, `CUevent`, `CUmodule`, `CUfunction`, `CUgraph`, `CUgraphExec`: opaque pointers.
pub(crate) type Handle = *mut c_void;

/// `CUipcMemHandle` and `CUipcEventHandle`: 64 bytes that only the driver reads. Passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct IpcHandle(pub(crate) [u8; 64]);

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MemLocation {
    pub(crate) kind: c_uint,
    pub(crate) id: c_int,
}

/// `CUmemAllocationProp`.
#[repr(C)]
pub(crate) struct MemAllocationProp {
    pub(crate) kind: c_uint,
    pub(crate) requested_handle_types: c_uint,
    pub(crate) location: MemLocation,
    pub(crate) win32_meta_data: *mut c_void,
    pub(crate) compression_type: u8,
    pub(crate) gpu_direct_rdma_capable: u8,
    pub(crate) usage: u16,
    pub(crate) reserved: [u8; 4],
}

/// `CUmemAccessDesc`.
#[repr(C)]
pub(crate) struct MemAccessDesc {
    pub(crate) location: MemLocation,
    pub(crate) flags: c_uint,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
pub(crate) struct Memcpy2D {
    pub(crate) src_x_bytes: usize,
    pub(crate) src_y: usize,
    pub(crate) src_kind: c_uint,
    pub(crate) src_host: *const c_void,
    pub(crate) src_device: DevicePtr,
    pub(crate) src_array: Handle,
    pub(crate) src_pitch: usize,
    pub(crate) dst_x_bytes: usize,
    pub(crate) dst_y: usize,
    pub(crate) dst_kind: c_uint,
    pub(crate) dst_host: *mut c_void,
    pub(crate) dst_device: DevicePtr,
    pub(crate) dst_array: Handle,
    pub(crate) dst_pitch: usize,
    pub(crate) width_bytes: usize,
    pub(crate) height: usize,
}

pub(crate) const MEMORY_DEVICE: c_uint = 2;
pub(crate) const CTX_SCHED_BLOCKING_SYNC: c_uint = 4;
pub(crate) const STREAM_NON_BLOCKING: c_uint = 1;
pub(crate) const CAPTURE_THREAD_LOCAL: c_uint = 1;
pub(crate) const EVENT_BLOCKING_SYNC: c_uint = 1;
pub(crate) const EVENT_DISABLE_TIMING: c_uint = 2;
pub(crate) const EVENT_INTERPROCESS: c_uint = 4;
pub(crate) const IPC_MEM_LAZY_ENABLE_PEER_ACCESS: c_uint = 1;
pub(crate) const MEM_ALLOCATION_PINNED: c_uint = 1;
pub(crate) const MEM_LOCATION_DEVICE: c_uint = 1;
pub(crate) const MEM_HANDLE_POSIX_FD: c_uint = 1;
pub(crate) const MEM_ACCESS_READ: c_uint = 1;
pub(crate) const MEM_ACCESS_READ_WRITE: c_uint = 3;
pub(crate) const JIT_ERROR_LOG_BUFFER: c_uint = 5;
pub(crate) const JIT_ERROR_LOG_BUFFER_BYTES: c_uint = 6;

pub(crate) const SUCCESS: StatusCode = 0;
pub(crate) const OUT_OF_MEMORY: StatusCode = 2;
pub(crate) const NO_DEVICE: StatusCode = 100;
pub(crate) const NOT_READY: StatusCode = 600;

/// A table of functions: a field each, filled from the library's symbol of that name.
macro_rules! table {
    ($(#[$meta:meta])* $table:ident { $(fn $name:ident($($arg:ty),* $(,)?);)* }) => {
        $(#[$meta])*
        pub(crate) struct $table {
            $(pub(crate) $name: unsafe extern "C" fn($($arg),*) -> $crate::sys::StatusCode,)*
        }

        impl $table {
            /// Looks every function up; the error is the first name that the library lacks.
            pub(crate) fn of(library: &libloading::Library) -> Result<Self, &'static str> {
                $(
                    // SAFETY: the symbol is the C function of this name, whose signature its header states as above.
                    let $name = unsafe {
                        library.get::<unsafe extern "C" fn($($arg),*) -> $crate::sys::StatusCode>(
                            concat!(stringify!($name), "\0").as_bytes())
                    }.map_err(|_| stringify!($name))?;
                    let $name = *$name;
                )*
                Ok(Self { $($name,)* })
            }
        }
    };
}
pub(crate) use table;

table! {
    /// The driver.
    Api {
        fn cuInit(c_uint);
        fn cuDriverGetVersion(*mut c_int);
        fn cuGetErrorName(StatusCode, *mut *const c_char);
        fn cuGetErrorString(StatusCode, *mut *const c_char);
        fn cuDeviceGetCount(*mut c_int);
        fn cuDeviceGet(*mut Device, c_int);
        fn cuDeviceGetName(*mut c_char, c_int, Device);
        fn cuDeviceGetUuid_v2(*mut [u8; 16], Device);
        fn cuDeviceGetPCIBusId(*mut c_char, c_int, Device);
        fn cuDeviceGetAttribute(*mut c_int, c_uint, Device);
        fn cuDevicePrimaryCtxSetFlags_v2(Device, c_uint);
        fn cuDevicePrimaryCtxRetain(*mut Handle, Device);
        fn cuDevicePrimaryCtxRelease_v2(Device);
        fn cuCtxSetCurrent(Handle);

        fn cuStreamCreate(*mut Handle, c_uint);
        fn cuStreamDestroy_v2(Handle);
        fn cuStreamSynchronize(Handle);
        fn cuStreamWaitEvent(Handle, Handle, c_uint);
        fn cuLaunchHostFunc(Handle, unsafe extern "C" fn(*mut c_void), *mut c_void);
        fn cuStreamBeginCapture_v2(Handle, c_uint);
        fn cuStreamEndCapture(Handle, *mut Handle);
        fn cuGraphInstantiateWithFlags(*mut Handle, Handle, u64);
        fn cuGraphLaunch(Handle, Handle);
        fn cuGraphDestroy(Handle);
        fn cuGraphExecDestroy(Handle);
        fn cuEventCreate(*mut Handle, c_uint);
        fn cuEventDestroy_v2(Handle);
        fn cuEventRecord(Handle, Handle);
        fn cuEventQuery(Handle);
        fn cuEventSynchronize(Handle);
        fn cuEventElapsedTime(*mut f32, Handle, Handle);

        fn cuMemAlloc_v2(*mut DevicePtr, usize);
        fn cuMemFree_v2(DevicePtr);
        fn cuMemGetInfo_v2(*mut usize, *mut usize);
        fn cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
        fn cuMemFreeHost(*mut c_void);
        fn cuMemcpyHtoDAsync_v2(DevicePtr, *const c_void, usize, Handle);
        fn cuMemcpyDtoHAsync_v2(*mut c_void, DevicePtr, usize, Handle);
        fn cuMemcpyDtoDAsync_v2(DevicePtr, DevicePtr, usize, Handle);
        fn cuMemcpy2DAsync_v2(*const Memcpy2D, Handle);
        fn cuMemsetD8Async(DevicePtr, u8, usize, Handle);

        fn cuIpcGetMemHandle(*mut IpcHandle, DevicePtr);
        fn cuIpcOpenMemHandle_v2(*mut DevicePtr, IpcHandle, c_uint);
        fn cuIpcCloseMemHandle(DevicePtr);
        fn cuIpcGetEventHandle(*mut IpcHandle, Handle);
        fn cuIpcOpenEventHandle(*mut Handle, IpcHandle);

        fn cuMemGetAllocationGranularity(*mut usize, *const MemAllocationProp, c_uint);
        fn cuMemCreate(*mut u64, usize, *const MemAllocationProp, u64);
        fn cuMemRelease(u64);
        fn cuMemExportToShareableHandle(*mut c_void, u64, c_uint, u64);
        fn cuMemImportFromShareableHandle(*mut u64, *mut c_void, c_uint);
        fn cuMemAddressReserve(*mut DevicePtr, usize, usize, DevicePtr, u64);
        fn cuMemAddressFree(DevicePtr, usize);
        fn cuMemMap(DevicePtr, usize, usize, u64, u64);
        fn cuMemUnmap(DevicePtr, usize);
        fn cuMemSetAccess(DevicePtr, usize, *const MemAccessDesc, usize);

        fn cuModuleLoadDataEx(*mut Handle, *const c_void, c_uint, *mut c_uint, *mut *mut c_void);
        fn cuModuleUnload(Handle);
        fn cuModuleGetFunction(*mut Handle, Handle, *const c_char);
        fn cuLaunchKernel(
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void,
        );
    }
}
