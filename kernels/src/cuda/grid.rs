//! Which kernel, how many threads, which frames.

use super::whole;
use millrace_cuda::Grid;
use millrace_frame::{Size, TensorDtype, TensorLayout};

/// Frames of one launch: `MAX_FRAMES` of `kernels/cuda/plan.cuh`. More of them are more launches.
pub const MAX_FRAMES: usize = 128;
const MAX_WARPS: u32 = 8;
const MAX_BLOCK_ROWS: u32 = 4;

/// A kernel of `kernels/cuda/kernels.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// The pictures of frames into tensors.
    Convert(TensorDtype, TensorLayout),
    /// The same at a whole-number scale.
    Whole(TensorDtype, TensorLayout, u32),
    /// The rest of tensors.
    Pad(TensorDtype, TensorLayout),
    /// Tensors of pixels to tensors of planes.
    Planes(TensorDtype),
}

impl Kernel {
    /// Its name in the module.
    pub fn name(self) -> String {
        match self {
            Self::Convert(dtype, layout) => format!("millrace_{dtype}_{layout}"),
            Self::Whole(dtype, layout, scale) => format!("millrace_{dtype}_{layout}_by{scale}"),
            Self::Pad(dtype, layout) => format!("millrace_{dtype}_{layout}_pad"),
            Self::Planes(dtype) => format!("millrace_{dtype}_planes"),
        }
    }

    /// All kernels of one type of element, which are one module.
    pub fn of(dtype: TensorDtype) -> impl Iterator<Item = Self> {
        let in_layout = move |&layout: &TensorLayout| {
            let scales = whole::SCALES.map(|scale| Self::Whole(dtype, layout, scale));
            [Self::Convert(dtype, layout), Self::Pad(dtype, layout)].into_iter().chain(scales)
        };
        TensorLayout::ALL.iter().flat_map(in_layout).chain([Self::Planes(dtype)])
    }

    pub(super) fn dtype(self) -> TensorDtype {
        match self {
            Self::Convert(dtype, _) | Self::Whole(dtype, ..) | Self::Pad(dtype, _) | Self::Planes(dtype) => dtype,
        }
    }

    /// How much of a tensor a thread writes, as `kernels.cu` has it.
    pub fn tile(self) -> Tile {
        match (self, self.dtype()) {
            (Self::Whole(..), _) => Tile { pixels: whole::PIXELS, rows: 2, block_rows: MAX_BLOCK_ROWS },
            (_, TensorDtype::F32) => Tile { pixels: 2, rows: 4, block_rows: 1 },
            (_, TensorDtype::F16 | TensorDtype::U8) => Tile { pixels: 4, rows: 4, block_rows: 1 },
        }
    }
}

/// How much of a tensor a thread writes: neighbours along x, in rows below each other. And how many rows of threads a
/// block may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the three counts")]
pub struct Tile {
    pub pixels: u32,
    pub rows: u32,
    pub block_rows: u32,
}

impl Tile {
    /// Threads of a block along x and y: of the blocks that waste the fewest threads the smallest one.
    fn threads(self, columns: u32) -> [u32; 2] {
        let shapes = (1..=self.block_rows).flat_map(|y| {
            let whole_warps = (1..=MAX_WARPS).map(|warps| 32 * warps);
            whole_warps.chain([columns]).map(move |x| [x, y])
        });
        let run = |[x, y]: [u32; 2]| u64::from((x * y).next_multiple_of(32)) * u64::from(columns.div_ceil(x));
        // as a share of the row, in 1/1000
        let waste = |[x, y]: [u32; 2]| run([x, y]) * 1000 / (u64::from(columns) * u64::from(y));
        let shapes = shapes.filter(|[x, y]| x * y <= 32 * MAX_WARPS);
        shapes.min_by_key(|&shape| (waste(shape), shape[1], std::cmp::Reverse(shape[0]))).unwrap_or([32, 1])
    }
}

/// A launch that has not happened yet.
#[derive(Clone, Debug)]
pub struct Launch {
    /// How many threads: enough for the largest frame of the batch.
    pub grid: Grid,
    /// The kernel's parameter, `Batch` of `plan.cuh`: addresses of each frame's source, tensor and plan.
    pub frames: Box<[[u64; 3]; MAX_FRAMES]>,
}

impl Launch {
    /// A launch for up to [`MAX_FRAMES`] frames (the others are left out), each with the columns and rows to cover.
    pub fn new(tile: Tile, frames: &[([u64; 3], Size)]) -> Self {
        let frames = &frames[..frames.len().min(MAX_FRAMES)];
        let largest = |extent: fn(&Size) -> u32| frames.iter().map(|(_, size)| extent(size)).max().unwrap_or(1);
        let columns = largest(|s| s.width_px).div_ceil(tile.pixels).max(1);
        let [across, down] = tile.threads(columns);
        let rows = largest(|s| s.height_px).div_ceil(tile.rows * down).max(1);
        let mut addresses = Box::new([[0; 3]; MAX_FRAMES]);
        for (place, (frame, _)) in addresses.iter_mut().zip(frames) {
            *place = *frame;
        }
        Self {
            grid: Grid { blocks: [columns.div_ceil(across), rows, frames.len() as u32], threads: [across, down, 1] },
            frames: addresses,
        }
    }
}
