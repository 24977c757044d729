//! One RTSP connection: how it is made, and what is wrong when it cannot be.

use super::address::Address;
use super::sdp::parameter_sets;
use super::stranger;
use crate::RtspTransport;
use millrace_frame::{CameraState, PacketCodec, Timebase};
use retina::client::{
    InitialSequenceNumberPolicy, PlayOptions, Playing, Session, SessionGroup, SessionOptions, SetupOptions,
    TcpTransportOptions, Transport, UdpTransportOptions,
};
use std::sync::Arc;
use std::time::Duration;

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

/// A camera that plays.
pub(super) struct Connection {
    pub(super) packets: Session<Playing>,
    pub(super) codec: PacketCodec,
    pub(super) timebase: Timebase,
    /// Those of the session description.
    pub(super) parameter_sets: Vec<Vec<u8>>,
}

/// Connects and plays. Whoever calls bounds the time.
pub(super) async fn connect(
    address: &Address,
    transport: RtspTransport,
    sessions: Arc<SessionGroup>,
) -> Result<Connection, Failure> {
    let judge = |error: retina::Error| judge(address, &error);
    let options = SessionOptions::default()
        .creds(address.credentials.clone())
        .session_group(sessions)
        .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")).to_owned());
    let described = Session::describe(address.url.clone(), options).await;
    let mut session = described.map_err(|error| match stranger::in_words(&error.to_string()) {
        Some(words) => Failure::new(CameraState::Connecting, address.scrubbed(&words)),
        None => judge(error),
    })?;
    let codec = |name: &str| match name {
        "h264" => Some(PacketCodec::H264),
        "h265" => Some(PacketCodec::H265),
        _ => None,
    };
    let video = session.streams().iter().enumerate().filter(|(_, s)| s.media() == "video");
    let found = video.clone().find_map(|(number, s)| Some((number, codec(s.encoding_name())?, s)));
    let Some((number, codec, stream)) = found else {
        let offered: Vec<&str> = video.map(|(_, s)| s.encoding_name()).collect();
        let offered = if offered.is_empty() { "no video".to_owned() } else { offered.join(", ") };
        let reason = address.scrubbed(&format!("the camera offers {offered}; set it to H.264 or H.265"));
        return Err(Failure::new(CameraState::Refused, reason));
    };
    let parameter_sets = parameter_sets(session.sdp(), stream.rtp_payload_type(), stream.encoding_name());
    let timebase = Timebase { num: 1, den: stream.clock_rate_hz().max(1) };
    let transport = match transport {
        RtspTransport::Tcp => Transport::Tcp(TcpTransportOptions::default()),
        RtspTransport::Udp => Transport::Udp(UdpTransportOptions::default()),
    };
    session.setup(number, SetupOptions::default().transport(transport)).await.map_err(judge)?;
    // What the camera says of its first sequence number is often wrong, and nothing depends on it.
    let options = PlayOptions::default().initial_seq(InitialSequenceNumberPolicy::Ignore);
    let packets = session.play(options).await.map_err(judge)?;
    Ok(Connection { packets, codec, timebase, parameter_sets })
}

/// What an error of the client means for the camera's state, and what to do about it.
pub(super) fn judge(address: &Address, error: &retina::Error) -> Failure {
    let text = address.scrubbed(stranger::without_dump(&error.to_string()));
    let Some(code) = error.status_code() else { return Failure::new(CameraState::Connecting, text) };
    // A response that was a success and could not be understood has a status too.
    if (200..300).contains(&code) {
        return Failure::new(CameraState::Refused, text);
    }
    let name = status_name(code);
    let reason = match code {
        401 | 403 if address.credentials.is_none() => {
            format!("{code} {name}: write user and password into the URL or the cameras file")
        }
        401 | 403 => format!("{code} {name}: check user and password"),
        404 => format!("{code} {name}: check the path in the URL"),
        461 => format!("{code} {name}: choose the other RTSP transport, tcp or udp"),
        _ if name.is_empty() => text,
        _ => format!("{code} {name}: the server refuses for now"),
    };
    let least_wait = if matches!(code, 401 | 403) { LEAST_WAIT_AFTER_LOGIN } else { Duration::ZERO };
    Failure { state: CameraState::Refused, reason, least_wait }
}

/// The usual words for a status (RFC 2326 7.1.1); the client does not pass on the server's own.
fn status_name(code: u16) -> &'static str {
    match code {
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
