//! RTSP cameras: a thread of its own receives, and hands frames over through a bounded channel.

use super::rtsp_session::{Shared, Transfer, run};
use super::url::redact_url;
use super::{Source, SourceEvent, Times};
use crate::syntax::{UnitBuilder, annexb_nals};
use crate::{IngestError, Loss, Options};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Frames that may wait to be decoded: two seconds and more of what cameras send. What does not fit is dropped up to the
/// next key frame.
const CHANNEL_FRAMES: usize = 64;
/// How long a call waits for a frame before it lets the node look after other things.
const PATIENCE: Duration = Duration::from_millis(20);

pub(crate) struct Rtsp {
    frames: Receiver<Transfer>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    shown_url: String,
    units: Option<UnitBuilder>,
    after_loss: bool,
    ready: VecDeque<SourceEvent>,
}

impl Rtsp {
    pub(crate) fn open(url: &str, options: &Options) -> Result<Self, IngestError> {
        let shown_url = redact_url(url);
        // the parser's own message does not repeat the URL
        let parsed = url::Url::parse(url).map_err(|e| IngestError::Rtsp {
            url: shown_url.clone(),
            reason: format!("not a URL ({e})"),
            fix: "rtsp://[user:password@]host[:port]/path is expected, with reserved characters of the password as %XX",
        })?;
        let (send, frames) = sync_channel(CHANNEL_FRAMES);
        let shared = Arc::new(Shared::default());
        let (theirs, transport, name) = (shared.clone(), options.rtsp_transport, shown_url.clone());
        let thread = std::thread::Builder::new()
            .name("rtsp".into())
            .spawn(move || run(parsed, &name, transport, &send, &theirs))
            .map_err(|e| IngestError::Rtsp {
                url: shown_url.clone(),
                reason: format!("cannot start a thread: {e}"),
                fix: "raise the limit on processes",
            })?;
        let thread = Some(thread);
        Ok(Self { frames, shared, thread, shown_url, units: None, after_loss: false, ready: VecDeque::new() })
    }

    fn take(&mut self, transfer: Transfer) -> Result<(), IngestError> {
        match transfer {
            Transfer::Connected(codec) => {
                self.units = Some(UnitBuilder::new(codec));
                // nothing is known of what the last connection's pictures have to do with this one's
                self.after_loss = true;
            }
            Transfer::Disconnected(reason) => {
                let detail = format!("{}: {reason}", self.shown_url);
                self.ready.push_back(SourceEvent::Flush);
                self.ready.push_back(SourceEvent::Loss(Loss::new("connection_lost", 1, detail)));
            }
            Transfer::Refused { reason, fix } => {
                return Err(IngestError::Rtsp { url: self.shown_url.clone(), reason, fix });
            }
            Transfer::Frame { data, pts_ns, timebase, lost_packets, dropped_frames } => {
                if lost_packets > 0 {
                    let detail = "RTP packets that did not arrive";
                    self.ready.push_back(SourceEvent::Loss(Loss::new("rtp_loss", lost_packets, detail)));
                }
                if dropped_frames > 0 {
                    let detail = "frames that arrived faster than they were decoded, up to a key frame";
                    self.ready.push_back(SourceEvent::Loss(Loss::new("decoder_behind", dropped_frames, detail)));
                }
                let Some(units) = &mut self.units else { return Ok(()) };
                let (unit, lost) = units.sample(annexb_nals(&data));
                self.after_loss |= lost_packets > 0 || dropped_frames > 0 || lost > 0;
                if lost > 0 || unit.is_none() {
                    let detail = "an RTP frame that does not hold exactly one readable picture";
                    self.ready.push_back(SourceEvent::Loss(Loss::new("damaged_sample", lost.max(1), detail)));
                }
                if let Some(unit) = unit {
                    let times = Times { pts_ns, dts_ns: pts_ns, duration_ns: 0, timebase, shown: true };
                    let after_loss = std::mem::take(&mut self.after_loss);
                    self.ready.push_back(SourceEvent::Unit { unit, times: Some(times), after_loss });
                }
            }
        }
        Ok(())
    }
}

impl Source for Rtsp {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(event);
        }
        match self.frames.recv_timeout(PATIENCE) {
            Ok(transfer) => self.take(transfer)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(IngestError::Rtsp {
                    url: self.shown_url.clone(),
                    reason: "the receiving thread has ended".into(),
                    fix: "its panic stands above; please report it",
                });
            }
        }
        Ok(self.ready.pop_front().unwrap_or(SourceEvent::Wait(Duration::ZERO)))
    }
}

impl Drop for Rtsp {
    fn drop(&mut self) {
        self.shared.stop();
        // The thread looks up at each of its waits; a frame that it wants to hand over is not waited for.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
