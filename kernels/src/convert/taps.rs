//! Where each output sample reads: the two neighbours along one axis and the weight of the second.

use millrace_frame::{ChromaSiting, PixelFormat, Rect, Size};

/// The weights of a tap pair add up to this. 14 bits keep both of them in an `i16`, which is what SIMD multiplies.
pub(crate) const ONE: i32 = 1 << 14;

/// Two neighbouring samples of a row or column of a plane, of the whole coded plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tap {
    /// The first sample.
    pub(crate) first: u32,
    /// The second one: the next, or the same where the axis ends.
    pub(crate) second: u32,
    /// Weight of the second, 0..=[`ONE`].
    pub(crate) weight: i32,
}

/// The taps of one plane along both axes.
#[derive(Clone, Debug)]
pub(crate) struct PlaneTaps {
    pub(crate) x: Vec<Tap>,
    pub(crate) y: Vec<Tap>,
}

/// The positions of a plane's samples along an axis.
#[derive(Clone, Copy)]
enum Grid {
    /// One sample per pixel.
    Full,
    /// One sample per two pixels, at this many half pixels from the first of them.
    Half { offset_half_px: i64 },
}

/// Pixels along an axis.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

/// `outputs` taps along an axis, for the pixels `part` of the picture, which is `whole`.
///
/// Output `k` shows the source at `(k + 1/2) * len / outputs - 1/2` from the part's start (pixel centres on whole numbers),
/// clamped to the picture: the geometry of OpenCV's `INTER_LINEAR`. All of it is whole-number arithmetic until the weight, so that
/// no scale leaves a weight of one millionth where there is none.
fn axis(whole: Span, part: Span, outputs: u32, grid: Grid) -> Vec<Tap> {
    let [(start, len), (from, of)] = [whole, part].map(|span| (i64::from(span.start), i64::from(span.len)));
    let outputs = i64::from(outputs);
    let den = 2 * outputs;
    (0..outputs)
        .map(|k| {
            let pixel = from * den + (2 * k + 1) * of - outputs;
            let pixel = pixel.clamp(start * den, (start + len - 1) * den);
            let (num, den, first, last) = match grid {
                Grid::Full => (pixel, den, start, start + len - 1),
                Grid::Half { offset_half_px } => {
                    (2 * pixel - offset_half_px * den, 4 * den, start / 2, (start + len - 1) / 2)
                }
            };
            let num = num.clamp(first * den, last * den);
            let low = num / den;
            Tap {
                first: low as u32,
                second: (low + 1).min(last) as u32,
                weight: ((num % den * i64::from(ONE) + den / 2) / den) as i32,
            }
        })
        .collect()
}

/// The taps of the luma plane (or of the only plane of an RGB image), and of the chroma planes where there are any.
///
/// Chroma is read where the output pixel lies in the chroma plane, with the samples at their stated siting. Samples
/// outside the picture are not read: the samples there are padding of the codec. Beside the part, but in the picture, they are.
pub(crate) fn plane_taps(
    format: PixelFormat,
    picture: Rect,
    part: Rect,
    siting: ChromaSiting,
    placed: Size,
) -> (PlaneTaps, Option<PlaneTaps>) {
    let x = |of: Rect| Span { start: of.x_px, len: of.width_px };
    let y = |of: Rect| Span { start: of.y_px, len: of.height_px };
    let along_x = |grid| axis(x(picture), x(part), placed.width_px, grid);
    let along_y = |grid| axis(y(picture), y(part), placed.height_px, grid);
    let full = PlaneTaps { x: along_x(Grid::Full), y: along_y(Grid::Full) };
    let chroma = match format {
        PixelFormat::Bgr24 | PixelFormat::Rgb24 => None,
        PixelFormat::Nv12 | PixelFormat::P016 | PixelFormat::I420 => {
            let (x, y) = siting.offset_luma_px();
            let half = |offset_px: f64| Grid::Half { offset_half_px: (2.0 * offset_px) as i64 };
            Some(PlaneTaps { x: along_x(half(x)), y: along_y(half(y)) })
        }
    };
    (full, chroma)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(first: u32, second: u32, weight: f64) -> Tap {
        Tap { first, second, weight: (weight * f64::from(ONE)).round() as i32 }
    }

    /// The taps of a part that is all of the picture.
    fn axis(start: u32, len: u32, outputs: u32, grid: Grid) -> Vec<Tap> {
        let whole = Span { start, len };
        super::axis(whole, whole, outputs, grid)
    }

    #[test]
    fn a_part_reads_what_is_beside_it_in_the_picture() {
        let taps = |whole, part| super::axis(whole, part, 4, Grid::Full);
        // twice the size of pixels 3 and 4: at 2.75, 3.25, 3.75, 4.25
        let expected = [tap(2, 3, 0.75), tap(3, 4, 0.25), tap(3, 4, 0.75), tap(4, 5, 0.25)];
        assert_eq!(taps(Span { start: 0, len: 8 }, Span { start: 3, len: 2 }), expected);
        // where the picture ends, so does what is read
        let expected = [tap(3, 4, 0.0), tap(3, 4, 0.25), tap(3, 4, 0.75), tap(4, 4, 0.0)];
        assert_eq!(taps(Span { start: 3, len: 2 }, Span { start: 3, len: 2 }), expected);
    }

    #[test]
    fn an_axis_of_its_own_size_reads_each_sample_alone() {
        let taps = axis(3, 5, 5, Grid::Full);
        let alone: Vec<_> = (3..8).map(|k| (k, 0)).collect();
        assert_eq!(taps.iter().map(|t| (t.first, t.weight)).collect::<Vec<_>>(), alone);
        assert_eq!(taps[4].second, 7, "the last one has no neighbour");
    }

    #[test]
    fn half_the_size_averages_pairs_and_a_third_takes_the_middle() {
        assert_eq!(axis(0, 4, 2, Grid::Full), [tap(0, 1, 0.5), tap(2, 3, 0.5)]);
        assert_eq!(axis(0, 6, 2, Grid::Full), [tap(1, 2, 0.0), tap(4, 5, 0.0)]);
    }

    #[test]
    fn twice_the_size_reads_at_quarters_and_stops_at_the_ends() {
        let expected = [tap(0, 1, 0.0), tap(0, 1, 0.25), tap(0, 1, 0.75), tap(1, 1, 0.0)];
        assert_eq!(axis(0, 2, 4, Grid::Full), expected);
    }

    #[test]
    fn chroma_lies_where_its_siting_says() {
        let at = |offset_half_px| axis(0, 4, 4, Grid::Half { offset_half_px });
        // on the left luma sample: luma 0, 1, 2, 3 lie at chroma 0, 1/2, 1, 3/2 (clamped to 1, the last)
        assert_eq!(at(0), [tap(0, 1, 0.0), tap(0, 1, 0.5), tap(1, 1, 0.0), tap(1, 1, 0.0)]);
        // between the two: at -1/4 (clamped), 1/4, 3/4, 5/4 (clamped)
        assert_eq!(at(1), [tap(0, 1, 0.0), tap(0, 1, 0.25), tap(0, 1, 0.75), tap(1, 1, 0.0)]);
        // on the right one: -1/2 (clamped), 0, 1/2, 1
        assert_eq!(at(2), [tap(0, 1, 0.0), tap(0, 1, 0.0), tap(0, 1, 0.5), tap(1, 1, 0.0)]);
    }

    #[test]
    fn a_crop_at_an_odd_pixel_keeps_the_chroma_of_the_whole_picture() {
        // pixels 3, 4, 5 of the coded picture; chroma 1 lies on pixel 2, chroma 2 on pixel 4
        let taps = axis(3, 3, 3, Grid::Half { offset_half_px: 0 });
        assert_eq!(taps, [tap(1, 2, 0.5), tap(2, 2, 0.0), tap(2, 2, 0.0)]);
    }
}
