//! The second of a camera's threads: it waits for each decoded picture, and hands it to the event loop.

use crate::backend::Unmapped;
use crate::feeding::ToMap;
use crate::queue::Room;
use crate::shared::{Shared, contained};
use crate::thinning::Thinning;
use crate::{Backend, Shown};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How long a picture waits for the event loop in live flow. A burst on an idle machine is through long before.
const PATIENCE: Duration = Duration::from_millis(100);

pub(crate) struct Mapping<B: Backend> {
    pub(crate) camera: Arc<Shared<B>>,
    pub(crate) thinning: Thinning,
}

impl<B: Backend> Mapping<B> {
    /// Hands over every picture, in order. Once the camera is over it drops them, so that the decoder can end.
    pub(crate) fn run(mut self, from_decoder: &Receiver<ToMap<B::Picture>>) {
        while let Ok(next) = from_decoder.recv() {
            match next {
                ToMap::Picture { shown, ready, picture } => self.picture(shown, ready, picture),
                ToMap::End { failed } => {
                    self.camera.queue.end(failed);
                    return;
                }
            }
        }
    }

    fn picture(&mut self, shown: Shown, ready: Instant, picture: B::Picture) {
        let camera = &self.camera;
        let id = &camera.config.id;
        camera.sleep(ready.saturating_duration_since(Instant::now()));
        if camera.is_over() {
            camera.losses.stopped(1);
            return;
        }
        let metrics = &camera.losses.metrics;
        if !self.thinning.lets_through(shown.timing.pts_ns, camera.target_fps()) {
            metrics.count("over_target_fps", id, 1);
            return;
        }
        // the room is made before the picture is mapped: a decoder has few places for mapped pictures
        match camera.queue.room_for_frame(ready + PATIENCE) {
            Room::Closed => {
                camera.losses.stopped(1);
                return;
            }
            Room::Made(0) => {}
            Room::Made(dropped) => {
                camera.losses.add("loop_behind", dropped, "decoded pictures that the event loop was too slow for");
            }
        }
        let began = Instant::now();
        camera.mapping.enter();
        let mapped = contained(|| camera.backend.map(&camera.lane, picture));
        camera.mapping.leave();
        let panicked = |panic| Unmapped { cause: "decoder_panicked", detail: format!("the decoder panicked: {panic}") };
        match mapped.map_err(panicked).and_then(|mapped| mapped) {
            Ok(surface) => {
                if !B::DECODES_IN_PUSH {
                    metrics.observe_ns("decode", id, began.elapsed().as_nanos() as u64);
                }
                if !camera.queue.frame(shown, surface) {
                    camera.losses.stopped(1);
                }
            }
            Err(Unmapped { cause, detail }) => camera.losses.add(cause, 1, &detail),
        }
    }
}
