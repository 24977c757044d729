//! A plane as it is shown: mirrored and turned on the way.

use millrace_frame::Orientation;

/// Samples of one plane as they are stored: this width and height, and so many samples from a row to the next.
pub(crate) struct Stored {
    pub(crate) size: (usize, usize),
    pub(crate) stride: usize,
}

/// Where rows of a plane go: from this byte on, with so many bytes from a row to the next.
pub(crate) type Rows = (usize, usize);

/// A tile of a plane's samples, so that what is read column by column stays in the cache.
const TILE: usize = 32;

/// Writes a plane as `orientation` shows it. `sample` gives the `N` bytes of a sample by its number in `stored`.
pub(crate) fn turn<const N: usize>(
    orientation: Orientation,
    stored: &Stored,
    out: &mut [u8],
    (offset, pitch): Rows,
    sample: impl Fn(usize) -> [u8; N],
) {
    let at = |x, y| {
        let (x, y) = orientation.stored_at(stored.size, x, y);
        (y * stored.stride + x) as isize
    };
    let (width, height) = match orientation.degrees() {
        90 | 270 => (stored.size.1, stored.size.0),
        _ => stored.size,
    };
    let step = if width > 1 { at(1, 0) - at(0, 0) } else { 0 };
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            let right = width.min(left + TILE);
            for y in top..height.min(top + TILE) {
                let row = &mut out[offset + y * pitch..][left * N..right * N];
                let mut from = at(left, y);
                for to in row.as_chunks_mut::<N>().0 {
                    *to = sample(from as usize);
                    from += step;
                }
            }
        }
    }
}
