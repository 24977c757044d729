//! The network runtime that all cameras of the process share, and the time that their farewells may take.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};

/// Receiving is copying: two threads serve more cameras than a machine can decode.
const THREADS: usize = 2;
/// Names are looked up by the system, which blocks: so many lookups may hang at a time.
const LOOKUP_THREADS: usize = 32;

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The runtime, started by the first camera. It lives as long as the process.
pub(super) fn handle() -> std::io::Result<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    let started = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(LOOKUP_THREADS)
        .thread_keep_alive(Duration::from_secs(5))
        .thread_name("network")
        .enable_all()
        .build()?;
    Ok(runtime.insert(started).handle().clone())
}

/// How long a camera's end is waited for. A camera that is not told to stop goes on sending datagrams for a minute.
pub(super) const FAREWELL: Duration = Duration::from_millis(300);
/// A process that ends closes its cameras one after the other: together they get little more than one of them.
const FAREWELLS: Duration = Duration::from_millis(500);
const LEAST: Duration = Duration::from_millis(2);
/// Farewells that follow each other by less share their time.
const WINDOW: Duration = Duration::from_secs(2);

/// Counts the time that farewells took.
struct Budget {
    last: Option<Instant>,
    spent: Duration,
}

static BUDGET: Mutex<Budget> = Mutex::new(Budget { last: None, spent: Duration::ZERO });

/// Calls `wait` with the time that a camera's farewell may take now.
pub(super) fn farewell(wait: impl FnOnce(Duration)) {
    let began = Instant::now();
    let allowed = {
        let mut budget = BUDGET.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.last.is_none_or(|last| began.saturating_duration_since(last) > WINDOW) {
            budget.spent = Duration::ZERO;
        }
        FAREWELLS.saturating_sub(budget.spent).clamp(LEAST, FAREWELL)
    };
    wait(allowed);
    let mut budget = BUDGET.lock().unwrap_or_else(PoisonError::into_inner);
    budget.last = Some(Instant::now());
    budget.spent += began.elapsed();
}
