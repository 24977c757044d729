//! The fused pass, and pictures for previews.

use super::launch::{Modules, Pass};
use super::{CudaConvertError, Kernel, Plan};
use crate::convert::ConvertError;
use crate::target::{ChannelOrder, Target};
use millrace_cuda::{Gpu, Span, Stream};
use millrace_frame::{ImageDesc, TensorDesc, TensorDtype, TensorLayout};

/// One frame to convert.
#[derive(Clone, Copy, Debug)]
pub struct CudaJob<'a> {
    /// What it is.
    pub source: &'a ImageDesc,
    /// The slot that the description's offsets count from. Nobody writes it until the work is done.
    pub from: Span,
    /// Where the tensor goes, from the span's first byte on. It overlaps no frame of the batch.
    pub to: Span,
    /// Around the picture, the tensor there has the padding of this target already, of a picture placed alike: it is left
    /// as it is.
    pub padded: bool,
}

/// Converts frames of any description into tensors of one target, many frames in one launch.
///
/// The contract of [`Converter`](crate::Converter), and its bits. A tensor begins at a multiple of its element's bytes.
#[derive(Debug)]
pub struct CudaConverter {
    pub(super) modules: Modules,
    pass: Pass,
    pub(super) target: Target,
}

impl CudaConverter {
    /// Loads the kernel of a target.
    ///
    /// # Errors
    /// A target that cannot be; a driver or a GPU that is too old.
    pub fn new(gpu: &Gpu, target: &Target) -> Result<Self, CudaConvertError> {
        target.validate().map_err(ConvertError::from)?;
        let kernel = Kernel::Convert(target.dtype, target.layout);
        let mut modules = Modules::new(gpu);
        modules.load(kernel)?;
        Ok(Self { modules, pass: Pass::new(kernel), target: *target })
    }

    /// The description of the tensor of a frame.
    ///
    /// # Errors
    /// A description that cannot be.
    pub fn tensor(&self, source: &ImageDesc) -> Result<TensorDesc, ConvertError> {
        match self.pass.plan(source) {
            Some(plan) => Ok(plan.tensor()),
            None => Ok(Plan::new(source, &self.target)?.tensor()),
        }
    }

    /// Queues the conversion of all jobs: for each [`MAX_FRAMES`](super::MAX_FRAMES) one launch, and a
    /// second where there is padding to write, or a scale that has a kernel of its own. The first frame of a
    /// description waits for the stream, while its plan is copied.
    ///
    /// # Errors
    /// A frame or a tensor that exceeds its span: then nothing is queued. The driver's.
    pub fn queue(&mut self, stream: &Stream, jobs: &[CudaJob<'_>]) -> Result<(), CudaConvertError> {
        let Self { modules, pass, target } = self;
        pass.queue(modules, stream, jobs, |index| Plan::new(jobs[index].source, target))
    }
}

/// The kernel that makes pictures.
pub(super) const PICTURE: Kernel = Kernel::Convert(TensorDtype::U8, TensorLayout::Nhwc);

/// Converts frames of any description into packed 8-bit RGB or BGR of their own size: for previews, and for consumers
/// that know no YCbCr.
#[derive(Debug)]
pub struct CudaToRgb {
    modules: Modules,
    pass: Pass,
    order: ChannelOrder,
}

impl CudaToRgb {
    /// Loads the kernel.
    ///
    /// # Errors
    /// A driver or a GPU that is too old.
    pub fn new(gpu: &Gpu, order: ChannelOrder) -> Result<Self, CudaConvertError> {
        let mut modules = Modules::new(gpu);
        modules.load(PICTURE)?;
        Ok(Self { modules, pass: Pass::new(PICTURE), order })
    }

    /// Queues the conversion of all jobs. A picture has 3 bytes for each shown pixel, its rows are not padded.
    ///
    /// # Errors
    /// As [`CudaConverter::queue`].
    pub fn queue(&mut self, stream: &Stream, jobs: &[CudaJob<'_>]) -> Result<(), CudaConvertError> {
        let Self { modules, pass, order } = self;
        pass.queue(modules, stream, jobs, |index| {
            let source = jobs[index].source;
            Plan::new(source, &Target::picture(source.display_size(), *order))
        })
    }
}
