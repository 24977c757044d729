//! Recorded work of a stream: host functions and fills, each checked when it is recorded and again when it is launched.

use crate::code::{CAPTURE_INVALIDATED, ILLEGAL_STATE, INVALID_HANDLE, INVALID_VALUE, StatusCode, status};
use crate::put;
use crate::state::{State, fresh, in_context, misuse};
use crate::stream::Operation;
use std::collections::HashMap;
use std::ffi::{c_uint, c_void};
use std::sync::Arc;

/// Makes an operation, as often as it is launched.
pub(crate) type Prepare = Box<dyn Fn(&State) -> Result<Operation, StatusCode> + Send + Sync>;
pub(crate) type Recorded = Arc<Vec<Prepare>>;

#[derive(Default)]
pub(crate) struct Recording {
    operations: Vec<Prepare>,
    spoilt: bool,
}

impl Recording {
    pub(crate) fn push(&mut self, operation: Prepare) {
        self.operations.push(operation);
    }

    /// Something was called that cannot be recorded.
    pub(crate) fn spoil(&mut self) {
        self.spoilt = true;
    }
}

fn of(graphs: &HashMap<u64, Recorded>, call: &str, graph: *mut c_void) -> Result<Recorded, StatusCode> {
    let found = graphs.get(&(graph as u64)).cloned();
    found.ok_or_else(|| misuse(INVALID_HANDLE, format_args!("{call}: {:#x} is no graph (or no longer)", graph as u64)))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuStreamBeginCapture_v2(stream: *mut c_void, mode: c_uint) -> StatusCode {
    status((|| {
        let stream = in_context("cuStreamBeginCapture")?.stream_or_recording("cuStreamBeginCapture", stream)?;
        stream.recording(|recording| match recording {
            _ if mode > 2 => Err(INVALID_VALUE),
            Some(_) => Err(ILLEGAL_STATE),
            None => {
                *recording = Some(Recording::default());
                Ok(())
            }
        })
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuStreamEndCapture(stream: *mut c_void, to: *mut *mut c_void) -> StatusCode {
    status((|| {
        let mut state = in_context("cuStreamEndCapture")?;
        let stream = state.stream_or_recording("cuStreamEndCapture", stream)?;
        let recording = stream.recording(Option::take).ok_or(ILLEGAL_STATE)?;
        let number = if recording.spoilt { 0 } else { fresh() };
        // SAFETY: the C caller's place.
        unsafe { put(to, number as *mut c_void) }?;
        if recording.spoilt {
            return Err(CAPTURE_INVALIDATED);
        }
        state.graphs.insert(number, Arc::new(recording.operations));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGraphInstantiateWithFlags(
    to: *mut *mut c_void,
    graph: *mut c_void,
    flags: u64,
) -> StatusCode {
    status((|| {
        let mut state = in_context("cuGraphInstantiateWithFlags")?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let recorded = of(&state.graphs, "cuGraphInstantiateWithFlags", graph)?;
        let number = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, number as *mut c_void) }?;
        state.launchable.insert(number, recorded);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGraphLaunch(graph: *mut c_void, stream: *mut c_void) -> StatusCode {
    status((|| {
        let state = in_context("cuGraphLaunch")?;
        let recorded = of(&state.launchable, "cuGraphLaunch", graph)?;
        let stream = state.stream("cuGraphLaunch", stream)?;
        for prepare in recorded.iter() {
            stream.submit(prepare(&state)?);
        }
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGraphDestroy(graph: *mut c_void) -> StatusCode {
    status((|| {
        let mut state = in_context("cuGraphDestroy")?;
        of(&state.graphs, "cuGraphDestroy", graph)?;
        state.graphs.remove(&(graph as u64));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGraphExecDestroy(graph: *mut c_void) -> StatusCode {
    status((|| {
        let mut state = in_context("cuGraphExecDestroy")?;
        of(&state.launchable, "cuGraphExecDestroy", graph)?;
        state.launchable.remove(&(graph as u64));
        Ok(())
    })())
}
