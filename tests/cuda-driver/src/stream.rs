//! Streams: a thread each, which works through a queue while the host goes on.

use crate::code::{CAPTURE_UNSUPPORTED, INVALID_HANDLE, INVALID_VALUE, StatusCode, status};
use crate::graph::{Prepare, Recording};
use crate::put;
use crate::state::{State, config, fresh, in_callback, in_context, misuse, started};
use std::collections::VecDeque;
use std::ffi::{c_uint, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) type Operation = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    operations: VecDeque<Operation>,
    submitted: u64,
    done: u64,
    closing: bool,
    /// What is recorded in place of being done.
    recording: Option<Recording>,
}

#[derive(Default)]
pub(crate) struct Stream {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Stream {
    fn start() -> Result<Arc<Self>, StatusCode> {
        let stream = Arc::new(Self::default());
        let runs = stream.clone();
        let thread = std::thread::Builder::new().name("cuda-stand-in".into()).spawn(move || runs.run());
        thread.map_err(|_| crate::code::UNKNOWN)?;
        Ok(stream)
    }

    /// What the stream records, where it does.
    pub(crate) fn recording<T>(&self, change: impl FnOnce(&mut Option<Recording>) -> T) -> T {
        change(&mut self.queue().recording)
    }

    /// Queues an operation that can be recorded, or records it.
    pub(crate) fn submit_or_record(
        &self,
        state: &State,
        prepare: impl Fn(&State) -> Result<Operation, StatusCode> + Send + Sync + 'static,
    ) -> Result<(), StatusCode> {
        let operation = prepare(state)?;
        let prepare: Prepare = Box::new(prepare);
        if self.recording(|recording| recording.as_mut().map(|recording| recording.push(prepare))).is_none() {
            self.submit(operation);
        }
        Ok(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut queue = self.queue();
        loop {
            if let Some(operation) = queue.operations.pop_front() {
                drop(queue);
                std::thread::sleep(config().delay);
                // what it uses is let go with it, before anybody hears that it is done
                operation();
                queue = self.queue();
                queue.done += 1;
                self.changed.notify_all();
            } else if queue.closing {
                return;
            } else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Queues an operation, and returns its number.
    pub(crate) fn submit(&self, operation: impl FnOnce() + Send + 'static) -> u64 {
        let mut queue = self.queue();
        queue.operations.push_back(Box::new(operation));
        queue.submitted += 1;
        self.changed.notify_all();
        queue.submitted
    }

    /// Sleeps until the operation of that number is done. Not with the state locked.
    pub(crate) fn wait_until(&self, number: u64) {
        let mut queue = self.queue();
        while queue.done < number {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// A stream, for a call that cannot be recorded: where the stream records, that is over.
    pub(crate) fn stream(&self, call: &str, stream: *mut c_void) -> Result<Arc<Stream>, StatusCode> {
        let stream = self.stream_or_recording(call, stream)?;
        match stream.recording(|recording| recording.as_mut().map(Recording::spoil)) {
            Some(()) => Err(CAPTURE_UNSUPPORTED),
            None => Ok(stream),
        }
    }

    pub(crate) fn stream_or_recording(&self, call: &str, stream: *mut c_void) -> Result<Arc<Stream>, StatusCode> {
        self.streams.get(&(stream as u64)).cloned().ok_or_else(|| {
            let what = match stream as u64 {
                0 => format!("{call}: the default stream, which waits for others and is not offered here"),
                number => format!("{call}: {number:#x} is no stream (or no longer)"),
            };
            misuse(INVALID_HANDLE, what)
        })
    }
}

const NON_BLOCKING: c_uint = 1;

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuStreamCreate(to: *mut *mut c_void, flags: c_uint) -> StatusCode {
    status((|| {
        let mut state = in_context("cuStreamCreate")?;
        if flags & !NON_BLOCKING != 0 {
            return Err(INVALID_VALUE);
        }
        let number = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, number as *mut c_void) }?;
        state.streams.insert(number, Stream::start()?);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> StatusCode {
    status((|| {
        let mut state = in_context("cuStreamDestroy")?;
        let stopped = state.stream("cuStreamDestroy", stream)?;
        state.streams.remove(&(stream as u64));
        stopped.queue().closing = true;
        stopped.changed.notify_all();
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> StatusCode {
    status((|| {
        let stream = in_context("cuStreamSynchronize")?.stream("cuStreamSynchronize", stream)?;
        let submitted = stream.queue().submitted;
        stream.wait_until(submitted);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuLaunchHostFunc(
    stream: *mut c_void,
    call: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> StatusCode {
    status((|| {
        started("cuLaunchHostFunc")?;
        let call = call.ok_or(INVALID_VALUE)?;
        let state = in_context("cuLaunchHostFunc")?;
        let stream = state.stream_or_recording("cuLaunchHostFunc", stream)?;
        let data = data as usize;
        stream.submit_or_record(&state, move |_| {
            // SAFETY: the C caller's function, to be called with its data from any thread, each time that it is launched.
            Ok(Box::new(move || in_callback(|| unsafe { call(data as *mut c_void) })))
        })
    })())
}
