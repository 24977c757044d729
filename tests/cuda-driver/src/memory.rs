//! Memory of the device and pinned memory of the host: what lives, how long, and who uses it.

use crate::backing::{self, Backing};
use crate::code::{INVALID_VALUE, OUT_OF_MEMORY, StatusCode, status};
use crate::put;
use crate::state::{Guard, PAGE, State, forbid, in_context, misuse, round_up};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::{c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a range of the device's addresses came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Allocated,
    /// By the handle of another process, so many times.
    Opened(u32),
    Mapped,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Allocated => "an allocation",
            Self::Opened(_) => "another process's allocation",
            Self::Mapped => "a mapping",
        }
    }
}

pub(crate) struct Region {
    /// Bytes that may be used.
    pub(crate) bytes: u64,
    pub(crate) kind: Kind,
    pub(crate) backing: Arc<Backing>,
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Queued operations that use it.
    pub(crate) uses: Uses,
}

pub(crate) struct Pinned {
    pub(crate) bytes: u64,
    uses: Uses,
}

#[derive(Clone, Default)]
pub(crate) struct Uses(Arc<AtomicU64>);

impl Uses {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn one(&self) -> Use {
        self.0.fetch_add(1, Ordering::AcqRel);
        Use(self.0.clone())
    }
}

/// A queued operation's use of memory: while it lives, the memory must.
pub(crate) struct Use(Arc<AtomicU64>);

impl Drop for Use {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(crate) const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

impl State {
    /// The region that an address lies in, and where that begins.
    pub(crate) fn region_at(&self, address: u64) -> Option<(u64, &Region)> {
        let (&start, region) = self.regions.range(..=address).next_back()?;
        (address - start < region.bytes).then_some((start, region))
    }

    /// Checks that a call may use a range of the device's memory, and notes that it does.
    pub(crate) fn device_range(&self, call: &str, at: u64, bytes: u64, write: bool) -> Result<Use, StatusCode> {
        let Some((start, region)) = self.region_at(at) else {
            let what = format!("{call}: {bytes} bytes at {at:#x}, where the device has no memory (or no longer)");
            return Err(misuse(INVALID_VALUE, what));
        };
        if bytes > region.bytes - (at - start) {
            let (kind, has) = (region.kind.name(), region.bytes);
            let what = format!("{call}: {bytes} bytes from {} of {kind} of {has} bytes leave it", at - start);
            return Err(misuse(INVALID_VALUE, what));
        }
        if !region.read || (write && !region.write) {
            let verb = if write { "writes" } else { "reads" };
            return Err(misuse(INVALID_VALUE, format_args!("{call} {verb} a mapping whose access does not allow it")));
        }
        if region.backing.is_freed() && region.kind != Kind::Allocated {
            return Err(misuse(INVALID_VALUE, format_args!("{call} uses memory that its owner has freed")));
        }
        Ok(region.uses.one())
    }

    /// The pinned memory that a range of the host's lies in, if it does.
    pub(crate) fn pinned_range(&self, call: &str, at: u64, bytes: u64) -> Result<Option<Use>, StatusCode> {
        if self.region_at(at).is_some() {
            return Err(misuse(
                INVALID_VALUE,
                format_args!("{call}: {at:#x} is given as the host's, and is the device's"),
            ));
        }
        let below = self.pinned.range(..=at).next_back();
        let inside = below.filter(|(start, pinned)| at - *start < pinned.bytes);
        let Some((start, pinned)) = inside else { return Ok(None) };
        if bytes > pinned.bytes - (at - start) {
            return Err(misuse(INVALID_VALUE, format_args!("{call}: {bytes} bytes leave pinned memory")));
        }
        Ok(Some(pinned.uses.one()))
    }

    /// Takes a region out, where nothing that is queued uses it.
    pub(crate) fn take_region(&mut self, call: &str, at: u64) -> Result<Region, StatusCode> {
        let uses = self.regions.get(&at).ok_or(INVALID_VALUE)?.uses.count();
        if uses > 0 {
            let what = format!("{call}: {uses} queued operations use the memory at {at:#x} that goes");
            return Err(misuse(INVALID_VALUE, what));
        }
        let region = self.regions.remove(&at).ok_or(INVALID_VALUE)?;
        forbid(at, region.backing.bytes);
        Ok(region)
    }
}

/// Memory that was never written must not look as if it had been.
const FRESH: u8 = 0xA5;
/// So much of it is made to look so: filling makes the host provide it.
const FRESH_BYTES: u64 = 64 << 20;

pub(crate) fn spoil(at: u64, bytes: u64) {
    // SAFETY: the caller has just mapped these bytes, writable.
    unsafe { (at as *mut u8).write_bytes(FRESH, bytes.min(FRESH_BYTES) as usize) };
}

fn allocate(mut state: Guard, bytes: u64) -> Result<u64, StatusCode> {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    let backing = Backing::new(backing::Kind::Allocation, bytes)?;
    let at = state.addresses(backing.bytes, PAGE)?;
    backing.map(at, backing.bytes, READ_WRITE)?;
    spoil(at, backing.bytes);
    let (backing, uses) = (Arc::new(backing), Uses::default());
    state.regions.insert(at, Region { bytes, kind: Kind::Allocated, backing, read: true, write: true, uses });
    Ok(at)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemAlloc_v2(to: *mut u64, bytes: usize) -> StatusCode {
    let allocated = in_context("cuMemAlloc").and_then(|state| allocate(state, bytes as u64));
    // SAFETY: the C caller's place.
    status(allocated.and_then(|at| unsafe { put(to, at) }))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemFree_v2(at: u64) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemFree")?;
        if at == 0 {
            return Ok(());
        }
        let region = match state.regions.get(&at) {
            Some(region) if region.kind == Kind::Allocated => region,
            Some(region) => {
                let what = format!("cuMemFree: {at:#x} is {}, which goes another way", region.kind.name());
                return Err(misuse(INVALID_VALUE, what));
            }
            None => {
                let what = format!("cuMemFree: {at:#x} is not the start of an allocation (or was freed before)");
                return Err(misuse(INVALID_VALUE, what));
            }
        };
        let openers = region.backing.opened_by()?;
        if !openers.is_empty() {
            let what = format!("cuMemFree: {at:#x} is open in other processes: {openers:?}");
            return Err(misuse(INVALID_VALUE, what));
        }
        state.take_region("cuMemFree", at)?.backing.mark_freed();
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemHostAlloc(to: *mut *mut c_void, bytes: usize, flags: c_uint) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemHostAlloc")?;
        if bytes == 0 || flags > 7 {
            return Err(INVALID_VALUE);
        }
        let pages = round_up(bytes as u64, PAGE).ok_or(OUT_OF_MEMORY)?;
        let at = state.addresses(pages, PAGE)?;
        // SAFETY: a range of the arena that was reserved for this.
        let mapped = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            rustix::mm::mmap_anonymous(at as *mut c_void, pages as usize, READ_WRITE, flags)
        };
        mapped.map_err(|_| OUT_OF_MEMORY)?;
        spoil(at, pages);
        state.pinned.insert(at, Pinned { bytes: bytes as u64, uses: Uses::default() });
        // SAFETY: the C caller's place.
        unsafe { put(to, at as *mut c_void) }
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemFreeHost(at: *mut c_void) -> StatusCode {
    status((|| {
        let mut state = in_context("cuMemFreeHost")?;
        let at = at as u64;
        let Some(pinned) = state.pinned.get(&at) else {
            return Err(misuse(INVALID_VALUE, format_args!("cuMemFreeHost: {at:#x} is not pinned memory's start")));
        };
        let (uses, bytes) = (pinned.uses.count(), pinned.bytes);
        if uses > 0 {
            let what = format!("cuMemFreeHost: {uses} queued operations use the memory at {at:#x} that goes");
            return Err(misuse(INVALID_VALUE, what));
        }
        state.pinned.remove(&at);
        forbid(at, round_up(bytes, PAGE).ok_or(INVALID_VALUE)?);
        Ok(())
    })())
}
