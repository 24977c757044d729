//! Which surfaces of a decoder are in use: decode surfaces by pictures that were given out and not let go, output
//! surfaces by pictures that are mapped.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// More decode surfaces than any stream of H.264 or H.265 needs.
pub(crate) const MAX_SURFACES: usize = 64;

pub(crate) struct Surfaces {
    state: Mutex<State>,
    freed: Condvar,
    most_mapped: u32,
}

struct State {
    /// How often each decode surface is held.
    held: [u8; MAX_SURFACES],
    mapped: u32,
}

impl Surfaces {
    pub(crate) fn new(most_mapped: u32) -> Self {
        let state = State { held: [0; MAX_SURFACES], mapped: 0 };
        Self { state: Mutex::new(state), freed: Condvar::new(), most_mapped }
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

    /// Waits until nobody holds the surface; gives whether it had to wait, `None` where there is none of this number.
    pub(crate) fn wait_free(&self, index: usize) -> Option<bool> {
        let mut state = self.lock();
        let mut waited = false;
        while *state.held.get(index)? > 0 {
            waited = true;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Some(waited)
    }

    /// Waits for an output surface and takes it.
    pub(crate) fn begin_map(&self) {
        let mut state = self.lock();
        while state.mapped >= self.most_mapped {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.mapped += 1;
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
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_surface_that_is_held_twice_is_free_when_both_have_let_it_go() {
        let surfaces = Arc::new(Surfaces::new(1));
        assert_eq!(surfaces.wait_free(3), Some(false));
        assert!(surfaces.hold(3) && surfaces.hold(3));
        let (said, free) = channel();
        let waiter = std::thread::spawn({
            let surfaces = surfaces.clone();
            move || said.send(surfaces.wait_free(3))
        });
        surfaces.release(3);
        assert!(free.recv_timeout(Duration::from_millis(50)).is_err(), "one still holds it");
        surfaces.release(3);
        assert_eq!(free.recv_timeout(Duration::from_secs(10)), Ok(Some(true)));
        let _ = waiter.join();
    }

    #[test]
    fn no_more_are_mapped_than_there_are_output_surfaces() {
        let surfaces = Arc::new(Surfaces::new(2));
        surfaces.begin_map();
        surfaces.begin_map();
        let (said, mapped) = channel();
        let waiter = std::thread::spawn({
            let surfaces = surfaces.clone();
            move || {
                surfaces.begin_map();
                said.send(())
            }
        });
        assert!(mapped.recv_timeout(Duration::from_millis(50)).is_err(), "both are taken");
        surfaces.end_map();
        assert!(mapped.recv_timeout(Duration::from_secs(10)).is_ok());
        let _ = waiter.join();
    }

    #[test]
    fn a_number_beyond_the_last_surface_is_refused() {
        let surfaces = Surfaces::new(1);
        assert!(!surfaces.hold(MAX_SURFACES));
        assert_eq!(surfaces.wait_free(MAX_SURFACES), None);
        surfaces.release(MAX_SURFACES);
    }
}
