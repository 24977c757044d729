//! The conversion as separate passes, each over whole pictures of 8-bit RGB: the baseline that the fused pass is measured against in a
//! graph (`FUSED: false`), and the order of operations of the usual OpenCV preprocessing.

use crate::convert::{ConvertError, Converter};
use crate::geometry::{Fit, Placement};
use crate::target::{ChannelOrder, Target};
use millrace_frame::{ImageDesc, PixelFormat, Size, TensorDesc, TensorDtype, TensorLayout};

impl Target {
    /// A full-size picture of interleaved 8-bit pixels, R G B or B G R: what [`PixelFormat::Rgb24`] and
    /// [`PixelFormat::Bgr24`] name. For previews and for consumers that know no YCbCr.
    pub fn picture(size: Size, order: ChannelOrder) -> Self {
        Self {
            size,
            layout: TensorLayout::Nhwc,
            dtype: TensorDtype::U8,
            order,
            mean: [0.0; 3],
            scale: [1.0; 3],
            fit: Fit::Stretch,
            pad: 0,
        }
    }
}

/// Frame to full-size RGB24; RGB24 resized; RGB24 letterboxed, normalized and laid out. Rounds to 8 bits after each
/// of the first two passes.
#[derive(Debug)]
pub struct SeparatePasses {
    colour: Converter,
    resize: Converter,
    normalize: Converter,
    placement: Placement,
    tensor: TensorDesc,
    full_size: Vec<u8>,
    resized: Vec<u8>,
}

impl SeparatePasses {
    /// Prepares the passes; the same contract as [`Converter::new`].
    pub fn new(source: &ImageDesc, target: &Target) -> Result<Self, ConvertError> {
        let fused = Converter::new(source, target)?;
        let placement = fused.placement();
        let shown = source.display_size();
        let placed = Size::new(placement.placed.width_px, placement.placed.height_px);
        let (full, full_bytes) = ImageDesc::packed(PixelFormat::Rgb24, shown, source.colour, 1);
        let (small, small_bytes) = ImageDesc::packed(PixelFormat::Rgb24, placed, source.colour, 1);
        let small_alone = Placement { placed: small.display, ..placement };
        Ok(Self {
            colour: Converter::new(source, &Target::picture(shown, ChannelOrder::Rgb))?,
            resize: Converter::placed(
                &full,
                &Target::picture(placed, ChannelOrder::Rgb),
                small_alone,
                placement.shown,
            )?,
            normalize: Converter::placed(&small, target, placement, small.display)?,
            placement,
            tensor: fused.tensor(),
            full_size: vec![0; full_bytes as usize],
            resized: vec![0; small_bytes as usize],
        })
    }

    /// Whether frames of this description are the ones that the passes were made for.
    pub fn fits(&self, source: &ImageDesc) -> bool {
        self.colour.fits(source)
    }

    /// The description of the tensor, the same as the fused pass's.
    pub fn tensor(&self) -> TensorDesc {
        self.tensor.clone()
    }

    /// The picture's position in the tensor.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Bytes of the pictures in between that a conversion moves: each is written by one pass and read by the next.
    pub fn moved_bytes(&self) -> u64 {
        2 * (self.full_size.len() + self.resized.len()) as u64
    }

    /// Converts one frame; the same contract as [`Converter::convert`].
    pub fn convert(&mut self, source: &[u8], tensor: &mut [u8]) -> Result<(), ConvertError> {
        self.colour_and_resize(source)?;
        self.normalize.convert(&self.resized, tensor)
    }

    /// The same contract as [`Converter::convert_padded`].
    pub fn convert_padded(&mut self, source: &[u8], tensor: &mut [u8]) -> Result<(), ConvertError> {
        self.colour_and_resize(source)?;
        self.normalize.convert_padded(&self.resized, tensor)
    }

    fn colour_and_resize(&mut self, source: &[u8]) -> Result<(), ConvertError> {
        self.colour.convert(source, &mut self.full_size)?;
        self.resize.convert(&self.full_size, &mut self.resized)
    }
}
