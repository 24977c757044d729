//! Work of a stream that is recorded once and then started as a whole: a CUDA graph.
#![allow(unsafe_code, reason = "calls of the driver")]

use crate::sys::{self, Handle};
use crate::{CudaError, Gpu, Stream, driver};

/// Recorded work, with every address and number that it had when it was recorded.
#[derive(Debug)]
pub struct Graph {
    gpu: Gpu,
    raw: Handle,
}

// SAFETY: the driver's calls on a graph may come from any thread, one at a time: launches borrow it with its stream.
unsafe impl Send for Graph {}

/// A recording that is not ready to run; it goes when the runnable form has been made.
struct Recording<'a> {
    gpu: &'a Gpu,
    raw: Handle,
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // ours, and not used again
            let _ = driver!(self.gpu, "a recording", cuGraphDestroy(self.raw)).inspect_err(|e| tracing::debug!("{e}"));
        }
    }
}

impl Stream {
    /// Records what `queue` queues in this stream, and runs none of it. Other threads may use the GPU meanwhile.
    ///
    /// # Errors
    /// Those of `queue`; the driver's, where something cannot be recorded. The stream can be used as before.
    pub fn record_graph<E: From<CudaError>>(&self, queue: impl FnOnce() -> Result<(), E>) -> Result<Graph, E> {
        let gpu = self.gpu();
        // the handle lives as long as `self`
        driver!(gpu, "a recording", cuStreamBeginCapture_v2(self.raw(), sys::CAPTURE_THREAD_LOCAL))?;
        let queued = queue();
        let mut recording = Recording { gpu, raw: std::ptr::null_mut() };
        // The pointer to the handle is valid for writes until the call returns. This is called also after an error: without
        // it the stream would record for ever.
        let ended = driver!(gpu, "a recording", cuStreamEndCapture(self.raw(), &raw mut recording.raw));
        queued?;
        ended?;
        let mut raw = std::ptr::null_mut();
        // the pointer to the handle is valid for writes until the call returns, and the recording has ended
        driver!(gpu, "a recording", cuGraphInstantiateWithFlags(&raw mut raw, recording.raw, 0))?;
        Ok(Graph { gpu: gpu.clone(), raw })
    }

    /// Queues the recorded work.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// All that the recorded work reads and writes is there until the stream has come past this point.
    pub unsafe fn replay(&self, graph: &mut Graph) -> Result<(), CudaError> {
        // both handles live as long as their owners; the memory is the caller's contract
        driver!(self.gpu(), "recorded work", cuGraphLaunch(graph.raw, self.raw()))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // what runs of it goes on to its end (cuGraphExecDestroy's page); the handle is not used again
        let _ =
            driver!(&self.gpu, "recorded work", cuGraphExecDestroy(self.raw)).inspect_err(|e| tracing::debug!("{e}"));
    }
}
