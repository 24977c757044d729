//! What the process has of the driver, and the checks that every call begins with.

use crate::backing::Backing;
use crate::code::{INVALID_CONTEXT, NOT_INITIALIZED, NOT_PERMITTED, OUT_OF_MEMORY, StatusCode};
use crate::event::Event;
use crate::graph::Recorded;
use crate::memory::{Pinned, Region};
use crate::module::{Function, Module};
use crate::stream::Stream;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub(crate) struct Config {
    pub(crate) memory_bytes: u64,
    pub(crate) no_ipc: bool,
    pub(crate) delay: Duration,
    pub(crate) lenient: bool,
    pub(crate) leaks: bool,
}

pub(crate) fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().map_err(|_| text));
        let number = |name: &str, default| match number(name) {
            None => default,
            Some(Ok(number)) => number,
            Some(Err(text)) => {
                say(format_args!("{name} is '{text}', not a number"));
                std::process::abort()
            }
        };
        Config {
            memory_bytes: number("MILLRACE_FAKE_CUDA_MEMORY_BYTES", 8 << 30),
            no_ipc: number("MILLRACE_FAKE_CUDA_NO_IPC", 0) == 1,
            delay: Duration::from_micros(number("MILLRACE_FAKE_CUDA_DELAY_US", 0)),
            lenient: number("MILLRACE_FAKE_CUDA_LENIENT", 0) == 1,
            leaks: number("MILLRACE_FAKE_CUDA_LEAKS", 0) == 1,
        }
    })
}

pub(crate) fn say(what: impl Display) {
    // one write, so that lines of several processes do not mix; a closed stderr is nobody's fault here
    let _ = std::io::stderr().write_all(format!("cuda stand-in: {what}\n").as_bytes());
}

/// Tells of a call that the real driver's manual forbids or leaves undefined, and aborts, where not told to be lenient.
pub(crate) fn misuse(code: StatusCode, what: impl Display) -> StatusCode {
    say(format_args!("MISUSE: {what}"));
    if !config().lenient {
        std::process::abort();
    }
    code
}

#[derive(Default)]
pub(crate) struct State {
    /// How often the primary context is retained.
    pub(crate) retained: u32,
    pub(crate) regions: BTreeMap<u64, Region>,
    pub(crate) pinned: BTreeMap<u64, Pinned>,
    pub(crate) reservations: BTreeMap<u64, u64>,
    pub(crate) physical: HashMap<u64, Arc<Backing>>,
    pub(crate) streams: HashMap<u64, Arc<Stream>>,
    pub(crate) events: HashMap<u64, Arc<Event>>,
    pub(crate) modules: HashMap<u64, Arc<Module>>,
    pub(crate) functions: HashMap<u64, Arc<Function>>,
    /// Recordings, and those that can be launched.
    pub(crate) graphs: HashMap<u64, Recorded>,
    pub(crate) launchable: HashMap<u64, Recorded>,
    arena: Option<Arena>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
/// The process that called `cuInit`.
static INITIALIZED: OnceLock<u32> = OnceLock::new();

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0) };
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// The handle of the one primary context.
pub(crate) const PRIMARY: u64 = 0xC0DE;

/// A number that no other handle of this process has.
pub(crate) fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // like addresses: even, and not small
    0x10_0000 + 16 * NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn initialize() {
    INITIALIZED.get_or_init(|| {
        crate::process::me();
        if config().leaks {
            // SAFETY: the C library's function of this signature, with a function that lives as long as this library.
            unsafe { atexit(leaks) };
        }
        std::process::id()
    });
}

unsafe extern "C" {
    fn atexit(call: extern "C" fn()) -> std::ffi::c_int;
}

extern "C" fn leaks() {
    let Ok(state) = STATE.try_lock() else { return };
    let Some(state) = state.as_ref() else { return };
    for (address, region) in &state.regions {
        say(format_args!("LEAK {} of {} bytes at {address:#x}", region.kind.name(), region.bytes));
    }
    for (address, pinned) in &state.pinned {
        say(format_args!("LEAK pinned memory of {} bytes at {address:#x}", pinned.bytes));
    }
    for handle in state.streams.keys() {
        say(format_args!("LEAK stream {handle:#x}"));
    }
    for handle in state.events.keys() {
        say(format_args!("LEAK event {handle:#x}"));
    }
    for handle in state.graphs.keys().chain(state.launchable.keys()) {
        say(format_args!("LEAK graph {handle:#x}"));
    }
    for handle in state.modules.keys() {
        say(format_args!("LEAK module {handle:#x}"));
    }
}

/// What every call but those of error texts needs: an initialized process, and not the thread of a host function.
pub(crate) fn started(call: &str) -> Result<(), StatusCode> {
    if IN_CALLBACK.get() {
        return Err(misuse(NOT_PERMITTED, format_args!("{call} is called from a host function of a stream")));
    }
    match INITIALIZED.get() {
        Some(&pid) if pid == std::process::id() => Ok(()),
        Some(_) => {
            Err(misuse(NOT_INITIALIZED, format_args!("{call} after fork: the driver has to be initialized anew")))
        }
        None => Err(NOT_INITIALIZED),
    }
}

pub(crate) type Locked = MutexGuard<'static, Option<State>>;

/// The state, for a call that needs no context.
pub(crate) fn locked(call: &str) -> Result<Guard, StatusCode> {
    started(call)?;
    let mut guard = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    guard.get_or_insert_default();
    Ok(Guard(guard))
}

/// The state, for a call that needs a current context.
pub(crate) fn in_context(call: &str) -> Result<Guard, StatusCode> {
    let state = locked(call)?;
    if CURRENT.get() != PRIMARY || state.retained == 0 {
        return Err(INVALID_CONTEXT);
    }
    Ok(state)
}

pub(crate) fn set_current(context: u64) {
    CURRENT.set(context);
}

/// Runs a host function of a stream, which must not call the driver.
pub(crate) fn in_callback(run: impl FnOnce()) {
    IN_CALLBACK.set(true);
    run();
    IN_CALLBACK.set(false);
}

/// The locked state.
pub(crate) struct Guard(Locked);

impl std::ops::Deref for Guard {
    type Target = State;
    fn deref(&self) -> &State {
        self.0.as_ref().unwrap_or_else(|| unreachable!("filled when it was locked"))
    }
}

impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().unwrap_or_else(|| unreachable!("filled when it was locked"))
    }
}

/// Addresses of the device in this process. None is given out twice, so that one which is used too late is noticed.
struct Arena {
    next: u64,
    end: u64,
}

const ARENA_BYTES: usize = 1 << 40;
pub(crate) const PAGE: u64 = 4096;

pub(crate) fn round_up(bytes: u64, to: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(to)
}

impl State {
    /// Reserves addresses, with a gap after them. Nothing is mapped there.
    pub(crate) fn addresses(&mut self, bytes: u64, align: u64) -> Result<u64, StatusCode> {
        if self.arena.is_none() {
            // SAFETY: new addresses, chosen by the kernel, that nobody can access.
            let start = unsafe {
                rustix::mm::mmap_anonymous(
                    std::ptr::null_mut(),
                    ARENA_BYTES,
                    rustix::mm::ProtFlags::empty(),
                    rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE,
                )
            };
            let start = start.map_err(|_| OUT_OF_MEMORY)? as u64;
            self.arena = Some(Arena { next: start, end: start + ARENA_BYTES as u64 });
        }
        let arena = self.arena.as_mut().ok_or(OUT_OF_MEMORY)?;
        let start = round_up(arena.next, align.max(PAGE)).ok_or(OUT_OF_MEMORY)?;
        let next = start.checked_add(round_up(bytes, PAGE).ok_or(OUT_OF_MEMORY)?).and_then(|end| end.checked_add(PAGE));
        arena.next = next.filter(|&next| next <= arena.end).ok_or(OUT_OF_MEMORY)?;
        Ok(start)
    }
}

/// Makes addresses of the arena inaccessible again.
pub(crate) fn forbid(start: u64, bytes: u64) {
    // SAFETY: a range of the arena, which is ours alone; what was mapped there is not used any more.
    let _ = unsafe {
        rustix::mm::mmap_anonymous(
            start as *mut std::ffi::c_void,
            bytes as usize,
            rustix::mm::ProtFlags::empty(),
            rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE | rustix::mm::MapFlags::FIXED,
        )
    };
}
