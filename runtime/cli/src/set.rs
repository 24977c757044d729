//! `millrace set`: a setting of a node that runs, and what the node answers.
//!
//! `dora param set` says `Set` when the value was handed over. The node reads it between two items, and its next report
//! has the answer.

use crate::out::{complain, errln, outln};
use crate::status::{Answer, NodeReport};
use crate::switch::control::Control;
use crate::switch::watch::Watch;
use anyhow::bail;
use millrace_graph::nearest::nearest;
use millrace_graph::schedule::parse_duration;
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A node that works reports twice a second.
const REPORTED: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// The node has given no answer.
const NO_ANSWER: u8 = 2;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millrace set detect SCORE 0.6
  millrace set to-rgb HANDOVER blocking
  millrace set detect SCORE --reset

It reaches graphs that 'dora up' and 'dora start' run. A node that is started again has its graph's values.

Exit codes: 0 the node has the value, 1 it refused it, 2 nothing was set or the node gave no answer.")]
pub(crate) struct Args {
    /// The node's id.
    node: String,
    /// The setting, one that 'millrace describe' calls live.
    key: String,
    /// The value, as the graph's env: has it.
    #[arg(required_unless_present = "reset", allow_hyphen_values = true)]
    value: Option<String>,
    /// Put the graph's value back.
    #[arg(long, conflicts_with = "value")]
    reset: bool,
    /// The running dataflow, by name or id; may be left out where only one runs.
    #[arg(long, value_name = "NAME")]
    dataflow: Option<String>,
    /// How long to wait for the node's answer.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    wait: Duration,
}

pub(crate) fn set(args: &Args) -> ExitCode {
    match ask(args) {
        Ok(answer) => {
            let Args { node, key, .. } = args;
            match (answer.refused, answer.was, answer.now) {
                (Some(why), ..) => {
                    errln!("millrace: node '{node}' refuses it, and nothing changes: {why}");
                    ExitCode::FAILURE
                }
                (None, was, now) if was == now => {
                    outln!("{node}: {key} is {now} already");
                    ExitCode::SUCCESS
                }
                (None, was, now) => {
                    outln!("{node}: {key} was {was} and is {now}");
                    ExitCode::SUCCESS
                }
            }
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(NO_ANSWER)
        }
    }
}

/// Hands the value over and waits for what the node says.
fn ask(args: &Args) -> anyhow::Result<Answer> {
    let control = Control::new()?;
    let flow = control.dataflow(args.dataflow.as_deref())?;
    let nodes = control.nodes(&flow.uuid)?;
    if !nodes.contains(&args.node) {
        let hint = match nearest(&args.node, nodes.iter().map(String::as_str)) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("there are: {}", nodes.join(", ")),
        };
        bail!("dataflow '{}' has no node '{}'; {hint}", flow.called(), args.node);
    }
    let mut watch = Watch::new(&flow.uuid)?;
    let Some((pid, before)) = until(&mut watch, REPORTED, |watch| {
        watch.newest(&args.node).map(|status| (status.pid, number(status, &args.key)))
    }) else {
        bail!(
            "no report of node '{}' came within {} s, so nothing was set: only nodes of Millrace that run on this machine \
             as this user, and do not hang, can answer",
            args.node,
            REPORTED.as_secs()
        );
    };
    // as the graph's own text: a node reads it by the setting's type
    let value = args.value.as_ref().filter(|_| !args.reset).map(|value| Value::from(value.as_str()).to_string());
    control.param(&flow.uuid, &args.node, &args.key, value.as_deref())?;
    let answer = until(&mut watch, args.wait, |watch| {
        let status = watch.newest(&args.node)?;
        if status.pid != pid {
            return Some(None);
        }
        status.param_answers.get(&args.key).filter(|answer| answer.n > before).cloned().map(Some)
    });
    match answer {
        Some(Some(answer)) => Ok(answer),
        Some(None) => bail!(
            "node '{}' was started again before it answered, and has the values of its graph: set it once more",
            args.node
        ),
        None => bail!(
            "the value was handed over, and node '{}' gave no answer within {} s: it hangs, or it was built before nodes \
             answered. Its log may say more: 'millrace logs {} --node {}'",
            args.node,
            args.wait.as_secs_f64(),
            flow.called(),
            args.node
        ),
    }
}

/// The number of the node's last answer about this setting.
fn number(status: &NodeReport, key: &str) -> u64 {
    status.param_answers.get(key).map_or(0, |answer| answer.n)
}

/// Listens until `found` finds something, or the time is over.
fn until<T>(watch: &mut Watch, patience: Duration, found: impl Fn(&Watch) -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        watch.listen(LOOK);
        let found = found(watch);
        if found.is_some() || Instant::now() >= end {
            return found;
        }
    }
}
