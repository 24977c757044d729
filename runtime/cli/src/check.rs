//! `millrace check`: all faults of graphs, without running them.

use crate::load::{Loaded, load};
use crate::out::{complain, out, outln};
use crate::set_parser;
use millrace_graph::check::Set;
use millrace_graph::describe::Programs;
use millrace_graph::explain::explain;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millrace check graphs/*.yml
  millrace check graphs/demo.yml --set detect.SCORE=0.4 --explain

Exit codes: 0 no graph has a fault, 1 one has.")]
pub(crate) struct Args {
    /// The graph files.
    #[arg(required = true, value_name = "GRAPH")]
    graphs: Vec<PathBuf>,
    /// Give a setting of a node another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    sets: Vec<Set>,
    /// Show every setting's effective value and where it comes from, and what could not be checked.
    #[arg(long)]
    explain: bool,
    /// Print the findings as JSON.
    #[arg(long, conflicts_with = "explain")]
    json: bool,
}

pub(crate) fn check(args: &Args) -> ExitCode {
    let programs = Programs::default();
    let mut documents = Vec::new();
    let mut fine = true;
    for (n, graph) in args.graphs.iter().enumerate() {
        let loaded = load(graph, &args.sets, &programs);
        fine &= loaded.as_ref().is_ok_and(|loaded| loaded.checked.report.is_ok());
        match loaded {
            loaded if args.json => documents.push(document(graph, &loaded)),
            Ok(Loaded { checked, .. }) => {
                let empty_line = if n > 0 { "\n" } else { "" };
                let about = if args.explain { explain(&checked) } else { checked.memory.line() };
                out!("{empty_line}{about}{}", checked.report.text(args.explain));
            }
            Err(error) => complain(&error),
        }
    }
    if let [document] = documents.as_slice() {
        outln!("{document:#}");
    } else if args.json {
        outln!("{:#}", Value::Array(documents));
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The findings of one graph. A file that cannot be read is a finding, too.
fn document(graph: &Path, loaded: &anyhow::Result<Loaded>) -> Value {
    match loaded {
        Ok(Loaded { checked, .. }) => {
            let mut json = checked.report.json();
            json["memory"] = json!({
                "shared_bytes": checked.memory.host_bytes(), "gpu_bytes": checked.memory.gpu_bytes(),
            });
            json
        }
        Err(error) => {
            let file = graph.display().to_string();
            let fault = json!({
                "severity": "error", "file": file, "line": null, "column": null, "set": null,
                "message": format!("{error:#}"), "fix": null,
            });
            json!({ "file": file, "ok": false, "faults": [fault] })
        }
    }
}
