//! Formats of images, tensors and packets, and the layout of their bytes in a slot.

use serde::{Deserialize, Serialize};

/// Width and height in pixels. Nothing assumes that either is even.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
}

impl Size {
    /// `width_px` x `height_px`.
    pub const fn new(width_px: u32, height_px: u32) -> Self {
        Self { width_px, height_px }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width_px, self.height_px)
    }
}

/// A rectangle in luma pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rect {
    /// Left.
    pub x_px: u32,
    /// Top.
    pub y_px: u32,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
}

/// Why a description cannot be true.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum LayoutError {
    #[error("{format} has {expected} planes, the description has {found}")]
    PlaneCount { format: PixelFormat, expected: usize, found: usize },
    #[error("plane {plane} of a {coded} {format} image has rows of {row_bytes} bytes, but a pitch of {pitch_bytes}")]
    Pitch { format: PixelFormat, coded: Size, plane: usize, row_bytes: u64, pitch_bytes: u32 },
    #[error("plane {plane} ends at byte {end_bytes}, after the {have_bytes} bytes of its slot")]
    Outside { plane: usize, end_bytes: u64, have_bytes: u64 },
    #[error("display area {display:?} does not lie in the coded size {coded}")]
    Display { display: Rect, coded: Size },
    #[error("an image of {0} has no pixels or more than 32768 in a direction")]
    Size(Size),
    #[error("a tensor of shape {shape:?} and {dtype} needs {need_bytes} bytes, its slot has {have_bytes}")]
    Tensor { shape: [u32; 4], dtype: TensorDtype, need_bytes: u64, have_bytes: u64 },
}

wire_enum! {
    /// How the samples of an image are stored.
    PixelFormat {
        /// 8-bit 4:2:0: plane 0 is Y, plane 1 interleaved Cb Cr.
        Nv12 = 1, "nv12";
        /// 16-bit little-endian 4:2:0, sample in the high bits: plane 0 is Y, plane 1 interleaved Cb Cr.
        P016 = 2, "p016";
        /// 8-bit 4:2:0: planes Y, Cb, Cr.
        I420 = 3, "i420";
        /// 8-bit interleaved B G R.
        Bgr24 = 4, "bgr24";
        /// 8-bit interleaved R G B.
        Rgb24 = 5, "rgb24";
    }
}

impl PixelFormat {
    /// Bytes of a row without padding, and the number of rows, of each plane of an image of `coded` size.
    /// Chroma of an odd size is rounded up, as H.264 and FFmpeg have it.
    pub fn plane_shapes(self, coded: Size) -> Vec<(u64, u64)> {
        let (w, h) = (u64::from(coded.width_px), u64::from(coded.height_px));
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        match self {
            Self::Nv12 => vec![(w, h), (2 * cw, ch)],
            Self::P016 => vec![(2 * w, h), (4 * cw, ch)],
            Self::I420 => vec![(w, h), (cw, ch), (cw, ch)],
            Self::Bgr24 | Self::Rgb24 => vec![(3 * w, h)],
        }
    }
}

/// The position of a plane in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plane {
    /// From the start of the slot.
    pub offset_bytes: u64,
    /// From the start of a row to the start of the next; at least the row's own bytes.
    pub pitch_bytes: u32,
}

/// An image in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageDesc {
    /// Sample format.
    pub format: PixelFormat,
    /// Size of what is stored.
    pub coded: Size,
    /// The part that is shown.
    pub display: Rect,
    /// The planes, in the order that `format` states.
    pub planes: Vec<Plane>,
    /// Colour.
    pub colour: crate::Colour,
}

impl ImageDesc {
    /// An image whose display area is all of it, planes one after the other, each row padded to a multiple of
    /// `pitch_align_bytes`. The second value is the size of the whole in bytes.
    pub fn packed(format: PixelFormat, size: Size, colour: crate::Colour, pitch_align_bytes: u32) -> (Self, u64) {
        let mut offset_bytes = 0;
        let align = u64::from(pitch_align_bytes.max(1));
        let planes = format
            .plane_shapes(size)
            .into_iter()
            .map(|(row_bytes, rows)| {
                let pitch_bytes = row_bytes.next_multiple_of(align);
                let plane = Plane { offset_bytes, pitch_bytes: pitch_bytes as u32 };
                offset_bytes += pitch_bytes * rows;
                plane
            })
            .collect();
        let display = Rect { x_px: 0, y_px: 0, width_px: size.width_px, height_px: size.height_px };
        (Self { format, coded: size, display, planes, colour }, offset_bytes)
    }

    /// The size of the part that is shown.
    pub fn display_size(&self) -> Size {
        Size::new(self.display.width_px, self.display.height_px)
    }

    /// Bytes of all samples, rows without their padding.
    pub fn bytes(&self) -> u64 {
        self.format.plane_shapes(self.coded).iter().map(|(row_bytes, rows)| row_bytes * rows).sum()
    }

    /// Where the last row of its last plane ends, from the start of the slot; of a validated description.
    pub fn end_bytes(&self) -> u64 {
        let ends = self.planes.iter().zip(self.format.plane_shapes(self.coded)).map(|(plane, (row_bytes, rows))| {
            plane.offset_bytes + u64::from(plane.pitch_bytes) * rows.saturating_sub(1) + row_bytes
        });
        ends.max().unwrap_or(0)
    }

    /// Checks that every row of every plane fits in a slot of `have_bytes`, and the display area in the coded size.
    /// Whoever reads a description from another process calls this once, before touching a byte.
    pub fn validate(&self, have_bytes: u64) -> Result<(), LayoutError> {
        const MAX_PX: u32 = 32_768;
        let Size { width_px, height_px } = self.coded;
        if !(1..=MAX_PX).contains(&width_px) || !(1..=MAX_PX).contains(&height_px) {
            return Err(LayoutError::Size(self.coded));
        }
        let shapes = self.format.plane_shapes(self.coded);
        if shapes.len() != self.planes.len() {
            return Err(LayoutError::PlaneCount {
                format: self.format,
                expected: shapes.len(),
                found: self.planes.len(),
            });
        }
        for (plane, (&Plane { offset_bytes, pitch_bytes }, (row_bytes, rows))) in
            self.planes.iter().zip(shapes).enumerate()
        {
            if u64::from(pitch_bytes) < row_bytes {
                let (format, coded) = (self.format, self.coded);
                return Err(LayoutError::Pitch { format, coded, plane, row_bytes, pitch_bytes });
            }
            // the last row need not be padded
            let end_bytes = offset_bytes.saturating_add(u64::from(pitch_bytes) * (rows - 1) + row_bytes);
            if end_bytes > have_bytes {
                return Err(LayoutError::Outside { plane, end_bytes, have_bytes });
            }
        }
        let d = self.display;
        let fits = |start: u32, len: u32, all: u32| len > 0 && start.checked_add(len).is_some_and(|end| end <= all);
        if !fits(d.x_px, d.width_px, width_px) || !fits(d.y_px, d.height_px, height_px) {
            return Err(LayoutError::Display { display: d, coded: self.coded });
        }
        Ok(())
    }
}

wire_enum! {
    /// The type of a tensor's elements.
    TensorDtype {
        /// 32-bit float.
        F32 = 1, "f32";
        /// 16-bit float.
        F16 = 2, "f16";
        /// 8-bit unsigned.
        U8 = 3, "u8";
    }
}

impl TensorDtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

wire_enum! {
    /// The order of a tensor's axes.
    TensorLayout {
        /// Batch, channel, row, column.
        Nchw = 1, "nchw";
        /// Batch, row, column, channel.
        Nhwc = 2, "nhwc";
    }
}

/// How a model's pixel coordinates lead back to the source: `source = model * scale + offset`, along each axis,
/// both in edge coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letterbox {
    /// Source pixels per model pixel, along x.
    pub scale_x: f64,
    /// Source pixels per model pixel, along y.
    pub scale_y: f64,
    /// Source position of the model's left edge.
    pub offset_x: f64,
    /// Source position of the model's top edge.
    pub offset_y: f64,
}

/// A tensor in a slot, contiguous from the slot's first byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorDesc {
    /// Extent of the four axes, in the order that `layout` states.
    pub shape: [u32; 4],
    /// Element type.
    pub dtype: TensorDtype,
    /// Axis order.
    pub layout: TensorLayout,
    /// From the model's pixels to the source's display pixels.
    pub source_from_model: Letterbox,
    /// Display size of the source.
    pub source_size: Size,
}

impl TensorDesc {
    /// Bytes of all elements; saturates.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().fold(self.dtype.bytes(), |n, &d| n.saturating_mul(u64::from(d)))
    }
    /// Checks that the tensor fits in a slot of `have_bytes`.
    pub fn validate(&self, have_bytes: u64) -> Result<(), LayoutError> {
        let need_bytes = self.bytes();
        if need_bytes == 0 || need_bytes > have_bytes {
            return Err(LayoutError::Tensor { shape: self.shape, dtype: self.dtype, need_bytes, have_bytes });
        }
        Ok(())
    }
}

wire_enum! {
    /// The codec of an encoded picture.
    PacketCodec {
        /// H.264, Annex-B.
        H264 = 1, "h264";
        /// H.265, Annex-B.
        H265 = 2, "h265";
        /// JPEG.
        Jpeg = 3, "jpeg";
        /// PNG.
        Png = 4, "png";
    }
}

/// An encoded picture (one access unit, in decoding order) in a slot, from the slot's first byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketDesc {
    /// Codec. H.264 and H.265 come as Annex-B, parameter sets in front of each key picture.
    pub codec: PacketCodec,
    /// A decoder can start here.
    pub key: bool,
    /// Length of the access unit.
    pub len_bytes: u32,
    /// The size that the picture is shown in, turned as [`Self::orientation`] says.
    pub display: Size,
    /// What has to be done to the decoded picture so that it is upright.
    pub orientation: crate::Orientation,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::Colour;
    use proptest::prelude::*;

    fn formats() -> impl Strategy<Value = PixelFormat> {
        prop::sample::select(PixelFormat::ALL)
    }

    proptest! {
        #[test]
        fn a_packed_image_fits_its_own_size_and_no_less(
            format in formats(), w in 1u32..200, h in 1u32..200, align in prop::sample::select(vec![1u32, 2, 64, 256]),
        ) {
            let (image, bytes) = ImageDesc::packed(format, Size::new(w, h), Colour::assumed_for_height(h), align);
            prop_assert_eq!(image.validate(bytes), Ok(()));
            // the padding of the last row is not read
            let last = *image.planes.last().unwrap();
            let (row, rows) = *format.plane_shapes(image.coded).last().unwrap();
            let needed = last.offset_bytes + u64::from(last.pitch_bytes) * (rows - 1) + row;
            prop_assert_eq!(image.validate(needed), Ok(()));
            prop_assert!(image.validate(needed - 1).is_err());
        }

        #[test]
        fn no_description_passes_that_reads_outside_its_slot(
            format in formats(), w in any::<u32>(), h in any::<u32>(), offset in any::<u64>(), pitch in any::<u32>(),
            x in any::<u32>(), dw in any::<u32>(), have in 0u64..1 << 40,
        ) {
            let planes = format.plane_shapes(Size::new(1, 1)).iter()
                .map(|_| Plane { offset_bytes: offset, pitch_bytes: pitch }).collect();
            let image = ImageDesc {
                format, coded: Size::new(w, h), planes, colour: Colour::assumed_for_height(h),
                display: Rect { x_px: x, y_px: 0, width_px: dw, height_px: h },
            };
            if image.validate(have).is_ok() {
                for (plane, (row, rows)) in image.planes.iter().zip(format.plane_shapes(image.coded)) {
                    let end = u128::from(plane.offset_bytes)
                        + u128::from(plane.pitch_bytes) * u128::from(rows - 1) + u128::from(row);
                    prop_assert!(end <= u128::from(have));
                    prop_assert!(u64::from(plane.pitch_bytes) >= row);
                }
                prop_assert!(u64::from(x) + u64::from(dw) <= u64::from(w));
            }
        }
    }

    #[test]
    fn odd_sizes_round_chroma_up() {
        assert_eq!(PixelFormat::Nv12.plane_shapes(Size::new(5, 3)), [(5, 3), (6, 2)]);
        assert_eq!(PixelFormat::I420.plane_shapes(Size::new(5, 3)), [(5, 3), (3, 2), (3, 2)]);
        assert_eq!(PixelFormat::P016.plane_shapes(Size::new(5, 3)), [(10, 3), (12, 2)]);
    }
}
