use super::*;
use crate::hub::Refused;
use crate::queue::View;
use millrace_frame::{Orientation, Size};
use std::io::{Read, Write};
use std::time::Instant;

const SIZE: Size = Size::new(640, 480);

#[test]
fn a_client_hears_hello_and_then_every_frame_as_documented() {
    let (hub, server) = start(4, Limits::default());
    hub.detections(&found("gate", 6, 0)).unwrap();
    let mut socket = connect(&server, "/ws");
    let hello = next_json(&mut socket);
    assert_eq!(hello["server"], concat!("millrace ws-publisher ", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        (hello["type"].as_str(), hello["schema"].as_u64(), hello["title"].as_str()),
        (Some("hello"), Some(1), Some("Test"))
    );
    assert_eq!(hello["cameras"].to_string(), r#"[{"source":"gate","index":0,"width_px":640,"height_px":480}]"#);
    hub.detections(&found("gate", 7, 1)).unwrap();
    hub.detections(&found("yard \"2\"", 0, 0)).unwrap();
    let Message::Text(text) = next(&mut socket) else { panic!("no text") };
    assert_eq!(
        text.as_str(),
        r#"{"type":"detections","schema":1,"source":"gate","seq":7,"pts_ns":280000000,"capture_ns":1700000000000000000,"width_px":640,"height_px":480,"model":"m","boxes":[{"x1":1.5,"y1":2.0,"x2":30.0,"y2":40.25,"score":0.9,"class_id":2,"label":"car"}]}"#
    );
    let second = next_json(&mut socket);
    assert_eq!((second["source"].as_str(), second["boxes"].as_array().map(Vec::len)), (Some("yard \"2\""), Some(0)));
}

#[test]
fn a_video_client_begins_at_the_last_key_frame_and_others_get_no_video() {
    let (hub, server) = start(4, Limits::default());
    for (pts, key) in [(0, true), (40, false), (80, true), (160, false), (120, false)] {
        hub.packet("gate", pts, 0, key, SIZE, &unit(key, 100)).unwrap();
    }
    let mut video = join(&server, "/ws?video=1");
    let mut plain = join(&server, "/ws?video=0");
    hub.packet("gate", -200, 0, false, SIZE, &unit(false, 50)).unwrap();
    hub.detections(&found("gate", 0, 0)).unwrap();
    assert_eq!(next_json(&mut plain)["type"], "detections");

    let mut config = None;
    let mut packets = Vec::new();
    while packets.len() < 4 {
        match next(&mut video) {
            Message::Binary(bytes) => packets.push(bytes),
            Message::Text(text) if text.contains("\"video\"") => config = Some(text),
            Message::Text(text) => assert!(text.contains("\"detections\""), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        config.unwrap().as_str(),
        r#"{"type":"video","schema":1,"source":"gate","index":0,"codec":"avc1.64001f","width_px":640,"height_px":480,"orientation":"none","replay_packets":3}"#
    );
    // version, kind, flags, camera, reserved, then the time: by the document, not by the code
    assert_eq!(packets[0][..16], [1, 1, 1, 0, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(packets[0][16..], unit(true, 100));
    assert_eq!(packets[1][..16], [1, 1, 0, 0, 0, 0, 0, 0, 160, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(packets[2][8], 120);
    assert_eq!(packets[3][8..16], [0x38, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "-200");
}

#[test]
fn a_stream_says_how_its_pictures_are_turned_and_again_when_that_changes() {
    let (hub, server) = start(4, Limits::default());
    let mut video = join(&server, "/ws?video=1");
    for (pts_ns, orientation) in [(0, Orientation::Turn90), (1, Orientation::Turn90), (2, Orientation::Mirror180)] {
        let view = View { size: Size::new(480, 640), orientation };
        hub.packet("gate", pts_ns, 0, true, view, &unit(true, 100)).unwrap();
    }
    let mut said = Vec::new();
    let mut packets = 0;
    while packets < 3 {
        match next(&mut video) {
            Message::Binary(_) => packets += 1,
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "video" {
                    said.push((
                        packets,
                        message["orientation"].as_str().unwrap().to_owned(),
                        message["width_px"].clone(),
                    ));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(said, [(0, "90".to_owned(), 480.into()), (2, "mirror_180".to_owned(), 480.into())]);
}

#[test]
fn jpeg_goes_to_those_who_asked_and_to_those_whose_camera_has_no_h264() {
    let (hub, server) = start(4, Limits::default());
    assert!(!hub.jpeg_wanted("gate"), "nobody is there");
    let mut auto = join(&server, "/ws?video=1");
    assert!(hub.jpeg_wanted("gate"));
    assert_eq!(hub.jpeg("gate", 5, SIZE, b"\xff\xd8\xff").unwrap().clients, 1);
    let config = next_json(&mut auto);
    assert_eq!((config["codec"].as_str(), config["width_px"].as_u64()), (Some("jpeg"), Some(640)));
    let Message::Binary(picture) = next(&mut auto) else { panic!("no picture") };
    assert_eq!(picture[..16], [1, 2, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);

    hub.packet("gate", 0, 0, true, SIZE, &unit(true, 60)).unwrap();
    assert!(!hub.jpeg_wanted("gate"), "H.264 is there, and costs nothing");
    assert_eq!(next_json(&mut auto)["codec"], "avc1.64001f");
    let _jpeg = join(&server, "/ws?video=jpeg");
    assert!(hub.jpeg_wanted("gate"));
    assert_eq!(hub.jpeg("gate", 6, SIZE, b"\xff\xd8\xff").unwrap().clients, 1);
}

#[test]
fn a_full_server_says_so_and_has_room_again_when_a_client_leaves() {
    let (hub, server) = start(2, Limits::default());
    let first = join(&server, "/ws");
    let _second = join(&server, "/ws");
    let (code, reason) = close_of(next(&mut connect(&server, "/ws")));
    assert_eq!((code, reason.as_str()), (1013, "this server takes 2 clients at most (MAX_CLIENTS)"));
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(5);
    while hub.clients() == 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    join(&server, "/ws");
}

#[test]
fn a_client_that_does_not_read_costs_the_others_and_the_pipeline_nothing() {
    let limits = Limits { video_bytes: 4 << 20, detections: 50, ..Limits::default() };
    let (hub, server) = start(4, limits);
    let mut slow = join(&server, "/ws?video=1");
    let mut fast = join(&server, "/ws");
    let reader = std::thread::spawn(move || {
        for seq in 0..400 {
            assert_eq!(next_json(&mut fast)["seq"], seq);
        }
    });
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    // 400 frames of 200 KB: far more than the queue and the kernel's buffers hold
    for seq in 0..400u64 {
        let key = seq % 50 == 0;
        let started = Instant::now();
        hub.packet("gate", seq as i64, 0, key, SIZE, &unit(key, 200_000)).unwrap();
        hub.detections(&found("gate", seq, 3)).unwrap();
        longest = longest.max(started.elapsed());
        // slow enough for the fast client's queue of 50
        std::thread::sleep(Duration::from_millis(1));
    }
    reader.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20) && longest < Duration::from_secs(2), "{longest:?}");

    // now the slow one reads: what it gets begins with a key frame behind each gap, and it is told of each loss
    let (mut packets, mut lost, mut after_gap) = (0, 0, false);
    let mut previous = -1i64;
    hub.end();
    loop {
        match socket_next(&mut slow) {
            Some(Message::Binary(bytes)) => {
                let pts = i64::from_le_bytes(bytes[8..16].try_into().unwrap());
                assert!(pts > previous);
                if pts != previous + 1 {
                    assert!(after_gap && bytes[2] == 1, "{previous} -> {pts} without a gap message or a key frame");
                }
                (previous, after_gap) = (pts, false);
                packets += 1;
            }
            Some(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "gap" {
                    after_gap |= message["packets"].as_u64() > Some(0);
                    lost += message["packets"].as_u64().unwrap();
                }
            }
            Some(Message::Close(_)) | None => break,
            Some(_) => {}
        }
    }
    assert!(lost > 0, "{packets} packets came");
    assert!(packets + lost <= 400, "{packets} came, {lost} lost");
}

fn socket_next(socket: &mut WebSocket<TcpStream>) -> Option<Message> {
    socket.read().ok()
}

#[test]
fn the_end_is_told_and_the_server_stops_in_time() {
    let (hub, mut server) = start(4, Limits::default());
    let mut reader = join(&server, "/ws");
    let _silent = join(&server, "/ws");
    hub.detections(&found("gate", 0, 0)).unwrap();
    let waiter = std::thread::spawn(move || {
        let last = next_json(&mut reader);
        let end = next_json(&mut reader);
        (last["type"].clone(), end, close_of(next(&mut reader)))
    });
    hub.end();
    let begun = Instant::now();
    let address = server.address();
    server.stop();
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    let (last, end, close) = waiter.join().unwrap();
    assert_eq!(last, "detections", "what was published before the end still arrives");
    assert_eq!((end["type"].as_str(), end["reason"].as_str()), (Some("end"), Some("the graph has ended")));
    assert_eq!(close, (1001, "the graph has ended".into()));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_client_that_does_not_answer_pings_is_given_up() {
    let (hub, server) = start(4, Limits { dead_after: Duration::from_millis(400), ..Limits::default() });
    // reads, and so answers
    let mut alive = join(&server, "/ws");
    let _dead = join(&server, "/ws");
    alive.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while hub.clients() == 2 && Instant::now() < deadline {
        let _ = alive.read();
    }
    for _ in 0..20 {
        let _ = alive.read();
    }
    assert_eq!(hub.clients(), 1);
    hub.detections(&found("gate", 0, 0)).unwrap();
    alive.get_ref().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(next_json(&mut alive)["type"], "detections");
}

#[test]
fn a_busy_port_is_named_and_so_is_the_setting() {
    let (hub, server) = start(1, Limits::default());
    let port = server.address().port();
    let text = Server::start(LOOPBACK, port, "", 1, hub.clone()).unwrap_err().to_string();
    assert!(text.starts_with(&format!("port {port} on 127.0.0.1 is in use")) && text.contains("set PORT to"), "{text}");
    assert_eq!(server.page(), format!("http://127.0.0.1:{port}/"));
    let text = Server::start([192, 0, 2, 1].into(), 0, "", 1, hub).unwrap_err().to_string();
    assert!(text.starts_with("cannot listen on 192.0.2.1:0 (BIND, PORT)"), "{text}");
    assert!(crate::server::parse_bind("cam.lan").unwrap_err().to_string().contains("'cam.lan' is not an address"));
    assert_eq!(crate::server::parse_bind("localhost").unwrap(), LOOPBACK);
}

/// Status line and headers, and body, of a request.
fn http(server: &Server, request: &str) -> (String, String) {
    let mut stream = tcp(server);
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_ascii_lowercase(), body.into())
}

fn get(server: &Server, path: &str, headers: &str) -> (String, String) {
    http(server, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", server.address()))
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_says_so() {
    let (_hub, server) = start(1, Limits::default());
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/camera.js", "text/javascript"),
        ("/found.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let (head, body) = get(&server, path, "");
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{path}: {head}");
        let foreign = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://") && !foreign.contains("src=\"//"), "{path} names another server");
    }
    let (head, body) = get(&server, "/none", "");
    assert!(head.starts_with("http/1.1 404") && body.contains("/stats"), "{head} {body}");
}

#[test]
fn figures_and_health_are_json() {
    let (hub, server) = start(1, Limits::default());
    for seq in [0, 1, 4] {
        hub.detections(&found("gate", seq, 0)).unwrap();
    }
    let stats: Value = serde_json::from_str(&get(&server, "/stats", "").1).unwrap();
    assert_eq!((stats["cameras"][0]["frames"].as_u64(), stats["cameras"][0]["missing"].as_u64()), (Some(3), Some(2)));
    // the frames above arrived at second 0 of the machine's clock
    assert!(stats["cameras"][0]["age_p50_ms"].as_f64() > Some(1e4));
    assert_eq!(stats["cameras"][0]["latency_p50_ms"], stats["cameras"][0]["age_p50_ms"]);
    let health: Value = serde_json::from_str(&get(&server, "/healthz", "").1).unwrap();
    assert_eq!(health["status"], "ok");
}

#[test]
fn strangers_and_nonsense_are_turned_away() {
    let (_hub, server) = start(1, Limits::default());
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let request = |path: &str, more: &str| {
        let address = server.address();
        let text = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{upgrade}{more}\r\n");
        let mut stream = tcp(&server);
        stream.write_all(text.as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head).into_owned()
    };
    assert_eq!(request("/ws", "Origin: http://evil.example\r\n"), "HTTP/1.1 403");
    assert_eq!(request("/ws?video=2", ""), "HTTP/1.1 400");
    assert_eq!(request("/ws?vidéo=1", ""), "HTTP/1.1 400");
    assert_eq!(request("/ws", &format!("Origin: http://{}\r\n", server.address())), "HTTP/1.1 101");
    assert!(http(&server, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n").0.starts_with("http/1.1 400"));
    let (head, body) = get(&server, "/ws?x=", "");
    assert!(head.starts_with("http/1.1 400"), "{head} {body}");
    join(&server, "/ws");
}

#[test]
fn the_figures_say_what_a_camera_s_model_is_for() {
    let (hub, server) = start(1, Limits::default());
    hub.detections(&found("gate", 0, 1)).unwrap();
    let stats =
        || serde_json::from_str::<serde_json::Value>(&get(&server, "/stats", "").1).unwrap()["cameras"][0].clone();
    assert_eq!((&stats()["model"], stats().get("about")), (&"m".into(), None));
    hub.detections(&Detections { about: "finds cars".into(), ..found("gate", 1, 1) }).unwrap();
    assert_eq!((&stats()["model"], &stats()["about"]), (&"m".into(), &"finds cars".into()));
}

#[test]
fn what_cannot_be_said_in_json_is_refused_by_name() {
    let (hub, _server) = start(1, Limits::default());
    let mut bad = found("gate", 3, 2);
    bad.boxes[1].score = f32::NAN;
    let error = hub.detections(&bad).unwrap_err();
    assert_eq!(
        (error.cause(), error),
        ("not_finite", Refused::NotFinite { source_id: "gate".into(), seq: 3, what: "box 1 (car)".into() })
    );
    for n in 0..256 {
        hub.detections(&found(&format!("cam{n}"), 0, 0)).unwrap();
    }
    assert_eq!(hub.detections(&found("one more", 0, 0)).unwrap_err().cause(), "too_many_cameras");
    assert_eq!(hub.detections(&found("cam255", 1, 0)), Ok(Default::default()));
}

#[test]
fn the_pictures_kept_for_newcomers_are_bounded() {
    let (hub, server) = start(2, Limits::default());
    hub.packet("gate", 0, 0, true, SIZE, &unit(true, 1000)).unwrap();
    for pts in 1..20 {
        hub.packet("gate", pts, 0, false, SIZE, &unit(false, 1 << 20)).unwrap();
    }
    // more than 8 MiB since the key frame: a newcomer waits for the next one
    let mut socket = join(&server, "/ws?video=1");
    hub.packet("gate", 20, 0, false, SIZE, &unit(false, 100)).unwrap();
    hub.packet("gate", 21, 0, true, SIZE, &unit(true, 100)).unwrap();
    assert_eq!(next_json(&mut socket)["replay_packets"], 0);
    let Message::Binary(bytes) = next(&mut socket) else { panic!("no picture") };
    assert_eq!((bytes[2], bytes[8]), (1, 21));
}
