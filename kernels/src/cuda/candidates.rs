//! The candidates of a detector's output that can become boxes, copied side by side: `kernels/cuda/candidates.cuh`.
#![allow(unsafe_code, reason = "launches kernels, which reach memory by address")]

use super::launch::loaded;
use millrace_cuda::{CudaError, Function, Gpu, Grid, Span, Stream};
use millrace_frame::TensorDtype;
use std::ops::Range;

/// Where the numbers of a candidate are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Side by side: a row for each candidate.
    Rows,
    /// Apart: a plane for each number.
    Planes,
}

/// How an output spells its candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Where the numbers of each are.
    pub layout: Layout,
    /// How many numbers each has.
    pub numbers: usize,
    /// Those of them of which the largest decides.
    pub deciding: Range<usize>,
}

/// A candidate whose largest deciding number is in this range cannot become a box. NaN is no number here, and the largest of
/// none is in no range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoBox {
    /// The least of them.
    pub from: f32,
    /// The end, which is not one of them.
    pub below: f32,
}

/// The parameter of the kernels, `Candidates` of `candidates.cuh`.
#[repr(C)]
struct Parameter {
    output: u64,
    counts: u64,
    kept: u64,
    candidates: u32,
    numbers: u32,
    candidate_step: u32,
    number_step: u32,
    first: u32,
    end: u32,
    room: u32,
    threads: u32,
    from: f32,
    below: f32,
}

/// Threads of a block. A block of `find` is small: a frame has few candidates for a GPU of a hundred multiprocessors.
const FIND_THREADS: u32 = 64;
const GATHER_THREADS: u32 = 256;
/// More blocks for a frame would find nothing to copy: few candidates are kept.
const MAX_GATHER_BLOCKS: u32 = 32;
/// Bytes of the two counts of a frame.
pub(super) const COUNTS_BYTES: u64 = 8;

/// The kernels for an output of one shape.
#[derive(Debug)]
pub(super) struct Sieve {
    find: Function,
    gather: Function,
    dtype: TensorDtype,
    count: u32,
    numbers: u32,
    steps: [u32; 2],
    deciding: Range<u32>,
    /// Candidates of a frame that there is room for.
    pub(super) room: u32,
}

impl Sieve {
    /// For frames of `elements` numbers of type `dtype`.
    pub(super) fn new(
        gpu: &Gpu,
        of: &Candidates,
        elements: usize,
        dtype: TensorDtype,
        room: usize,
    ) -> Result<Self, CudaError> {
        let misfit = || {
            let text = format!("{elements} elements of type {dtype} are no {of:?}, of which {room} are kept");
            CudaError::misuse("the candidates of an output", text)
        };
        let small = |n: usize| u32::try_from(n).map_err(|_| misfit());
        let whole = of.numbers > 0 && elements.is_multiple_of(of.numbers) && dtype != TensorDtype::U8;
        if !whole
            || of.deciding.is_empty()
            || of.deciding.end > of.numbers
            || room.saturating_mul(of.numbers) > elements
        {
            return Err(misfit());
        }
        // so that everything below is less, too
        small(elements)?;
        let (count, numbers) = (small(elements / of.numbers)?, small(of.numbers)?);
        let steps = match of.layout {
            Layout::Rows => [numbers, 1],
            Layout::Planes => [1, count],
        };
        let deciding = small(of.deciding.start)?..small(of.deciding.end)?;
        let module = loaded(gpu, "candidates.ptx", include_str!("../../ptx/candidates.ptx"))?;
        let [find, gather] = ["find", "gather"].map(|name| module.function(&format!("millrace_{name}_{dtype}")));
        Ok(Self { find: find?, gather: gather?, dtype, count, numbers, steps, deciding, room: small(room)? })
    }

    /// Bytes that it writes for so many frames: the counts of all, then of each its places and its rows.
    pub(super) fn bytes(&self, frames: usize) -> u64 {
        frames as u64 * (COUNTS_BYTES + self.frame_bytes())
    }

    /// Bytes of the places and the rows of a frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        4 * u64::from(self.room) * (1 + u64::from(self.numbers))
    }

    /// Queues both kernels for the first `frames` frames of `output`.
    pub(super) fn queue(
        &self,
        stream: &Stream,
        output: Span,
        frames: usize,
        to: Span,
        no_box: NoBox,
    ) -> Result<(), CudaError> {
        let (have, need) = (output.bytes(), frames as u64 * self.dtype.bytes() * self.elements());
        let blocks_z = u32::try_from(frames).ok().filter(|z| (1..=65_535).contains(z));
        let (Some(blocks_z), true) = (blocks_z, have >= need && to.bytes() >= self.bytes(frames)) else {
            let text = format!("{frames} frames, {have} B of them, to {} B", to.bytes());
            return Err(CudaError::misuse("the candidates of an output", text));
        };
        let counts = to.part(0, frames as u64 * COUNTS_BYTES);
        stream.fill(counts, 0)?;
        let blocks = (self.room * self.numbers).div_ceil(GATHER_THREADS).clamp(1, MAX_GATHER_BLOCKS);
        let mut parameter = Parameter {
            output: output.ptr(),
            counts: counts.ptr(),
            kept: counts.ptr() + counts.bytes(),
            candidates: self.count,
            numbers: self.numbers,
            candidate_step: self.steps[0],
            number_step: self.steps[1],
            first: self.deciding.start,
            end: self.deciding.end,
            room: self.room,
            threads: blocks * GATHER_THREADS,
            from: no_box.from,
            below: no_box.below,
        };
        let grids =
            [(&self.find, self.count.div_ceil(FIND_THREADS), FIND_THREADS), (&self.gather, blocks, GATHER_THREADS)];
        for (kernel, blocks, threads) in grids {
            let mut arguments = [(&raw mut parameter).cast()];
            let grid = Grid { blocks: [blocks, 1, blocks_z], threads: [threads, 1, 1] };
            // SAFETY: each kernel has one parameter, a `Candidates`, as `Parameter` is. Both spans have room for the frames,
            // as was checked above; that they stay is what their owners answer for, as with all work on a `Span`.
            unsafe { kernel.launch(stream, grid, 0, &mut arguments) }?;
        }
        Ok(())
    }

    fn elements(&self) -> u64 {
        u64::from(self.count) * u64::from(self.numbers)
    }
}
