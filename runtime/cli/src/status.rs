//! What nodes report of themselves: one JSON datagram every half second and one at the end. A long report comes as a file,
//! whose descriptor the datagram carries.

use millrace_frame::CameraStatus;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The variable that tells nodes where to report to.
pub(crate) const VARIABLE: &str = "MILLRACE_STATUS";

/// A node's report. Fields may be added by later nodes; what is missing is nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeReport {
    /// Version of this form: 1.
    pub(crate) v: u32,
    /// The node's id in the graph.
    pub(crate) node: String,
    /// Its program.
    pub(crate) name: String,
    /// The process that dora started for it.
    pub(crate) pid: u32,
    /// The process that it shares with other nodes, where it does.
    pub(crate) group: Option<Group>,
    /// How often dora has started it again.
    pub(crate) restarts: u64,
    /// Whether it still works.
    pub(crate) state: State,
    /// Since it started.
    pub(crate) uptime_ns: u64,
    /// How long ago its event loop last turned; none before it first did, and of nodes that do not say.
    pub(crate) loop_age_ms: Option<u64>,
    /// Counters since it started.
    pub(crate) counters: Vec<Counter>,
    /// Losses since it started.
    pub(crate) drops: Vec<DropCount>,
    /// What can rise and fall.
    pub(crate) gauges: Vec<Gauge>,
    /// Times.
    pub(crate) latency: Vec<Latency>,
    /// The cameras that it reads or serves, with their states.
    pub(crate) cameras: Vec<CameraStatus>,
    /// Its answers to changes of its settings, by setting.
    pub(crate) param_answers: BTreeMap<String, Answer>,
    /// Lines for the user, such as the address of a page.
    pub(crate) notes: Vec<String>,
    /// Its resident memory.
    pub(crate) rss_bytes: u64,
    /// The processor time it took.
    pub(crate) cpu_ns: u64,
    /// Why it failed, or which frames are missing.
    pub(crate) error: Option<String>,
    /// What dora started it from; the first report to a watcher has it.
    pub(crate) definition: Option<serde_json::Value>,
}

/// What came of the last change of a setting.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    /// Its number among all answers of the process, from 1.
    pub(crate) n: u64,
    pub(crate) was: String,
    pub(crate) now: String,
    /// Why nothing has changed.
    pub(crate) refused: Option<String>,
}

/// A process of several nodes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    /// Its name in the graph.
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl NodeReport {
    /// The process that the node's work is done in.
    pub(crate) fn works_in(&self) -> u32 {
        self.group.as_ref().map_or(self.pid, |group| group.pid)
    }
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It gets ready: reads its model, opens its files.
    Opening,
    /// It works.
    #[default]
    Running,
    /// It has ended as it should.
    Done,
    /// It has ended because it was asked to.
    Stopped,
    /// It has ended as it should, and frames of a lossless flow are missing.
    Incomplete,
    /// It has ended by an error.
    Failed,
}

/// A counter: `in` and `out` are items taken and published, the rest is the node's own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Counter {
    pub(crate) name: String,
    pub(crate) port: String,
    pub(crate) source: String,
    pub(crate) value: u64,
}

/// A value that can rise and fall.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gauge {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) value: i64,
}

/// Items that were lost for one reason.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DropCount {
    pub(crate) cause: String,
    pub(crate) port: String,
    pub(crate) source: String,
    pub(crate) value: u64,
    /// The frames that are known by number: `frames 3, 7 to 12`.
    pub(crate) frames: String,
    /// The reason of the first one.
    pub(crate) why: String,
}

/// A distribution of times.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Latency {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) p50_ns: u64,
    pub(crate) p95_ns: u64,
    pub(crate) p99_ns: u64,
    /// Of the last 5 s to 10 s.
    pub(crate) recent_p50_ns: Option<u64>,
    pub(crate) recent_p95_ns: Option<u64>,
    pub(crate) recent_p99_ns: Option<u64>,
    pub(crate) count: u64,
}

/// Longer than any report that comes in a datagram.
const LONGEST_DATAGRAM_BYTES: usize = 256 * 1024;
/// Longer than any report at all.
const LONGEST_BYTES: u64 = 64 << 20;

/// The receiving end.
pub(crate) struct Inbox {
    socket: UnixDatagram,
    buffer: Vec<u8>,
}

impl Inbox {
    /// Receives on this socket.
    pub(crate) fn new(socket: UnixDatagram) -> Self {
        Self { socket, buffer: vec![0; LONGEST_DATAGRAM_BYTES] }
    }

    /// The next report, or none when there is none within `patience`.
    ///
    /// What is no report is ignored: any process of this user can write here.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<NodeReport> {
        // Zero means forever to the socket. A timeout that cannot be set shows as reports that do not come.
        let _ = self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [IoSliceMut::new(&mut self.buffer)];
        let received = recvmsg(&self.socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let Some(file) = file else { return parse(&self.buffer[..received.bytes]) };
        // as much as the datagram says, where the file is not what it should be
        read_file(file).and_then(|bytes| parse(&bytes)).or_else(|| parse(&self.buffer[..received.bytes]))
    }
}

fn read_file(file: OwnedFd) -> Option<Vec<u8>> {
    let file = std::fs::File::from(file);
    // a pipe would keep us waiting
    let about = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut bytes = vec![0; about.len().min(LONGEST_BYTES) as usize];
    // every watcher of the node has the same open file, so its position is nobody's own
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

fn parse(bytes: &[u8]) -> Option<NodeReport> {
    let status: NodeReport = serde_json::from_slice(bytes).ok()?;
    (status.v == 1 && !status.node.is_empty()).then_some(status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_nodes_send() {
        let json = br#"{"v":1,"node":"decode","name":"sw-nv12","state":"failed","uptime_ns":5,
            "counters":[{"name":"out","port":"frame","source":"cam","value":123}],
            "drops":[{"cause":"stale","port":"frame","source":"cam","value":2}],
            "latency":[{"name":"on_input","source":"cam","p50_ns":1,"p99_ns":2,"count":3}],
            "pid":7,"group":{"name":"gpu","pid":8},"notes":["page: http://127.0.0.1:8080/"],"rss_bytes":1,"cpu_ns":2,"error":"no such file","later":true}"#;
        let status = parse(json).unwrap();
        assert_eq!(status.state, State::Failed);
        assert_eq!(status.counters[0].value, 123);
        assert_eq!((status.pid, status.works_in()), (7, 8));
        assert_eq!(status.error.unwrap(), "no such file");
        assert!(status.cameras.is_empty() && status.loop_age_ms.is_none(), "of a node that is older");
        let json = br#"{"v":1,"node":"decode","loop_age_ms":40,"cameras":[
            {"source":"door","state":"refused","since_ns":7,"last_error":"401 Unauthorized","tries":3}]}"#;
        let camera = &parse(json).unwrap().cameras[0];
        assert_eq!((camera.source.as_str(), camera.state), ("door", millrace_frame::CameraState::Refused));
        assert!(parse(br#"{"v":2,"node":"a"}"#).is_none());
        assert!(parse(br#"{"v":1}"#).is_none());
        assert!(parse(b"\xff").is_none());
    }

    #[test]
    fn a_long_report_comes_as_a_file() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::io::Write;
        use std::os::fd::AsFd;
        let (from, to) = UnixDatagram::pair().unwrap();
        let mut inbox = Inbox::new(to);
        let send = |datagram: &[u8], file: &dyn AsFd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [file.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            sendmsg(&from, &[std::io::IoSlice::new(datagram)], &mut control, SendFlags::empty()).unwrap();
        };
        let counters: Vec<String> = (0..10_000)
            .map(|n| format!(r#"{{"name":"in","port":"frame","source":"camera-{n}","value":{n}}}"#))
            .collect();
        let whole = format!(r#"{{"v":1,"node":"a","counters":[{}]}}"#, counters.join(","));
        assert!(whole.len() > LONGEST_DATAGRAM_BYTES);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(whole.as_bytes()).unwrap();
        let head = br#"{"v":1,"node":"a"}"#;
        send(head, &file);
        assert_eq!(inbox.next(Duration::from_secs(5)).unwrap().counters.len(), 10_000);
        // another watcher reads the same open file at the same time
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut other = file.try_clone().unwrap();
            let over = &over;
            scope.spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::io::Seek::rewind(&mut other).unwrap();
                    std::io::Read::read_to_end(&mut other, &mut Vec::new()).unwrap();
                }
            });
            for _ in 0..50 {
                send(head, &file);
                assert_eq!(inbox.next(Duration::from_secs(5)).unwrap().counters.len(), 10_000);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        // what is no file is not read, and the next report comes as ever
        let (pipe, _keep) = std::io::pipe().unwrap();
        send(head, &pipe);
        assert_eq!(inbox.next(Duration::from_secs(5)).unwrap().counters.len(), 0);
        from.send(head).unwrap();
        assert_eq!(inbox.next(Duration::from_secs(5)).unwrap().node, "a");
    }
}
