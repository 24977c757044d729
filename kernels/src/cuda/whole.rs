//! Whether a frame's scale is a whole number, for `kernels/cuda/whole.cuh`, and that kernel's parameters.

use crate::convert::taps::{ONE, PlaneTaps, Tap};
use millrace_frame::{ImageDesc, PixelFormat, Rect, Size};

/// The scales that have a kernel.
pub(super) const SCALES: [u32; 4] = [2, 3, 4, 6];
/// Neighbours of a thread.
pub(super) const PIXELS: u32 = 4;
/// Bytes of a load.
const ALIGN: u64 = 4;
const QUARTER: i32 = ONE / 4;

/// An NV12 frame whose picture is so many times as wide and as high as it is placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Whole {
    pub(super) scale: u32,
    /// From the start of a plane to the first sample of the picture, of luma and of chroma.
    pub(super) start_bytes: [u32; 2],
    /// Of even and odd rows, of even and odd columns.
    pub(super) sixteenths: [[u32; 2]; 2],
    /// All addresses that are read are multiples of [`ALIGN`] where the frame's own, plus each of these, is.
    reads_at: [u64; 2],
}

impl Whole {
    pub(super) fn of(source: &ImageDesc, shown: Rect, placed: Size, chroma: Option<&PlaneTaps>) -> Option<Self> {
        let chroma = chroma.filter(|_| source.format == PixelFormat::Nv12)?;
        let is = |scale: &u32| (scale * placed.width_px, scale * placed.height_px) == (shown.width_px, shown.height_px);
        let scale = SCALES.into_iter().find(is)?;
        let planes = [&source.planes[0], &source.planes[1]];
        // the kernel reads nothing beside the part that is shown, as the taps of a crop may
        let within = |taps: &[Tap], end: u32| taps.iter().all(|tap| tap.second < end.div_ceil(2));
        let fits = within(&chroma.x, shown.x_px + shown.width_px)
            && within(&chroma.y, shown.y_px + shown.height_px)
            && placed.width_px.is_multiple_of(PIXELS)
            && shown.x_px.is_multiple_of(2)
            && shown.y_px.is_multiple_of(2)
            && planes.iter().all(|plane| u64::from(plane.pitch_bytes).is_multiple_of(ALIGN));
        let across = quarters(&chroma.x, shown.x_px / 2, scale)?;
        let down = quarters(&chroma.y, shown.y_px / 2, scale)?;
        // two bytes for each second column
        let start = |plane: usize, row: u32| {
            u32::try_from(u64::from(row) * u64::from(planes[plane].pitch_bytes) + u64::from(shown.x_px)).ok()
        };
        let start_bytes = [start(0, shown.y_px)?, start(1, shown.y_px / 2)?];
        let reads_at = std::array::from_fn(|plane| planes[plane].offset_bytes + u64::from(start_bytes[plane]));
        let weights = |down: u32| {
            across.map(|across| {
                u32::from_le_bytes(
                    [(4 - down) * (4 - across), (4 - down) * across, down * (4 - across), down * across]
                        .map(|w| w as u8),
                )
            })
        };
        fits.then_some(Self { scale, start_bytes, sixteenths: down.map(weights), reads_at })
    }

    /// Whether a frame at this address can be read by whole loads.
    pub(super) fn reads(&self, from: u64) -> bool {
        self.reads_at.iter().all(|at| (from + at).is_multiple_of(ALIGN))
    }
}

/// The weight of the second sample of even and of odd outputs, in quarters, where the taps of an axis are those of the
/// kernel: `chroma_at` of `whole.cuh`.
fn quarters(taps: &[Tap], start: u32, scale: u32) -> Option<[u32; 2]> {
    let weight = |k: usize| {
        let Some(tap) = taps.get(k) else { return Some(0) };
        match (start + first(k, scale)).checked_sub(tap.first) {
            Some(0) => Some(tap.weight),
            _ if start + first(k, scale) + 1 == tap.first && tap.weight == 0 => Some(ONE),
            _ => None,
        }
    };
    let pattern = [weight(0)?, weight(1)?];
    let last = taps.last()?;
    let fits = taps.iter().enumerate().all(|(k, tap)| {
        // where the axis ends, a sample is its own neighbour
        weight(k) == Some(pattern[k % 2])
            || tap == last && tap.first == tap.second && start + first(k, scale) == tap.first
    });
    (fits && pattern.iter().all(|weight| weight % QUARTER == 0))
        .then(|| pattern.map(|weight| (weight / QUARTER) as u32))
}

/// The first chroma sample of an output, from the first of the picture.
fn first(k: usize, scale: u32) -> u32 {
    let k = k as u32;
    scale * (k / 2) + if k.is_multiple_of(2) { scale - 2 } else { 3 * scale - 2 } / 4
}
