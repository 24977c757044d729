//! Colour as the bitstream states it: four code points of ITU-T H.273 and a chroma siting, each with its origin.

use serde::{Deserialize, Serialize};

/// Who said so. A default is a guess that a user may want to override; a bitstream's word is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Read from the stream (H.264/H.265 VUI, or the container).
    Bitstream,
    /// Given by the user in the graph.
    Setting,
    /// Assumed, because nothing said otherwise.
    Default,
}

/// A value together with who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tagged<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Tagged<T> {
    /// A value read from the stream.
    pub const fn bitstream(value: T) -> Self {
        Self { value, origin: Origin::Bitstream }
    }
    /// A value that the user set.
    pub const fn setting(value: T) -> Self {
        Self { value, origin: Origin::Setting }
    }
    /// An assumed value.
    pub const fn assumed(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

wire_enum! {
    /// Matrix coefficients, H.273 table 4. `Bt601` is used for codes 5 and 6, whose coefficients are the same.
    Matrix {
        /// BT.709: Kr = 0.2126, Kb = 0.0722.
        Bt709 = 1, "bt709";
        /// BT.601 (also BT.470BG, SMPTE 170M): Kr = 0.299, Kb = 0.114.
        Bt601 = 6, "bt601";
        /// BT.2020 non-constant luminance: Kr = 0.2627, Kb = 0.0593.
        Bt2020Ncl = 9, "bt2020ncl";
    }
}

impl Matrix {
    /// `(Kr, Kb)` of H.273 table 4.
    pub const fn kr_kb(self) -> (f64, f64) {
        match self {
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt601 => (0.299, 0.114),
            Self::Bt2020Ncl => (0.2627, 0.0593),
        }
    }
    /// The variant of an H.273 code, with the synonyms 5 (BT.470BG) folded in.
    pub const fn from_h273(code: u8) -> Option<Self> {
        match code {
            5 => Some(Self::Bt601),
            other => Self::from_code(other),
        }
    }
}

wire_enum! {
    /// Sample range, H.273 `VideoFullRangeFlag`.
    Range {
        /// 8-bit luma 16..=235, chroma 16..=240.
        Limited = 0, "limited";
        /// 8-bit samples 0..=255.
        Full = 1, "full";
    }
}

wire_enum! {
    /// Colour primaries, H.273 table 2.
    Primaries {
        /// BT.709 and sRGB.
        Bt709 = 1, "bt709";
        /// BT.470 M.
        Bt470M = 4, "bt470m";
        /// BT.470 BG, BT.601 625 lines.
        Bt470Bg = 5, "bt470bg";
        /// SMPTE 170M, BT.601 525 lines.
        Smpte170M = 6, "smpte170m";
        /// BT.2020 and BT.2100.
        Bt2020 = 9, "bt2020";
    }
}

wire_enum! {
    /// Transfer characteristics, H.273 table 3.
    Transfer {
        /// BT.709.
        Bt709 = 1, "bt709";
        /// BT.470 M, gamma 2.2.
        Gamma22 = 4, "gamma22";
        /// BT.470 BG, gamma 2.8.
        Gamma28 = 5, "gamma28";
        /// SMPTE 170M (BT.601); the same curve as BT.709.
        Smpte170M = 6, "smpte170m";
        /// Linear.
        Linear = 8, "linear";
        /// sRGB.
        Srgb = 13, "srgb";
        /// BT.2020, 10 bit.
        Bt2020Ten = 14, "bt2020_10";
        /// SMPTE ST 2084 (PQ).
        Pq = 16, "pq";
        /// ARIB STD-B67 (HLG).
        Hlg = 18, "hlg";
    }
}

wire_enum! {
    /// The position of a 4:2:0 chroma sample among its four luma samples: H.273 `ChromaLocType`, and what becomes of it in a
    /// picture that is turned or mirrored, from code 16 on.
    ChromaSiting {
        /// Between the two left luma samples (type 0: MPEG-2, H.264, H.265 by default).
        Left = 0, "left";
        /// In the middle of the four (type 1: MPEG-1, JPEG).
        Centre = 1, "centre";
        /// On the top left luma sample (type 2: BT.2020, BT.2100).
        TopLeft = 2, "top_left";
        /// On the top edge, in the middle (type 3).
        Top = 3, "top";
        /// On the bottom left luma sample (type 4).
        BottomLeft = 4, "bottom_left";
        /// On the bottom edge, in the middle (type 5).
        Bottom = 5, "bottom";
        /// Between the two right luma samples.
        Right = 16, "right";
        /// On the top right luma sample.
        TopRight = 17, "top_right";
        /// On the bottom right luma sample.
        BottomRight = 18, "bottom_right";
    }
}

impl ChromaSiting {
    /// What a bitstream's `ChromaLocType` says.
    pub fn from_h273(code: u32) -> Option<Self> {
        u8::try_from(code).ok().filter(|code| *code < 16).and_then(Self::from_code)
    }

    /// Position `(x, y)` of the chroma sample in luma samples, from the top left luma sample of its 2x2 group.
    pub const fn offset_luma_px(self) -> (f64, f64) {
        match self {
            Self::Left => (0.0, 0.5),
            Self::Centre => (0.5, 0.5),
            Self::TopLeft => (0.0, 0.0),
            Self::Top => (0.5, 0.0),
            Self::BottomLeft => (0.0, 1.0),
            Self::Bottom => (0.5, 1.0),
            Self::Right => (1.0, 0.5),
            Self::TopRight => (1.0, 0.0),
            Self::BottomRight => (1.0, 1.0),
        }
    }
}

/// The full statement of colour of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Colour {
    /// YCbCr matrix.
    pub matrix: Tagged<Matrix>,
    /// Sample range.
    pub range: Tagged<Range>,
    /// Primaries.
    pub primaries: Tagged<Primaries>,
    /// Transfer characteristics.
    pub transfer: Tagged<Transfer>,
    /// Chroma siting; without meaning for RGB.
    pub siting: Tagged<ChromaSiting>,
}

impl Colour {
    /// What to assume of a YCbCr stream that states nothing: limited range, left siting, and the matrix by the height of
    /// the picture as players do it: BT.601 below 720 lines, BT.709 from there on.
    pub const fn assumed_for_height(height_px: u32) -> Self {
        let hd = height_px >= 720;
        Self {
            matrix: Tagged::assumed(if hd { Matrix::Bt709 } else { Matrix::Bt601 }),
            range: Tagged::assumed(Range::Limited),
            primaries: Tagged::assumed(if hd { Primaries::Bt709 } else { Primaries::Smpte170M }),
            transfer: Tagged::assumed(Transfer::Bt709),
            siting: Tagged::assumed(ChromaSiting::Left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_point_survives_its_code() {
        for &m in Matrix::ALL {
            assert_eq!(Matrix::from_code(m.code()), Some(m));
        }
        for &t in Transfer::ALL {
            assert_eq!(Transfer::from_code(t.code()), Some(t));
        }
        for &p in Primaries::ALL {
            assert_eq!(Primaries::from_code(p.code()), Some(p));
        }
        for &s in ChromaSiting::ALL {
            assert_eq!(ChromaSiting::from_code(s.code()), Some(s));
        }
        assert_eq!(Matrix::from_h273(5), Some(Matrix::Bt601));
        assert_eq!(Matrix::from_h273(2), None, "2 means 'unspecified', which is for the caller to settle");
    }
}
