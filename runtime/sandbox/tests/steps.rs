//! The two steps, in processes of their own: this test starts itself as the process that gives up what it has. It has no
//! harness, since that runs a test in a second thread.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its child reports by lines"
)]

use millrace_sandbox::{Error, Ports, Reach, confine, offered, seal};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;

const FOLDER: &str = "MILLRACE_SANDBOX_FOLDER";
const PORTS: &str = "MILLRACE_SANDBOX_PORTS";

fn refused<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
}

/// What is refused in this thread, of what the child tries.
fn tried(folder: &Path, closed: u16) -> Vec<(&'static str, bool)> {
    vec![
        ("another file", refused(File::open("/etc/passwd"))),
        ("a new file", refused(File::create(folder.join("new")))),
        ("a longer file", refused(OpenOptions::new().append(true).open(folder.join("readable")))),
        ("another port", refused(TcpStream::connect(("127.0.0.1", closed)))),
        ("a server", refused(TcpListener::bind("127.0.0.1:0"))),
    ]
}

/// The child: confined, with a thread from before the seal, then sealed.
fn child(folder: &Path) {
    let ports = std::env::var(PORTS).unwrap();
    let (open, closed) = ports.split_once(' ').unwrap();
    let (open, closed): (u16, u16) = (open.parse().unwrap(), closed.parse().unwrap());
    let reach = Reach {
        read: vec![folder.to_owned(), "/proc".into(), folder.join("absent")],
        write: vec![folder.join("writable")],
        ports: Some(Ports { connect: [open].into(), bind: [0].into() }),
        ..Reach::default()
    };
    assert_eq!(confine(&reach).unwrap(), [""; 0]);
    let served = TcpListener::bind("127.0.0.1:0");
    assert!(served.is_ok(), "before the seal: {served:?}");
    let (to, go) = channel::<()>();
    let thread = std::thread::spawn({
        let folder = folder.to_owned();
        move || {
            go.recv().unwrap();
            let program = refused(Command::new("/bin/true").status());
            (tried(&folder, closed), program)
        }
    });
    seal(true).unwrap();
    to.send(()).unwrap();
    let (of_thread, program) = thread.join().unwrap();
    assert!(program, "a thread of before the seal starts a program");
    for (what, refused) in of_thread.into_iter().chain(tried(folder, closed)) {
        assert!(refused, "{what}");
    }
    assert!(refused(Command::new("/bin/true").status()), "a program");
    assert!(refused(std::fs::set_permissions(
        folder.join("readable"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600)
    )));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(1), Some(1)));
    // and what it has kept
    assert_eq!(std::fs::read(folder.join("readable")).unwrap(), b"text");
    std::fs::write(folder.join("writable/new"), b"text").unwrap();
    std::fs::remove_file(folder.join("writable/new")).unwrap();
    TcpStream::connect(("127.0.0.1", open)).unwrap();
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(std::net::ToSocketAddrs::to_socket_addrs("127.0.0.1:80").unwrap().count(), 1);
    println!("all of it");
}

fn main() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(Path::new(&folder));
    }
    a_process_with_several_threads_is_not_confined();
    what_was_not_kept_is_refused_in_every_thread();
}

fn what_was_not_kept_is_refused_in_every_thread() {
    let offer = offered();
    if !(offer.landlock > 0 && offer.lacks.is_empty() && offer.seccomp.is_ok()) {
        return millrace_needs::skip_without("sandbox", format!("{offer:?}"));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("readable"), b"text").unwrap();
    std::fs::create_dir(folder.path().join("writable")).unwrap();
    let [open, closed] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = [&open, &closed].map(|server| server.local_addr().unwrap().port());
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.env(FOLDER, folder.path()).env(PORTS, format!("{first} {second}")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all of it"), "{text}");
}

fn a_process_with_several_threads_is_not_confined() {
    let (end, ended) = channel::<()>();
    let other = std::thread::spawn(move || ended.recv());
    assert!(matches!(confine(&Reach::default()), Err(Error::Threads(2..))));
    drop(end);
    other.join().unwrap().unwrap_err();
    // nothing was given up
    assert!(Command::new("/bin/true").status().unwrap().success());
}
