//! The coefficients of a macroblock (H.264, 7.3.5.3 and 9.3.3.1.3).

use super::Damage;
use super::macroblock::{Macroblock, Walk};
use rusty_h264_common::cabac_tables::{CAT5_LAST_BASE, CAT5_LEVEL_BASE, CAT5_SIG_BASE, LAST8X8, SIG8X8};

/// Kinds of blocks, by the standard's `ctxBlockCat`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    LumaDc,
    LumaAc,
    Luma4x4,
    ChromaDc,
    ChromaAc,
    Luma8x8,
}

/// Contexts of the kinds: coded, significant, last, level.
const CONTEXTS: [[usize; 4]; 6] = [
    [85, 105, 166, 227],
    [89, 120, 181, 237],
    [93, 134, 195, 247],
    [97, 149, 210, 257],
    [101, 152, 213, 266],
    [0, CAT5_SIG_BASE, CAT5_LAST_BASE, CAT5_LEVEL_BASE],
];
const COEFFICIENTS: [usize; 6] = [16, 15, 16, 4, 15, 64];

/// Where the flags of chroma blocks begin in [`Macroblock::coded`].
const CHROMA: usize = 16;

impl Walk<'_> {
    pub(super) fn residual(&mut self, mb: &mut Macroblock) -> Result<(), Damage> {
        let is_16x16 = mb.is_intra_16x16();
        if is_16x16 {
            self.dc(mb, 0, Block::LumaDc)?;
        }
        for quarter in 0..4 {
            if mb.luma_pattern >> quarter & 1 == 0 {
                continue;
            }
            let (x, y) = (quarter % 2 * 2, quarter / 2 * 2);
            if mb.transform_8x8 {
                self.coefficients(Block::Luma8x8)?;
                mb.coded |= 0b11_0011 << (4 * y + x);
                continue;
            }
            let kind = if is_16x16 { Block::LumaAc } else { Block::Luma4x4 };
            for (x, y) in [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)] {
                self.ac(mb, kind, 0, 4, x, y)?;
            }
        }
        if mb.chroma_pattern > 0 {
            self.dc(mb, 1, Block::ChromaDc)?;
            self.dc(mb, 2, Block::ChromaDc)?;
        }
        if mb.chroma_pattern == 2 {
            for first in [CHROMA, CHROMA + 4] {
                for block in 0..4 {
                    self.ac(mb, Block::ChromaAc, first, 2, block % 2, block / 2)?;
                }
            }
        }
        Ok(())
    }

    /// A block of DC coefficients: luma, Cb, Cr.
    fn dc(&mut self, mb: &mut Macroblock, plane: usize, kind: Block) -> Result<(), Damage> {
        let flag = |of: Option<&Macroblock>| of.map_or(mb.is_intra(), |of| of.coded_dc >> plane & 1 == 1);
        let context = usize::from(flag(self.left())) + 2 * usize::from(flag(self.top()));
        if self.bins.bin(CONTEXTS[kind as usize][0] + context) {
            mb.coded_dc |= 1 << plane;
            self.coefficients(kind)?;
        }
        Ok(())
    }

    /// A block at (x, y) of a plane that is `width` blocks wide, whose flags begin at `first`.
    fn ac(
        &mut self,
        mb: &mut Macroblock,
        kind: Block,
        first: usize,
        width: usize,
        x: usize,
        y: usize,
    ) -> Result<(), Damage> {
        let flag = |of: Option<&Macroblock>, x: usize, y: usize| {
            of.map_or(mb.is_intra(), |of| of.coded >> (first + width * y + x) & 1 == 1)
        };
        let left = if x > 0 { flag(Some(&*mb), x - 1, y) } else { flag(self.left(), width - 1, y) };
        let top = if y > 0 { flag(Some(&*mb), x, y - 1) } else { flag(self.top(), x, width - 1) };
        if self.bins.bin(CONTEXTS[kind as usize][0] + usize::from(left) + 2 * usize::from(top)) {
            mb.coded |= 1 << (first + width * y + x);
            self.coefficients(kind)?;
        }
        Ok(())
    }

    fn coefficients(&mut self, kind: Block) -> Result<(), Damage> {
        let [_, significant, last, level] = CONTEXTS[kind as usize];
        let mut count = 0;
        let mut ends_early = false;
        for i in 0..COEFFICIENTS[kind as usize] - 1 {
            let (of_significant, of_last) =
                if kind == Block::Luma8x8 { (SIG8X8[i].into(), LAST8X8[i].into()) } else { (i, i) };
            if self.bins.bin(significant + of_significant) {
                count += 1;
                if self.bins.bin(last + of_last) {
                    ends_early = true;
                    break;
                }
            }
        }
        // where no coefficient is named the last one, it is the block's last
        count += u32::from(!ends_early);
        let (mut ones, mut larger) = (0, 0);
        for _ in 0..count {
            if self.bins.bin(level + if larger > 0 { 0 } else { (1 + ones).min(4) }) {
                let context = level + 5 + larger.min(if kind == Block::ChromaDc { 3 } else { 4 });
                if self.bins.ones(context, 13) == 13 {
                    self.bins.exp_golomb(0)?;
                }
                larger += 1;
            } else {
                ones += 1;
            }
            self.bins.bypass(); // the sign
        }
        Ok(())
    }
}
