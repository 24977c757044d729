//! An output of an engine on a GPU, on its way to its head.

use crate::{EngineError, RawTensor};
use millrace_cuda::{Gpu, Span, Stream};
use millrace_detect::Grid;
use millrace_frame::TensorDtype;
use millrace_kernels::cuda::{Arrived, Download, NoBox};

/// An output in memory of the host, of one batch after the other. Of a large one that spells candidates only those come down
/// that can become boxes ([ADR 0030](../../../docs/adr/0030-candidates-on-the-gpu.md)).
#[derive(Debug)]
pub struct Outlet {
    name: String,
    shape: Vec<usize>,
    grid: Option<Grid>,
    download: Download,
}

impl Outlet {
    /// For batches of at most `frames` frames of the output `name`, in this shape for one of them. `grid` is how it spells
    /// candidates, where it does.
    ///
    /// # Errors
    /// [`EngineError::Setup`]: elements that are neither `f32` nor `f16`; no memory.
    pub fn new(
        gpu: &Gpu,
        name: &str,
        shape: Vec<usize>,
        frames: usize,
        dtype: TensorDtype,
        grid: Option<Grid>,
    ) -> Result<Self, EngineError> {
        let elements = shape.iter().product();
        // a shape that is not the head's is its decoder's to refuse
        let grid = grid.filter(|grid| shape.len() == 3 && shape[1..].contains(&grid.candidates.numbers));
        let candidates = grid.as_ref().map(|grid| &grid.candidates);
        let download = Download::new(gpu, name, elements, frames, dtype, candidates).map_err(EngineError::setup)?;
        Ok(Self { name: name.to_owned(), shape, grid, download })
    }

    /// Queues what brings the first `frames` frames of a batch at `from` to the host, for boxes that score at least `score`. The
    /// memory of `from` is to stay, and not to be written, until [`arrive`](Self::arrive) has returned.
    ///
    /// # Errors
    /// [`EngineError::Broken`].
    pub fn queue(&mut self, stream: &Stream, from: Span, frames: usize, score: f32) -> Result<(), EngineError> {
        let none = NoBox { from: 0.0, below: 0.0 };
        let no_box = self.grid.as_ref().map_or(none, |grid| grid.no_box(score));
        self.download.queue(stream, from, frames, no_box).map_err(EngineError::broken)
    }

    /// Sleeps until the batch is there; what of it has to be copied after all is copied in `late`.
    ///
    /// # Errors
    /// [`EngineError::Broken`].
    pub fn arrive(&mut self, late: &Stream) -> Result<(), EngineError> {
        self.download.arrive(late).map_err(EngineError::broken)
    }

    /// Bytes that were copied from the GPU for the last batch.
    pub fn bytes_down(&self) -> u64 {
        self.download.bytes_down()
    }

    /// The output for frame `n` of the batch that has arrived.
    pub fn tensor(&self, n: usize) -> RawTensor<'_> {
        let Arrived { numbers, kept } = self.download.frame(n);
        RawTensor { name: &self.name, shape: &self.shape, data: numbers, kept }
    }
}
