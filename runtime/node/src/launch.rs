//! How dora started a node: the environment that it gave, and the process that it gave it to.

use crate::usage::Account;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

/// What dora gave to a node.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The process that dora started: this one, or the one that handed its stage over to this one.
    pub(crate) pid: u32,
    /// In a process of several nodes: which group it is, and this node's share of what the process uses.
    pub(crate) member: Option<Arc<Member>>,
    variables: Arc<BTreeMap<OsString, OsString>>,
}

/// A node's place in a process of several.
#[derive(Debug)]
pub(crate) struct Member {
    /// The group, as `PROCESS` names it.
    pub(crate) group: String,
    /// The node's share.
    pub(crate) account: Account,
}

impl Default for Launch {
    /// This process, for one node alone.
    fn default() -> Self {
        Self { pid: std::process::id(), member: None, variables: Arc::new(std::env::vars_os().collect()) }
    }
}

impl Launch {
    /// What process `pid` handed over.
    pub(crate) fn of(pid: u32, member: Member, variables: Vec<(OsString, OsString)>) -> Self {
        Self { pid, member: Some(Arc::new(member)), variables: Arc::new(variables.into_iter().collect()) }
    }

    /// A variable of the environment, where it is one of readable text.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.raw(name)?.to_str().map(str::to_owned)
    }

    /// A variable of the environment, whatever bytes it has.
    pub(crate) fn raw(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// All of them.
    pub(crate) fn variables(&self) -> Vec<(OsString, OsString)> {
        self.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
