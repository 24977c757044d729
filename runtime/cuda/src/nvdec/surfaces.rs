//! Which surfaces of a decoder are in use: decode surfaces by pictures that were given out and not let go, output
//! surfaces by pictures that are mapped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More decode surfaces than any stream of H.264 or H.265 needs.
pub(crate) const MAX_SURFACES: usize = 64;
/// Longest time before a waiting thread notices that its stream was closed.
const LISTEN: Duration = Duration::from_millis(10);

pub(crate) struct Surfaces {
    state: Mutex<State>,
    freed: Condvar,
    most_mapped: u32,
    closed: Closer,
}

/// Ends the waits of a stream for its surfaces, from any thread: for a process that is about to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Closer(Arc<AtomicBool>);

impl Closer {
    /// Every wait for a surface ends within 10 ms with [`NvdecError::Closed`](super::NvdecError::Closed), those to come
    /// at once. There is no way back.
    pub fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a wait for a decode surface ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SurfaceWait {
    /// Nobody holds it.
    Free,
    /// There is none of this number.
    Unknown,
    /// The stream was closed.
    Closed,
    /// It is still held after the limit.
    StillHeld,
}

struct State {
    /// How often each decode surface is held.
    held: [u8; MAX_SURFACES],
    mapped: u32,
}

impl Surfaces {
    pub(crate) fn new(most_mapped: u32, closed: Closer) -> Self {
        let state = State { held: [0; MAX_SURFACES], mapped: 0 };
        Self { state: Mutex::new(state), freed: Condvar::new(), most_mapped, closed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // a number is right also after a panic elsewhere
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a decode surface; false where there is none of this number.
    pub(crate) fn hold(&self, index: usize) -> bool {
        match self.lock().held.get_mut(index) {
            Some(held) => {
                *held += 1;
                true
            }
            None => false,
        }
    }

    /// Lets a decode surface go.
    pub(crate) fn release(&self, index: usize) {
        if let Some(held) = self.lock().held.get_mut(index) {
            *held = held.saturating_sub(1);
        }
        self.freed.notify_all();
    }

    /// Waits until nobody holds the surface, the stream is closed, or `limit` is over.
    pub(crate) fn wait_free(&self, index: usize, limit: Option<Duration>) -> SurfaceWait {
        let since = Instant::now();
        let mut state = self.lock();
        loop {
            match state.held.get(index) {
                None => return SurfaceWait::Unknown,
                Some(0) => return SurfaceWait::Free,
                Some(_) if self.closed.is_closed() => return SurfaceWait::Closed,
                Some(_) if limit.is_some_and(|limit| since.elapsed() >= limit) => return SurfaceWait::StillHeld,
                Some(_) => state = self.listen(state),
            }
        }
    }

    /// Waits for an output surface and takes it; false where the stream was closed before one was free.
    pub(crate) fn begin_map(&self) -> bool {
        let mut state = self.lock();
        while state.mapped >= self.most_mapped {
            if self.closed.is_closed() {
                return false;
            }
            state = self.listen(state);
        }
        state.mapped += 1;
        true
    }

    fn listen<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.freed.wait_timeout(state, LISTEN).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Gives an output surface back.
    pub(crate) fn end_map(&self) {
        let mut state = self.lock();
        state.mapped = state.mapped.saturating_sub(1);
        drop(state);
        self.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_surface_that_is_held_twice_is_free_when_both_have_let_it_go() {
        let surfaces = Arc::new(Surfaces::new(1, Closer::default()));
        assert_eq!(surfaces.wait_free(3, None), SurfaceWait::Free);
        assert!(surfaces.hold(3) && surfaces.hold(3));
        let (said, free) = channel();
        let waiter = std::thread::spawn({
            let surfaces = surfaces.clone();
            move || said.send(surfaces.wait_free(3, None))
        });
        surfaces.release(3);
        assert!(free.recv_timeout(Duration::from_millis(50)).is_err(), "one still holds it");
        surfaces.release(3);
        assert_eq!(free.recv_timeout(Duration::from_secs(10)), Ok(SurfaceWait::Free));
        let _ = waiter.join();
    }

    #[test]
    fn no_more_are_mapped_than_there_are_output_surfaces() {
        let surfaces = Arc::new(Surfaces::new(2, Closer::default()));
        assert!(surfaces.begin_map() && surfaces.begin_map());
        let (said, mapped) = channel();
        let waiter = std::thread::spawn({
            let surfaces = surfaces.clone();
            move || said.send(surfaces.begin_map())
        });
        assert!(mapped.recv_timeout(Duration::from_millis(50)).is_err(), "both are taken");
        surfaces.end_map();
        assert_eq!(mapped.recv_timeout(Duration::from_secs(10)), Ok(true));
        let _ = waiter.join();
    }

    #[test]
    fn closing_ends_every_wait() {
        let closer = Closer::default();
        let surfaces = Arc::new(Surfaces::new(1, closer.clone()));
        assert!(surfaces.hold(0) && surfaces.begin_map());
        let (said, ended) = channel();
        let waiters = [0, 1].map(|which| {
            let (surfaces, said) = (surfaces.clone(), said.clone());
            std::thread::spawn(move || {
                let closed =
                    if which == 0 { surfaces.wait_free(0, None) == SurfaceWait::Closed } else { !surfaces.begin_map() };
                said.send(closed)
            })
        });
        assert!(ended.recv_timeout(Duration::from_millis(50)).is_err(), "neither surface is free");
        closer.close();
        for _ in 0..2 {
            assert_eq!(ended.recv_timeout(Duration::from_secs(10)), Ok(true));
        }
        assert!(waiters.into_iter().all(|waiter| waiter.join().is_ok()));
        // one that is free is given out all the same: what is under way may be finished
        surfaces.release(0);
        assert_eq!(surfaces.wait_free(0, None), SurfaceWait::Free);
    }

    #[test]
    fn a_wait_with_a_limit_ends_there() {
        let surfaces = Surfaces::new(1, Closer::default());
        assert!(surfaces.hold(5));
        let began = Instant::now();
        assert_eq!(surfaces.wait_free(5, Some(Duration::from_millis(30))), SurfaceWait::StillHeld);
        assert!(began.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn a_number_beyond_the_last_surface_is_refused() {
        let surfaces = Surfaces::new(1, Closer::default());
        assert!(!surfaces.hold(MAX_SURFACES));
        assert_eq!(surfaces.wait_free(MAX_SURFACES, None), SurfaceWait::Unknown);
        surfaces.release(MAX_SURFACES);
    }
}
