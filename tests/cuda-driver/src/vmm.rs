//! Physical memory, addresses, and the mappings between them.

use crate::backing::{self, Backing};
use crate::code::{INVALID_DEVICE, INVALID_VALUE, StatusCode, status};
use crate::memory::{Kind, READ_WRITE, Region, Uses, spoil};
use crate::put;
use crate::state::{fresh, in_context, misuse};
use rustix::mm::ProtFlags;
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::Arc;

#[repr(C)]
pub(crate) struct Location {
    kind: c_uint,
    id: c_int,
}

/// `CUmemAllocationProp`; what stands after these is not looked at.
#[repr(C)]
pub(crate) struct Prop {
    kind: c_uint,
    handle_types: c_uint,
    location: Location,
}

#[repr(C)]
pub(crate) struct Access {
    location: Location,
    flags: c_uint,
}

const PINNED: c_uint = 1;
const DEVICE: c_uint = 1;
const POSIX_FD: c_uint = 1;
const READ: c_uint = 1;
const READ_AND_WRITE: c_uint = 3;
const GRANULARITY_BYTES: u64 = 2 << 20;

fn ours(location: &Location) -> Result<(), StatusCode> {
    match location {
        Location { kind: DEVICE, id: 0 } => Ok(()),
        Location { kind: DEVICE, .. } => Err(INVALID_DEVICE),
        Location { .. } => Err(INVALID_VALUE),
    }
}

/// # Safety
/// `prop` is null or points to one.
unsafe fn checked(prop: *const Prop) -> Result<(), StatusCode> {
    // SAFETY: the caller's contract.
    let prop = unsafe { prop.as_ref() }.ok_or(INVALID_VALUE)?;
    if prop.kind != PINNED || prop.handle_types & !POSIX_FD != 0 {
        return Err(INVALID_VALUE);
    }
    ours(&prop.location)
}

fn granular(bytes: u64) -> Result<(), StatusCode> {
    if bytes > 0 && bytes.is_multiple_of(GRANULARITY_BYTES) { Ok(()) } else { Err(INVALID_VALUE) }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemGetAllocationGranularity(
    to: *mut usize,
    prop: *const Prop,
    option: c_uint,
) -> StatusCode {
    status((|| {
        crate::state::started("cuMemGetAllocationGranularity")?;
        // SAFETY: the C caller's description and place.
        unsafe {
            checked(prop)?;
            if option > 1 { Err(INVALID_VALUE) } else { put(to, GRANULARITY_BYTES as usize) }
        }
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemCreate(to: *mut u64, bytes: usize, prop: *const Prop, flags: u64) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemCreate")?;
        // SAFETY: the C caller's description.
        unsafe { checked(prop) }?;
        granular(bytes as u64)?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let backing = Backing::new(backing::Kind::Physical, bytes as u64)?;
        let at = state.addresses(backing.bytes, GRANULARITY_BYTES)?;
        backing.map(at, backing.bytes, READ_WRITE)?;
        spoil(at, backing.bytes);
        crate::state::forbid(at, backing.bytes);
        let handle = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, handle) }?;
        state.physical.insert(handle, Arc::new(backing));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemRelease(handle: u64) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemRelease")?;
        if state.physical.remove(&handle).is_none() {
            let what = format!("cuMemRelease: {handle:#x} is no handle of memory (or was released before)");
            return Err(misuse(INVALID_VALUE, what));
        }
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemExportToShareableHandle(
    to: *mut c_void,
    handle: u64,
    kind: c_uint,
    flags: u64,
) -> StatusCode {
    status((|| {
        let state = in_context("cuMemExportToShareableHandle")?;
        if kind != POSIX_FD || flags != 0 || to.is_null() {
            return Err(INVALID_VALUE);
        }
        let fd = state.physical.get(&handle).ok_or(INVALID_VALUE)?.duplicate()?;
        // SAFETY: the C caller's place for a descriptor.
        unsafe { put(to.cast::<c_int>(), fd.into_raw_fd()) }
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemImportFromShareableHandle(
    to: *mut u64,
    fd: *mut c_void,
    kind: c_uint,
) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemImportFromShareableHandle")?;
        let fd = c_int::try_from(fd as usize).map_err(|_| INVALID_VALUE)?;
        if kind != POSIX_FD {
            return Err(INVALID_VALUE);
        }
        // the caller keeps its own
        let fd = borrowed(fd)?.try_clone_to_owned().map_err(|_| INVALID_VALUE)?;
        let backing = Backing::from_fd(backing::Kind::Physical, fd)?;
        let handle = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, handle) }?;
        state.physical.insert(handle, Arc::new(backing));
        Ok(())
    })())
}

fn borrowed<'a>(fd: c_int) -> Result<BorrowedFd<'a>, StatusCode> {
    if fd < 0 {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not -1; the C caller keeps it open during the call, and one that is closed only gives an error.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemAddressReserve(
    to: *mut u64,
    bytes: usize,
    align: usize,
    _wished: u64,
    flags: u64,
) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemAddressReserve")?;
        granular(bytes as u64)?;
        if flags != 0 || !(align == 0 || align.is_power_of_two()) {
            return Err(INVALID_VALUE);
        }
        let at = state.addresses(bytes as u64, GRANULARITY_BYTES.max(align as u64))?;
        state.reservations.insert(at, bytes as u64);
        // SAFETY: the C caller's place.
        unsafe { put(to, at) }
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemAddressFree(at: u64, bytes: usize) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemAddressFree")?;
        let bytes = bytes as u64;
        if state.reservations.get(&at) != Some(&bytes) {
            let what = format!("cuMemAddressFree: {bytes} bytes from {at:#x} are no reservation (or were given back)");
            return Err(misuse(INVALID_VALUE, what));
        }
        if state.regions.range(at..at + bytes).next().is_some() {
            return Err(misuse(INVALID_VALUE, format_args!("cuMemAddressFree: memory is mapped at {at:#x}")));
        }
        state.reservations.remove(&at);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemMap(at: u64, bytes: usize, offset: usize, handle: u64, flags: u64) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemMap")?;
        let bytes = bytes as u64;
        granular(bytes)?;
        let reserved = state.reservations.range(..=at).next_back();
        let inside =
            reserved.is_some_and(|(start, length)| at.checked_add(bytes).is_some_and(|end| end <= start + length));
        if !inside {
            return Err(misuse(INVALID_VALUE, format_args!("cuMemMap: {bytes} bytes at {at:#x} are not reserved")));
        }
        let before = state.regions.range(..at + bytes).next_back();
        if before.is_some_and(|(start, region)| start + region.backing.bytes > at) {
            return Err(misuse(INVALID_VALUE, format_args!("cuMemMap: memory is mapped at {at:#x} already")));
        }
        let backing = state.physical.get(&handle).cloned().ok_or(INVALID_VALUE)?;
        // the manual: the offset is zero for now, and the whole of the memory is mapped
        if offset != 0 || flags != 0 || bytes != backing.bytes {
            return Err(INVALID_VALUE);
        }
        let (kind, uses) = (Kind::Mapped, Uses::default());
        state.regions.insert(at, Region { bytes, kind, backing, read: false, write: false, uses });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemUnmap(at: u64, bytes: usize) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemUnmap")?;
        match state.regions.get(&at) {
            Some(region) if region.kind == Kind::Mapped && region.bytes == bytes as u64 => {}
            _ => {
                let what = format!("cuMemUnmap: {bytes} bytes at {at:#x} are not mapped (or not as one)");
                return Err(misuse(INVALID_VALUE, what));
            }
        }
        state.take_region("cuMemUnmap", at).map(drop)
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemSetAccess(
    at: u64,
    bytes: usize,
    access: *const Access,
    count: usize,
) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemSetAccess")?;
        if count != 1 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the C caller's one description.
        let access = unsafe { access.as_ref() }.ok_or(INVALID_VALUE)?;
        ours(&access.location)?;
        let prot = match access.flags {
            0 => ProtFlags::empty(),
            READ => ProtFlags::READ,
            READ_AND_WRITE => READ_WRITE,
            _ => return Err(INVALID_VALUE),
        };
        let region = state.regions.get_mut(&at).filter(|r| r.kind == Kind::Mapped && r.bytes == bytes as u64);
        let Some(region) = region else {
            return Err(misuse(INVALID_VALUE, format_args!("cuMemSetAccess: {bytes} bytes at {at:#x} are not mapped")));
        };
        region.backing.map(at, region.bytes, prot)?;
        (region.read, region.write) = (prot.contains(ProtFlags::READ), prot.contains(ProtFlags::WRITE));
        Ok(())
    })())
}
