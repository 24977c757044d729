//! Which kernel, how many threads, which frames.

use millrace_cuda::Grid;
use millrace_frame::{Size, TensorDtype, TensorLayout};

/// Frames of one launch: `MAX_FRAMES` of `kernels/cuda/plan.cuh`. More of them are more launches.
pub const MAX_FRAMES: usize = 128;
const MAX_WARPS: u32 = 8;

/// A kernel of `kernels/cuda/kernels.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Frames to tensors.
    Convert(TensorDtype, TensorLayout),
    /// Tensors of pixels to tensors of planes.
    Planes(TensorDtype),
}

impl Kernel {
    /// Its name in the module.
    pub fn name(self) -> String {
        match self {
            Self::Convert(dtype, layout) => format!("millrace_{dtype}_{layout}"),
            Self::Planes(dtype) => format!("millrace_{dtype}_planes"),
        }
    }

    pub(super) fn dtype(self) -> TensorDtype {
        match self {
            Self::Convert(dtype, _) | Self::Planes(dtype) => dtype,
        }
    }

    /// How much of a tensor a thread writes, as `kernels.cu` has it.
    pub fn tile(self) -> Tile {
        let pixels = match self.dtype() {
            TensorDtype::F32 => 2,
            TensorDtype::F16 | TensorDtype::U8 => 4,
        };
        Tile { pixels, rows: 4 }
    }
}

/// How much of a tensor a thread writes: neighbours along x, in rows below each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the two counts")]
pub struct Tile {
    pub pixels: u32,
    pub rows: u32,
}

/// A launch that has not happened yet.
#[derive(Clone, Debug)]
pub struct Launch {
    /// How many threads: enough for the largest tensor of the batch.
    pub grid: Grid,
    /// The kernel's parameter, `Batch` of `plan.cuh`: addresses of each frame's source, tensor and plan.
    pub frames: Box<[[u64; 3]; MAX_FRAMES]>,
}

impl Launch {
    /// A launch for up to [`MAX_FRAMES`] frames (the others are left out), each with the size of its tensor.
    pub fn new(tile: Tile, frames: &[([u64; 3], Size)]) -> Self {
        let frames = &frames[..frames.len().min(MAX_FRAMES)];
        let largest = |extent: fn(&Size) -> u32| frames.iter().map(|(_, size)| extent(size)).max().unwrap_or(1);
        let columns = largest(|s| s.width_px).div_ceil(tile.pixels).max(1);
        // whole warps, of which the fewest have nothing to do; then the fewest blocks
        let threads = (1..=MAX_WARPS).rev().map(|warps| 32 * warps);
        let threads = threads.min_by_key(|&threads| columns.next_multiple_of(threads)).unwrap_or(32);
        let rows = largest(|s| s.height_px).div_ceil(tile.rows).max(1);
        let mut addresses = Box::new([[0; 3]; MAX_FRAMES]);
        for (place, (frame, _)) in addresses.iter_mut().zip(frames) {
            *place = *frame;
        }
        Self {
            grid: Grid { blocks: [columns.div_ceil(threads), rows, frames.len() as u32], threads: [threads, 1, 1] },
            frames: addresses,
        }
    }
}
