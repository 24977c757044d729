//! The way of a decoded picture to the event loop: it waits until it is decoded, and until it is to be shown.
//!
//! A camera has a second thread for these waits, so that the first one goes on reading. Where there is nothing to wait for,
//! with a software decoder and a file in lossless flow, the first thread passes its pictures on itself.

use crate::backend::Unmapped;
use crate::camera_run::{CameraRun, contained, lock};
use crate::feeding::ToMap;
use crate::queue::Room;
use crate::thinning::Thinning;
use crate::{Backend, PictureInfo};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a picture waits for the event loop in live flow. A burst on an idle machine is through long before.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the thread that feeds a decoder gives the pictures.
pub(crate) enum ToEventLoop<B: Backend> {
    /// To the second thread.
    Thread(SyncSender<ToMap<B::Picture>>),
    /// It passes them on itself.
    Here(Arc<Mutex<Mapping<B>>>),
}

impl<B: Backend> Clone for ToEventLoop<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Thread(sender) => Self::Thread(sender.clone()),
            Self::Here(mapping) => Self::Here(mapping.clone()),
        }
    }
}

impl<B: Backend> ToEventLoop<B> {
    /// The way for a camera, and what its second thread is to run, where it has one.
    pub(crate) fn new(camera: &Arc<CameraRun<B>>, alone: bool) -> (Self, Option<impl FnOnce() + Send + use<B>>) {
        let mapping = Mapping { camera: camera.clone(), thinning: Thinning::default() };
        if alone {
            return (Self::Here(Arc::new(Mutex::new(mapping))), None);
        }
        let (to_map, from_decoder) = sync_channel(B::DECODED);
        (Self::Thread(to_map), Some(move || mapping.run(&from_decoder)))
    }

    pub(crate) fn send(&self, next: ToMap<B::Picture>) {
        match self {
            // the other end is there until it has had an end
            Self::Thread(to_map) => drop(to_map.send(next)),
            Self::Here(mapping) => drop(lock(mapping).pass_on(next)),
        }
    }
}

pub(crate) struct Mapping<B: Backend> {
    camera: Arc<CameraRun<B>>,
    thinning: Thinning,
}

impl<B: Backend> Mapping<B> {
    /// Hands over every picture, in order. Once the camera is over it drops them, so that the decoder can end.
    fn run(mut self, from_decoder: &Receiver<ToMap<B::Picture>>) {
        while let Ok(next) = from_decoder.recv()
            && self.pass_on(next)
        {}
    }

    /// False for the end.
    fn pass_on(&mut self, next: ToMap<B::Picture>) -> bool {
        match next {
            ToMap::Picture { picture_info, ready, picture } => self.picture(picture_info, ready, picture),
            ToMap::End { failed } => {
                self.camera.queue.end(failed);
                return false;
            }
        }
        true
    }

    fn picture(&mut self, picture_info: PictureInfo, ready: Instant, picture: B::Picture) {
        let camera = &self.camera;
        let id = &camera.config.id;
        camera.sleep(ready.saturating_duration_since(Instant::now()));
        if camera.is_over() {
            camera.counters.stopped(1);
            return;
        }
        let metrics = &camera.counters.metrics;
        if !self.thinning.lets_through(picture_info.timing.pts_ns, camera.target_fps()) {
            metrics.count("over_target_fps", id, 1);
            camera.queue.wake();
            return;
        }
        // the room is made before the picture is mapped: a decoder has few places for mapped pictures
        match camera.queue.room_for_frame(ready + PATIENCE) {
            Room::Closed => {
                camera.counters.stopped(1);
                return;
            }
            Room::Made(0) => {}
            Room::Made(dropped) => {
                camera.counters.add("loop_behind", dropped, "decoded pictures that the event loop was too slow for");
            }
        }
        let began = Instant::now();
        camera.mapping.enter();
        let mapped = contained(|| camera.backend.map(&camera.workspace, picture));
        camera.mapping.leave();
        let panicked = |panic| Unmapped { cause: "decoder_panicked", detail: format!("the decoder panicked: {panic}") };
        match mapped.map_err(panicked).and_then(|mapped| mapped) {
            Ok(surface) => {
                if !B::DECODES_IN_PUSH {
                    metrics.observe_ns("decode", id, began.elapsed().as_nanos() as u64);
                }
                if !camera.queue.frame(picture_info, surface) {
                    camera.counters.stopped(1);
                }
            }
            Err(Unmapped { cause, detail }) => {
                camera.counters.add(cause, 1, &detail);
                camera.queue.wake();
            }
        }
    }
}
