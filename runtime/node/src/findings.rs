//! What a node says of its settings before it is opened: at its start, and to `millrace check`, which asks its program by
//! `--check`.

use crate::launch::Launch;
use crate::link::Topology;
use crate::node::Node;
use crate::sandbox;
use crate::settings::{CommonSettings, FlowSetting, RawSettings, SandboxSetting};
use millrace_graph::describe::GROUP_SETTING;
use millrace_graph::remarks::{Asked, Listener, Remark, Remarks};
use millrace_pool::Flow;
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::SocketAddr;

/// Collects what [`Node::check`] finds.
#[derive(Debug)]
pub struct Findings<'a> {
    node: &'a str,
    flow: Flow,
    confined: bool,
    restarted: bool,
    /// The settings that are given to this node alone.
    own: Vec<&'a str>,
    found: Remarks,
}

impl Findings<'_> {
    /// The node's id.
    pub fn node(&self) -> &str {
        self.node
    }

    /// `FLOW`.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// `SANDBOX` is not `off`.
    pub fn is_confined(&self) -> bool {
        self.confined
    }

    /// dora has started the node again: what has changed on the machine since is no reason to stay down.
    pub fn is_restarted(&self) -> bool {
        self.restarted
    }

    /// The node does not start with this value of `setting`.
    pub fn refuse(&mut self, setting: &str, why: impl Display) {
        self.found.refused.push(Remark { setting: setting.to_owned(), why: why.to_string() });
    }

    /// The node starts, and this value of `setting` is most likely not what was meant.
    pub fn warn(&mut self, setting: &str, why: impl Display) {
        self.found.warned.push(Remark { setting: setting.to_owned(), why: why.to_string() });
    }

    /// Warns of those of these settings that are given to the node: `with` what is set beside them, they have no effect.
    pub fn no_effect(&mut self, settings: &[&str], with: impl Display) {
        for setting in settings {
            if self.own.contains(setting) {
                self.warn(setting, format!("{setting} has no effect {with}"));
            }
        }
    }

    /// The node listens there by TCP.
    pub fn listens(&mut self, setting: &str, at: SocketAddr) {
        self.found.listens.push(Listener { setting: setting.to_owned(), at });
    }
}

/// What is said of these settings of the node, `group` being the process that it shares with others.
fn find<N: Node>(
    raw_settings: &RawSettings,
    (own, common): (&N::Settings, &CommonSettings),
    (group, restarted): (Option<&str>, bool),
) -> Remarks {
    let confined = common.sandbox != SandboxSetting::Off;
    let (flow, given) = (common.flow, raw_settings.own_keys());
    let mut findings = Findings {
        node: raw_settings.node(),
        flow: flow.into(),
        confined,
        restarted,
        own: given.iter().map(String::as_str).collect(),
        found: Remarks::default(),
    };
    N::check(own, &mut findings);
    let of_flow: &[&str] = match flow {
        FlowSetting::Lossless => &["BACKLOG", "MAX_AGE_MS", "LEASE_TIMEOUT_MS"],
        FlowSetting::Live => &["ALLOW_LOSS", "RESTART_TIMEOUT_MS"],
    };
    let word = if flow == FlowSetting::Live { "live" } else { "lossless" };
    findings.no_effect(of_flow, format!("where FLOW is {word}"));
    let is_own = findings.own.contains(&"SANDBOX");
    if let Some(why) = sandbox::impossible::<N>(own, common.sandbox, raw_settings.node(), is_own, group) {
        findings.refuse("SANDBOX", why);
    }
    findings.found
}

/// Refuses settings with which the node cannot start, and logs what they hardly mean.
pub(crate) fn check<N: Node>(
    graph: &Topology,
    raw_settings: &RawSettings,
    own: &N::Settings,
    common: &CommonSettings,
) -> Result<(), String> {
    let group = graph.launch.member.as_ref().map(|member| member.group.as_str());
    let found = find::<N>(raw_settings, (own, common), (group, graph.restarts > 0));
    found.warned.iter().for_each(|remark| tracing::warn!("{}", remark.why));
    if found.refused.is_empty() {
        return Ok(());
    }
    Err(found.refused.into_iter().map(|remark| remark.why).collect::<Vec<_>>().join("\n"))
}

/// `--check`: answers the question on the standard input.
pub(crate) fn answer<N: Node>() -> Result<(), String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| e.to_string())?;
    let asked: Asked = serde_json::from_str(&text).map_err(|e| format!("this is no question to a node: {e}"))?;
    let answer = remarks::<N>(&asked)?;
    let json = serde_json::to_string(&answer).map_err(|e| e.to_string())?;
    // a reader that closes the pipe early has what it wanted
    let _ = std::io::stdout().write_all(json.as_bytes());
    Ok(())
}

/// What the node says of settings that a graph would give it.
///
/// # Errors
/// They cannot be read.
pub(crate) fn remarks<N: Node>(asked: &Asked) -> Result<Remarks, String> {
    let (env, root_env) = asked.settings.clone().into_iter().partition::<Vec<_>, _>(|(key, _)| asked.own.contains(key));
    let graph = Topology { node: asked.node.clone(), env, root_env, launch: Launch::default(), ..Topology::default() };
    let raw_settings = RawSettings::new::<N::Settings>(&graph);
    let (own, common) = raw_settings.read::<N::Settings>().map_err(|e| e.to_string())?;
    let group = asked.settings.get(GROUP_SETTING).filter(|name| N::SHARES_PROCESS && !name.is_empty());
    Ok(find::<N>(&raw_settings, (&own, &common), (group.map(String::as_str), false)))
}
