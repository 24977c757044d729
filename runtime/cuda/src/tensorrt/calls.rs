//! What TensorRT calls: a logger and a progress monitor, objects with tables of virtual functions made here.
#![allow(unsafe_code, reason = "objects that a C++ library calls")]

use super::layout::Layout;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// `InterfaceInfo`.
#[repr(C)]
struct InterfaceInfo {
    kind: *const c_char,
    major: i32,
    minor: i32,
}

type Info = unsafe extern "C" fn(*mut c_void) -> InterfaceInfo;
type Language = unsafe extern "C" fn(*mut c_void) -> i32;
type Nothing = unsafe extern "C" fn(*mut c_void);
type Log = unsafe extern "C" fn(*mut c_void, i32, *const c_char);

/// The entries before every table: how far the object begins before this part of it, and its type's description,
/// which is asked for by nothing that TensorRT does with these two.
#[repr(C)]
struct Head {
    offset: isize,
    type_info: usize,
}

const HEAD: Head = Head { offset: 0, type_info: 0 };

#[repr(C)]
struct Versioned {
    language: Language,
    info: Info,
    destroy: [Nothing; 2],
}

#[repr(C)]
struct VersionedLogger {
    head: Head,
    versioned: Versioned,
    log: Log,
}

#[repr(C)]
struct PlainLogger {
    head: Head,
    log: Log,
    destroy: [Nothing; 2],
}

#[repr(C)]
struct MonitorTable {
    head: Head,
    versioned: Versioned,
    start: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, i32),
    step: unsafe extern "C" fn(*mut c_void, *const c_char, i32) -> bool,
    finish: unsafe extern "C" fn(*mut c_void, *const c_char),
}

unsafe extern "C" fn speaks_cpp(_: *mut c_void) -> i32 {
    0
}

unsafe extern "C" fn destroys_nothing(_: *mut c_void) {}

unsafe extern "C" fn logger_info(_: *mut c_void) -> InterfaceInfo {
    InterfaceInfo { kind: c"ILogger".as_ptr(), major: 1, minor: 0 }
}

unsafe extern "C" fn monitor_info(_: *mut c_void) -> InterfaceInfo {
    InterfaceInfo { kind: c"IProgressMonitor".as_ptr(), major: 1, minor: 0 }
}

static VERSIONED_LOGGER: VersionedLogger = VersionedLogger {
    head: HEAD,
    versioned: Versioned { language: speaks_cpp, info: logger_info, destroy: [destroys_nothing; 2] },
    log: write_log,
};
static PLAIN_LOGGER: PlainLogger = PlainLogger { head: HEAD, log: write_log, destroy: [destroys_nothing; 2] };
static MONITOR: MonitorTable = MonitorTable {
    head: HEAD,
    versioned: Versioned { language: speaks_cpp, info: monitor_info, destroy: [destroys_nothing; 2] },
    start: phase_start,
    step: step_complete,
    finish: phase_finish,
};

/// The errors since [`take_errors`] was last called. TensorRT has one logger for a process.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());
const MAX_ERRORS: usize = 8;

/// The errors that TensorRT has logged since, the oldest first.
pub(crate) fn take_errors() -> String {
    let errors = std::mem::take(&mut *ERRORS.lock().unwrap_or_else(PoisonError::into_inner));
    if errors.is_empty() { "it said nothing".to_owned() } else { errors.join("; ") }
}

/// A logger for the life of the process, as TensorRT wants it: it keeps the first that it is given.
pub(crate) fn logger(layout: &Layout) -> *mut c_void {
    let table: *const c_void = match layout.versioned_logger {
        true => (&raw const VERSIONED_LOGGER.versioned).cast(),
        false => (&raw const PLAIN_LOGGER.log).cast(),
    };
    let object: &'static mut *const c_void = Box::leak(Box::new(table));
    (&raw mut *object).cast()
}

/// # Safety
/// `text` is null or a C string.
unsafe fn text_of<'a>(text: *const c_char) -> std::borrow::Cow<'a, str> {
    if text.is_null() {
        return "".into();
    }
    // SAFETY: as the caller states.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}

unsafe extern "C" fn write_log(_: *mut c_void, severity: i32, text: *const c_char) {
    // a panic must not reach the library
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: TensorRT passes a C string.
        let text = unsafe { text_of(text) };
        match severity {
            // an internal error, an error
            i32::MIN..=1 => {
                tracing::debug!("TensorRT: error: {text}");
                let mut errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
                if errors.len() < MAX_ERRORS {
                    errors.push(text.trim().to_owned());
                }
            }
            2 => tracing::warn!("TensorRT: {text}"),
            3 => tracing::debug!("TensorRT: {text}"),
            _ => tracing::trace!("TensorRT: {text}"),
        }
    }));
}

/// How far a build has come. Phases nest, and several run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A phase of so many steps begins, within another.
    Begin {
        /// Its name.
        phase: &'a str,
        /// The name of the phase that it belongs to.
        within: Option<&'a str>,
        /// How many steps it has.
        steps: u32,
    },
    /// A step is done.
    Step {
        /// The phase's name.
        phase: &'a str,
        /// The step, from 0.
        step: u32,
    },
    /// A phase is done.
    End {
        /// Its name.
        phase: &'a str,
    },
}

/// The reports on a build's progress, which come from threads of the library.
pub(crate) type Report<'a> = dyn Fn(Progress<'_>) + Sync + 'a;

/// An `IProgressMonitor`. It must outlive the build that it is given to.
#[repr(C)]
pub(crate) struct Monitor<'a> {
    table: *const c_void,
    report: &'a Report<'a>,
}

impl<'a> Monitor<'a> {
    pub(crate) fn new(report: &'a Report<'a>) -> Self {
        Self { table: (&raw const MONITOR.versioned).cast(), report }
    }
}

/// # Safety
/// `this` is a living [`Monitor`].
unsafe fn tell(this: *mut c_void, progress: Progress<'_>) {
    // SAFETY: as the caller states; it is read only, and its report may be called from any thread.
    let monitor = unsafe { &*this.cast_const().cast::<Monitor<'_>>() };
    let _ = catch_unwind(AssertUnwindSafe(|| (monitor.report)(progress)));
}

unsafe extern "C" fn phase_start(this: *mut c_void, phase: *const c_char, within: *const c_char, steps: i32) {
    // SAFETY: TensorRT passes the monitor that it was given, and C strings, the second of which may be null.
    unsafe {
        let parent = text_of(within);
        let within = (!within.is_null()).then_some(&*parent);
        tell(this, Progress::Begin { phase: &text_of(phase), within, steps: steps.max(0).unsigned_abs() });
    }
}

unsafe extern "C" fn step_complete(this: *mut c_void, phase: *const c_char, step: i32) -> bool {
    // SAFETY: as in `phase_start`.
    unsafe { tell(this, Progress::Step { phase: &text_of(phase), step: step.max(0).unsigned_abs() }) };
    // goes on
    true
}

unsafe extern "C" fn phase_finish(this: *mut c_void, phase: *const c_char) {
    // SAFETY: as in `phase_start`.
    unsafe { tell(this, Progress::End { phase: &text_of(phase) }) };
}
