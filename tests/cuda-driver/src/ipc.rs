//! Memory and events of other processes, by the 64 bytes of a handle.

use crate::backing::{self, Backing, Handle};
use crate::code::{INVALID_CONTEXT, INVALID_VALUE, NOT_SUPPORTED, StatusCode, status};
use crate::event::Event;
use crate::memory::{Kind, READ_WRITE, Region, Uses};
use crate::process::me;
use crate::put;
use crate::state::{PAGE, config, fresh, in_context, misuse};
use std::ffi::{c_uint, c_void};
use std::sync::Arc;

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuIpcGetMemHandle(to: *mut Handle, at: u64) -> StatusCode {
    status((|| {
        let state = in_context("cuIpcGetMemHandle")?;
        if config().no_ipc {
            return Err(NOT_SUPPORTED);
        }
        let (start, region) = state.region_at(at).ok_or(INVALID_VALUE)?;
        if region.kind != Kind::Allocated {
            // neither what another process owns nor a mapping has one
            return Err(INVALID_VALUE);
        }
        if start != at {
            let what =
                format!("cuIpcGetMemHandle: {at:#x} is inside an allocation, and its handle would open the start");
            return Err(misuse(INVALID_VALUE, what));
        }
        // SAFETY: the C caller's place.
        unsafe { put(to, region.backing.handle()) }
    })())
}

const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuIpcOpenMemHandle_v2(to: *mut u64, handle: Handle, flags: c_uint) -> StatusCode {
    status((|| {
        let mut state = in_context("cuIpcOpenMemHandle")?;
        if to.is_null() || flags != LAZY_ENABLE_PEER_ACCESS {
            return Err(INVALID_VALUE);
        }
        if handle.owner == me() {
            return Err(INVALID_CONTEXT);
        }
        let same = |region: &Region| region.backing.owner() == handle.owner && region.backing.id() == handle.id;
        let known = state.regions.iter_mut().find(|(_, region)| same(region));
        if let Some((&at, region)) = known {
            if let Kind::Opened(times) = &mut region.kind {
                *times += 1;
            }
            // SAFETY: the C caller's place.
            return unsafe { put(to, at) };
        }
        let backing = Backing::open(backing::Kind::Allocation, &handle)?;
        let at = state.addresses(backing.bytes, PAGE)?;
        backing.map(at, backing.bytes, READ_WRITE)?;
        backing.enter()?;
        let (bytes, uses) = (backing.asked_bytes(), Uses::default());
        let (kind, backing) = (Kind::Opened(1), Arc::new(backing));
        state.regions.insert(at, Region { bytes, kind, backing, read: true, write: true, uses });
        // SAFETY: the C caller's place.
        unsafe { put(to, at) }
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuIpcCloseMemHandle(at: u64) -> StatusCode {
    status((|| {
        let mut state = in_context("cuIpcCloseMemHandle")?;
        let times = match state.regions.get_mut(&at).map(|region| &mut region.kind) {
            Some(Kind::Opened(times)) => times,
            _ => {
                let what =
                    format!("cuIpcCloseMemHandle: {at:#x} is not another process's memory (or was closed before)");
                return Err(misuse(INVALID_VALUE, what));
            }
        };
        *times -= 1;
        if *times > 0 {
            return Ok(());
        }
        // put back for the lenient, whose region stays
        *times = 1;
        state.take_region("cuIpcCloseMemHandle", at)?.backing.leave()
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuIpcGetEventHandle(to: *mut Handle, event: *mut c_void) -> StatusCode {
    status((|| {
        let state = in_context("cuIpcGetEventHandle")?;
        let event = state.event("cuIpcGetEventHandle", event)?;
        // SAFETY: the C caller's place.
        unsafe { put(to, event.handle().ok_or(INVALID_VALUE)?) }
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuIpcOpenEventHandle(to: *mut *mut c_void, handle: Handle) -> StatusCode {
    status((|| {
        let mut state = in_context("cuIpcOpenEventHandle")?;
        if handle.owner == me() {
            return Err(INVALID_CONTEXT);
        }
        let event = Event::opened(Backing::open(backing::Kind::Event, &handle)?);
        let number = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, number as *mut c_void) }?;
        state.events.insert(number, Arc::new(event));
        Ok(())
    })())
}
