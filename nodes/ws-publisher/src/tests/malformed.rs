//! Clients that break the protocol, byte by byte: each is told why by the close code that RFC 6455 has for it, and the
//! server goes on.

use super::*;
use std::io::{Read, Write};

/// A client frame: masked, as they must be, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

/// What the server's close frame says to a client that sends `bytes` after the handshake.
fn answer_to(server: &Server, bytes: &[u8]) -> u16 {
    let mut stream = tcp(server);
    write!(
        stream,
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    // RFC 6455, 1.3: the answer to that key
    assert!(String::from_utf8_lossy(&head).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    stream.write_all(bytes).unwrap();
    loop {
        let mut start = [0; 2];
        stream.read_exact(&mut start).unwrap();
        let len = match start[1] {
            126 => {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                u16::from_be_bytes(len).into()
            }
            n => usize::from(n),
        };
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).unwrap();
        if start[0] == 0x88 {
            return if payload.is_empty() { 1005 } else { u16::from_be_bytes([payload[0], payload[1]]) };
        }
    }
}

#[test]
fn each_mistake_has_its_close_code_and_the_server_goes_on() {
    let (hub, server) = start(8, Limits::default());
    let mut witness = join(&server, "/ws");
    let cases: &[(&str, Vec<u8>, u16)] = &[
        ("an unmasked frame", vec![0x81, 0x02, b'h', b'i'], 1002),
        ("a reserved bit", frame(0xc1, b"hi"), 1002),
        ("a reserved opcode", frame(0x83, b"hi"), 1002),
        ("a fragmented ping", frame(0x09, b"hi"), 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("a continuation of nothing", frame(0x80, b"hi"), 1002),
        ("text that is not UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        ("text of 5000 bytes", frame(0x81, &[b'a'; 5000]), 1009),
        ("fragments of more than 4096 bytes", [frame(0x01, &[b'a'; 3000]), frame(0x80, &[b'a'; 3000])].concat(), 1009),
        ("a text message", frame(0x81, b"{\"subscribe\":\"all\"}"), 1003),
        ("a binary message", frame(0x82, &[0, 1, 2]), 1003),
        ("a close", frame(0x88, &[0x03, 0xe8]), 1000),
        ("a close without a code", frame(0x88, &[]), 1005),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(answer_to(&server, bytes), *code, "{what}");
    }
    hub.detections(&found("gate", 0, 0)).unwrap();
    assert_eq!(next_json(&mut witness)["type"], "detections");
}

#[test]
fn random_bytes_end_one_connection_and_nothing_else() {
    let (hub, server) = start(64, Limits::default());
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..40 {
        let noise: Vec<u8> = (0..200)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let mut socket = join(&server, "/ws?video=1");
        socket.get_mut().write_all(&noise).unwrap();
        // half of them vanish at once, half of them read until they are closed
        if state & 1 == 0 {
            socket.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            while socket.read().is_ok() {}
        }
    }
    let mut witness = join(&server, "/ws");
    hub.detections(&found("gate", 0, 0)).unwrap();
    assert_eq!(next_json(&mut witness)["type"], "detections");
}
