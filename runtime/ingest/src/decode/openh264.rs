//! Cisco's H.264 decoder, for streams without B pictures: there it gives each picture at once, in decoding order.

use super::engine::{Engine, EngineError, Frame};
use crate::AccessUnit;
use crate::picture::Planes;
use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource;
use std::collections::VecDeque;

pub(super) struct OpenH264 {
    decoder: Decoder,
    /// Units whose pictures it still holds.
    held: VecDeque<(i64, (usize, usize))>,
}

impl OpenH264 {
    pub(super) fn new() -> Result<Self, EngineError> {
        // Flushing after each unit, its default, destroys streams whose pictures it wants to hold back.
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let decoder = Decoder::with_api_config(OpenH264API::from_source(), config).map_err(in_words)?;
        Ok(Self { decoder, held: VecDeque::new() })
    }
}

fn in_words(e: openh264::Error) -> EngineError {
    // its message holds a backtrace hint, which does not apply here
    EngineError(e.to_string().split(" User Message").next().unwrap_or_default().to_owned())
}

/// The decoder reuses its buffers, so the picture is copied out of them.
fn copied(yuv: &DecodedYUV, number: i64, first: (usize, usize)) -> Frame {
    let (luma, chroma, _) = yuv.strides();
    Frame {
        number,
        planes: Planes::Bytes {
            planes: [yuv.y().to_vec(), yuv.u().to_vec(), yuv.v().to_vec()],
            strides: [luma, chroma],
        },
        size: yuv.dimensions(),
        first,
    }
}

impl Engine for OpenH264 {
    fn decode(&mut self, unit: &AccessUnit, number: i64, out: &mut Vec<Frame>) -> Result<(), EngineError> {
        // it crops on all four sides
        let first = (unit.info.display.x_px as usize, unit.info.display.y_px as usize);
        self.held.push_back((number, first));
        if let Some(yuv) = self.decoder.decode(&unit.data).map_err(in_words)?
            && let Some((number, first)) = self.held.pop_front()
        {
            out.push(copied(&yuv, number, first));
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<Frame>) -> Result<(), EngineError> {
        for yuv in self.decoder.flush_remaining().map_err(in_words)? {
            if let Some((number, first)) = self.held.pop_front() {
                out.push(copied(&yuv, number, first));
            }
        }
        Ok(())
    }
}
