//! A backend that needs no device: the software decoder, and cameras that misbehave by their ids.

use crate::{Backend, CameraSettings, Decode, Decoder, Frame, Output, PictureInfo, Sink, Unmapped};
use millrace_frame::Payload;
use millrace_ingest::{AccessUnit, Decoded, Picture, SoftwareDecoder};
use millrace_node::{Context, NodeError, Outputs};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The node with this decoder. Each test that counts pictures has a number `N` of its own.
pub(super) type Fakes<const N: usize = 0> = Decode<Fake<N>>;

pub(super) struct Fake<const N: usize>;

/// A decoder of a camera. One whose id begins with `panics` panics at the 10th unit of each group of
/// pictures, with `hangs` it never comes back from it.
pub(super) struct FakeDecoder<const N: usize> {
    inner: SoftwareDecoder,
    camera: String,
    /// Since the last key picture.
    units: Option<u32>,
    sink: Sink<FakePicture<N>>,
}

/// Counts those that exist, as a decoder's surfaces would.
pub(super) struct FakePicture<const N: usize>(Box<Picture>);

pub(super) static PICTURES: [AtomicI64; 4] = [const { AtomicI64::new(0) }; 4];
/// The number of the node whose decoder is waited for in a second thread.
pub(super) const WAITED_FOR: usize = 3;

impl<const N: usize> Drop for FakePicture<N> {
    fn drop(&mut self) {
        PICTURES[N].fetch_sub(1, Ordering::Relaxed);
    }
}

impl<const N: usize> FakeDecoder<N> {
    fn give_out(&mut self) {
        while let Some(decoded) = self.inner.take() {
            (self.sink)(match decoded {
                Decoded::Loss(loss) => Output::Loss(loss),
                Decoded::Picture(picture) => {
                    PICTURES[N].fetch_add(1, Ordering::Relaxed);
                    let picture_info = PictureInfo { timing: picture.timing, info: picture.info.clone() };
                    Output::Picture { picture_info, picture: FakePicture(picture) }
                }
            });
        }
    }
}

impl<const N: usize> Decoder for FakeDecoder<N> {
    fn push(&mut self, unit: &AccessUnit) -> Result<(), String> {
        self.units = if unit.key { Some(1) } else { self.units.map(|units| units + 1) };
        if self.units == Some(10) {
            assert!(!self.camera.starts_with("panics"), "this camera's decoder panics");
            while self.camera.starts_with("hangs") {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        let pushed = self.inner.push(unit).map_err(|e| e.to_string());
        self.give_out();
        pushed
    }

    fn flush(&mut self) {
        self.inner.flush();
        self.give_out();
    }
}

impl<const N: usize> Backend for Fake<N> {
    const NAME: &'static str = "fake-nv12";
    const SUMMARY: &'static str = "decodes for tests";
    const FRAME_DOC: &'static str = "";
    const PACKET_DOC: &'static str = "";
    const DECODED: usize = 4;
    const MAPPED: usize = 4;
    const DECODES_IN_PUSH: bool = N != WAITED_FOR;
    type Settings = CameraSettings;
    type Decoder = FakeDecoder<N>;
    type Picture = FakePicture<N>;
    type Surface = FakePicture<N>;
    type Workspace = ();

    fn open(_: &CameraSettings, _: &Context) -> Result<Self, NodeError> {
        Ok(Self)
    }

    fn workspace(&self, _: &Context) -> Result<Arc<()>, NodeError> {
        Ok(Arc::new(()))
    }

    fn decoder(&self, camera: &str, sink: Sink<FakePicture<N>>) -> Result<FakeDecoder<N>, String> {
        Ok(FakeDecoder {
            inner: SoftwareDecoder::new(millrace_ingest::ReorderPolicy::Lossless),
            camera: camera.to_owned(),
            units: None,
            sink,
        })
    }

    fn map(&self, (): &(), picture: FakePicture<N>) -> Result<FakePicture<N>, Unmapped> {
        Ok(picture)
    }

    fn publish(
        &self,
        _: &Arc<()>,
        surface: FakePicture<N>,
        frame: &Frame<'_>,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        // a node that is slow for one camera, as where a device is
        if frame.camera.starts_with("slow") {
            std::thread::sleep(Duration::from_millis(30));
        }
        let (mut desc, bytes) = surface.0.info.nv12(256);
        frame.source_settings.override_colour(&mut desc.colour);
        let Some(mut slot) = out.slot("frame", frame.camera, bytes)? else { return Ok(()) };
        surface.0.write_nv12(&desc, slot.bytes_mut()).map_err(NodeError::fatal)?;
        out.publish(slot, &frame.item(Payload::Image(desc)))
    }
}
