//! The macroblocks of a slice (H.264, 7.3.4 and 7.3.5), read as far as is needed to know where they end.

use super::arithmetic::Arithmetic;
use super::{Damage, Slice};

/// What the macroblocks to the right and below need to know of one.
#[derive(Clone, Copy, Default)]
pub(super) struct Macroblock {
    /// The slice that it is of; 0 is none.
    slice: u64,
    kind: Kind,
    /// `CodedBlockPatternLuma` and `CodedBlockPatternChroma`.
    pub luma_pattern: u8,
    pub chroma_pattern: u8,
    pub transform_8x8: bool,
    predicts_chroma: bool,
    /// `coded_block_flag` of the DC blocks: luma, Cb, Cr.
    pub coded_dc: u8,
    /// The same of the other blocks: 16 of luma, row by row, 4 of Cb, 4 of Cr.
    pub coded: u32,
    /// Of each list, a bit for each quarter: it refers to another than the first reference.
    refs: [u8; 2],
    /// Of each list and 4x4 block: the size of the motion vector's difference, x and y.
    differences: [[[u8; 2]; 16]; 2],
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Skipped,
    /// `B_Direct_16x16`
    Direct,
    Inter,
    IntraBlocks,
    Intra16x16,
    Raw,
}

impl Macroblock {
    pub(super) fn is_intra(&self) -> bool {
        matches!(self.kind, Kind::IntraBlocks | Kind::Intra16x16 | Kind::Raw)
    }

    pub(super) fn is_intra_16x16(&self) -> bool {
        self.kind == Kind::Intra16x16
    }
}

/// A part of a macroblock with a motion of its own, in blocks of 4x4: where it begins and its size.
type Part = (usize, usize, usize, usize);

/// Luma and chroma of a raw macroblock, in bytes.
const RAW_BYTES: usize = 384;
/// `mb_qp_delta` is from -26 to 25; it is coded as a row of so many ones.
const MOST_QP_ONES: u32 = 52;

/// A walk over the macroblocks of a slice.
pub(super) struct Walk<'a> {
    pub(super) bins: Arithmetic<'a>,
    slice: &'a Slice,
    macroblocks: &'a mut [Macroblock],
    number: u64,
    at: usize,
    /// The macroblock before changed the quantizer.
    changed_qp: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bins: Arithmetic<'a>, slice: &'a Slice, macroblocks: &'a mut [Macroblock], number: u64) -> Self {
        Self { bins, slice, macroblocks, number, at: slice.first, changed_qp: false }
    }

    /// Reads the slice; gives the macroblock that follows it.
    pub(super) fn read_to_end(mut self, end: usize) -> Result<usize, Damage> {
        loop {
            if self.at >= self.macroblocks.len() {
                return Err(Damage::TooLong);
            }
            let mut mb = Macroblock { slice: self.number, ..Macroblock::default() };
            if !self.is_skipped() {
                self.macroblock(&mut mb)?;
            } else {
                self.changed_qp = false;
            }
            self.macroblocks[self.at] = mb;
            self.at += 1;
            let ends = self.bins.terminate();
            if self.bins.position() > end {
                return Err(Damage::TooShort);
            }
            if ends {
                // what an encoder writes behind the end is its own business
                return Ok(self.at);
            }
        }
    }

    pub(super) fn left(&self) -> Option<&Macroblock> {
        let is_first = self.at.is_multiple_of(self.slice.width);
        self.at.checked_sub(1).filter(|_| !is_first).and_then(|at| self.of_this_slice(at))
    }

    pub(super) fn top(&self) -> Option<&Macroblock> {
        self.at.checked_sub(self.slice.width).and_then(|at| self.of_this_slice(at))
    }

    fn of_this_slice(&self, at: usize) -> Option<&Macroblock> {
        Some(&self.macroblocks[at]).filter(|mb| mb.slice == self.number)
    }

    /// How many of the two neighbours are so.
    fn neighbours(&self, are_so: impl Fn(&Macroblock) -> bool) -> usize {
        usize::from(self.left().is_some_and(&are_so)) + usize::from(self.top().is_some_and(&are_so))
    }

    fn is_skipped(&mut self) -> bool {
        let first = match self.slice {
            Slice { intra: true, .. } => return false,
            Slice { b: true, .. } => 24,
            _ => 11,
        };
        let context = first + self.neighbours(|mb| mb.kind != Kind::Skipped);
        self.bins.bin(context)
    }

    fn macroblock(&mut self, mb: &mut Macroblock) -> Result<(), Damage> {
        let may_be_8x8 = if self.slice.intra {
            let context = 3 + self.neighbours(|mb| mb.kind != Kind::IntraBlocks);
            let is_blocks = !self.bins.bin(context);
            self.intra(mb, is_blocks, [6, 7, 8, 9, 10])?
        } else if self.slice.b {
            self.of_b_slice(mb)?
        } else {
            self.of_p_slice(mb)?
        };
        if mb.kind == Kind::Raw {
            return Ok(());
        }
        if mb.kind != Kind::Intra16x16 {
            self.coded_block_pattern(mb);
            if mb.luma_pattern > 0 && may_be_8x8 && self.slice.transform_8x8 {
                mb.transform_8x8 = self.transform_size();
            }
            if mb.luma_pattern == 0 && mb.chroma_pattern == 0 {
                self.changed_qp = false;
                return Ok(());
            }
        }
        self.changed_qp = self.qp_delta()?;
        self.residual(mb)
    }

    fn transform_size(&mut self) -> bool {
        let context = 399 + self.neighbours(|mb| mb.transform_8x8);
        self.bins.bin(context)
    }

    /// An intra macroblock; `contexts` are those of its type's bins behind the first.
    fn intra(&mut self, mb: &mut Macroblock, is_blocks: bool, contexts: [usize; 5]) -> Result<bool, Damage> {
        mb.kind = if is_blocks { Kind::IntraBlocks } else { Kind::Intra16x16 };
        if is_blocks {
            mb.transform_8x8 = self.slice.transform_8x8 && self.transform_size();
            for _ in 0..if mb.transform_8x8 { 4 } else { 16 } {
                if !self.bins.bin(68) {
                    for _ in 0..3 {
                        self.bins.bin(69);
                    }
                }
            }
        } else if self.bins.terminate() {
            *mb = Macroblock {
                kind: Kind::Raw,
                luma_pattern: 15,
                chroma_pattern: 2,
                coded_dc: 7,
                coded: u32::MAX,
                ..*mb
            };
            self.changed_qp = false;
            self.bins.start_at(self.bins.position().div_ceil(8) + RAW_BYTES);
            return Ok(false);
        } else {
            let [luma, chroma, more_chroma, mode, last] = contexts;
            mb.luma_pattern = if self.bins.bin(luma) { 15 } else { 0 };
            if self.bins.bin(chroma) {
                mb.chroma_pattern = 1 + u8::from(self.bins.bin(more_chroma));
            }
            self.bins.bin(mode);
            self.bins.bin(last);
        }
        let context = 64 + self.neighbours(|mb| mb.predicts_chroma);
        mb.predicts_chroma = self.bins.bin(context);
        if mb.predicts_chroma {
            self.bins.ones(67, 2);
        }
        Ok(false)
    }

    fn of_p_slice(&mut self, mb: &mut Macroblock) -> Result<bool, Damage> {
        if self.bins.bin(14) {
            let is_blocks = !self.bins.bin(17);
            return self.intra(mb, is_blocks, [18, 19, 19, 20, 20]);
        }
        mb.kind = Kind::Inter;
        let shape = if self.bins.bin(15) {
            if self.bins.bin(17) { 1 } else { 2 }
        } else if self.bins.bin(16) {
            return self.quarters(mb);
        } else {
            0
        };
        self.parts(mb, shape, [1, 1])
    }

    fn of_b_slice(&mut self, mb: &mut Macroblock) -> Result<bool, Damage> {
        let context = 27 + self.neighbours(|mb| !matches!(mb.kind, Kind::Skipped | Kind::Direct));
        if !self.bins.bin(context) {
            mb.kind = Kind::Direct;
            return Ok(self.slice.direct_8x8);
        }
        mb.kind = Kind::Inter;
        if !self.bins.bin(30) {
            let lists = 1 + u8::from(self.bins.bin(32));
            return self.parts(mb, 0, [lists; 2]);
        }
        let code =
            [31, 32, 32, 32].iter().fold(0usize, |code, &context| code << 1 | usize::from(self.bins.bin(context)));
        let kind = match code {
            0..8 => code + 3,
            13 => {
                let is_blocks = !self.bins.bin(32);
                return self.intra(mb, is_blocks, [33, 34, 34, 35, 35]);
            }
            14 => 11,
            15 => return self.quarters(mb),
            _ => (code << 1 | usize::from(self.bins.bin(32))) - 4,
        };
        // table 7-14: from type 4 on, pairs of parts above each other and side by side, by the lists that they use
        const LISTS: [[u8; 2]; 9] = [[1, 1], [2, 2], [1, 2], [2, 1], [1, 3], [2, 3], [3, 1], [3, 2], [3, 3]];
        match kind.checked_sub(4) {
            None => self.parts(mb, 0, [3, 3]),
            Some(pair) => self.parts(mb, 1 + pair % 2, LISTS[pair / 2]),
        }
    }

    /// A macroblock in one part (shape 0), in two above each other (1), or in two side by side (2). `lists` has a bit for
    /// each list that a part uses.
    fn parts(&mut self, mb: &mut Macroblock, shape: usize, lists: [u8; 2]) -> Result<bool, Damage> {
        const PARTS: [&[Part]; 3] = [&[(0, 0, 4, 4)], &[(0, 0, 4, 2), (0, 2, 4, 2)], &[(0, 0, 2, 4), (2, 0, 2, 4)]];
        for list in 0..2 {
            for (&part, of_part) in PARTS[shape].iter().zip(lists) {
                if of_part >> list & 1 == 1 {
                    self.reference(mb, list, part)?;
                }
            }
        }
        for list in 0..2 {
            for (&part, of_part) in PARTS[shape].iter().zip(lists) {
                if of_part >> list & 1 == 1 {
                    self.motion(mb, list, part)?;
                }
            }
        }
        Ok(true)
    }

    /// A macroblock in four quarters, each of which may be in parts again. True: a transform of 8x8 is possible.
    fn quarters(&mut self, mb: &mut Macroblock) -> Result<bool, Damage> {
        let mut quarters = [(0, (2, 2)); 4];
        for quarter in &mut quarters {
            *quarter = if self.slice.b { self.quarter_of_b() } else { (1, self.quarter_of_p()) };
        }
        let at = |quarter: usize| (quarter % 2 * 2, quarter / 2 * 2);
        for list in 0..2 {
            for (n, (lists, _)) in quarters.iter().enumerate() {
                if lists >> list & 1 == 1 {
                    let (x, y) = at(n);
                    self.reference(mb, list, (x, y, 2, 2))?;
                }
            }
        }
        for list in 0..2 {
            for (n, &(lists, (width, height))) in quarters.iter().enumerate() {
                let (x0, y0) = at(n);
                for y in (y0..y0 + 2).step_by(height) {
                    for x in (x0..x0 + 2).step_by(width) {
                        if lists >> list & 1 == 1 {
                            self.motion(mb, list, (x, y, width, height))?;
                        }
                    }
                }
            }
        }
        Ok(quarters.iter().all(|&(lists, size)| if lists == 0 { self.slice.direct_8x8 } else { size == (2, 2) }))
    }

    /// The size of a quarter's parts (table 7-17).
    fn quarter_of_p(&mut self) -> (usize, usize) {
        match () {
            () if self.bins.bin(21) => (2, 2),
            () if !self.bins.bin(22) => (2, 1),
            () if self.bins.bin(23) => (1, 2),
            () => (1, 1),
        }
    }

    /// The lists that a quarter uses, and the size of its parts (table 7-18). One that is predicted directly uses none.
    fn quarter_of_b(&mut self) -> (u8, (usize, usize)) {
        if !self.bins.bin(36) {
            return (0, (2, 2));
        }
        if !self.bins.bin(37) {
            return (1 + u8::from(self.bins.bin(39)), (2, 2));
        }
        let mut kind = 3;
        if self.bins.bin(38) {
            if self.bins.bin(39) {
                return (2 + u8::from(self.bins.bin(39)), (1, 1));
            }
            kind += 4;
        }
        kind += 2 * usize::from(self.bins.bin(39));
        kind += usize::from(self.bins.bin(39));
        const KINDS: [(u8, (usize, usize)); 8] =
            [(3, (2, 2)), (1, (2, 1)), (1, (1, 2)), (2, (2, 1)), (2, (1, 2)), (3, (2, 1)), (3, (1, 2)), (1, (1, 1))];
        KINDS[kind - 3]
    }

    fn reference(&mut self, mb: &mut Macroblock, list: usize, (x, y, width, height): Part) -> Result<(), Damage> {
        let count = self.slice.refs[list];
        if count <= 1 {
            return Ok(());
        }
        let is_other = |of: Option<&Macroblock>, x: usize, y: usize| {
            usize::from(of.is_some_and(|of| of.refs[list] >> (y / 2 * 2 + x / 2) & 1 == 1))
        };
        let left = if x > 0 { is_other(Some(&*mb), x - 1, y) } else { is_other(self.left(), 3, y) };
        let top = if y > 0 { is_other(Some(&*mb), x, y - 1) } else { is_other(self.top(), x, 3) };
        if !self.bins.bin(54 + left + 2 * top) {
            return Ok(());
        }
        let mut index = 1;
        if self.bins.bin(58) {
            index += 1 + self.bins.ones(59, count);
        }
        if index >= count {
            return Err(Damage::OutOfRange);
        }
        for quarter in 0..4 {
            let (qx, qy) = (quarter % 2 * 2, quarter / 2 * 2);
            if (x..x + width).contains(&qx) && (y..y + height).contains(&qy) {
                mb.refs[list] |= 1 << quarter;
            }
        }
        Ok(())
    }

    fn motion(&mut self, mb: &mut Macroblock, list: usize, (x, y, width, height): Part) -> Result<(), Damage> {
        let size = |of: Option<&Macroblock>, x: usize, y: usize| {
            of.map_or([0; 2], |of| of.differences[list][4 * y + x].map(u32::from))
        };
        let left = if x > 0 { size(Some(&*mb), x - 1, y) } else { size(self.left(), 3, y) };
        let top = if y > 0 { size(Some(&*mb), x, y - 1) } else { size(self.top(), x, 3) };
        let mut difference = [0; 2];
        for (axis, first) in [40, 47].into_iter().enumerate() {
            difference[axis] = self.difference(first, left[axis] + top[axis])?;
        }
        for y in y..y + height {
            mb.differences[list][4 * y + x..4 * y + x + width].fill(difference);
        }
        Ok(())
    }

    /// The size of one component, as far as neighbours look at it.
    fn difference(&mut self, first: usize, around: u32) -> Result<u8, Damage> {
        let context = match around {
            0..3 => 0,
            3..=32 => 1,
            _ => 2,
        };
        if !self.bins.bin(first + context) {
            return Ok(0);
        }
        let mut size = 1;
        while size < 9 && self.bins.bin(first + (size as usize + 2).min(6)) {
            size += 1;
        }
        if size == 9 {
            size += self.bins.exp_golomb(3)?;
        }
        self.bins.bypass(); // the sign
        Ok(size.min(255) as u8)
    }

    fn coded_block_pattern(&mut self, mb: &mut Macroblock) {
        for quarter in 0..4 {
            let is_empty = |of: Option<&Macroblock>, quarter: u8| {
                usize::from(of.is_some_and(|of| of.luma_pattern >> quarter & 1 == 0))
            };
            let left =
                if quarter & 1 == 1 { is_empty(Some(&*mb), quarter - 1) } else { is_empty(self.left(), quarter + 1) };
            let top =
                if quarter & 2 == 2 { is_empty(Some(&*mb), quarter - 2) } else { is_empty(self.top(), quarter + 2) };
            mb.luma_pattern |= u8::from(self.bins.bin(73 + left + 2 * top)) << quarter;
        }
        for least in 1..=2 {
            let has = |of: Option<&Macroblock>| usize::from(of.is_some_and(|of| of.chroma_pattern >= least));
            let context = has(self.left()) + 2 * has(self.top());
            if !self.bins.bin(77 + 4 * usize::from(least - 1) + context) {
                break;
            }
            mb.chroma_pattern = least;
        }
    }

    /// Whether the quantizer changes.
    fn qp_delta(&mut self) -> Result<bool, Damage> {
        if !self.bins.bin(60 + usize::from(self.changed_qp)) {
            return Ok(false);
        }
        let is_within = !self.bins.bin(62) || self.bins.ones(63, MOST_QP_ONES) < MOST_QP_ONES;
        if is_within { Ok(true) } else { Err(Damage::OutOfRange) }
    }
}
