//! An RTSP server for tests that answers each connection as a script says: rightly, wrongly, or not at all. It knows
//! nothing of the code that it tests: RTSP and RTP are written here by the RFCs (2326, 3550, 6184, 7798).
#![allow(clippy::unwrap_used, dead_code)]

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a connection gets.
#[derive(Clone)]
pub(crate) enum Answer {
    /// It is closed at once.
    Close,
    /// No byte, ever.
    Silence,
    /// Bytes that are no RTSP, before or after the request, and the end.
    Says(Speaks, &'static [u8]),
    /// This status to DESCRIBE.
    Status(u16, &'static str),
    /// This session description, and pictures.
    Play(Arc<Show>),
    /// As `Play`, but for one answer.
    But(Arc<Instead>, Arc<Show>),
}

/// What a request of this method is answered with: the text, with @ for its CSeq, and then the bytes again and again, where
/// there are some, 12 MB of them a second at most.
pub(crate) struct Instead {
    pub(crate) method: &'static str,
    pub(crate) text: String,
    pub(crate) endless: Vec<u8>,
}

impl Instead {
    fn answer(&self, stream: &mut TcpStream, cseq: &str, stop: &AtomicBool) -> std::io::Result<()> {
        stream.write_all(self.text.replace('@', cseq).as_bytes())?;
        while !self.endless.is_empty() && !stop.load(Ordering::Relaxed) {
            stream.write_all(&self.endless)?;
            std::thread::sleep(Duration::from_micros(self.endless.len() as u64 / 12));
        }
        Ok(())
    }
}

/// Who speaks first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Server,
    Client,
}

/// What is played.
#[derive(Clone)]
pub(crate) struct Show {
    pub(crate) sdp: String,
    pub(crate) sent: Vec<Sent>,
    pub(crate) then: Then,
}

/// A packet on an interleaved channel (0 is RTP, 1 RTCP) or by UDP, as the client asks, sent so long after the one before.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) after: Duration,
    pub(crate) channel: u8,
    pub(crate) bytes: Vec<u8>,
}

/// What follows the last packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    /// Half a packet, then the end.
    CloseAmidPacket,
    /// The connection stays; nothing comes.
    Silence,
}

pub(crate) struct OddServer {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<AtomicUsize>,
    /// The methods of all requests.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OddServer {
    /// `script` says what the connection of this number, from 0, gets.
    pub(crate) fn start(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), script)
    }

    pub(crate) fn start_on(address: SocketAddr, script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (accepted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (accepted.clone(), stop.clone());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let asked = requests.clone();
        let thread = std::thread::spawn(move || {
            let mut served = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let answer = script(count.fetch_add(1, Ordering::Relaxed));
                        let (stopped, asked) = (stopped.clone(), asked.clone());
                        served.push(std::thread::spawn(move || {
                            // the other side may go at any time
                            let _ = serve(stream, &answer, &stopped, &asked);
                        }));
                        served.retain(|thread| !thread.is_finished());
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                    Err(e) => panic!("{e}"),
                }
            }
            served.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Self { address, accepted, requests, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("rtsp://{}/camera", self.address)
    }
}

impl Drop for OddServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, stop: &AtomicBool, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    match answer {
        Answer::Close => return Ok(()),
        Answer::Silence => {}
        Answer::Says(Speaks::Server, bytes) => stream.write_all(bytes)?,
        Answer::Says(..) | Answer::Status(..) | Answer::Play(_) | Answer::But(..) => {}
    }
    let played;
    let (instead, answer) = match answer {
        Answer::But(instead, show) => {
            played = Answer::Play(show.clone());
            (Some(instead), &played)
        }
        other => (None, other),
    };
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut datagrams = None;
    while let Some((method, cseq, port)) = request(&mut requests, stop)? {
        asked.lock().unwrap().push(method.clone());
        if let Some(instead) = instead.filter(|instead| instead.method == method) {
            instead.answer(&mut stream, &cseq, stop)?;
            continue;
        }
        let play = match (answer, &method[..]) {
            (Answer::Silence | Answer::Close | Answer::But(..), _) => continue,
            (Answer::Says(Speaks::Server, _), _) => return Ok(()),
            (Answer::Says(Speaks::Client, bytes), _) => return stream.write_all(bytes),
            (Answer::Status(code, reason), _) => {
                write!(stream, "RTSP/1.0 {code} {reason}\r\nCSeq: {cseq}\r\n")?;
                if *code == 401 {
                    stream.write_all(b"WWW-Authenticate: Basic realm=\"door\"\r\n")?;
                }
                stream.write_all(b"\r\n")?;
                continue;
            }
            (Answer::Play(show), "DESCRIBE") => {
                let length = show.sdp.len();
                let head = format!(
                    "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n"
                );
                stream.write_all((head + &show.sdp).as_bytes())?;
                continue;
            }
            (Answer::Play(_), "SETUP") => {
                let transport = match port {
                    None => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
                    Some(port) => {
                        let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
                        let from = sockets[0].local_addr()?.port();
                        datagrams = Some((sockets, port));
                        format!("RTP/AVP/UDP;unicast;client_port={port}-{};server_port={from}-{}", port + 1, from + 1)
                    }
                };
                write!(stream, "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nSession: 7\r\nTransport: {transport}\r\n\r\n")?;
                continue;
            }
            (Answer::Play(show), method) => {
                write!(stream, "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nSession: 7\r\n\r\n")?;
                if method == "PLAY" { show } else { continue }
            }
        };
        for Sent { after, channel, bytes } in &play.sent {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(*after);
            if let Some((sockets, port)) = &datagrams {
                sockets[usize::from(*channel)].send_to(bytes, ("127.0.0.1", port + u16::from(*channel)))?;
                continue;
            }
            let mut framed = vec![b'$', *channel];
            framed.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
            framed.extend_from_slice(bytes);
            stream.write_all(&framed)?;
        }
        match play.then {
            Then::Close => return Ok(()),
            Then::CloseAmidPacket => return stream.write_all(&[b'$', 0, 4, 0, 0x80, 96, 0]),
            Then::Silence => {}
        }
    }
    Ok(())
}

/// A request's method, CSeq, and the first port that the client wants packets on.
type Asked = (String, String, Option<u16>);

/// The next request; nothing at the end.
fn request(from: &mut BufReader<TcpStream>, stop: &AtomicBool) -> std::io::Result<Option<Asked>> {
    let (mut method, mut cseq, mut port) = (String::new(), String::new(), None);
    let mut line = String::new();
    loop {
        match from.read_line(&mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                continue;
            }
            Err(e) => return Err(e),
        }
        let text = line.trim_end();
        if text.is_empty() && !method.is_empty() {
            return Ok(Some((method, cseq, port)));
        }
        if method.is_empty() {
            method = text.split(' ').next().unwrap_or_default().to_owned();
        }
        if let Some(value) = text.to_ascii_lowercase().strip_prefix("cseq:") {
            cseq = value.trim().to_owned();
        }
        if let Some((_, ports)) = text.split_once("client_port=") {
            port = Some(ports.split('-').next().unwrap().parse().unwrap());
        }
        line.clear();
    }
}

/// A session description with one video of this encoding; `format` are its parameters.
pub(crate) fn sdp(encoding: &str, format: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=odd\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 {encoding}/90000\r\n\
         a=fmtp:96 {format}\r\na=control:track0\r\n"
    )
}

/// Which packets carry the marker bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marking {
    /// The last of each picture, as it should be.
    Pictures,
    /// The last of each NAL unit.
    EveryNal,
    /// None.
    Never,
}

/// Writes RTP packets.
pub(crate) struct Packetizer {
    pub(crate) h265: bool,
    pub(crate) marking: Marking,
    pub(crate) sequence: u16,
    pub(crate) largest: usize,
}

pub(crate) const SSRC: u32 = 0x1234_5678;

impl Packetizer {
    pub(crate) fn new(h265: bool) -> Self {
        Self { h265, marking: Marking::Pictures, sequence: 65_530, largest: 1200 }
    }

    /// The packets of one picture.
    pub(crate) fn picture(&mut self, nals: &[&[u8]], ticks: u32) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for (n, nal) in nals.iter().enumerate() {
            let last = n + 1 == nals.len();
            let marker = match self.marking {
                Marking::Pictures => last,
                Marking::EveryNal => true,
                Marking::Never => false,
            };
            if nal.len() <= self.largest {
                packets.push(self.packet(nal, ticks, marker));
                continue;
            }
            let head = if self.h265 { 2 } else { 1 };
            let parts: Vec<&[u8]> = nal[head..].chunks(self.largest).collect();
            for (i, part) in parts.iter().enumerate() {
                let bits = u8::from(i == 0) << 7 | u8::from(i + 1 == parts.len()) << 6;
                let mut payload = if self.h265 {
                    vec![nal[0] & 0x81 | 49 << 1, nal[1], bits | nal[0] >> 1 & 63]
                } else {
                    vec![nal[0] & 0xE0 | 28, bits | nal[0] & 31]
                };
                payload.extend_from_slice(part);
                packets.push(self.packet(&payload, ticks, marker && i + 1 == parts.len()));
            }
        }
        packets
    }

    pub(crate) fn packet(&mut self, payload: &[u8], ticks: u32, marker: bool) -> Vec<u8> {
        let mut packet = vec![0x80, 96 | u8::from(marker) << 7];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&ticks.to_be_bytes());
        packet.extend_from_slice(&SSRC.to_be_bytes());
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }
}

/// An RTCP sender report: at RTP time `ticks` the camera's clock was `ntp`.
pub(crate) fn sender_report(ticks: u32, ntp: u64) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(&ntp.to_be_bytes());
    packet.extend_from_slice(&ticks.to_be_bytes());
    packet.extend_from_slice(&[0; 8]);
    packet
}
