//! A kernel's parameters for the frames of one description: `Plan` of `kernels/cuda/plan.cuh`, byte by byte.

use super::{Kernel, whole::Whole};
use crate::convert::{ConvertError, colour, taps};
use crate::geometry::{Placement, place};
use crate::target::Target;
use millrace_frame::{ImageDesc, PixelFormat, Rect, Size, TensorDesc};

/// Everything that a kernel needs before a frame is there: the positions of its samples, its taps, its affine map.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    bytes: Vec<u8>,
    target: Target,
    tensor: TensorDesc,
    source_bytes: u64,
    placed: Rect,
    whole: Option<Whole>,
}

/// `Kind` of `plan.cuh`.
const SAMPLES_8: u32 = 0;
const SAMPLES_16: u32 = 1;
const NV12: u32 = 2;

/// `Plan` of `plan.cuh`, without what fills it up to a whole number of 8 bytes.
const HEAD_BYTES: usize = 196;
const TAPS_AT: usize = 200;

impl Plan {
    /// Prepares the conversion of frames described by `source`.
    ///
    /// # Errors
    /// A description or a target that cannot be.
    pub fn new(source: &ImageDesc, target: &Target) -> Result<Self, ConvertError> {
        let placement = place(source.display_size(), target.size, target.fit);
        Self::placed(source, target, placement, placement.shown_of(source))
    }

    /// The same, with this part of the stored picture placed by the caller; `target.fit` is not looked at.
    pub(crate) fn placed(
        source: &ImageDesc,
        target: &Target,
        placement: Placement,
        part: Rect,
    ) -> Result<Self, ConvertError> {
        source.validate(u64::MAX)?;
        target.validate()?;
        let placed = placement.placed;
        let placed_size = Size::new(placed.width_px, placed.height_px);
        let (full, chroma) =
            taps::plane_taps(source.format, source.display, part, source.colour.siting.value, placed_size);
        let whole = Whole::of(source, part, placed_size, chroma.as_ref());
        // (plane, bytes of the first sample) of each component, and bytes from one sample to the next
        let (kind, components, steps) = match source.format {
            PixelFormat::Nv12 => (NV12, [(0, 0), (1, 0), (1, 1)], [1, 2]),
            PixelFormat::P016 => (SAMPLES_16, [(0, 0), (1, 0), (1, 2)], [2, 4]),
            PixelFormat::I420 => (SAMPLES_8, [(0, 0), (1, 0), (2, 0)], [1, 1]),
            PixelFormat::Bgr24 | PixelFormat::Rgb24 => (SAMPLES_8, [(0, 0), (0, 1), (0, 2)], [3, 3]),
        };
        let mut bytes = Vec::new();
        let mut put = |field: &[u8]| bytes.extend_from_slice(field);
        for (plane, start) in components {
            put(&(source.planes[plane].offset_bytes + start).to_ne_bytes());
        }
        for (plane, _) in components {
            put(&source.planes[plane].pitch_bytes.to_ne_bytes());
        }
        let Size { width_px, height_px } = target.size;
        let tensor = [width_px, height_px, placed.x_px, placed.y_px, placed.width_px, placed.height_px];
        for number in steps.into_iter().chain([kind]).chain(tensor) {
            put(&number.to_ne_bytes());
        }
        let channels = colour::channels(source.format, &source.colour, target);
        let weights = channels.iter().flat_map(|c| c.weights);
        let rest = [channels.map(|c| c.constant), channels.map(|c| c.low), channels.map(|c| c.high)];
        for number in weights.chain(rest.into_iter().flatten()) {
            put(&number.to_ne_bytes());
        }
        let (start_bytes, sixteenths) = whole.map_or_else(Default::default, |w| (w.start_bytes, w.sixteenths));
        for number in start_bytes.into_iter().chain(sixteenths.into_iter().flatten()) {
            put(&number.to_ne_bytes());
        }
        for number in channels.map(|c| c.pad) {
            put(&number.to_ne_bytes());
        }
        // an image without chroma planes reads its other components as it reads the first
        let half = chroma.as_ref().unwrap_or(&full);
        let lists = [&full.x, &full.y, &half.x, &half.y];
        let mut first = 0u32;
        for list in lists {
            put(&first.to_ne_bytes());
            first += list.len() as u32;
        }
        debug_assert_eq!(bytes.len(), HEAD_BYTES);
        bytes.resize(TAPS_AT, 0);
        // 15 bits of weight, which is at most 1 << 14, and 17 of the sample: a picture has at most 32,768 along an axis
        let packed = lists.into_iter().flatten().map(|tap| tap.first << 15 | tap.weight as u32);
        bytes.extend(packed.flat_map(u32::to_ne_bytes));
        let tensor = TensorDesc {
            shape: target.shape(),
            dtype: target.dtype,
            layout: target.layout,
            source_from_model: placement.source_from_model,
            source_size: source.display_size(),
        };
        let ends =
            source.planes.iter().zip(source.format.plane_shapes(source.coded)).map(|(plane, (row_bytes, rows))| {
                plane.offset_bytes + u64::from(plane.pitch_bytes) * (rows - 1) + row_bytes
            });
        Ok(Self { bytes, target: *target, tensor, source_bytes: ends.max().unwrap_or(0), placed, whole })
    }

    /// What the kernel reads.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Up to where a frame may be read.
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }

    /// The kernel that writes the picture of a frame at this address.
    pub fn kernel(&self, from: u64) -> Kernel {
        let Target { dtype, layout, .. } = self.target;
        match self.whole.filter(|whole| whole.reads(from)) {
            Some(whole) => Kernel::Whole(dtype, layout, whole.scale),
            None => Kernel::Convert(dtype, layout),
        }
    }

    /// The kernel that writes the rest of the tensor, where there is any.
    pub fn padding(&self) -> Option<Kernel> {
        let Target { dtype, layout, size, .. } = self.target;
        let Rect { width_px, height_px, .. } = self.placed;
        (Size { width_px, height_px } != size).then_some(Kernel::Pad(dtype, layout))
    }

    /// Columns and rows that a kernel covers.
    pub fn extent(&self, kernel: Kernel) -> Size {
        match kernel {
            Kernel::Convert(..) | Kernel::Whole(..) => Size::new(self.placed.width_px, self.placed.height_px),
            Kernel::Pad(..) | Kernel::Planes(_) => self.target.size,
        }
    }

    /// What it makes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The description of the tensor.
    pub fn tensor(&self) -> TensorDesc {
        self.tensor.clone()
    }
}
