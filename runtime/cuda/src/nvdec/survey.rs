//! What a GPU's decoder knows, codecs included that no node feeds it: for reports.

use super::{Caps, Nvdec, NvdecError, sys};
use crate::Gpu;
use std::ffi::c_uint;

const CODEC_JPEG: c_uint = 5;
const CODEC_VP9: c_uint = 10;
const CODEC_AV1: c_uint = 11;

/// A codec at one bit depth, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// For example `H.265 10 bit`.
    pub name: &'static str,
    /// `nvdec-nv12` decodes it where the GPU does.
    pub fed: bool,
    /// What the GPU says.
    pub caps: Result<Caps, NvdecError>,
}

/// What is asked for: name, whether a node feeds it, codec, bits a sample.
const ASKED: [(&str, bool, c_uint, u32); 8] = [
    ("H.264 8 bit", true, sys::CODEC_H264, 8),
    ("H.265 8 bit", true, sys::CODEC_HEVC, 8),
    ("H.265 10 bit", true, sys::CODEC_HEVC, 10),
    ("VP9 8 bit", false, CODEC_VP9, 8),
    ("VP9 10 bit", false, CODEC_VP9, 10),
    ("AV1 8 bit", false, CODEC_AV1, 8),
    ("AV1 10 bit", false, CODEC_AV1, 10),
    ("JPEG", false, CODEC_JPEG, 8),
];

impl Nvdec {
    /// Asks `gpu` for every codec that a camera or a file may have, at 4:2:0.
    pub fn survey(&self, gpu: &Gpu) -> Vec<Surveyed> {
        let ask = |&(name, fed, codec, bits): &(&'static str, bool, c_uint, u32)| {
            let mut raw = sys::DecodeCaps {
                codec,
                chroma_format: sys::CHROMA_420,
                bit_depth_minus8: bits - 8,
                ..sys::DecodeCaps::default()
            };
            // a whole description, which the call completes
            let asked = cuvid!(self, gpu, name, cuvidGetDecoderCaps(&raw mut raw));
            Surveyed { name, fed, caps: asked.map(|()| Caps::of(&raw)).map_err(NvdecError::from) }
        };
        ASKED.iter().map(ask).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvidia_video_codec_sdk::sys::cuviddec::cudaVideoCodec_enum as theirs;

    #[test]
    fn codecs_have_the_sdks_numbers() {
        let sdk = [theirs::cudaVideoCodec_JPEG, theirs::cudaVideoCodec_VP9, theirs::cudaVideoCodec_AV1];
        assert_eq!([CODEC_JPEG, CODEC_VP9, CODEC_AV1], sdk.map(|codec| codec as c_uint));
    }
}
