//! `millrace schema`: the JSON Schema of graphs, for editors.

use crate::out::outln;
use anyhow::{Context, bail};
use millrace_graph::cameras;
use millrace_graph::describe::{Described, Describer, Description, Programs};
use millrace_graph::schema::graph_schema;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Writes the schema of graphs of these programs, or with `check` compares it with what is there.
pub(crate) fn schema(programs: &[PathBuf], output: &Path, check: bool) -> anyhow::Result<ExitCode> {
    let programs = if programs.is_empty() { workspace_nodes()? } else { programs.to_vec() };
    let mut nodes = programs.iter().map(|program| describe(program)).collect::<anyhow::Result<Vec<_>>>()?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let graphs = format!("{:#}\n", graph_schema(nodes.iter().map(AsRef::as_ref)));
    // beside the schema of graphs: graphs/cameras.schema.json
    let beside = output.with_file_name("cameras.schema.json");
    for (output, text) in [(output, graphs), (&beside, format!("{:#}\n", cameras::schema()))] {
        if !check {
            std::fs::write(output, text).with_context(|| format!("{} cannot be written", output.display()))?;
            outln!("{} is written", output.display());
        } else if std::fs::read_to_string(output).unwrap_or_default() != text {
            bail!("{} is not what the programs say now; run 'millrace schema' and commit it", output.display());
        }
    }
    outln!("the schemas of {} nodes' graphs and of cameras files", nodes.len());
    Ok(ExitCode::SUCCESS)
}

/// The built programs of all folders under `nodes/`.
fn workspace_nodes() -> anyhow::Result<Vec<PathBuf>> {
    let folders = std::fs::read_dir("nodes").context("there is no folder 'nodes' here; name the programs")?;
    let names = folders.flatten().filter(|entry| entry.path().join("Cargo.toml").is_file());
    Ok(names.map(|entry| Path::new("target/release").join(entry.file_name())).collect())
}

/// What the program at a path, as the shell understands it, says of itself.
pub(crate) fn describe(program: &Path) -> anyhow::Result<Arc<Description>> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match Programs::default().describe(&std::path::absolute(program)?.to_string_lossy(), Path::new("/")) {
        Described::Node(found) => Ok(found),
        Described::Foreign => bail!("{} is not a Millrace node", program.display()),
        Described::Unusable(why, _) => anyhow::bail!("{} {why}", program.display()),
        Described::Absent => bail!("{} is not built: cargo build --release -p {name}", program.display()),
        Described::Failed(why) => bail!("{}: {why}", program.display()),
    }
}
