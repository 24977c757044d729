//! The size that a container states of its pictures.

use super::StreamInfo;
use millrace_frame::{PacketCodec, Size};
use std::sync::Arc;

/// Some cameras crop nothing in the bitstream of H.264, whose pictures are whole macroblocks, and state the size that is shown
/// in the file alone: 1920x1088 are coded, and 1920x1080 are pictures.
#[derive(Default)]
pub(crate) struct StatedSize {
    stated: Option<Size>,
    /// A stream as its parameter sets have it, and as it is shown.
    last: Option<[Arc<StreamInfo>; 2]>,
}

impl StatedSize {
    pub(crate) fn new(width_px: u32, height_px: u32) -> Self {
        Self { stated: Some(Size::new(width_px, height_px)), last: None }
    }

    /// Crops a stream to the stated size, where that needs the same macroblocks, and its parameter sets crop nothing.
    pub(crate) fn apply(&mut self, info: &mut Arc<StreamInfo>) {
        let Some(stated) = self.stated.filter(|&stated| is_cropped(info, stated)) else { return };
        let crop = || {
            let mut cropped = StreamInfo::clone(info);
            (cropped.display.width_px, cropped.display.height_px) = (stated.width_px, stated.height_px);
            Arc::new(cropped)
        };
        let [_, cropped] = match self.last.take() {
            Some(last) if Arc::ptr_eq(&last[0], info) => self.last.insert(last),
            _ => self.last.insert([info.clone(), crop()]),
        };
        *info = cropped.clone();
    }
}

fn is_cropped(info: &StreamInfo, stated: Size) -> bool {
    let same_macroblocks = |stated: u32, coded: u32| stated.is_multiple_of(2) && stated.next_multiple_of(16) == coded;
    info.codec == PacketCodec::H264
        && info.stored_size() == info.coded
        && stated != info.coded
        && same_macroblocks(stated.width_px, info.coded.width_px)
        && same_macroblocks(stated.height_px, info.coded.height_px)
}
