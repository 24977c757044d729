//! A plane as it is shown, mirrored and turned on the way: `kernels/cuda/turn.cuh`.
#![allow(unsafe_code, reason = "launches kernels, which reach memory by address")]

use super::launch::loaded;
use millrace_cuda::{CudaError, Function, Gpu, Grid, Span, Stream};
use millrace_frame::{Orientation, Size};

/// Bytes of a sample that there is a kernel for: of luma and of a pair of chroma, 8 and 16 bits each.
const SAMPLE_BYTES: [u32; 3] = [1, 2, 4];
/// Threads of a block along x and y: a warp reads whole columns of a sector each, and writes whole rows.
const THREADS: [u32; 2] = [32, 8];

/// A plane in the GPU's memory, and where its samples go.
#[derive(Clone, Copy, Debug)]
pub struct TurnedPlane {
    /// It begins with the first sample.
    pub from: Span,
    /// From a stored row to the next, in bytes.
    pub from_pitch_bytes: u64,
    /// Samples of a stored row, and rows.
    pub stored: (u32, u32),
    /// Bytes of a sample: 1, 2 or 4. Both planes begin at a multiple of them, as do their rows.
    pub sample_bytes: u32,
    /// Where the first sample that is shown goes.
    pub to: Span,
    /// From a shown row to the next, in bytes.
    pub to_pitch_bytes: u32,
}

/// The parameter of the kernels, `Turn` of `turn.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TurnParameter {
    from: u64,
    to: u64,
    right_bytes: i64,
    down_bytes: i64,
    to_pitch_bytes: u32,
    width: u32,
    height: u32,
}

impl TurnedPlane {
    /// The kernel's parameters, and how many threads it needs. A plane that does not fit its spans is a misuse.
    pub fn launch(&self, orientation: Orientation) -> Result<(TurnParameter, Grid), CudaError> {
        let (stored, sample) = (self.stored, u64::from(self.sample_bytes));
        let (stored_width, stored_height) = (stored.0 as usize, stored.1 as usize);
        let Size { width_px: width, height_px: height } = orientation.shown_size(Size::new(stored.0, stored.1));
        let bytes = |(columns, rows): (u32, u32), pitch: u64| {
            u64::from(rows).checked_sub(1)?.checked_mul(pitch)?.checked_add(u64::from(columns) * sample)
        };
        let fits = |size: (u32, u32), pitch: u64, span: Span| {
            let aligned = span.ptr().is_multiple_of(sample) && pitch.is_multiple_of(sample);
            aligned
                && u64::from(size.0) * sample <= pitch
                && bytes(size, pitch).is_some_and(|need| need <= span.bytes())
        };
        let fits = SAMPLE_BYTES.contains(&self.sample_bytes)
            && fits(stored, self.from_pitch_bytes, self.from)
            && fits((width, height), self.to_pitch_bytes.into(), self.to);
        if !fits || width == 0 {
            return Err(CudaError::misuse("a plane to be turned", format!("{self:?} does not fit its memory")));
        }
        let at = |x, y| {
            let (x, y) = orientation.stored_at((stored_width, stored_height), x, y);
            (y as u64 * self.from_pitch_bytes + x as u64 * sample) as i64
        };
        let parameter = TurnParameter {
            from: self.from.ptr() + at(0, 0) as u64,
            to: self.to.ptr(),
            right_bytes: if width > 1 { at(1, 0) - at(0, 0) } else { 0 },
            down_bytes: if height > 1 { at(0, 1) - at(0, 0) } else { 0 },
            to_pitch_bytes: self.to_pitch_bytes,
            width,
            height,
        };
        let blocks = [width.div_ceil(THREADS[0]), height.div_ceil(THREADS[1]), 1];
        Ok((parameter, Grid { blocks, threads: [THREADS[0], THREADS[1], 1] }))
    }

    /// The name of its kernel.
    pub fn kernel(&self) -> String {
        format!("millrace_turn_{}", self.sample_bytes)
    }
}

/// The kernels that turn planes, on one GPU.
#[derive(Debug)]
pub struct CudaTurn([Function; 3]);

impl CudaTurn {
    /// Loads the module, which the driver compiles the first time on a machine.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let module = loaded(gpu, "turn.ptx", include_str!("../../ptx/turn.ptx"))?;
        let [one, two, four] = SAMPLE_BYTES.map(|bytes| module.function(&format!("millrace_turn_{bytes}")));
        Ok(Self([one?, two?, four?]))
    }

    /// Queues a plane.
    pub fn queue(&self, stream: &Stream, orientation: Orientation, plane: &TurnedPlane) -> Result<(), CudaError> {
        let (mut parameter, grid) = plane.launch(orientation)?;
        let known = SAMPLE_BYTES.iter().position(|&bytes| bytes == plane.sample_bytes);
        let Some(kernel) = known.and_then(|index| self.0.get(index)) else {
            return Err(CudaError::misuse("a plane to be turned", plane.kernel()));
        };
        let mut arguments = [(&raw mut parameter).cast()];
        // SAFETY: each kernel has one parameter, a `Turn`, as `TurnParameter` is. `launch` has checked that all samples are
        // in their spans; that those stay is what their owners answer for, as with all work on a `Span`.
        unsafe { kernel.launch(stream, grid, 0, &mut arguments) }
    }
}
