//! Fixed-length and Exp-Golomb codes (H.264 and H.265, clause 9.1 and 9.2), over an RBSP.

/// The data ended inside a syntax element, or a code is longer than 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfBits;

pub(crate) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// How many bits were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn flag(&mut self) -> Result<bool, OutOfBits> {
        let byte = *self.data.get(self.at / 8).ok_or(OutOfBits)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// `n` bits, most significant first; `n` is at most 32.
    pub(crate) fn u(&mut self, n: u32) -> Result<u32, OutOfBits> {
        (0..n).try_fold(0u32, |v, _| Ok(v << 1 | u32::from(self.flag()?)))
    }

    pub(crate) fn ue(&mut self) -> Result<u32, OutOfBits> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(OutOfBits);
            }
        }
        Ok((1u32 << zeros) - 1 + self.u(zeros)?)
    }

    pub(crate) fn se(&mut self) -> Result<i32, OutOfBits> {
        let k = i64::from(self.ue()?);
        let v = if k % 2 == 1 { (k + 1) / 2 } else { -(k / 2) };
        Ok(v as i32)
    }
}

/// The RBSP of a NAL unit's payload: emulation prevention bytes taken out, at most `limit` bytes of it.
pub(crate) fn rbsp(payload: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len().min(limit));
    let mut zeros = 0;
    for &b in payload {
        if out.len() == limit {
            break;
        }
        if zeros >= 2 && b == 3 {
            zeros = 0;
            continue;
        }
        zeros = if b == 0 { zeros + 1 } else { 0 };
        out.push(b);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exp_golomb_codes_of_the_standard_table() {
        // H.264 table 9-2: 1, 010, 011, 00100, 00101 -> 0..4; se: 0, 1, -1, 2, -2
        let data = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut b = Bits::new(&data);
        assert_eq!((0..5).map(|_| b.ue().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let mut b = Bits::new(&data);
        assert_eq!((0..5).map(|_| b.se().unwrap()).collect::<Vec<_>>(), [0, 1, -1, 2, -2]);
        assert_eq!(Bits::new(&[0; 8]).ue(), Err(OutOfBits));
        assert_eq!(Bits::new(&[0, 0, 0, 1, 255, 255, 255, 254]).ue(), Ok(u32::MAX - 1));
        assert_eq!(Bits::new(&[]).flag(), Err(OutOfBits));
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        assert_eq!(rbsp(&[1, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3], 99), [1, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(rbsp(&[0, 3, 0, 0, 3, 3], 99), [0, 3, 0, 0, 3]);
        assert_eq!(rbsp(&[9, 8, 7], 2), [9, 8]);
    }
}
