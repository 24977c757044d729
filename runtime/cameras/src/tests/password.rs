//! Passwords that are corrected or changed while the node runs.

use super::fake::Fakes;
use super::{state, until};
use millrace_node::testing::Bench;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// By `base64` of coreutils, of `me:wrong1`, `me:right1` and `me:third1`.
const LOGINS: [&str; 3] = ["Basic bWU6d3Jvbmcx", "Basic bWU6cmlnaHQx", "Basic bWU6dGhpcmQx"];

/// A camera that refuses everybody, by RTSP and by HTTP, and the logins that it was given.
fn camera() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let logins = Arc::<Mutex<Vec<String>>>::default();
    let seen = logins.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            std::thread::spawn(move || refuse(&stream, &seen));
        }
    });
    (at, logins)
}

fn refuse(mut stream: &TcpStream, logins: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (mut protocol, mut cseq) = ("HTTP/1.1", String::new());
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "authorization" => logins.lock().unwrap().push(value.to_owned()),
            "cseq" => cseq = format!("{line}\r\n"),
            "" => write!(
                stream,
                "{protocol} 401 Unauthorized\r\n{cseq}WWW-Authenticate: Basic realm=\"door\"\r\nContent-Length: 0\r\n\r\n"
            )?,
            _ if line.ends_with("RTSP/1.0") => protocol = "RTSP/1.0",
            _ => {}
        }
    }
    Ok(())
}

fn write(file: &Path, password: &str) {
    std::fs::write(file, password).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_password_file_that_is_corrected_counts_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.yml");
    let password = dir.path().join("password");
    write(&password, "wrong1\n");
    let cameras = [("rtsp", "tcp", camera()), ("rtsp", "udp", camera()), ("http", "", camera())];
    let mut text = "cameras:\n".to_owned();
    for (n, (scheme, transport, (at, _))) in cameras.iter().enumerate() {
        let transport = if transport.is_empty() { String::new() } else { format!(", transport: {transport}") };
        let password = password.display();
        text += &format!(
            "  - {{ id: cam{n}, url: '{scheme}://{at}/1', user: me, password_file: {password}{transport} }}\n"
        );
    }
    std::fs::write(&file, text).unwrap();
    let mut bench = Bench::start::<Fakes>(&[("CAMERAS", file.to_str().unwrap()), ("FLOW", "live")]);
    let wait = |what: &str, login: &str| {
        until(what, || cameras.iter().all(|(.., (_, logins))| logins.lock().unwrap().iter().any(|l| l == login)));
    };
    wait("the first password at each camera", LOGINS[0]);
    until("a refusal of each", || (0..3).all(|n| refused_by(&bench, n, "401")));
    write(&password, "right1\n");
    wait("the corrected password at each camera", LOGINS[1]);
    // one that is gone for a while is a reason, too
    std::fs::remove_file(&password).unwrap();
    until("its absence", || (0..3).all(|n| refused_by(&bench, n, "cannot be read")));
    write(&password, "third1\n");
    wait("the next password at each camera", LOGINS[2]);
    assert!(bench.receive(Duration::ZERO).is_none());
    bench.stop();
    bench.join().unwrap();
}

fn refused_by(bench: &Bench, camera: usize, says: &str) -> bool {
    let why = state(bench.metrics(), &format!("cam{camera}")).map_or_else(String::new, |(_, why)| why);
    assert!(!["wrong1", "right1", "third1"].iter().any(|secret| why.contains(secret)), "{why}");
    why.contains(says)
}
