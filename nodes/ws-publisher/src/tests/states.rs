//! What cameras do, how it reaches clients and monitors, and connections that do nothing.

use super::*;
use crate::connections::HEAD_WITHIN;
use millrace_frame::{CameraState, CameraStatus, Size, monotonic_ns, unix_ns};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn status(source: &str, state: CameraState, last_error: &str) -> CameraStatus {
    CameraStatus { state, since_ns: 5, last_error: last_error.to_owned(), tries: 3, ..CameraStatus::new(source) }
}

/// The answer to a request: its code and body.
fn ask(server: &Server, request: &str) -> (u16, String) {
    let mut stream = tcp(server);
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let code = text.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {text:?}")).parse().unwrap();
    (code, text.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    let host = server.address();
    let (code, body) = ask(server, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    (code, serde_json::from_str(&body).unwrap())
}

/// The next `stats` message.
fn next_stats(socket: &mut WebSocket<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap()
            && text.starts_with("{\"type\":\"stats\"")
        {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Detections of a frame that arrived so long ago.
fn aged(source: &str, seq: u64, age: Duration) -> Detections {
    let age_ns = age.as_nanos() as i64;
    Detections { arrival_ns: monotonic_ns() - age_ns, capture_ns: unix_ns() - age_ns, ..found(source, seq, 1) }
}

#[test]
fn a_camera_without_a_frame_is_listed_with_its_state_and_why() {
    let (hub, server) = start(2, Limits::default());
    hub.camera(&status("door", CameraState::Refused, "401 Unauthorized")).unwrap();
    let (_, stats) = get(&server, "/stats");
    let door = &stats["cameras"][0];
    assert_eq!((door["source"].as_str(), door["state"].as_str()), (Some("door"), Some("refused")));
    assert_eq!((door["last_error"].as_str(), door["tries"].as_u64()), (Some("401 Unauthorized"), Some(3)));
    assert_eq!((door["since_ns"].as_i64(), door["fps"].as_f64()), (Some(5), Some(0.0)));
    assert!(door["last_frame_ns"].is_null() && door["age_p50_ms"].is_null());
    // a client that comes learns it at once
    let mut socket = connect(&server, "/ws");
    assert_eq!(next_json(&mut socket)["cameras"][0]["source"], "door");
    assert_eq!(next_stats(&mut socket)["cameras"][0]["state"], "refused");
}

#[test]
fn a_change_reaches_the_clients_at_once_and_ages_are_those_of_the_frames() {
    let (hub, server) = start(2, Limits::default());
    let mut socket = join(&server, "/ws");
    hub.camera(&status("door", CameraState::Live, "")).unwrap();
    for seq in 0..20 {
        hub.detections(&aged("door", seq, Duration::from_millis(200))).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(5);
    let live = loop {
        let stats = next_stats(&mut socket);
        if stats["cameras"][0]["frames"] == 20 {
            break stats;
        }
        assert!(Instant::now() < until);
    };
    let door = &live["cameras"][0];
    assert_eq!((door["state"].as_str(), door["last_error"].as_str()), (Some("live"), None));
    for age in ["age_p50_ms", "age_p95_ms", "age_p99_ms", "latency_p50_ms", "latency_p99_ms"] {
        let ms = door[age].as_f64().unwrap();
        assert!((200.0..400.0).contains(&ms), "{age}: {ms}");
    }
    assert!((unix_ns() - door["last_frame_ns"].as_i64().unwrap()).abs() < 5_000_000_000);
    next_stats(&mut socket); // a second begins
    hub.camera(&status("door", CameraState::Stalled, "no picture for 3 s")).unwrap();
    let stalled_at = Instant::now();
    assert_eq!(next_stats(&mut socket)["cameras"][0]["state"], "stalled");
    assert!(stalled_at.elapsed() < Duration::from_millis(700), "{:?}", stalled_at.elapsed());
}

#[test]
fn monitors_learn_whether_it_lives_and_whether_it_is_ready() {
    let loop_age_ms = Arc::new(AtomicU64::new(0));
    let of_loop = loop_age_ms.clone();
    let loop_age = LoopAge(Box::new(move || Some(Duration::from_millis(of_loop.load(Ordering::Relaxed)))));
    let hub = Hub::new("Test".into(), 2, Limits::default(), loop_age);
    let server = Server::start(LOOPBACK, 0, "", 2, hub.clone()).unwrap();

    assert_eq!(get(&server, "/livez"), (200, serde_json::json!({"status": "ok", "loop_age_ms": 0})));
    assert_eq!(get(&server, "/healthz").0, 200);
    let (code, ready) = get(&server, "/readyz");
    assert_eq!((code, ready["missing"][0].as_str()), (503, Some("no camera has come yet")));
    hub.camera(&status("door", CameraState::Refused, "401 Unauthorized")).unwrap();
    let (code, ready) = get(&server, "/readyz");
    assert_eq!(
        (code, ready["missing"][0].as_str()),
        (503, Some("no camera is live: door is refused: 401 Unauthorized"))
    );
    assert_eq!(ready["cameras"]["refused"], 1);

    hub.camera(&status("yard", CameraState::Live, "")).unwrap();
    let (code, ready) = get(&server, "/readyz");
    assert_eq!((code, ready["missing"][0].as_str()), (503, Some("no detections of a live camera have come")));
    hub.detections(&aged("yard", 0, Duration::ZERO)).unwrap();
    let (code, ready) = get(&server, "/readyz");
    assert_eq!((code, ready["status"].as_str(), ready["cameras"]["live"].as_u64()), (200, Some("ready"), Some(1)));

    // a camera that was removed is no longer asked for, and its name is not shown
    hub.camera(&status("door", CameraState::Ended, "")).unwrap();
    assert_eq!(get(&server, "/readyz").0, 200);
    hub.camera(&status("yard", CameraState::Stalled, "no picture for 3 s")).unwrap();
    let (code, ready) = get(&server, "/readyz");
    assert_eq!(
        (code, ready["missing"][0].as_str()),
        (503, Some("no camera is live: yard is stalled: no picture for 3 s"))
    );
    hub.camera(&status("yard", CameraState::Ended, "")).unwrap();
    let (_, ready) = get(&server, "/readyz");
    assert_eq!(ready["missing"][0].as_str(), Some("no camera is live: 2 have ended or were removed"));
    hub.camera(&status("gate", CameraState::Live, "")).unwrap();
    hub.detections(&aged("gate", 0, Duration::ZERO)).unwrap();
    assert_eq!(get(&server, "/readyz").0, 200);

    // the loop hangs, and with it whatever lock it holds
    loop_age_ms.store(4_000, Ordering::Relaxed);
    let held = hub.hold();
    assert_eq!(get(&server, "/livez"), (503, serde_json::json!({"status": "hung", "loop_age_ms": 4000})));
    assert_eq!(get(&server, "/readyz").0, 503);
    drop(held);
}

#[test]
fn a_camera_that_was_removed_says_so_and_leaves() {
    let (hub, server) = start(2, Limits::default());
    hub.camera(&status("yard", CameraState::Live, "")).unwrap();
    hub.camera(&CameraStatus::removed("door")).unwrap();
    let shown = |stats: &Value| {
        let cameras = stats["cameras"].as_array().unwrap().iter();
        cameras.map(|c| c["source"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (_, stats) = get(&server, "/stats");
    assert_eq!(shown(&stats), ["yard", "door"]);
    assert_eq!(
        (stats["cameras"][1]["state"].as_str(), stats["cameras"][1]["last_error"].as_str()),
        (Some("ended"), Some("removed"))
    );
    // within a minute it is gone, for those who are there and for those who come
    let minute_ago = CameraStatus { since_ns: unix_ns() - 60_000_000_000, ..CameraStatus::removed("door") };
    hub.camera(&minute_ago).unwrap();
    assert_eq!(shown(&get(&server, "/stats").1), ["yard"]);
    let mut socket = connect(&server, "/ws");
    assert_eq!(shown(&next_json(&mut socket)), ["yard"]);
    assert!(get(&server, "/readyz").1["cameras"]["ended"].is_null());
    // a file that is over stays, and so does a camera that comes back
    hub.camera(&CameraStatus { since_ns: 5, ..status("door", CameraState::Ended, "") }).unwrap();
    assert_eq!(shown(&get(&server, "/stats").1), ["yard", "door"]);
}

#[test]
fn a_camera_whose_pictures_come_and_no_detections_is_not_live() {
    let (hub, server) = start(2, Limits::default());
    hub.camera(&status("door", CameraState::Live, "")).unwrap();
    hub.detections(&aged("door", 0, Duration::ZERO)).unwrap();
    let began = Instant::now();
    while get(&server, "/stats").1["cameras"][0]["state"] == "live" {
        assert!(began.elapsed() < Duration::from_secs(20), "it stays live");
        hub.picture("door", unix_ns()).unwrap();
        hub.packet("door", 0, unix_ns(), true, Size::new(640, 480), &[0, 0, 1, 0x65]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let (_, stats) = get(&server, "/stats");
    assert_eq!(stats["cameras"][0]["state"], "stalled");
    assert!(
        stats["cameras"][0]["last_error"].as_str().unwrap().starts_with("its pictures come, and nothing was detected")
    );
    assert_eq!(get(&server, "/readyz").0, 503);
}

#[test]
fn load_balancers_ask_by_http_1_0_without_a_host() {
    let (hub, server) = start(2, Limits::default());
    hub.detections(&aged("yard", 0, Duration::ZERO)).unwrap();
    for path in ["/livez", "/healthz", "/readyz", "/stats"] {
        assert_eq!(ask(&server, &format!("GET {path} HTTP/1.0\r\n\r\n")).0, 200, "{path}");
        assert_eq!(ask(&server, &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n")).0, 400, "{path}");
    }
    assert_eq!(ask(&server, "HEAD /livez HTTP/1.0\r\n\r\n"), (200, String::new()));
}

#[test]
fn an_upgrade_that_is_none_is_refused() {
    let (_hub, server) = start(2, Limits::default());
    let upgrade = |version: &str, key: &str| {
        let address = server.address();
        let mut stream = tcp(&server);
        let text = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut head = vec![0; 400];
        let len = stream.read(&mut head).unwrap();
        String::from_utf8_lossy(&head[..len]).to_ascii_lowercase()
    };
    let good = "dGhlIHNhbXBsZSBub25jZQ==";
    assert!(upgrade("13", good).starts_with("http/1.1 101"));
    for key in ["c2hvcnQ=", "", "dGhlIHNhbXBsZSBub25jZSE?", "dGhlIHNhbXBsZSBub25jZQ==dGhl"] {
        assert!(upgrade("13", key).starts_with("http/1.1 400"), "{key}");
    }
    let old = upgrade("8", good);
    assert!(old.starts_with("http/1.1 400") && old.contains("sec-websocket-version: 13"), "{old}");
}

/// Two hundred connections that say nothing take the place of nobody, and are closed.
#[test]
fn idle_connections_do_not_close_the_page() {
    let (_hub, server) = start(32, Limits::default());
    let began = Instant::now();
    let mut idle: Vec<TcpStream> = (0..200).map(|_| tcp(&server)).collect();
    let mut socket = join(&server, "/ws");
    assert_eq!(get(&server, "/livez").0, 200);
    assert!(began.elapsed() < HEAD_WITHIN, "they are still within their time: {:?}", began.elapsed());
    // one that dribbles its request is no better
    let mut slow = tcp(&server);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a").unwrap();
    std::thread::sleep(HEAD_WITHIN + Duration::from_secs(1));
    for stream in idle.iter_mut().chain([&mut slow]) {
        stream.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "it is still open"),
        }
    }
    // a WebSocket is no idle connection, however little it says
    assert_eq!(next_stats(&mut socket)["clients"], 1);
    assert_eq!(get(&server, "/stats").1["clients"], 1);
}

#[test]
fn the_number_of_a_camera_that_has_ended_goes_to_a_new_one() {
    let (hub, server) = start(2, Limits::default());
    for n in 0..256 {
        hub.camera(&status(&format!("cam{n:03}"), CameraState::Live, "")).unwrap();
    }
    let key = [0, 0, 1, 0x67, 0x64, 0x00, 0x1f, 0xac, 0, 0, 1, 0x65, 0x88];
    hub.packet("cam007", 0, 0, true, Size::new(640, 480), &key).unwrap();
    let mut socket = join(&server, "/ws?video=1");
    assert_eq!(next_json(&mut socket)["source"], "cam007");
    assert!(matches!(next(&mut socket), Message::Binary(bytes) if bytes[3] == 7));
    assert_eq!(hub.camera(&status("new", CameraState::Live, "")).unwrap_err().cause(), "too_many_cameras");
    hub.camera(&status("cam007", CameraState::Ended, "removed")).unwrap();
    hub.camera(&status("new", CameraState::Live, "")).unwrap();
    hub.packet("new", 1, 0, true, Size::new(320, 240), &key).unwrap();
    let config = next_json(&mut socket);
    assert_eq!((config["source"].as_str(), config["index"].as_u64()), (Some("new"), Some(7)));
    assert!(matches!(next(&mut socket), Message::Binary(bytes) if bytes[3] == 7 && bytes[8] == 1));
    let (_, stats) = get(&server, "/stats");
    let known: Vec<_> = stats["cameras"].as_array().unwrap().iter().map(|c| c["source"].as_str().unwrap()).collect();
    assert!(known.len() == 256 && known.contains(&"new") && !known.contains(&"cam007"));
}
