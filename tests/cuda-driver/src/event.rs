//! Events: points of streams that others wait for, in other processes too.

use crate::backing::{self, Backing, Handle};
use crate::code::{INVALID_HANDLE, INVALID_VALUE, NOT_READY, StatusCode, status};
use crate::process;
use crate::put;
use crate::state::{State, fresh, in_context, misuse};
use std::ffi::{c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What every process that has the event sees. Zero is an event that was never recorded.
#[repr(C)]
pub(crate) struct EventCounts {
    /// How often it was recorded.
    recorded: AtomicU64,
    /// Which of these points was reached last.
    reached: AtomicU64,
    destroyed: AtomicU64,
    /// The clock when that point was reached, for timed events.
    reached_ns: AtomicU64,
}

pub(crate) struct Event {
    backing: Backing,
    flags: c_uint,
}

const DISABLE_TIMING: c_uint = 2;
const INTERPROCESS: c_uint = 4;
/// Between two looks at an event.
const LOOK: Duration = Duration::from_micros(50);

impl Event {
    fn new(flags: c_uint) -> Result<Self, StatusCode> {
        Ok(Self { backing: Backing::new(backing::Kind::Event, 0)?, flags })
    }

    pub(crate) fn opened(backing: Backing) -> Self {
        Self { backing, flags: INTERPROCESS | DISABLE_TIMING }
    }

    /// What another process opens it by, where it was made for that; not that of one which was opened.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let shareable = INTERPROCESS | DISABLE_TIMING;
        (self.flags & shareable == shareable && self.backing.is_own()).then(|| self.backing.handle())
    }

    fn shared(&self) -> &EventCounts {
        &self.backing.control().event
    }

    /// Marks a point; `reach` is to be called with its number when a stream has come there.
    fn record(&self) -> u64 {
        self.shared().recorded.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn reach(&self, point: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        self.shared().reached_ns.store(now, Ordering::Release);
        self.shared().reached.fetch_max(point, Ordering::AcqRel);
    }

    fn recorded(&self) -> u64 {
        self.shared().recorded.load(Ordering::Acquire)
    }

    /// Whether a point was reached. A process that is killed before never comes there, and whoever waits for it waits for
    /// ever: so it is on an H200 with driver 580.159.04.
    fn is_reached(&self, point: u64) -> bool {
        self.shared().reached.load(Ordering::Acquire) >= point
    }

    fn wait_until(&self, point: u64) {
        while !self.is_reached(point) {
            std::thread::sleep(LOOK);
        }
    }

    /// An event that its owner has destroyed is nobody's any more.
    fn usable(&self, call: &str) -> Result<(), StatusCode> {
        if self.shared().destroyed.load(Ordering::Acquire) != 0 {
            return Err(misuse(INVALID_HANDLE, format_args!("{call}: its owner has destroyed this event")));
        }
        Ok(())
    }
}

impl State {
    pub(crate) fn event(&self, call: &str, event: *mut c_void) -> Result<Arc<Event>, StatusCode> {
        let found = self.events.get(&(event as u64)).cloned();
        let what = || format!("{call}: {:#x} is no event (or no longer)", event as u64);
        let event = found.ok_or_else(|| misuse(INVALID_HANDLE, what()))?;
        event.usable(call)?;
        Ok(event)
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuEventCreate(to: *mut *mut c_void, flags: c_uint) -> StatusCode {
    status((|| {
        let mut state = in_context("cuEventCreate")?;
        if flags > 7 || (flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0) {
            return Err(INVALID_VALUE);
        }
        let event = Event::new(flags)?;
        let number = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, number as *mut c_void) }?;
        state.events.insert(number, Arc::new(event));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> StatusCode {
    status((|| {
        let mut state = in_context("cuEventDestroy")?;
        let Some(event) = state.events.remove(&(event as u64)) else {
            let what = format!("cuEventDestroy: {:#x} is no event (or no longer)", event as u64);
            return Err(misuse(INVALID_HANDLE, what));
        };
        if event.backing.is_own() {
            event.shared().destroyed.store(1, Ordering::Release);
        }
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuEventRecord(event: *mut c_void, stream: *mut c_void) -> StatusCode {
    status((|| {
        let state = in_context("cuEventRecord")?;
        let event = state.event("cuEventRecord", event)?;
        if !process::lives(event.backing.owner()) {
            return Err(misuse(INVALID_HANDLE, "cuEventRecord: an event of a process that has died"));
        }
        let stream = state.stream("cuEventRecord", stream)?;
        let point = event.record();
        stream.submit(move || event.reach(point));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuStreamWaitEvent(
    stream: *mut c_void,
    event: *mut c_void,
    flags: c_uint,
) -> StatusCode {
    status((|| {
        let state = in_context("cuStreamWaitEvent")?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let stream = state.stream("cuStreamWaitEvent", stream)?;
        let event = state.event("cuStreamWaitEvent", event)?;
        // what is recorded after this call does not count
        let point = event.recorded();
        stream.submit(move || event.wait_until(point));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuEventQuery(event: *mut c_void) -> StatusCode {
    status((|| {
        let event = in_context("cuEventQuery")?.event("cuEventQuery", event)?;
        if event.is_reached(event.recorded()) { Ok(()) } else { Err(NOT_READY) }
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuEventSynchronize(event: *mut c_void) -> StatusCode {
    status((|| {
        let event = in_context("cuEventSynchronize")?.event("cuEventSynchronize", event)?;
        event.wait_until(event.recorded());
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuEventElapsedTime(to: *mut f32, from: *mut c_void, until: *mut c_void) -> StatusCode {
    status((|| {
        let state = in_context("cuEventElapsedTime")?;
        let at_ns = |event: *mut c_void| {
            let event = state.event("cuEventElapsedTime", event)?;
            if event.flags & DISABLE_TIMING != 0 || event.recorded() == 0 {
                return Err(INVALID_HANDLE);
            }
            if !event.is_reached(event.recorded()) {
                return Err(NOT_READY);
            }
            Ok(event.shared().reached_ns.load(Ordering::Acquire))
        };
        let (from, until) = (at_ns(from)?, at_ns(until)?);
        // SAFETY: the C caller's place.
        unsafe { put(to, (until as f64 - from as f64) as f32 / 1e6) }
    })())
}
