//! The RTSP connection: connects, plays, receives, and begins again when it breaks.

use crate::RtspTransport;
use futures::StreamExt;
use millrace_frame::{PacketCodec, Timebase};
use retina::client::{
    Credentials, Demuxed, PlayOptions, Session, SessionGroup, SessionOptions, SetupOptions, TcpTransportOptions,
    Transport, UdpTransportOptions,
};
use retina::codec::{CodecItem, FrameFormat};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;
use url::Url;

/// From the receiving thread to the node's.
pub(super) enum Transfer {
    /// A camera plays, with this codec.
    Connected(PacketCodec),
    /// It was lost; the thread tries again.
    Disconnected(String),
    /// It will not play, and no repetition helps.
    Refused { reason: String, fix: &'static str },
    /// A frame as Annex-B.
    Frame { data: Vec<u8>, pts_ns: i64, timebase: Timebase, lost_packets: u64, dropped_frames: u64 },
}

/// Ends the thread at its next wait.
#[derive(Default)]
pub(super) struct Shared {
    stop: Notify,
}

impl Shared {
    pub(super) fn stop(&self) {
        // a permit is kept when the thread is not waiting just now
        self.stop.notify_one();
    }
}

/// A camera that says nothing for this long is taken for lost.
const SILENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_millis(300);
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What a connection ended with.
enum Ended {
    Broken(String),
    Refused {
        reason: String,
        fix: &'static str,
    },
    /// The receiving side is gone.
    Unheard,
}

/// The receiving thread's whole life.
pub(super) fn run(url: Url, shown_url: &str, transport: RtspTransport, frames: &SyncSender<Transfer>, shared: &Shared) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let reason = format!("cannot start the network runtime: {e}");
            let _ = frames.send(Transfer::Refused { reason, fix: "raise the limit on open files" });
            return;
        }
    };
    let mut camera = Camera::new(url, transport, frames);
    let sessions = camera.sessions.clone();
    runtime.block_on(async {
        tokio::select! {
            () = shared.stop.notified() => {}
            () = camera.keep_playing(shown_url) => {}
        }
        // A camera that is not told goes on sending datagrams for a minute. It gets a moment to hear it.
        let _ = timeout(FAREWELL, sessions.await_teardown()).await;
    });
    // a name that is being looked up is not waited for
    runtime.shutdown_timeout(Duration::from_millis(100));
}

struct Camera<'a> {
    url: Url,
    credentials: Option<Credentials>,
    secrets: Vec<String>,
    transport: RtspTransport,
    frames: &'a SyncSender<Transfer>,
    sessions: Arc<SessionGroup>,
    /// When the first frame of all came: the zero of the times.
    zero: Option<Instant>,
    last_pts_ns: i64,
    dropped: u64,
    has_played: bool,
}

impl<'a> Camera<'a> {
    fn new(mut url: Url, transport: RtspTransport, frames: &'a SyncSender<Transfer>) -> Self {
        let decoded = |s: &str| percent_decoded(s);
        let password = url.password().unwrap_or_default().to_owned();
        let mut secrets =
            vec![password.clone(), decoded(&password), url.username().to_owned(), decoded(url.username())];
        secrets.extend(url.query().map(str::to_owned));
        secrets.retain(|s| !s.is_empty());
        // the longest first, so that none leaves a part of another behind
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        let credentials = (!url.username().is_empty())
            .then(|| Credentials { username: decoded(url.username()), password: decoded(&password) });
        // neither can fail for a URL that has a host, and one that has none fails when it is connected
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self {
            url,
            credentials,
            secrets,
            transport,
            frames,
            sessions: Arc::default(),
            zero: None,
            last_pts_ns: i64::MIN,
            dropped: 0,
            has_played: false,
        }
    }

    async fn keep_playing(&mut self, shown_url: &str) {
        let mut wait = BACK_OFF.0;
        loop {
            let began = Instant::now();
            let mut playing = false;
            let reason = match self.play(&mut playing).await {
                Ended::Unheard => return,
                Ended::Refused { reason, fix } if !self.has_played => {
                    let _ = self.frames.try_send(Transfer::Refused { reason, fix });
                    return;
                }
                Ended::Broken(reason) | Ended::Refused { reason, .. } => reason,
            };
            // a connection that held for a while earns a quick second try
            if playing && began.elapsed() > BACK_OFF.1 {
                wait = BACK_OFF.0;
            }
            tracing::warn!("{shown_url}: {reason}; trying again in {} ms", wait.as_millis());
            if playing && let Err(TrySendError::Disconnected(_)) = self.frames.try_send(Transfer::Disconnected(reason))
            {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }

    /// One connection from its beginning to its end. Sets `playing` when the camera plays.
    async fn play(&mut self, playing: &mut bool) -> Ended {
        let opened = match timeout(CONNECT, self.connect()).await {
            Ok(opened) => opened,
            Err(_) => return Ended::Broken(format!("no answer within {} s", CONNECT.as_secs())),
        };
        let (mut stream, codec) = match opened {
            Ok(opened) => opened,
            Err(ended) => return ended,
        };
        if !self.announce(codec).await {
            return Ended::Unheard;
        }
        (*playing, self.has_played) = (true, true);
        let mut offset_ns = None;
        let mut lost_packets = 0u64;
        let mut waiting_for_key = false;
        loop {
            let item = match timeout(SILENCE, stream.next()).await {
                Err(_) => return Ended::Broken(format!("no picture for {} s", SILENCE.as_secs())),
                Ok(None) => return Ended::Broken("the camera ended the stream".into()),
                Ok(Some(Err(e))) => return Ended::Broken(self.scrubbed(&e)),
                Ok(Some(Ok(item))) => item,
            };
            let CodecItem::VideoFrame(frame) = item else { continue };
            lost_packets += u64::from(frame.loss());
            let at = frame.timestamp();
            let timebase = Timebase { num: 1, den: at.clock_rate().get() };
            let elapsed_ns = timebase.to_ns(at.elapsed());
            // A connection's times begin anew; on the source's own clock they go on from when its first frame came.
            let offset_ns = *offset_ns.get_or_insert_with(|| self.offset_for(elapsed_ns));
            let key = frame.is_random_access_point();
            if waiting_for_key && !key {
                self.dropped += 1;
                continue;
            }
            let pts_ns = elapsed_ns.saturating_add(offset_ns);
            let data = frame.into_data();
            let transfer = Transfer::Frame { data, pts_ns, timebase, lost_packets, dropped_frames: self.dropped };
            match self.frames.try_send(transfer) {
                Ok(()) => {
                    self.last_pts_ns = self.last_pts_ns.max(pts_ns);
                    (lost_packets, self.dropped, waiting_for_key) = (0, 0, false);
                }
                Err(TrySendError::Full(_)) => {
                    self.dropped += 1;
                    waiting_for_key = true;
                }
                Err(TrySendError::Disconnected(_)) => return Ended::Unheard,
            }
        }
    }

    /// The channel may still be full of the last connection's frames; this must not be lost.
    async fn announce(&self, codec: PacketCodec) -> bool {
        loop {
            match self.frames.try_send(Transfer::Connected(codec)) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// What is added to a connection's times so that its first frame stands where it came on the source's clock, and
    /// never before what was already sent.
    fn offset_for(&mut self, first_elapsed_ns: i64) -> i64 {
        let now = Instant::now();
        let since = now.duration_since(*self.zero.get_or_insert(now)).as_nanos() as i64;
        since.max(self.last_pts_ns.saturating_add(1)).saturating_sub(first_elapsed_ns)
    }

    async fn connect(&self) -> Result<(Demuxed, PacketCodec), Ended> {
        let options = SessionOptions::default()
            .creds(self.credentials.clone())
            .session_group(self.sessions.clone())
            .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")).to_owned());
        let mut session = Session::describe(self.url.clone(), options).await.map_err(|e| self.judge(&e))?;
        let codec = |name: &str| match name {
            "h264" => Some(PacketCodec::H264),
            "h265" => Some(PacketCodec::H265),
            _ => None,
        };
        let video = session.streams().iter().enumerate().filter(|(_, s)| s.media() == "video");
        let found = video.clone().find_map(|(n, s)| Some((n, codec(s.encoding_name())?)));
        let Some((number, codec)) = found else {
            let offered: Vec<&str> = video.map(|(_, s)| s.encoding_name()).collect();
            let offered = if offered.is_empty() { "no video".to_owned() } else { offered.join(", ") };
            let reason = format!("the camera offers {offered}");
            return Err(Ended::Refused { reason, fix: "set it to H.264 or H.265" });
        };
        let transport = match self.transport {
            RtspTransport::Tcp => Transport::Tcp(TcpTransportOptions::default()),
            RtspTransport::Udp => Transport::Udp(UdpTransportOptions::default()),
        };
        let options = SetupOptions::default().transport(transport).frame_format(FrameFormat::SIMPLE);
        session.setup(number, options).await.map_err(|e| self.judge(&e))?;
        let session = session.play(PlayOptions::default()).await.map_err(|e| self.judge(&e))?;
        let demuxed = session.demuxed().map_err(|e| Ended::Broken(self.scrubbed(&e)))?;
        Ok((demuxed, codec))
    }

    /// What only the user can mend is not tried again.
    fn judge(&self, error: &retina::Error) -> Ended {
        let reason = self.scrubbed(error);
        let fix = match error.status_code() {
            Some(401 | 403) if self.credentials.is_none() => "write user and password into the URL",
            Some(401 | 403) => "check user and password",
            Some(404) => "check the path in the URL",
            Some(461) => "choose the other RTSP_TRANSPORT",
            _ => return Ended::Broken(reason),
        };
        Ended::Refused { reason, fix }
    }

    /// An error without what is secret, and without the packet addresses that stand below its first paragraph.
    fn scrubbed(&self, error: &retina::Error) -> String {
        let text = error.to_string();
        let text = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        scrub(&text, &self.secrets)
    }
}

fn scrub(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
}

/// `%XX` as bytes; what is not UTF-8 then is replaced.
fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(byte) if b == b'%' => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(b);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_the_url_and_of_every_message() {
        let (send, _receive) = std::sync::mpsc::sync_channel(1);
        let url = Url::parse("rtsp://ad%6Din:p%40ss%2Fw%25rd@cam/live?token=abc").expect("it is a URL");
        let camera = Camera::new(url, RtspTransport::Tcp, &send);
        assert_eq!(camera.url.as_str(), "rtsp://cam/live?token=abc");
        let wanted = Credentials { username: "admin".into(), password: "p@ss/w%rd".into() };
        assert_eq!(camera.credentials, Some(wanted));
        let said = scrub("bad: admin p@ss/w%rd ad%6Din p%40ss%2Fw%25rd at rtsp://cam/live?token=abc", &camera.secrets);
        assert_eq!(said, "bad: … … … … at rtsp://cam/live?…");
    }

    #[test]
    fn times_go_on_after_a_reconnection_and_never_back() {
        let (send, _receive) = std::sync::mpsc::sync_channel(1);
        let url = Url::parse("rtsp://cam/").expect("it is a URL");
        let mut camera = Camera::new(url, RtspTransport::Tcp, &send);
        let first = 7_000_000_000;
        assert_eq!(camera.offset_for(first), -first, "the first frame is at 0");
        // a camera whose clock ran ahead of ours by an hour
        camera.last_pts_ns = 3_600_000_000_000;
        assert_eq!(camera.offset_for(5) + 5, 3_600_000_000_001);
    }
}
