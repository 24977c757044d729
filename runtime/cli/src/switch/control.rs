//! dora's coordinator, by dora's own command line.

use crate::out::errln;
use crate::{dora, make};
use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The coordinator that `DORA_COORDINATOR_ADDR` and `DORA_COORDINATOR_PORT` name.
pub(crate) struct Control {
    program: PathBuf,
}

/// A dataflow as `dora list` shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dataflow {
    /// Its id.
    pub(crate) uuid: String,
    /// Its name; empty where it has none.
    #[serde(default)]
    pub(crate) name: String,
    status: String,
}

impl Dataflow {
    /// What a user calls it.
    pub(crate) fn called(&self) -> &str {
        if self.name.is_empty() { &self.uuid } else { &self.name }
    }
}

impl Control {
    /// Finds dora.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { program: dora::ensure(&mut |line| errln!("{line}"))? })
    }

    /// With a dora that is here already; none is installed.
    pub(crate) fn found() -> Option<Self> {
        Some(Self { program: dora::found()? })
    }

    /// dora's own program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        make::outside_cargo(&mut command);
        let output = command.args(args).env("NO_COLOR", "1").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("dora ({}) cannot be started", self.program.display()))?;
        if !output.status.success() {
            bail!("'dora {}' failed: {}", args.join(" "), words(&String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The running dataflow of this name or id; the only one, where none is named.
    pub(crate) fn dataflow(&self, wanted: Option<&str>) -> anyhow::Result<Dataflow> {
        let mut running = self.running().context(
            "no coordinator of dora answers. 'millrace switch' and 'millrace set' change what 'dora up' and 'dora start' \
             run, not what 'millrace run' or 'dora run' does; DORA_COORDINATOR_PORT must be the one of 'dora up'",
        )?;
        let names = running.iter().map(Dataflow::called).collect::<Vec<_>>().join(", ");
        if let Some(wanted) = wanted {
            running.retain(|flow| flow.name == wanted || flow.uuid == wanted);
        }
        match (running.pop(), running.is_empty(), wanted) {
            (Some(flow), true, _) => Ok(flow),
            (None, _, Some(wanted)) if names.is_empty() => bail!("no dataflow runs, so none is called '{wanted}'"),
            (None, _, Some(wanted)) => bail!("no running dataflow is called '{wanted}'; there are: {names}"),
            (None, _, None) => bail!("no dataflow runs; start A by 'dora start A.yml --name NAME --detach'"),
            (Some(_), false, _) => {
                bail!("several dataflows run: {names}; choose one by --dataflow (its id, if need be)")
            }
        }
    }

    /// The dataflows that run.
    pub(crate) fn running(&self) -> anyhow::Result<Vec<Dataflow>> {
        let text = self.ask(&["list", "--format", "json"])?;
        let all = text.lines().filter_map(|line| serde_json::from_str::<Dataflow>(line).ok());
        Ok(all.filter(|flow| flow.status == "Running").collect())
    }

    /// Stops it, and waits until it has ended.
    pub(crate) fn stop(&self, dataflow: &str) -> anyhow::Result<()> {
        self.ask(&["stop", dataflow]).map(drop)
    }

    /// Hands a setting's value over to a node, as JSON, or without a value lets it have the graph's again.
    pub(crate) fn param(&self, dataflow: &str, node: &str, key: &str, json: Option<&str>) -> anyhow::Result<()> {
        match json {
            Some(json) => self.ask(&["param", "set", "--dataflow", dataflow, node, key, json]),
            None => self.ask(&["param", "delete", "--dataflow", dataflow, node, key]),
        }
        .map(drop)
    }

    /// The ids of its nodes.
    pub(crate) fn nodes(&self, dataflow: &str) -> anyhow::Result<Vec<String>> {
        let text = self.ask(&["node", "list", "--dataflow", dataflow, "--quiet"])?;
        Ok(text.lines().map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect())
    }

    /// Puts this definition in the place of the node that runs.
    pub(crate) fn replace(&self, dataflow: &str, node: &str, definition: &Value) -> anyhow::Result<()> {
        let file = Definition::write(definition)?;
        self.ask(&["node", "replace", "--dataflow", dataflow, "--from-yaml", &file.0.display().to_string(), node])?;
        Ok(())
    }
}

/// What dora says of an error, without the heading above it and the places in its code below.
fn words(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim).take_while(|line| !matches!(*line, "Location:" | "Stack backtrace:"));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty() && *line != "[ERROR]").collect();
    if words.is_empty() { "without a word".to_owned() } else { words.join(" ") }
}

/// A node's definition in a file of its own, removed when dropped.
struct Definition(PathBuf);

impl Definition {
    fn write(definition: &Value) -> anyhow::Result<Self> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = std::env::temp_dir().join(format!("millrace-switch-{}.yml", std::process::id()));
        let write = || {
            // left by an earlier process of this number
            let _ = std::fs::remove_file(&path);
            let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(format!("{definition:#}\n").as_bytes())
        };
        write().with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        // a leftover in the temporary folder harms nobody
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn of_what_dora_says_the_words_are_kept() {
        // as dora 1.1.0 prints it
        let said = "\n\n[ERROR]\ncannot connect to coordinator at 127.0.0.1:16302: IO error: refused\n\n  hint: is the \
                    coordinator running?\n\nLocation:\n    binaries/cli/src/ws_client.rs:105:21\n\nStack backtrace:\n   0: <unknown>\n";
        let kept =
            "cannot connect to coordinator at 127.0.0.1:16302: IO error: refused hint: is the coordinator running?";
        assert_eq!(words(said), kept);
        assert_eq!(words(""), "without a word");
    }
}
