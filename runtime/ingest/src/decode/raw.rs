//! Macroblocks of raw samples (H.264 I_PCM), found in a decoded picture.
//!
//! Such a macroblock has 384 bytes in the slice as they are: 256 of luma, 64 of Cb, 64 of Cr (7.3.5). The deblocking filter
//! changes chroma only at its 4x4 edges, one sample on each side (8.7.2), so that what is in the middle of the blocks is
//! in the slice, byte for byte. That is looked for: to find the macroblocks by their syntax would take a decoder's whole
//! parser.

use super::engine::Frame;
use crate::picture::Planes;
use crate::syntax::annexb_nals;
use crate::syntax::bits::rbsp;

/// Bytes of such a macroblock: all, and its luma.
const RAW_BYTES: usize = 384;
const LUMA_BYTES: usize = 256;
/// Rows and columns of a chroma block that no filter reaches.
const INNER: [usize; 4] = [1, 2, 5, 6];
/// The first of them, which a picture that is cropped within the block has as well.
const FIRST: [usize; 2] = [1, 2];
/// As many places as large pictures have macroblocks, a few times over.
const TABLE_BITS: u32 = 15;
/// So much of a block has to be shown.
const LEAST: usize = 3;

/// The chroma of a macroblock, as far as it is shown.
struct Block {
    /// Where it begins in both planes.
    at: usize,
    width: usize,
    height: usize,
    key: u64,
    /// The place behind that of the next block that is found in the same place of the table; 0 where there is none.
    next: u32,
}

/// Whether a picture has a macroblock whose samples are in its access unit as they are.
pub(super) fn has_raw_macroblocks(unit: &[u8], frame: &Frame) -> bool {
    let Planes::Bytes { planes: [_, cb, cr], strides: [_, stride] } = &frame.planes else { return false };
    let slices = annexb_nals(unit).filter(|nal| matches!(nal[0] & 31, 1 | 5) && nal.len() > RAW_BYTES);
    let slices: Vec<Vec<u8>> = slices.map(|nal| rbsp(&nal[1..], usize::MAX)).collect();
    if slices.is_empty() {
        return false;
    }
    let mut blocks = blocks(frame, *stride);
    let mut table = vec![0u32; 1 << TABLE_BITS];
    for (number, block) in (1..).zip(&mut blocks) {
        block.key = key(|row, column| [cb, cr].map(|plane| plane[block.at + row * stride + column]));
        block.next = std::mem::replace(&mut table[place(block.key)], number);
    }
    // a stream that is made to look alike everywhere must not take for ever
    let mut comparisons = 16 * (unit.len() + blocks.len());
    for slice in &slices {
        for chroma in slice.windows(RAW_BYTES).map(|raw| &raw[LUMA_BYTES..]) {
            let key = key(|row, column| [chroma[8 * row + column], chroma[64 + 8 * row + column]]);
            let mut number = table[place(key)];
            while let Some(block) = blocks.get((number as usize).wrapping_sub(1)) {
                let inner = |size: usize| INNER.into_iter().filter(move |&n| n < size);
                let is_raw = block.key == key
                    && inner(block.height).all(|row| {
                        inner(block.width).all(|column| {
                            let at = block.at + row * stride + column;
                            (cb[at], cr[at]) == (chroma[8 * row + column], chroma[64 + 8 * row + column])
                        })
                    });
                comparisons -= 1;
                if is_raw || comparisons == 0 {
                    return true;
                }
                number = block.next;
            }
        }
    }
    false
}

/// The macroblocks of which enough is shown.
fn blocks(frame: &Frame, stride: usize) -> Vec<Block> {
    // from where in the planes a row or column of macroblocks begins, and how much of it is there
    let along = move |first: usize, size: usize| {
        let (first, size) = (first / 2, size.div_ceil(2));
        (first.next_multiple_of(8) - first..size).step_by(8).map(move |at| (at, (size - at).min(8)))
    };
    let rows = along(frame.first.1, frame.size.1).filter(|row| row.1 >= LEAST);
    rows.flat_map(|(y, height)| {
        let columns = along(frame.first.0, frame.size.0).filter(|column| column.1 >= LEAST);
        columns.map(move |(x, width)| Block { at: y * stride + x, width, height, key: 0, next: 0 })
    })
    .collect()
}

/// What a macroblock is found by: eight samples of its chroma.
fn key(sample: impl Fn(usize, usize) -> [u8; 2]) -> u64 {
    FIRST.iter().flat_map(|&row| FIRST.map(|column| (row, column))).fold(0, |key, (row, column)| {
        let [cb, cr] = sample(row, column);
        key << 16 | u64::from(cb) << 8 | u64::from(cr)
    })
}

/// Where in the table a key is: the top bits of a product that all of its bits take part in.
fn place(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS)) as usize
}
