//! The pure Rust H.265 decoder. It gives pictures in presentation order, by the bound that the stream states.

use super::engine::{Engine, EngineError, Frame};
use crate::AccessUnit;
use crate::picture::Planes;
use rusty_h265::Decoder;

/// A NAL unit of type TRAIL_N whose slice header ends behind `first_slice_segment_in_pic_flag`.
const EMPTY_FIRST_SLICE: [u8; 3] = [0, 1, 0x80];

#[derive(Default)]
pub(super) struct RustyH265(Decoder);

impl RustyH265 {
    fn take(&mut self, out: &mut Vec<Frame>) {
        while let Ok(frame) = self.0.next_frame() {
            let size = (frame.picture.width(), frame.picture.height());
            if let Some(number) = frame.pts {
                out.push(Frame { number, planes: Planes::Words(frame.picture), size, first: (0, 0) });
            }
        }
    }
}

impl Engine for RustyH265 {
    fn decode(&mut self, unit: &AccessUnit, number: i64, out: &mut Vec<Frame>) -> Result<(), EngineError> {
        let made_up = self.0.stats.generated_refs;
        let decoded = self.0.push_annexb(&unit.data, Some(number));
        // It ends a picture when the next begins, a whole frame time later. A slice that begins a picture and holds
        // nothing more ends it now, and is itself refused without another effect.
        let _ = self.0.push_nal(&EMPTY_FIRST_SLICE, None);
        self.take(out);
        decoded.map_err(|e| EngineError(e.to_string()))?;
        // It puts grey pictures where references are missing, and says so only here.
        if self.0.stats.generated_refs != made_up {
            return Err(EngineError("a reference picture is missing".into()));
        }
        Ok(())
    }

    fn puts_in_order(&self) -> bool {
        true
    }

    fn flush(&mut self, out: &mut Vec<Frame>) -> Result<(), EngineError> {
        self.0.flush();
        self.take(out);
        Ok(())
    }
}
