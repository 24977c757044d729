//! What somebody tries who has taken over the decoder's thread. Nothing here does harm where it succeeds.

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, netlink, socket_with};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, getppid, kill_process, pidfd_getfd, pidfd_open};
use std::fs::{File, OpenOptions, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;

/// Each attempt, and what became of it: `done`, or the system's error.
pub(crate) fn all(port: u16, source: &str) -> Vec<(&'static str, String)> {
    let beside = |name: &str| Path::new(source).with_file_name(name);
    let home = std::env::var("HOME").unwrap_or_default();
    let home = Path::new(&home).join(".millrace-intruder");
    let parent = getppid();
    let parent_number = parent.map_or(0, |parent| parent.as_raw_nonzero().get());
    let none = || std::io::Error::other("no parent");
    let of_parent = |file: &str| File::open(format!("/proc/{parent_number}/{file}"));
    let socket = |family, kind, protocol| socket_with(family, kind, SocketFlags::CLOEXEC, protocol);
    let mut outcomes = vec![
        ("read its own source", outcome(File::open(source))),
        ("read another file", outcome(File::open("/etc/passwd"))),
        ("read a file beside its source", outcome(File::open(beside("secret")))),
        ("list the root folder", outcome(std::fs::read_dir("/"))),
        ("write to the home folder", written(&home)),
        ("write beside its source", written(&beside("planted"))),
        ("write to a temporary folder", written(&std::env::temp_dir().join("millrace-intruder"))),
        ("overwrite its source", outcome(OpenOptions::new().append(true).open(source))),
        ("change the mode of its source", outcome(std::fs::set_permissions(source, Permissions::from_mode(0o600)))),
        ("make a folder", outcome(std::fs::create_dir(beside("folder")))),
        ("move a file", outcome(std::fs::rename(beside("secret"), beside("moved")))),
        ("start a shell", outcome(Command::new("/bin/sh").args(["-c", "exit 0"]).status())),
        ("connect to a port", outcome(TcpStream::connect(("127.0.0.1", port)))),
        ("serve on a port", outcome(TcpListener::bind("127.0.0.1:0"))),
        ("open a raw socket", outcome(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)))),
        (
            "open a socket of another protocol",
            outcome(socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP))),
        ),
        (
            "open a netlink socket",
            outcome(socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::KOBJECT_UEVENT))),
        ),
        ("signal its parent", outcome(parent.ok_or_else(none).and_then(|it| Ok(kill_process(it, Signal::CONT)?)))),
        ("read its parent's environment", outcome(of_parent("environ").and_then(|mut file| read(&mut file)))),
        ("open its parent's memory", outcome(of_parent("mem"))),
        ("change the root folder", outcome(rustix::process::chroot("/"))),
    ];
    let fetched = parent.ok_or_else(none).and_then(|parent| {
        let parent = pidfd_open(parent, PidfdFlags::empty())?;
        Ok(pidfd_getfd(&parent, 2, PidfdGetfdFlags::empty())?)
    });
    outcomes.push(("take a descriptor of its parent", outcome(fetched)));
    let server = SocketAddr::from_abstract_name(format!("millrace-intruder-{port}"));
    let reached = server.and_then(|server| UnixDatagram::unbound()?.connect_addr(&server));
    outcomes.push(("reach another process's abstract socket", outcome(reached)));
    outcomes.push(("start a thread", outcome(std::thread::Builder::new().spawn(|| ()))));
    outcomes.push(("find a thread that is not sealed", unsealed()));
    outcomes
}

fn outcome<T>(result: Result<T, impl Into<std::io::Error>>) -> String {
    match result.map_err(Into::into) {
        Ok(_) => "done".to_owned(),
        Err(e) => format!("{:?}", std::io::Error::kind(&e)),
    }
}

fn read(file: &mut File) -> std::io::Result<usize> {
    std::io::Read::read(file, &mut [0; 64])
}

fn written(path: &Path) -> String {
    let made = outcome(OpenOptions::new().write(true).create(true).truncate(true).open(path));
    // what was made is taken back
    let _ = std::fs::remove_file(path);
    made
}

/// Threads of the process that may start programs, or gain privileges by it.
fn unsealed() -> String {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let has =
        |status: &str, line: &str| status.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == line);
    let (mut threads, mut open) = (0, 0);
    for status in status {
        threads += 1;
        open += usize::from(!(has(&status, "Seccomp: 2") && has(&status, "NoNewPrivs: 1")));
    }
    // dora's library alone has several
    match (threads > 5, open) {
        (true, 0) => "none".to_owned(),
        _ => format!("done, {open} of {threads}"),
    }
}
