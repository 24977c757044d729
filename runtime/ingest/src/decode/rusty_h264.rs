//! The pure Rust H.264 decoder: one picture per access unit, in decoding order.

use super::engine::{Engine, EngineError, Frame};
use crate::AccessUnit;
use crate::picture::Planes;
use rusty_h264_decoder::Decoder;

#[derive(Default)]
pub(super) struct RustyH264(Decoder);

impl Engine for RustyH264 {
    fn decode(&mut self, unit: &AccessUnit, number: i64, out: &mut Vec<Frame>) -> Result<(), EngineError> {
        let frame = self.0.decode(&unit.data).map_err(|e| EngineError(e.to_string()))?;
        let Some(frame) = frame else { return Err(EngineError("slices of the picture are missing".into())) };
        let (width, height) = (frame.width, frame.height);
        out.push(Frame {
            number,
            planes: Planes::Bytes { planes: [frame.y, frame.u, frame.v], strides: [width, width / 2] },
            size: (width, height),
            // it crops on the right and at the bottom only
            first: (0, 0),
        });
        Ok(())
    }

    fn flush(&mut self, _: &mut Vec<Frame>) -> Result<(), EngineError> {
        Ok(())
    }
}
