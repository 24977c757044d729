//! A camera that sends by UDP: how it is asked to, and its datagrams in order.

use super::assembler::Arrived;
use super::connection::{Connection, Failure, Item, Packets, choose};
use super::control::Control;
use super::sdp;
use super::sorter::{PacketOrder, Sorter, near};
use crate::Counted;
use crate::source::address::Address;
use bytes::Bytes;
use millrace_frame::{CameraState, Timebase};
use retina::rtcp::PacketRef;
use retina::rtp::PacketHeader;
use rtsp_types::headers::{ACCEPT, CONTENT_BASE, CONTENT_LOCATION, SESSION, TRANSPORT};
use rtsp_types::{Method, Response};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use url::Url;

/// Seconds without a request after which a server that does not state it ends a session (RFC 2326 12.37).
const SESSION_TIMEOUT_S: u64 = 60;
/// A port pair is an even port and the next one; every second port that the system offers is even.
const PORT_TRIES: usize = 64;
/// Geovision cameras send packets of this type that repeat the number of another.
const NO_MEDIA: u8 = 50;
const LARGEST_DATAGRAM_BYTES: usize = 65_536;
/// How many packets are read before they are passed on.
const MOST_AT_ONCE: usize = 64;

/// A packet that is not placed in the stream yet.
struct Datagram {
    ticks: u32,
    marker: bool,
    payload_type: u8,
    payload: Bytes,
    arrived: Arrived,
}

pub(super) struct Datagrams {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    senders: [IpAddr; 2],
    session: mpsc::Receiver<Result<(), Failure>>,
    over: Option<Failure>,
    buffer: Vec<u8>,
    sorter: Sorter<Datagram>,
    ssrc: Option<u32>,
    /// A packet that is not of the stream so far. The next one shows whether it begins another.
    stray: Option<(u32, u16, Datagram)>,
    /// RTP time of the newest packet: as it is sent, and without wrapping.
    ticks: Option<(u32, i64)>,
    /// When all packets up to the last one that was given out had arrived.
    latest: Arrived,
    ready: VecDeque<Item>,
}

/// Asks the camera for its first video that can be decoded, and waits until the camera says that it sends.
pub(super) async fn connect(address: &Address, tasks: &TaskTracker) -> Result<Connection, Failure> {
    let mut control = Control::connect(address).await?;
    let described = control.request(Method::Describe, &address.url, &[(ACCEPT, "application/sdp")]).await?;
    let (video, codec) = choose(address, sdp::videos(described.body()), |video| &video.encoding)?;
    let base = base_url(&address.url, &described);
    let whole = sdp::session_control(described.body()).map_or(address.url.clone(), |control| join(&base, &control));
    let stream = video.control.map_or(whole.clone(), |control| join(&base, &control));
    let (server, local) = control.ends;
    let (rtp, rtcp, port) = bind(local).await.map_err(|e| broken("opening a pair of UDP ports", &e))?;
    let wanted = format!("RTP/AVP/UDP;unicast;client_port={port}-{}", port + 1);
    let answer = control.request(Method::Setup, &stream, &[(TRANSPORT, &wanted)]).await?;
    let (session, timeout_s) = session_of(&answer)?;
    let route = Route::of(&answer)?;
    control.in_session(session);
    let source = route.source.unwrap_or(server.ip());
    if let Some(port) = route.port {
        // so that a firewall on the way lets the camera's packets in; it is no error where nothing comes of it
        let _ = rtp.send_to(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], (source, port)).await;
        let _ = rtcp.send_to(&[0x80, 201, 0, 1, 0, 0, 0, 0], (source, port.saturating_add(1))).await;
    }
    let mut session = control.play(whole, timeout_s, tasks);
    ended(session.recv().await)?;
    let datagrams = Datagrams {
        rtp,
        rtcp,
        senders: [source.to_canonical(), server.ip().to_canonical()],
        session,
        over: None,
        buffer: vec![0; LARGEST_DATAGRAM_BYTES],
        sorter: Sorter::default(),
        ssrc: None,
        stray: None,
        ticks: None,
        latest: Arrived::default(),
        ready: VecDeque::new(),
    };
    let parameter_sets = sdp::parameter_sets(described.body(), video.payload_type, &video.encoding);
    let timebase = Timebase { num: 1, den: video.clock_rate_hz };
    let packets = Packets::Udp(Box::new(datagrams));
    Ok(Connection { packets, codec, payload_type: video.payload_type, timebase, parameter_sets, missing: 0 })
}

impl Datagrams {
    /// What comes next. When the session ends, what has arrived comes before the reason.
    pub(super) async fn next(&mut self) -> Result<Item, Failure> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            if let Some(failure) = self.over.take() {
                return Err(failure);
            }
            let due = self.sorter.due();
            tokio::select! {
                outcome = self.session.recv() => self.over = ended(outcome).err(),
                _ = self.rtcp.readable() => {}
                _ = self.rtp.readable() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
            }
            self.receive()?;
            let now = Instant::now();
            while let Some((datagram, missing)) = self.sorter.pop(now) {
                self.give(datagram, missing);
            }
            if self.over.is_some() {
                self.give_all();
            }
        }
    }

    /// Reads what the sockets have, within a bound.
    fn receive(&mut self) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let received = (|| {
            while let Some((bytes, _)) = read(&self.rtcp, &mut buffer)? {
                self.report(buffer.get(..bytes).unwrap_or_default());
            }
            for _ in 0..MOST_AT_ONCE {
                let Some((bytes, sender)) = read(&self.rtp, &mut buffer)? else { break };
                self.datagram(buffer.get(..bytes).unwrap_or_default(), sender);
            }
            Ok(())
        })();
        self.buffer = buffer;
        received.map_err(|e| broken("receiving by UDP", &e))
    }

    fn datagram(&mut self, bytes: &[u8], sender: IpAddr) {
        let Ok((header, payload)) = PacketHeader::validate(bytes) else { return self.count_stray() };
        if !self.senders.contains(&sender) || header.payload_type() == NO_MEDIA {
            return self.count_stray();
        }
        let payload = bytes.get(usize::from(payload.start)..usize::from(payload.end)).unwrap_or_default();
        let datagram = Datagram {
            ticks: header.timestamp(),
            marker: header.mark(),
            payload_type: header.payload_type(),
            payload: Bytes::copy_from_slice(payload),
            arrived: Arrived::now(),
        };
        let (ssrc, sequence) = (header.ssrc(), header.sequence_number());
        let stray = self.stray.take();
        if *self.ssrc.get_or_insert(ssrc) == ssrc && !self.sorter.is_far(sequence) {
            if stray.is_some() {
                self.count_stray();
            }
            return self.sort(sequence, datagram);
        }
        match stray {
            Some((other, first, held)) if other == ssrc && first != sequence && near(first, sequence) => {
                if self.ssrc != Some(ssrc) || self.sorter.is_behind(first) {
                    self.begin_again(ssrc);
                }
                self.sort(first, held);
                self.sort(sequence, datagram);
            }
            other => {
                if other.is_some() {
                    self.count_stray();
                }
                self.stray = Some((ssrc, sequence, datagram));
            }
        }
    }

    fn sort(&mut self, sequence: u16, datagram: Datagram) {
        match self.sorter.push(sequence, datagram, Instant::now()) {
            PacketOrder::InOrder => {}
            PacketOrder::Overtaken => {
                self.count("rtp_reordered", "RTP packets that arrived out of order and were put in order")
            }
            PacketOrder::Duplicate => self.count("rtp_duplicate", "RTP packets that arrived more than once"),
            PacketOrder::Late => self.count("rtp_late", "RTP packets that arrived after they were counted as lost"),
        }
    }

    /// Another stream follows: its numbers and times have nothing to do with those so far.
    fn begin_again(&mut self, ssrc: u32) {
        self.give_all();
        self.sorter = Sorter::default();
        (self.ssrc, self.ticks) = (Some(ssrc), None);
        self.count("rtp_restart", "the camera began another RTP stream amid a connection");
        self.ready.push_back(Item::Restart);
    }

    fn give_all(&mut self) {
        while let Some((datagram, missing)) = self.sorter.pop_first() {
            self.give(datagram, missing);
        }
    }

    fn give(&mut self, datagram: Datagram, missing: u64) {
        let Datagram { ticks: sent, marker, payload_type, payload, arrived } = datagram;
        if arrived.monotonic_ns > self.latest.monotonic_ns {
            self.latest = arrived;
        }
        let ticks = self.place(sent);
        self.ticks = Some((sent, ticks));
        let lost = u16::try_from(missing).unwrap_or(u16::MAX);
        self.ready.push_back(Item::Packet { ticks, marker, payload_type, lost, payload, arrived: self.latest });
    }

    fn report(&mut self, bytes: &[u8]) {
        let Ok((first, _)) = PacketRef::parse(bytes) else { return self.count_stray() };
        let Ok(report) = first.as_sender_report() else { return self.count_stray() };
        let Some(report) = report else { return };
        if self.ssrc.is_some_and(|ssrc| ssrc != report.ssrc()) {
            return self.count_stray();
        }
        let ticks = self.place(report.rtp_timestamp());
        self.ticks.get_or_insert((report.rtp_timestamp(), ticks));
        self.ready.push_back(Item::Report { ticks, ntp: report.ntp_timestamp().0 });
    }

    /// RTP time without wrapping.
    fn place(&self, sent: u32) -> i64 {
        self.ticks.map_or(0, |(last, ticks)| ticks.wrapping_add(i64::from(sent.wrapping_sub(last) as i32)))
    }

    fn count_stray(&mut self) {
        self.count("rtp_stray", "datagrams that are not of the stream");
    }

    fn count(&mut self, name: &'static str, detail: &str) {
        self.ready.push_back(Item::Counted(Counted { name, count: 1, detail: detail.to_owned() }));
    }
}

/// A datagram that is there, and the address that it is from.
fn read(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<Option<(usize, IpAddr)>> {
    match socket.try_recv_from(buffer) {
        Ok((bytes, sender)) => Ok(Some((bytes, sender.ip().to_canonical()))),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the session's task says, where it says that the session is over.
fn ended(outcome: Option<Result<(), Failure>>) -> Result<(), Failure> {
    outcome.unwrap_or_else(|| Err(Failure::new(CameraState::Connecting, "the camera ended the stream")))
}

fn broken(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(CameraState::Connecting, format!("{what}: {error}"))
}

fn unclear(what: &str) -> Failure {
    Failure::new(CameraState::Refused, format!("the camera's answer to SETUP {what}"))
}

/// The sockets for a stream and its reports, at the address by which the camera is reached, and the first one's port.
async fn bind(local: SocketAddr) -> std::io::Result<(UdpSocket, UdpSocket, u16)> {
    let at = |port| {
        let mut address = local;
        address.set_port(port);
        address
    };
    for _ in 0..PORT_TRIES {
        let rtp = UdpSocket::bind(at(0)).await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind(at(port + 1)).await
        {
            return Ok((rtp, rtcp, port));
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}

/// What control URLs of a description are relative to (RFC 2326 C.1.1).
fn base_url(asked: &Url, described: &Response<Vec<u8>>) -> Url {
    let stated = described.header(&CONTENT_BASE).or_else(|| described.header(&CONTENT_LOCATION));
    // some cameras leave the scheme out
    let repaired = |text: &str| absolute(text).or_else(|| absolute(&format!("rtsp://{text}")));
    stated.and_then(|value| repaired(value.as_str())).unwrap_or_else(|| asked.clone())
}

/// A control URL, joined as live555 and FFmpeg join it.
fn join(base: &Url, control: &str) -> Url {
    if control == "*" {
        return base.clone();
    }
    let below = || absolute(&format!("{}/{control}", base.as_str().trim_end_matches('/')));
    absolute(control).or_else(below).unwrap_or_else(|| base.clone())
}

fn absolute(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(Url::has_host)
}

/// The session's id, and the seconds after which it ends.
fn session_of(answer: &Response<Vec<u8>>) -> Result<(&str, u64), Failure> {
    let header = answer.header(&SESSION).ok_or_else(|| unclear("names no session"))?.as_str();
    let (id, rest) = header.split_once(';').unwrap_or((header, ""));
    let stated = rest.split(';').find_map(|part| part.trim().strip_prefix("timeout=")?.trim().parse().ok());
    Ok((id.trim(), stated.filter(|s| *s > 0).unwrap_or(SESSION_TIMEOUT_S).min(SESSION_TIMEOUT_S)))
}

/// Where the camera says that it sends from.
struct Route {
    source: Option<IpAddr>,
    port: Option<u16>,
}

impl Route {
    fn of(answer: &Response<Vec<u8>>) -> Result<Self, Failure> {
        let header = answer.header(&TRANSPORT).map(|value| value.as_str().to_ascii_lowercase()).unwrap_or_default();
        let mut route = Self { source: None, port: None };
        for part in header.split(';').map(str::trim) {
            match part.split_once('=').unwrap_or((part, "")) {
                ("rtp/avp/tcp" | "interleaved", _) => {
                    return Err(unclear("chooses TCP: choose the RTSP transport tcp, too"));
                }
                ("multicast", _) => return Err(unclear("chooses multicast, which is not supported")),
                ("source", source) => route.source = source.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()),
                ("server_port", ports) => route.port = ports.split('-').next().and_then(|port| port.parse().ok()),
                _ => {}
            }
        }
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rtsp_types::{HeaderName, StatusCode, Version};

    fn answer(headers: &[(HeaderName, &str)]) -> Response<Vec<u8>> {
        let builder = Response::builder(Version::V1_0, StatusCode::Ok);
        headers.iter().fold(builder, |b, (name, value)| b.header(name.clone(), *value)).build(Vec::new())
    }

    #[test]
    fn control_urls_are_joined_as_cameras_mean_them() {
        let asked = Url::parse("rtsp://cam/live?stream=1").unwrap();
        for (stated, base) in [
            (None, "rtsp://cam/live?stream=1"),
            (Some((CONTENT_BASE, "rtsp://10.0.0.1:8554/a/")), "rtsp://10.0.0.1:8554/a/"),
            (Some((CONTENT_LOCATION, "rtsp://cam/b")), "rtsp://cam/b"),
            (Some((CONTENT_BASE, "10.0.0.1/stream0/")), "rtsp://10.0.0.1/stream0/"),
            (Some((CONTENT_BASE, "cam:554/stream0/")), "rtsp://cam:554/stream0/"),
            (Some((CONTENT_BASE, "")), "rtsp://cam/live?stream=1"),
        ] {
            let headers: Vec<_> = stated.into_iter().collect();
            assert_eq!(base_url(&asked, &answer(&headers)).as_str(), base);
        }
        let base = Url::parse("rtsp://cam/a/").unwrap();
        for (control, url) in [
            ("*", "rtsp://cam/a/"),
            ("track1", "rtsp://cam/a/track1"),
            ("rtsp://other/x", "rtsp://other/x"),
            ("track:1", "rtsp://cam/a/track:1"),
            ("trackID=1?b", "rtsp://cam/a/trackID=1?b"),
        ] {
            assert_eq!(join(&base, control).as_str(), url);
        }
    }

    #[test]
    fn what_a_setup_is_answered_by() {
        let session = |text| session_of(&answer(&[(SESSION, text)])).map(|(id, s)| (id.to_owned(), s)).unwrap();
        assert_eq!(session("7"), ("7".into(), 60));
        assert_eq!(session("ab$ ; timeout=20"), ("ab$".into(), 20));
        for text in ["7;timeout=0", "7;timeout=x", "7;timeout", "7; timeout=4000000000"] {
            assert_eq!(session(text), ("7".into(), 60), "{text}");
        }
        assert!(session_of(&answer(&[])).unwrap_err().reason.contains("names no session"));
        let route = |text| Route::of(&answer(&[(TRANSPORT, text)])).map(|r| (r.source, r.port)).map_err(|f| f.reason);
        let local = "127.0.0.1".parse().ok();
        assert_eq!(route("RTP/AVP;unicast;client_port=2-3;server_port=4-5;ssrc=1"), Ok((None, Some(4))));
        assert_eq!(route("RTP/AVP/UDP; Server_Port=4; source=127.0.0.1"), Ok((local, Some(4))));
        assert_eq!(route("RTP/AVP;server_port=99999-1;source=cam"), Ok((None, None)));
        assert_eq!(route("RTP/AVP;source=0.0.0.0"), Ok((None, None)));
        assert_eq!(Route::of(&answer(&[])).map(|r| r.port).ok(), Some(None));
        assert!(route("RTP/AVP/TCP;interleaved=0-1").unwrap_err().contains("tcp"));
        assert!(route("RTP/AVP;multicast;destination=224.2.0.1").unwrap_err().contains("multicast"));
    }
}
