//! Streams, and the events that order them, within a process and between processes.
#![allow(unsafe_code, reason = "calls of the driver")]

use crate::sys::{self, Handle, IpcHandle};
use crate::{CudaError, Gpu, driver};
use std::sync::Arc;

/// A queue of work on a GPU, apart from every other stream.
#[derive(Debug)]
pub struct Stream {
    gpu: Gpu,
    raw: Handle,
}

// SAFETY: the driver's calls on a stream may come from any thread, several at once.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream, which does not wait for the default one.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let mut raw = std::ptr::null_mut();
        // the pointer to the handle is valid for writes until the call returns
        driver!(gpu, "a stream", cuStreamCreate(&raw mut raw, sys::STREAM_NON_BLOCKING))?;
        Ok(Self { gpu: gpu.clone(), raw })
    }

    /// Its device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The stream, as other C libraries want it.
    pub fn raw(&self) -> *mut std::ffi::c_void {
        self.raw
    }

    /// Marks this point of the stream: `event` is done when everything before is.
    ///
    /// # Errors
    /// An event of another device, or that another process owns.
    pub fn record(&self, event: &Event) -> Result<(), CudaError> {
        // both handles live as long as their owners
        driver!(&self.gpu, "a point of a stream", cuEventRecord(event.raw, self.raw))
    }

    /// What comes after in this stream begins when `event`, as last recorded, is done. No thread waits.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        // both handles live as long as their owners
        driver!(&self.gpu, "an event to wait for", cuStreamWaitEvent(self.raw, event.raw, 0))
    }

    /// Sleeps until everything in the stream is done.
    ///
    /// # Errors
    /// Also those of work that was queued before.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // the handle lives as long as `self`
        driver!(&self.gpu, "the work of a stream", cuStreamSynchronize(self.raw))
    }

    /// Calls `waker` when everything before in the stream is done, from a thread of the driver, and holds the stream up
    /// meanwhile. Where work that was queued before fails, it may not be called.
    ///
    /// # Errors
    /// The driver's.
    pub fn wake(&self, waker: &Waker) -> Result<(), CudaError> {
        let data = Arc::into_raw(waker.0.clone()).cast_mut().cast();
        // `data` is a count of the waker's, which `call_waker` takes back
        driver!(&self.gpu, "a call back", cuLaunchHostFunc(self.raw, call_waker, data)).inspect_err(|_| {
            // SAFETY: the driver did not take it, so `call_waker` never will.
            drop(unsafe { Arc::from_raw(data.cast_const().cast::<WakerFn>()) });
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // its work goes on to its end (cuStreamDestroy's page); the handle is not used again
        let _ = driver!(&self.gpu, "a stream", cuStreamDestroy_v2(self.raw)).inspect_err(|e| tracing::debug!("{e}"));
    }
}

type WakerFn = Box<dyn Fn() + Send + Sync>;

/// What a stream calls when it has come somewhere. It must not call the driver.
#[derive(Clone)]
pub struct Waker(Arc<WakerFn>);

impl Waker {
    /// Wraps what is to be called.
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Box::new(call)))
    }

    /// Calls it from here.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

unsafe extern "C" fn call_waker(data: *mut std::ffi::c_void) {
    // SAFETY: `Stream::wake` passed a count of an `Arc<WakerFn>`, and the driver calls once.
    let waker = unsafe { Arc::from_raw(data.cast_const().cast::<WakerFn>()) };
    // a panic must not reach the driver's thread
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker()));
}

/// A point of a stream that others can wait for.
#[derive(Debug)]
pub struct Event {
    gpu: Gpu,
    raw: Handle,
}

// SAFETY: the driver's calls on an event may come from any thread, several at once.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    fn create(gpu: &Gpu, what: &str, flags: u32) -> Result<Self, CudaError> {
        let mut raw = std::ptr::null_mut();
        // the pointer to the handle is valid for writes until the call returns
        driver!(gpu, what, cuEventCreate(&raw mut raw, flags))?;
        Ok(Self { gpu: gpu.clone(), raw })
    }

    /// An event for this process.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        Self::create(gpu, "an event", sys::EVENT_DISABLE_TIMING | sys::EVENT_BLOCKING_SYNC)
    }

    /// An event that knows its time, for measurements.
    ///
    /// # Errors
    /// The driver's.
    pub fn timed(gpu: &Gpu) -> Result<Self, CudaError> {
        Self::create(gpu, "a timed event", sys::EVENT_BLOCKING_SYNC)
    }

    /// An event that other processes can open.
    ///
    /// # Errors
    /// The driver's: not every system offers it.
    pub fn interprocess(gpu: &Gpu) -> Result<Self, CudaError> {
        Self::create(gpu, "an interprocess event", sys::EVENT_DISABLE_TIMING | sys::EVENT_INTERPROCESS)
    }

    /// What another process opens it by.
    ///
    /// # Errors
    /// An event that is not [`interprocess`](Self::interprocess).
    pub fn export(&self) -> Result<[u8; 64], CudaError> {
        let mut handle = IpcHandle([0; 64]);
        // the pointer to the handle is valid for writes until the call returns
        driver!(&self.gpu, "an event", cuIpcGetEventHandle(&raw mut handle, self.raw))?;
        Ok(handle.0)
    }

    /// Opens another process's event. It can be waited for, also after that process has ended.
    ///
    /// # Errors
    /// A handle of this process, of a process that has ended, or of another device.
    pub fn open(gpu: &Gpu, handle: [u8; 64]) -> Result<Self, CudaError> {
        let mut raw = std::ptr::null_mut();
        // the pointer to the handle is valid for writes until the call returns; the driver checks the 64 bytes
        driver!(gpu, "another process's event", cuIpcOpenEventHandle(&raw mut raw, IpcHandle(handle)))?;
        Ok(Self { gpu: gpu.clone(), raw })
    }

    /// Whether the last recorded point has been reached; `true` for an event that was never recorded.
    ///
    /// # Errors
    /// Those of the work before it.
    pub fn is_done(&self) -> Result<bool, CudaError> {
        // the handle lives as long as `self`
        match driver!(&self.gpu, "an event", cuEventQuery(self.raw)) {
            Ok(()) => Ok(true),
            Err(e) if e.code() == Some(sys::NOT_READY) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sleeps until the last recorded point has been reached.
    ///
    /// # Errors
    /// Those of the work before it.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // the handle lives as long as `self`
        driver!(&self.gpu, "an event", cuEventSynchronize(self.raw))
    }

    /// The time from `start` to this event, in milliseconds; both are [`timed`](Self::timed) and done.
    ///
    /// # Errors
    /// One of them is not.
    pub fn ms_since(&self, start: &Self) -> Result<f32, CudaError> {
        let mut ms = 0.0;
        // the pointer to the number is valid for writes until the call returns
        driver!(&self.gpu, "two events", cuEventElapsedTime(&raw mut ms, start.raw, self.raw))?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // the handle is not used again; what waits for it still gets it (cuEventDestroy's page)
        let _ = driver!(&self.gpu, "an event", cuEventDestroy_v2(self.raw)).inspect_err(|e| tracing::debug!("{e}"));
    }
}
