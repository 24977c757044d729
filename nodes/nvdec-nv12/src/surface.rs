//! From a mapped surface of the decoder to a frame in a slot: copied as NV12, turned where it has to be, or converted to BGR24.

use millrace_cameras::Frame;
use millrace_cuda::nvdec::{Mapped, MappedPlane};
use millrace_cuda::{CudaError, Gpu, Rows, Span};
use millrace_frame::{Colour, ImageDesc, Orientation, PixelFormat, Plane, Size};
use millrace_ingest::FrameFormat;
use millrace_kernels::ChannelOrder;
use millrace_kernels::cuda::{CudaJob, CudaToRgb, CudaTurn, TurnedPlane};
use millrace_node::{NodeError, Queue};
use std::sync::{Mutex, PoisonError};

/// Rows of NV12 begin at multiples of this: what a warp reads at once, and what kernels with wide loads want.
const PITCH_ALIGN_BYTES: u32 = 256;

/// The two ways of `FORMAT`.
pub(crate) enum Writer {
    /// What is shown of each plane is copied. The kernels that turn planes are loaded for the first picture that needs them.
    Nv12(Gpu, Mutex<Option<CudaTurn>>),
    /// The kernel that makes pictures; only the node's loop uses it.
    Bgr24(Mutex<CudaToRgb>),
}

impl Writer {
    pub(crate) fn new(gpu: &Gpu, format: FrameFormat) -> Result<Self, NodeError> {
        Ok(match format {
            FrameFormat::Nv12 => Self::Nv12(gpu.clone(), Mutex::new(None)),
            FrameFormat::Bgr24 => {
                Self::Bgr24(Mutex::new(CudaToRgb::new(gpu, ChannelOrder::Bgr).map_err(NodeError::fatal)?))
            }
        })
    }

    /// Whether it shows what is stored turned or mirrored as it is to be seen.
    pub(crate) fn turns(&self) -> bool {
        matches!(self, Self::Nv12(..))
    }

    /// What the frame is: its size and its colour, as the picture's parameter sets have them.
    pub(crate) fn described(&self, surface: &Mapped, frame: &Frame<'_>) -> (ImageDesc, u64) {
        let stored_size = surface.picture().format();
        let (format, align) = match self {
            // the kernel's rows are not padded
            Self::Bgr24(_) => (PixelFormat::Bgr24, 1),
            Self::Nv12(..) => (stored(surface), PITCH_ALIGN_BYTES),
        };
        let size =
            frame.picture_info.info.orientation.shown_size(Size::new(stored_size.width_px, stored_size.height_px));
        ImageDesc::packed(format, size, colour(frame), align)
    }

    /// Queues the work. Gives the bytes that it reads of the surface.
    pub(crate) fn write(
        &self,
        queue: &Queue,
        surface: &Mapped,
        frame: &Frame<'_>,
        desc: &ImageDesc,
        to: Span,
    ) -> Result<u64, NodeError> {
        let lost = |e: &dyn std::fmt::Display| NodeError::frame("unreadable_surface", frame.camera, e);
        let planes = surface.planes().map_err(|e| lost(&e))?;
        let read_bytes = planes.iter().map(|plane| plane.row_bytes * plane.rows).sum();
        match self {
            Self::Nv12(gpu, kernels) => {
                let orientation = frame.picture_info.info.orientation;
                let part = |into: &Plane| to.part(into.offset_bytes, to.bytes() - into.offset_bytes);
                if orientation == Orientation::Upright {
                    for (from, into) in planes.iter().zip(&desc.planes) {
                        copy(queue, from, part(into), into).map_err(NodeError::fatal)?;
                    }
                    return Ok(read_bytes);
                }
                let mut kernels = kernels.lock().unwrap_or_else(PoisonError::into_inner);
                let turn = match &mut *kernels {
                    Some(turn) => turn,
                    none => none.insert(CudaTurn::new(gpu).map_err(NodeError::fatal)?),
                };
                for (plane, (from, into)) in planes.iter().zip(&desc.planes).enumerate() {
                    // luma, and pairs of chroma
                    let sample_bytes = surface.picture().format().sample_bytes() << plane;
                    let plane = turned(from, sample_bytes, part(into), into);
                    turn.queue(queue.stream(), orientation, &plane).map_err(NodeError::fatal)?;
                }
            }
            Self::Bgr24(kernel) => {
                let whole = surface.whole();
                let place = |plane: &MappedPlane| Plane {
                    offset_bytes: plane.span.ptr() - whole.ptr(),
                    pitch_bytes: plane.pitch_bytes as u32,
                };
                let source = ImageDesc {
                    format: stored(surface),
                    coded: desc.coded,
                    display: desc.display,
                    planes: planes.iter().map(place).collect(),
                    colour: desc.colour,
                };
                let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
                let job = CudaJob { source: &source, from: whole, to, padded: false };
                kernel.queue(queue.stream(), &[job]).map_err(NodeError::fatal)?;
            }
        }
        Ok(read_bytes)
    }
}

fn copy(queue: &Queue, from: &MappedPlane, to: Span, into: &Plane) -> Result<(), CudaError> {
    let rows = Rows {
        row_bytes: from.row_bytes,
        rows: from.rows,
        from_pitch_bytes: from.pitch_bytes,
        to_pitch_bytes: into.pitch_bytes.into(),
    };
    queue.stream().copy_rows(from.span, to, rows)
}

fn turned(from: &MappedPlane, sample_bytes: u32, to: Span, into: &Plane) -> TurnedPlane {
    TurnedPlane {
        from: from.span,
        from_pitch_bytes: from.pitch_bytes,
        stored: ((from.row_bytes / u64::from(sample_bytes)) as u32, from.rows as u32),
        sample_bytes,
        to,
        to_pitch_bytes: into.pitch_bytes,
    }
}

/// What the decoder's surfaces hold.
fn stored(surface: &Mapped) -> PixelFormat {
    if surface.picture().format().bit_depth > 8 { PixelFormat::P016 } else { PixelFormat::Nv12 }
}

fn colour(frame: &Frame<'_>) -> Colour {
    let mut colour = frame.picture_info.info.colour;
    frame.source_settings.override_colour(&mut colour);
    colour
}
