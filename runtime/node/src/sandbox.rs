//! `SANDBOX`: what a node's process gives up before it reads what strangers send
//! ([ADR 0031](../../../docs/adr/0031-sandbox.md)).
//!
//! Landlock restricts a thread and those that it starts, and dora's library starts many: so a process is confined before
//! it connects to dora, from what dora has put into its environment. When the node is set up, it is sealed.

use crate::error::NodeError;
use crate::launch::Launch;
use crate::link::Topology;
use crate::link::dora::{given, ports};
use crate::node::Node;
use crate::settings::{RawSettings, SandboxSetting};
use crate::status::folders;
use millrace_sandbox::Reach;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How far a node's process can be put into a sandbox.
#[derive(Clone, Debug)]
pub enum Sandbox {
    /// Not at all: a node with inputs opens its producers' memory, which a confined process cannot.
    None,
    /// System calls that no node makes once it is set up are refused, with `SANDBOX: required` alone. Its libraries open
    /// files, start programs and make system calls that nobody can name in advance.
    Calls,
    /// Files and ports are out of reach, too, from the start of the process on, beyond what the harness needs and this.
    Files(Needs),
}

/// What a node needs after its start, beside what the harness does.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Files to read, and folders to read below.
    pub read: Vec<PathBuf>,
    /// Ports to connect to by TCP.
    pub connect: BTreeSet<u16>,
}

/// The sandbox of this process.
#[derive(Debug)]
pub struct Sandboxed {
    required: bool,
    /// Files are out of reach; with which ports to connect to, where these are restricted.
    confined: Option<Option<BTreeSet<u16>>>,
    /// Why it is less than the node could be in.
    less: Option<String>,
}

/// A process has one: `None` inside where it was not to have any.
static SANDBOX: OnceLock<Option<Sandboxed>> = OnceLock::new();

/// The sandbox that this process is in.
pub fn sandboxed() -> Option<&'static Sandboxed> {
    SANDBOX.get().and_then(Option::as_ref)
}

impl Sandboxed {
    /// Whether a file that could not be opened for want of permission may be one that the sandbox refuses.
    pub fn confines_files(&self) -> bool {
        self.confined.is_some()
    }

    /// The ports that can be connected to, where these are not all and `port` is none of them.
    pub fn refused_port(&self, port: u16) -> Option<&BTreeSet<u16>> {
        self.confined.as_ref()?.as_ref().filter(|known| !known.contains(&port))
    }
}

/// Puts the process of a node that dora started into its sandbox, as far as that comes before its first thread.
pub(crate) fn enter<N: Node>(launch: &Launch) {
    let _ = SANDBOX.set(entered::<N>(launch));
}

fn entered<N: Node>(launch: &Launch) -> Option<Sandboxed> {
    let graph = given(launch)?;
    // faults of the settings are reported by the node, which ends with them
    let (own, common) = RawSettings::new::<N::Settings>(&graph).read::<N::Settings>().ok()?;
    let required = match common.sandbox {
        SandboxSetting::Off => return None,
        SandboxSetting::Auto => false,
        SandboxSetting::Required => true,
    };
    let needs = match N::sandbox(&own, &graph.node) {
        Sandbox::None => return None,
        Sandbox::Calls if !required => return None,
        Sandbox::Calls => return Some(Sandboxed { required, confined: None, less: None }),
        Sandbox::Files(needs) => needs,
    };
    let reach = reach(needs, &graph);
    let ports = reach.ports.as_ref().map(|ports| ports.connect.clone());
    // a process that reads no other's memory gets its consumers' bells by a letterbox
    let done = millrace_pool::receive_bells().map_err(|e| e.to_string());
    let done = done.and_then(|()| millrace_sandbox::confine(&reach).map_err(|e| e.to_string()));
    let less = match done {
        Ok(lacks) => return Some(Sandboxed::confined(required, ports, &lacks)),
        Err(why) => why,
    };
    Some(Sandboxed { required, confined: None, less: Some(less) })
}

impl Sandboxed {
    fn confined(required: bool, ports: Option<BTreeSet<u16>>, lacks: &[&str]) -> Self {
        let less =
            (!lacks.is_empty()).then(|| format!("this kernel's Landlock does not restrict {}", lacks.join(", ")));
        Self { required, confined: Some(ports), less }
    }
}

/// What the harness needs, dora's library and glibc included, and what the node needs.
fn reach(needs: Needs, graph: &Topology) -> Reach {
    let names = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(PathBuf::from).collect() };
    // processes, limits and load; libraries that glibc opens late; how names are looked up
    let mut read = names(&[
        "/proc",
        "/sys/fs/cgroup",
        "/sys/devices/system/cpu",
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/dev/urandom",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/host.conf",
        "/etc/nsswitch.conf",
        "/etc/gai.conf",
        "/etc/services",
        "/etc/protocols",
    ]);
    // a service that puts a new file in the place of the old one has a folder of its own for it
    let resolver = std::fs::canonicalize("/etc/resolv.conf").ok();
    read.extend(
        resolver.as_deref().and_then(Path::parent).filter(|folder| *folder != Path::new("/etc")).map(Path::to_owned),
    );
    read.extend(std::env::current_exe());
    read.extend(needs.read);
    // sockets of watchers, in folders that a watcher may make later
    let sockets = folders(&graph.dataflow);
    let ours = sockets.iter().filter_map(|folder| folder.parent());
    let list = ours.clone().filter_map(Path::parent).map(Path::to_owned).collect();
    let remove = ours.map(Path::to_owned).collect();
    let ports = ports(&graph.launch).map(|mut ports| {
        ports.connect.extend(needs.connect);
        ports.connect.insert(DNS);
        ports
    });
    // segments of dora's zenoh
    Reach { read, list, write: names(&["/dev/shm", "/dev/null"]), remove, ports }
}

/// Long answers come by TCP.
const DNS: u16 = 53;

/// Ends the set-up: from here on, what strangers send may be read.
pub(crate) fn seal() -> Result<(), NodeError> {
    let Some(sandbox) = sandboxed() else { return Ok(()) };
    let sealed = millrace_sandbox::seal(sandbox.confined.is_some()).err().map(|e| e.to_string());
    let less: Vec<String> = sandbox.less.iter().cloned().chain(sealed).collect();
    if less.is_empty() {
        tracing::debug!("{}", sandbox.describe());
        return Ok(());
    }
    let less = less.join("; ");
    if sandbox.required {
        return Err(NodeError::fatal(format!(
            "SANDBOX is 'required', and this process cannot be put into it whole: {less}. `millrace doctor` shows what this \
             machine has; SANDBOX: auto goes on with less"
        )));
    }
    tracing::warn!(
        "the sandbox is not whole: {less}. `millrace doctor` shows what this machine has; SANDBOX: off silences this"
    );
    Ok(())
}

impl Sandboxed {
    fn describe(&self) -> String {
        let ports = match &self.confined {
            None => return "in a sandbox: system calls".to_owned(),
            Some(None) => return "in a sandbox: system calls and files; dora's ports are not known".to_owned(),
            Some(Some(ports)) => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
        };
        format!("in a sandbox: system calls, files, and TCP connections to the ports {ports}")
    }
}

/// Why `SANDBOX: required` is nothing that such a node can have, whatever the machine. What the graph says of all its nodes
/// (`is_own` is false) concerns those that can have a sandbox.
pub(crate) fn impossible<N: Node>(
    own: &N::Settings,
    setting: SandboxSetting,
    node: &str,
    is_own: bool,
    group: Option<&str>,
) -> Option<String> {
    let why = match (group, N::sandbox(own, node)) {
        _ if setting != SandboxSetting::Required => return None,
        (Some(group), _) => format!("a node that shares the process of PROCESS '{group}' has none"),
        (None, Sandbox::None) if is_own => {
            format!("{} opens the memory of its producers, which no sandbox allows", N::NAME)
        }
        _ => return None,
    };
    Some(required_but(&why))
}

fn required_but(why: &str) -> String {
    format!("SANDBOX is 'required', and {why}; set it to auto or off")
}

/// Refuses a node that `SANDBOX: required` is said of, that can have a sandbox, and that has none.
pub(crate) fn check<N: Node>(own: &N::Settings, setting: SandboxSetting, graph: &Topology) -> Result<(), String> {
    let has_it = setting != SandboxSetting::Required || sandboxed().is_some();
    if has_it || matches!(N::sandbox(own, &graph.node), Sandbox::None) {
        return Ok(());
    }
    Err(required_but("dora's configuration of this node cannot be read before its start"))
}
