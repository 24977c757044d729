//! The command line of `millrace ab`.

use super::speed::Amount;
use crate::set_parser;
use anyhow::{Context, bail};
use millrace_ab::model::Pace;
use millrace_graph::check::Set;
use std::path::{Path, PathBuf};

/// Two graphs, or one and what is changed in it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millrace ab graphs/demo.yml --set to-rgb.FUSED=false
  millrace ab graphs/nv12.yml graphs/bgr24.yml --rounds 10 --page report.md
  millrace ab a.yml b.yml --require 'fps >= 1.15x, map_drop <= 0.1'

Exit codes: 0 measured, and all that --require names holds; 1 that does not hold; 2 it could not be measured.")]
pub(crate) struct Args {
    /// Arm A: a graph file.
    pub(super) a: PathBuf,
    /// Arm B. Without it, A with the --set's is arm B.
    pub(super) b: Option<PathBuf>,
    /// Give a setting of a node another value: in arm B where one graph is given, in both arms where two are. May be
    /// repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    pub(super) sets: Vec<Set>,
    /// The same, for arm A alone.
    #[arg(long = "set-a", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    pub(super) sets_a: Vec<Set>,
    /// The same, for arm B alone.
    #[arg(long = "set-b", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    pub(super) sets_b: Vec<Set>,
    /// Rounds of A B B A, for each load.
    #[arg(long, value_name = "N", default_value_t = millrace_ab::DEFAULT_ROUNDS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: u32,
    /// Counted frames of each camera in a run.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) frames: u64,
    /// The same for runs at the cameras' rate, which take as long as the frames do. By default as many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) camera_frames: Option<u64>,
    /// Frames of each camera that come before those.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(super) warm_up: u64,
    /// How the graphs are driven: as fast as they go (saturated), or at the cameras' own rate (cameras). 'none' leaves only
    /// what --until asks for.
    #[arg(long, value_name = "LOADS", value_delimiter = ',', default_value = "saturated,cameras", value_parser = parse_load)]
    loads: Vec<LoadName>,
    /// One load more: the graphs cut off after this node, as fast as they go.
    #[arg(long, value_name = "NODE")]
    pub(super) until: Option<String>,
    /// What has to hold, such as 'fps >= 1.15x, map_drop <= 0.1, psnr >= 42'; the exit code is 1 where it does not.
    #[arg(long, value_name = "EXPR")]
    pub(super) require: Option<String>,
    /// The folder of the report. By default target/ab/A-vs-B.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,
    /// Write a page in Markdown too, with its plot beside it.
    #[arg(long, value_name = "FILE.md")]
    pub(super) page: Option<PathBuf>,
    /// What is to be seen in the clip, as JSON lines. By default truth.jsonl beside the clip, where it is.
    #[arg(long, value_name = "FILE")]
    pub(super) truth: Option<PathBuf>,
    /// Don't compare what comes out of the arms.
    #[arg(long)]
    pub(super) no_quality: bool,
    /// Compare only what comes out of the arms, not their speed.
    #[arg(long, conflicts_with_all = ["no_quality", "until", "self_test", "together"])]
    pub(super) quality_only: bool,
    /// Frames of each camera by which quality is compared. By default one pass of the clip.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) quality_frames: Option<u64>,
    /// Run both arms at the same time, fed from the same decoders: what live cameras need.
    #[arg(long)]
    pub(super) together: bool,
    /// Run so many experiments of A against A, and print how many said 'no difference shown'.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) self_test: Option<u32>,
    /// Don't run the graphs' build commands.
    #[arg(long)]
    pub(super) no_build: bool,
    /// Print nothing but the report and faults.
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Print the report as JSON, in place of the table.
    #[arg(long, conflicts_with = "self_test")]
    pub(super) json: bool,
    /// The heading of the report.
    #[arg(long)]
    pub(super) title: Option<String>,
}

/// One arm as the command line has it.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    pub(super) name: String,
    pub(super) graph: PathBuf,
    pub(super) sets: Vec<Set>,
}

/// A load of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadName {
    None,
    Of(Pace),
}

fn parse_load(text: &str) -> Result<LoadName, String> {
    match text {
        "none" => Ok(LoadName::None),
        "saturated" => Ok(LoadName::Of(Pace::Saturated)),
        "cameras" => Ok(LoadName::Of(Pace::Cameras)),
        _ => Err(format!("there is no load '{text}'; there are saturated, cameras and none")),
    }
}

impl Args {
    /// The two arms.
    pub(super) fn sides(&self) -> anyhow::Result<[Sides; 2]> {
        let of = |own: &[Set], all: &[Set]| all.iter().chain(own).cloned().collect::<Vec<Set>>();
        let (graph_b, sets_a) = match &self.b {
            Some(b) => (b, of(&self.sets_a, &self.sets)),
            None => (&self.a, self.sets_a.clone()),
        };
        let sets_b = of(&self.sets_b, &self.sets);
        if self.load_count() == 0 && !self.quality_only {
            bail!("--loads none leaves nothing to measure: add --until NODE, or use --quality-only");
        }
        let changed = self.b.is_some() || sets_a != sets_b;
        if !changed && self.self_test.is_none() {
            bail!("there is nothing to compare: name a second graph, or a change by --set (or try --self-test 20)");
        }
        let stem = |path: &Path| path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let (mut name_a, mut name_b) = (stem(&self.a), stem(graph_b));
        if name_a == name_b {
            let text = |sets: &[Set], others: &[Set]| {
                let own = sets.iter().filter(|set| !others.contains(set));
                own.map(|set| format!("{}.{}={}", set.node, set.key, set.value)).collect::<Vec<_>>().join(" ")
            };
            let (own_a, own_b) = (text(&sets_a, &sets_b), text(&sets_b, &sets_a));
            if &self.a != graph_b {
                (name_a, name_b) = (self.a.display().to_string(), graph_b.display().to_string());
            }
            name_a = if own_a.is_empty() { name_a } else { own_a };
            name_b = if own_b.is_empty() { name_b } else { own_b };
        }
        Ok([
            Sides { name: name_a, graph: self.a.clone(), sets: sets_a },
            Sides { name: name_b, graph: graph_b.clone(), sets: sets_b },
        ])
    }

    /// Where the report goes.
    pub(super) fn out_folder(&self, sides: &[Sides; 2]) -> anyhow::Result<PathBuf> {
        if let Some(out) = &self.out {
            return std::path::absolute(out).with_context(|| format!("{} is no path", out.display()));
        }
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.=".contains(c) { c } else { '_' };
        let name = format!("{}-vs-{}", sides[0].name, sides[1].name);
        let name: String = name.chars().map(safe).take(120).collect();
        let base = crate::dora::target_folder().unwrap_or_else(|| PathBuf::from("target"));
        Ok(base.join("ab").join(name))
    }

    pub(super) fn load_count(&self) -> u32 {
        if self.quality_only { 0 } else { (self.paces().len() + usize::from(self.until.is_some())) as u32 }
    }

    /// How much is run of a load.
    pub(super) fn amount(&self, pace: Pace) -> Amount {
        let frames = match pace {
            Pace::Saturated => self.frames,
            Pace::Cameras => self.camera_frames.unwrap_or(self.frames),
        };
        Amount { rounds: self.rounds, frames, warm_up: self.warm_up }
    }

    /// How the whole graphs are driven.
    pub(super) fn paces(&self) -> Vec<Pace> {
        let pace = |load: &LoadName| match load {
            LoadName::None => None,
            LoadName::Of(pace) => Some(*pace),
        };
        self.loads.iter().filter_map(pace).collect()
    }
}

/// The command line that repeats this run.
pub(crate) fn command() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = |word: String| {
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let words = std::env::args().skip(1).map(quoted);
    std::iter::once("millrace".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn sides(words: &[&str]) -> anyhow::Result<[Sides; 2]> {
        Line::try_parse_from(std::iter::once(&"ab").chain(words)).unwrap().args.sides()
    }

    #[test]
    fn a_graph_and_a_change_are_two_arms() {
        let [a, b] = sides(&["g/x.yml", "--set", "n.K=1"]).unwrap();
        assert_eq!((a.sets.len(), b.sets.len()), (0, 1));
        assert_eq!((a.name.as_str(), b.name.as_str(), a.graph == b.graph), ("x", "n.K=1", true));
        let [a, b] = sides(&["x.yml", "y.yml", "--set", "n.K=1", "--set-a", "n.L=2"]).unwrap();
        assert_eq!((a.sets.len(), b.sets.len(), a.name.as_str(), b.name.as_str()), (2, 1, "x", "y"));
        let [a, b] = sides(&["x.yml", "--set-a", "n.K=1", "--set-b", "n.K=2"]).unwrap();
        assert_eq!((a.name.as_str(), b.name.as_str()), ("n.K=1", "n.K=2"));
        assert!(sides(&["x.yml"]).is_err());
        assert!(sides(&["x.yml", "--self-test", "3"]).is_ok());
        assert!(sides(&["x.yml", "x.yml"]).is_ok());
    }
}
