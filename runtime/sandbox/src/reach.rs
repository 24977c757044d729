//! Files and ports, by Landlock.

use crate::Error;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, make_bitflags, path_beneath_rules,
};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What a confined process can still reach. Where a path names a folder, everything below it counts; a path that does not
/// exist is passed over.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// To read.
    pub read: Vec<PathBuf>,
    /// To list the names in folders.
    pub list: Vec<PathBuf>,
    /// To read, write, make and remove files.
    pub write: Vec<PathBuf>,
    /// To remove files, and list their names.
    pub remove: Vec<PathBuf>,
    /// By TCP. `None`: everything.
    pub ports: Option<Ports>,
}

/// Ports of TCP, on any host: Landlock restricts no addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// To connect to.
    pub connect: BTreeSet<u16>,
    /// To bind a socket to.
    pub bind: BTreeSet<u16>,
}

/// Restricts this thread. Gives what the kernel's Landlock does not restrict.
pub(crate) fn restrict(reach: &Reach) -> Result<Vec<&'static str>, Error> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V5))?.scope(Scope::from_all(ABI::V6))?;
    if reach.ports.is_some() {
        ruleset = ruleset.handle_access(AccessNet::from_all(ABI::V4))?;
    }
    let read = make_bitflags!(AccessFs::{ ReadFile | ReadDir });
    let write: BitFlags<AccessFs> = read | make_bitflags!(AccessFs::{ WriteFile | MakeReg | RemoveFile | Truncate });
    let remove = make_bitflags!(AccessFs::{ ReadDir | RemoveFile });
    let ports = reach.ports.iter();
    let connect = ports.clone().flat_map(|ports| &ports.connect).map(|port| NetPort::new(*port, AccessNet::ConnectTcp));
    let bind = ports.flat_map(|ports| &ports.bind).map(|port| NetPort::new(*port, AccessNet::BindTcp));
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(&reach.read, read))?
        .add_rules(path_beneath_rules(&reach.list, AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(&reach.write, write))?
        .add_rules(path_beneath_rules(&reach.remove, remove))?
        .add_rules(connect.chain(bind).map(Ok::<_, landlock::RulesetError>))?
        .restrict_self()?;
    Ok(lacks(version_of(&status.landlock)))
}

fn version_of(status: &LandlockStatus) -> i32 {
    match *status {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.or_else(|| effective_abi.to_string().parse().ok()).unwrap_or_default()
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    }
}

/// The version of Landlock's interface, 0 where there is none. This thread can start no program any more.
pub(crate) fn version() -> i32 {
    let ruleset = Ruleset::default().handle_access(AccessFs::Execute).and_then(Ruleset::create);
    let tried = ruleset.and_then(|ruleset| ruleset.restrict_self());
    tried.map_or(0, |status| version_of(&status.landlock))
}

/// What a version does not restrict of what [`restrict`] asks for.
pub(crate) fn lacks(version: i32) -> Vec<&'static str> {
    let since = [
        (1, "files"),
        (2, "files moved to another folder (ABI 2)"),
        (3, "files cut short (ABI 3)"),
        (4, "ports (ABI 4)"),
        (5, "devices (ABI 5)"),
        (6, "signals and abstract sockets of other processes (ABI 6)"),
    ];
    since.into_iter().filter(|(needs, _)| version < *needs).map(|(_, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::lacks;

    #[test]
    fn a_version_lacks_what_later_ones_have() {
        assert_eq!(lacks(7), [""; 0]);
        assert_eq!(lacks(5), ["signals and abstract sockets of other processes (ABI 6)"]);
        assert_eq!(lacks(0).len(), 6);
    }
}
