//! The one device and its primary context.

use crate::code::{INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, StatusCode, status};
use crate::put;
use crate::state::{PRIMARY, config, in_context, initialize, locked, misuse, set_current, started};
use std::ffi::{c_char, c_int, c_uint, c_void};

const NAME: &[u8] = b"stand-in (no GPU)";
const BUS_ID: &[u8] = b"FFFF:FF:1F.0";
const UUID: [u8; 16] = *b"millrace-standin";
/// The CUDA version whose calls are offered.
const VERSION: c_int = 12_000;

/// `CUdevice_attribute` -> value.
const ATTRIBUTES: &[(c_uint, c_int)] = &[
    (1, 1024),     // threads of a block
    (2, 1024),     // along x
    (3, 1024),     // along y
    (4, 64),       // along z
    (5, i32::MAX), // blocks along x
    (6, 65535),    // along y
    (7, 65535),    // along z
    (8, 48 << 10), // shared memory of a block, bytes
    (10, 32),      // threads of a warp
    (16, 8),       // multiprocessors
    (38, 4 << 20), // level 2 cache, bytes
    (40, 2),       // copy engines
    (41, 1),       // one address space with the host
    (75, 9),       // compute capability, major
    (76, 0),       // and minor
    (102, 1),      // virtual memory management
    (103, 1),      // its handles as file descriptors
    (125, 1),      // interprocess events
];

fn known(device: c_int) -> Result<(), StatusCode> {
    if device == 0 { Ok(()) } else { Err(INVALID_DEVICE) }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuInit(flags: c_uint) -> StatusCode {
    if flags != 0 {
        return INVALID_VALUE;
    }
    initialize();
    status(started("cuInit"))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> StatusCode {
    // SAFETY: the C caller's place.
    status(unsafe { put(version, VERSION) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> StatusCode {
    // SAFETY: the C caller's place.
    status(started("cuDeviceGetCount").and_then(|()| unsafe { put(count, 1) }))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> StatusCode {
    // SAFETY: the C caller's place.
    status(started("cuDeviceGet").and_then(|()| known(ordinal)).and_then(|()| unsafe { put(device, 0) }))
}

/// # Safety
/// `to` has `capacity` bytes.
unsafe fn put_text(to: *mut c_char, capacity: c_int, text: &[u8]) -> Result<(), StatusCode> {
    let capacity = usize::try_from(capacity).map_err(|_| INVALID_VALUE)?;
    if to.is_null() || capacity == 0 {
        return Err(INVALID_VALUE);
    }
    let length = text.len().min(capacity - 1);
    // SAFETY: at most `capacity` bytes with the zero: the caller's contract.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), length);
        to.add(length).write(0);
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, capacity: c_int, device: c_int) -> StatusCode {
    status(
        started("cuDeviceGetName")
            .and_then(|()| known(device))
            // SAFETY: the C caller's place and its length.
            .and_then(|()| unsafe { put_text(name, capacity, NAME) }),
    )
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDeviceGetPCIBusId(id: *mut c_char, capacity: c_int, device: c_int) -> StatusCode {
    status(
        started("cuDeviceGetPCIBusId")
            .and_then(|()| known(device))
            // SAFETY: the C caller's place and its length.
            .and_then(|()| unsafe { put_text(id, capacity, BUS_ID) }),
    )
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> StatusCode {
    // SAFETY: the C caller's place.
    status(started("cuDeviceGetUuid").and_then(|()| known(device)).and_then(|()| unsafe { put(uuid, UUID) }))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_uint,
    device: c_int,
) -> StatusCode {
    let known = started("cuDeviceGetAttribute").and_then(|()| known(device));
    let found = known.and_then(|()| ATTRIBUTES.iter().find(|(known, _)| *known == attribute).ok_or(INVALID_VALUE));
    // SAFETY: the C caller's place.
    status(found.and_then(|(_, is)| unsafe { put(value, *is) }))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> StatusCode {
    let in_context = in_context("cuMemGetInfo").map(drop);
    let all = config().memory_bytes;
    // SAFETY: the C caller's places.
    status(in_context.and_then(|()| unsafe {
        put(free, all.saturating_sub(crate::backing::used_bytes()) as usize)?;
        put(total, all as usize)
    }))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) -> StatusCode {
    let known = started("cuDevicePrimaryCtxSetFlags").and_then(|()| known(device));
    let valid = if flags <= 0x1f { Ok(()) } else { Err(INVALID_VALUE) };
    status(known.and(valid))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> StatusCode {
    status((|| {
        let mut state = locked("cuDevicePrimaryCtxRetain")?;
        known(device)?;
        // SAFETY: the C caller's place.
        unsafe { put(context, PRIMARY as *mut c_void) }?;
        state.retained += 1;
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> StatusCode {
    status((|| {
        let mut state = locked("cuDevicePrimaryCtxRelease")?;
        known(device)?;
        if state.retained == 0 {
            return Err(misuse(INVALID_CONTEXT, "cuDevicePrimaryCtxRelease: it was released as often as retained"));
        }
        state.retained -= 1;
        let live = state.regions.len() + state.pinned.len() + state.streams.len() + state.events.len();
        if state.retained == 0 && live > 0 {
            let what = "cuDevicePrimaryCtxRelease: the last one, with memory, streams or events that live";
            return Err(misuse(INVALID_CONTEXT, format_args!("{what}: {live}")));
        }
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> StatusCode {
    status((|| {
        let state = locked("cuCtxSetCurrent")?;
        let context = context as u64;
        if context != 0 && (context != PRIMARY || state.retained == 0) {
            return Err(misuse(INVALID_CONTEXT, "cuCtxSetCurrent: a context that is not retained"));
        }
        set_current(context);
        Ok(())
    })())
}
