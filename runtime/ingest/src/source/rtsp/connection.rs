//! One RTSP connection: how it is made, and what is wrong when it cannot be.

use super::assembler::{Arrived, Assembler};
use super::sdp::parameter_sets;
use super::stranger;
use super::udp::{self, Datagrams};
use crate::source::address::Address;
use crate::{Counted, RtspTransport};
use bytes::Bytes;
use futures::StreamExt;
use millrace_frame::{CameraState, PacketCodec, Timebase};
use retina::client::{
    InitialSequenceNumberPolicy, PacketItem, PlayOptions, Playing, Session, SessionGroup, SessionOptions, SetupOptions,
};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How this program names itself to a camera.
pub(super) const USER_AGENT: &str = concat!("millrace/", env!("CARGO_PKG_VERSION"));

/// Accounts are locked after a few wrong passwords in a row.
const LEAST_WAIT_AFTER_LOGIN: Duration = Duration::from_secs(5);

/// Why there is no connection, or no more.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the camera's state is by it.
    pub(super) state: CameraState,
    /// For the user, without credentials.
    pub(super) reason: String,
    /// The next attempt begins no earlier than this after the last one began.
    pub(super) least_wait: Duration,
}

impl Failure {
    pub(super) fn new(state: CameraState, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into(), least_wait: Duration::ZERO }
    }
}

/// The sessions of a camera that have not ended, or of which the camera does not know yet that they have.
#[derive(Clone, Default)]
pub(super) struct Sessions {
    by_tcp: Arc<SessionGroup>,
    by_udp: TaskTracker,
}

impl Sessions {
    /// Waits until the camera knows of the end of all sessions.
    pub(super) async fn have_ended(&self) {
        self.by_udp.close();
        let _ = tokio::join!(self.by_tcp.await_teardown(), self.by_udp.wait());
    }
}

/// What a camera that plays sends.
pub(super) enum Item {
    Packet {
        /// RTP time in ticks, without wrapping.
        ticks: i64,
        marker: bool,
        payload_type: u8,
        /// Packets missing before this one.
        lost: u16,
        payload: Bytes,
        arrived: Arrived,
    },
    /// A sender report: at RTP time `ticks` the camera's clock was `ntp`.
    Report {
        ticks: i64,
        ntp: u64,
    },
    Counted(Counted),
    /// A packet of this payload type, which is not the video's.
    Stray(u8),
    /// The camera begins another RTP stream.
    Restart,
}

pub(super) enum Packets {
    Tcp(Box<Session<Playing>>),
    Udp(Box<Datagrams>),
}

/// A camera that plays.
pub(super) struct Connection {
    pub(super) packets: Packets,
    pub(super) codec: PacketCodec,
    /// That of the session description.
    pub(super) payload_type: u8,
    pub(super) timebase: Timebase,
    /// Those of the session description.
    pub(super) parameter_sets: Vec<Vec<u8>>,
    /// Packets missing in front of those that are none of the video's.
    pub(super) missing: u16,
}

/// Connects and plays. Whoever calls bounds the time.
pub(super) async fn connect(
    address: &Address,
    transport: RtspTransport,
    sessions: &Sessions,
) -> Result<Connection, Failure> {
    match transport {
        RtspTransport::Tcp => connect_tcp(address, sessions.by_tcp.clone()).await,
        RtspTransport::Udp => udp::connect(address, &sessions.by_udp).await,
    }
}

async fn connect_tcp(address: &Address, sessions: Arc<SessionGroup>) -> Result<Connection, Failure> {
    let judge = |error: retina::Error| judge(address, &error);
    let options = SessionOptions::default()
        .creds(address.credentials.clone())
        .session_group(sessions)
        .user_agent(USER_AGENT.to_owned());
    let described = Session::describe(address.url.clone(), options).await;
    let mut session = described.map_err(|error| match stranger::in_words(&error.to_string()) {
        Some(words) => Failure::new(CameraState::Connecting, address.scrubbed(&words)),
        None => judge(error),
    })?;
    let videos = session.streams().iter().enumerate().filter(|(_, s)| s.media() == "video").collect();
    let ((number, stream), codec) = choose(address, videos, |(_, s)| s.encoding_name())?;
    let parameter_sets = parameter_sets(session.sdp(), stream.rtp_payload_type(), stream.encoding_name());
    let timebase = Timebase { num: 1, den: stream.clock_rate_hz().max(1) };
    let payload_type = stream.rtp_payload_type();
    session.setup(number, SetupOptions::default()).await.map_err(judge)?;
    // What the camera says of its first sequence number is often wrong, and nothing depends on it.
    let options = PlayOptions::default().initial_seq(InitialSequenceNumberPolicy::Ignore);
    let packets = Packets::Tcp(Box::new(session.play(options).await.map_err(judge)?));
    Ok(Connection { packets, codec, payload_type, timebase, parameter_sets, missing: 0 })
}

/// The first of a camera's videos that can be decoded; `name` is a video's encoding.
pub(super) fn choose<T>(
    address: &Address,
    videos: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> Result<(T, PacketCodec), Failure> {
    let offered =
        if videos.is_empty() { "no video".to_owned() } else { videos.iter().map(&name).collect::<Vec<_>>().join(", ") };
    let codec = |name: &str| match name {
        "h264" => Some(PacketCodec::H264),
        "h265" => Some(PacketCodec::H265),
        _ => None,
    };
    let found = videos.into_iter().find_map(|video| codec(name(&video)).map(|codec| (video, codec)));
    found.ok_or_else(|| {
        let reason = address.scrubbed(&format!("the camera offers {offered}; set it to H.264 or H.265"));
        Failure::new(CameraState::Refused, reason)
    })
}

impl Connection {
    pub(super) fn assembler(&self) -> Assembler {
        Assembler::new(self.codec, self.timebase, &self.parameter_sets)
    }

    /// What comes next, or why nothing more comes.
    pub(super) async fn next(&mut self, address: &Address) -> Result<Item, Failure> {
        let mut item = self.any(address).await?;
        if let Item::Packet { payload_type, lost, .. } = &mut item {
            *lost = lost.saturating_add(std::mem::take(&mut self.missing));
            if *payload_type != self.payload_type {
                self.missing = *lost;
                return Ok(Item::Stray(*payload_type));
            }
        }
        Ok(item)
    }

    async fn any(&mut self, address: &Address) -> Result<Item, Failure> {
        let session = match &mut self.packets {
            Packets::Udp(datagrams) => return datagrams.next().await,
            Packets::Tcp(session) => session,
        };
        while let Some(item) = session.next().await {
            let failed = |error| Failure::new(CameraState::Connecting, judge(address, &error).reason);
            match item.map_err(failed)? {
                PacketItem::Rtp(rtp) => {
                    let (ticks, marker, lost) = (rtp.timestamp().elapsed(), rtp.mark(), rtp.loss());
                    let payload_type = rtp.header().payload_type();
                    let (payload, arrived) = (rtp.into_payload_bytes(), Arrived::now());
                    return Ok(Item::Packet { ticks, marker, payload_type, lost, payload, arrived });
                }
                PacketItem::Rtcp(rtcp) => {
                    let report = rtcp.pkts().next().and_then(|first| first.as_sender_report().ok().flatten());
                    if let (Some(time), Some(report)) = (rtcp.rtp_timestamp(), report) {
                        return Ok(Item::Report { ticks: time.elapsed(), ntp: report.ntp_timestamp().0 });
                    }
                }
                _ => {}
            }
        }
        Err(Failure::new(CameraState::Connecting, "the camera ended the stream"))
    }
}

/// What an error of the client means for the camera's state, and what to do about it.
pub(super) fn judge(address: &Address, error: &retina::Error) -> Failure {
    let text = address.scrubbed(stranger::without_dump(&error.to_string()));
    let Some(code) = error.status_code() else { return Failure::new(CameraState::Connecting, text) };
    // A response that was a success and could not be understood has a status too.
    if (200..300).contains(&code) {
        return Failure::new(CameraState::Refused, text);
    }
    refusal(address, code, || text)
}

/// What the status of an answer means; `otherwise` is for a status without a usual name.
pub(super) fn refusal(address: &Address, code: u16, otherwise: impl FnOnce() -> String) -> Failure {
    let name = status_name(code);
    let reason = match code {
        401 | 403 if address.credentials.is_none() => {
            format!("{code} {name}: write user and password into the URL or the cameras file")
        }
        401 | 403 => format!("{code} {name}: check user and password"),
        404 => format!("{code} {name}: check the path in the URL"),
        461 => format!("{code} {name}: choose the other RTSP transport, tcp or udp"),
        300..=399 => {
            let named = format!("{code} {name}");
            format!("{}: the stream is at another address; write that into the URL", named.trim_end())
        }
        _ if name.is_empty() => otherwise(),
        _ => format!("{code} {name}: the server refuses for now"),
    };
    let least_wait = if matches!(code, 401 | 403) { LEAST_WAIT_AFTER_LOGIN } else { Duration::ZERO };
    Failure { state: CameraState::Refused, reason, least_wait }
}

/// The usual words for a status (RFC 2326 7.1.1); the client does not pass on the server's own.
fn status_name(code: u16) -> &'static str {
    match code {
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        305 => "Use Proxy",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        406 => "Not Acceptable",
        415 => "Unsupported Media Type",
        451 => "Parameter Not Understood",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        455 => "Method Not Valid in This State",
        457 => "Invalid Range",
        461 => "Unsupported Transport",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "RTSP Version Not Supported",
        551 => "Option Not Supported",
        _ => "",
    }
}
