//! The arithmetic decoder of CABAC (H.264, 9.3.3.2). Its tables are those of the decoder that shows the pictures.

use super::Damage;
use rusty_h264_common::cabac_tables::{CTX_INIT, RANGE_LPS, STATE_TRANS};

/// A code with a longer prefix names a value that no picture has.
const LONGEST_PREFIX: u32 = 24;

pub(super) struct Arithmetic<'a> {
    data: &'a [u8],
    /// Bytes that were loaded. Behind the end of the data they are 0.
    loaded: usize,
    /// The offset of the standard, and behind it `ahead` bits that are loaded and not used yet.
    offset: u64,
    ahead: u32,
    range: u32,
    /// State and most probable symbol of each context.
    contexts: [(u8, bool); CTX_INIT.len()],
}

impl<'a> Arithmetic<'a> {
    /// `model` is 0 for intra slices, else `cabac_init_idc` + 1.
    pub(super) fn new(data: &'a [u8], byte: usize, qp: i32, model: usize) -> Self {
        let contexts = CTX_INIT.map(|models| {
            let (m, n) = models[model];
            let state = (((i32::from(m) * qp.clamp(0, 51)) >> 4) + i32::from(n)).clamp(1, 126) as u8;
            if state < 64 { (63 - state, false) } else { (state - 64, true) }
        });
        let mut new = Self { data, loaded: byte, offset: 0, ahead: 0, range: 0, contexts };
        new.start_at(byte);
        new
    }

    /// Begins anew at a byte, with the contexts as they are (9.3.1.2).
    pub(super) fn start_at(&mut self, byte: usize) {
        (self.loaded, self.offset, self.ahead, self.range) = (byte, 0, 0, 510);
        for _ in 0..4 {
            self.load();
        }
        self.ahead -= 9;
    }

    /// Bits of the data that were used so far.
    pub(super) fn position(&self) -> usize {
        8 * self.loaded - self.ahead as usize
    }

    fn load(&mut self) {
        let byte = self.data.get(self.loaded).copied().unwrap_or(0);
        self.offset = self.offset << 8 | u64::from(byte);
        self.loaded += 1;
        self.ahead += 8;
    }

    fn shift(&mut self, bits: u32) {
        while self.ahead < bits {
            self.load();
        }
        self.ahead -= bits;
    }

    /// A bin of a context.
    pub(super) fn bin(&mut self, context: usize) -> bool {
        let (state, likely) = self.contexts[context];
        let state = usize::from(state);
        let less_likely = u32::from(RANGE_LPS[state][(self.range >> 6 & 3) as usize]);
        self.range -= less_likely;
        let split = u64::from(self.range) << self.ahead;
        let is_likely = self.offset < split;
        if !is_likely {
            self.offset -= split;
            self.range = less_likely;
        }
        self.contexts[context] = (STATE_TRANS[state][usize::from(is_likely)], likely ^ (!is_likely && state == 0));
        let bits = self.range.leading_zeros() - 23;
        self.range <<= bits;
        self.shift(bits);
        is_likely == likely
    }

    pub(super) fn bypass(&mut self) -> bool {
        self.shift(1);
        let split = u64::from(self.range) << self.ahead;
        let bin = self.offset >= split;
        if bin {
            self.offset -= split;
        }
        bin
    }

    /// The bin that ends a slice, or begins raw samples.
    pub(super) fn terminate(&mut self) -> bool {
        self.range -= 2;
        if self.offset >= u64::from(self.range) << self.ahead {
            return true;
        }
        let bits = self.range.leading_zeros() - 23;
        self.range <<= bits;
        self.shift(bits);
        false
    }

    /// How many bins of a context are 1 before one is 0; `most` at most.
    pub(super) fn ones(&mut self, context: usize, most: u32) -> u32 {
        (0..most).take_while(|_| self.bin(context)).count() as u32
    }

    /// The suffix of an Exp-Golomb code of order `k` (9.3.2.3).
    pub(super) fn exp_golomb(&mut self, mut k: u32) -> Result<u32, Damage> {
        let mut value = 0;
        while self.bypass() {
            value += 1 << k;
            k += 1;
            if k > LONGEST_PREFIX {
                return Err(Damage::OutOfRange);
            }
        }
        Ok((0..k).rev().fold(value, |value, bit| value + (u32::from(self.bypass()) << bit)))
    }
}
