//! The server is driven over real sockets: by tungstenite where a client behaves, by bytes of our own where it does not.
#![allow(clippy::unwrap_used)]

mod jpeg;
mod live;
mod look;
mod malformed;
mod queue;
mod server;
mod states;

use crate::hub::{Hub, LoopAge};
use crate::queue::Limits;
use crate::server::Server;
use millrace_frame::{DetBox, Detections};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tungstenite::{Message, WebSocket};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn start(max_clients: usize, limits: Limits) -> (Arc<Hub>, Server) {
    let hub = Hub::new("Test".into(), max_clients, limits, LoopAge(Box::new(|| Some(Duration::ZERO))));
    let server = Server::start(LOOPBACK, 0, "", max_clients, hub.clone()).unwrap();
    (hub, server)
}

/// Frame `seq` of a camera at 25 fps, with `n` boxes.
fn found(source: &str, seq: u64, n: usize) -> Detections {
    let car = DetBox {
        x1: 1.5,
        y1: 2.0,
        x2: 30.0,
        y2: 40.25,
        score: 0.9,
        class_id: 2,
        label: "car".into(),
        ..DetBox::default()
    };
    Detections {
        schema: Detections::SCHEMA,
        source: source.into(),
        seq,
        pts_ns: 40_000_000 * seq as i64,
        boxes: vec![car; n],
        classes: Vec::new(),
        about: String::new(),
        capture_ns: 1_700_000_000_000_000_000,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        width_px: 640,
        height_px: 480,
    }
}

/// A key access unit (with an x264 High parameter set) or another one, filled up to `len` bytes.
fn unit(key: bool, len: usize) -> Vec<u8> {
    let mut unit = if key {
        vec![0, 0, 0, 1, 0x67, 0x64, 0x00, 0x1f, 0xac, 0, 0, 0, 1, 0x68, 0xee, 0, 0, 1, 0x65, 0x88]
    } else {
        vec![0, 0, 0, 1, 0x41, 0x9a]
    };
    unit.resize(len.max(unit.len()), 0xa5);
    unit
}

fn tcp(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn connect(server: &Server, path: &str) -> WebSocket<TcpStream> {
    let (socket, response) = tungstenite::client(format!("ws://{}{path}", server.address()), tcp(server)).unwrap();
    assert_eq!(response.status(), 101);
    socket
}

/// The next message that is not a ping and not the figures of the second.
fn next(socket: &mut WebSocket<TcpStream>) -> Message {
    loop {
        match socket.read().unwrap() {
            Message::Ping(_) => {}
            Message::Text(text) if text.starts_with("{\"type\":\"stats\"") => {}
            other => return other,
        }
    }
}

fn next_json(socket: &mut WebSocket<TcpStream>) -> Value {
    match next(socket) {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?} instead of text"),
    }
}

/// Connects and takes the `hello`: from then on the client misses nothing.
fn join(server: &Server, path: &str) -> WebSocket<TcpStream> {
    let mut socket = connect(server, path);
    assert_eq!(next_json(&mut socket)["type"], "hello");
    socket
}

fn close_of(message: Message) -> (u16, String) {
    match message {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.as_str().into()),
        other => panic!("{other:?} instead of a close frame with a code"),
    }
}

#[test]
fn where_it_would_listen_is_known_before_the_start() {
    let found = |settings: &[(&str, &str)]| millrace_node::testing::remarks::<crate::node::WsPublisher>(settings);
    let at = |settings: &[(&str, &str)]| found(settings).listens[0].at.to_string();
    assert_eq!(at(&[]), "127.0.0.1:8080");
    assert_eq!(at(&[("BIND", "::"), ("PORT", "9000")]), "[::]:9000");
    let refused = found(&[("BIND", "all")]).refused;
    assert!(refused[0].setting == "BIND" && refused[0].why.contains("'all' is not an address"), "{refused:?}");
}
