//! A graph with so many copies of a clip for cameras.

use crate::load::{Loaded, load};
use crate::trial::plan::Plan;
use anyhow::{Context, bail};
use millrace_graph::cameras::{self, Source};
use millrace_graph::check::{CheckedNode, From, Set};
use millrace_graph::describe::Programs;
use millrace_graph::fault::Report;
use millrace_graph::settings::{file_path, is_url};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Settings of a decoder that the search makes itself.
const OURS: [&str; 5] = ["SOURCE", "SOURCES", "CAMERAS", "CAMERA", "PACE"];

/// What stays the same from step to step.
pub(super) struct Copies<'a> {
    graph: &'a Path,
    sets: &'a [Set],
    clip: Clip,
    decoders: Vec<Decoder>,
}

struct Decoder {
    id: String,
    /// What the graph says of whom it serves, to be withdrawn.
    named: Vec<&'static str>,
    group: Option<String>,
}

fn value<'a>(node: &'a CheckedNode, key: &str) -> Option<&'a str> {
    let setting = node.settings.iter().find(|setting| setting.described && setting.key == key)?;
    setting.value.as_deref().filter(|value| !value.trim().is_empty())
}

impl<'a> Copies<'a> {
    /// Finds the decoders of a graph that was checked, and the clip.
    pub(super) fn of(loaded: &Loaded, graph: &'a Path, sets: &'a [Set], clip: Option<&Path>) -> anyhow::Result<Self> {
        let has_cameras =
            |node: &&CheckedNode| node.settings.iter().any(|setting| setting.described && setting.key == "CAMERAS");
        let nodes: Vec<&CheckedNode> = loaded.checked.nodes.iter().filter(has_cameras).collect();
        if nodes.is_empty() {
            bail!(
                "no node of {} has the setting CAMERAS, which names a cameras file, so it cannot be given more cameras",
                loaded.name
            );
        }
        let clip = match clip {
            Some(clip) => (std::path::absolute(clip)?, None),
            None => nodes.iter().find_map(|node| played(node, &loaded.folder)).with_context(|| {
                format!("{} plays no file that copies could be made of; name one by --clip", loaded.name)
            })?,
        };
        let Ok(path) = clip.0.canonicalize() else {
            bail!("there is no file {} for the cameras to play (--clip)", clip.0.display());
        };
        let decoder = |node: &&CheckedNode| Decoder {
            id: node.id.clone(),
            named: ["SOURCE", "SOURCES", "CAMERA"].into_iter().filter(|key| value(node, key).is_some()).collect(),
            group: value(node, "GROUP").map(str::to_owned),
        };
        Ok(Self { graph, sets, clip: (path, clip.1), decoders: nodes.iter().map(decoder).collect() })
    }

    /// What each camera plays.
    pub(super) fn clip(&self) -> &Path {
        &self.clip.0
    }

    /// The cameras' ids.
    pub(super) fn ids(count: u32) -> Vec<String> {
        (1..=count).map(|n| format!("copy-{n:03}")).collect()
    }

    /// The cameras file. Where decoders serve groups, each has its share.
    fn cameras(&self, count: u32) -> anyhow::Result<Value> {
        let clip = self.clip.0.to_str().context("the clip's name is not UTF-8, which no cameras file can hold")?;
        let groups: Vec<&String> = self.decoders.iter().filter_map(|decoder| decoder.group.as_ref()).collect();
        let camera = |(n, id): (usize, String)| {
            let mut camera = json!({ "id": id, "file": clip, "loop": true });
            if let Some((width_px, height_px)) = self.clip.1 {
                camera["size"] = json!(format!("{width_px}x{height_px}"));
            }
            if !groups.is_empty() {
                camera["group"] = json!(groups[n % groups.len()]);
            }
            camera
        };
        Ok(json!({ "cameras": Self::ids(count).into_iter().enumerate().map(camera).collect::<Vec<_>>() }))
    }

    /// The graph with so many cameras, whose file goes into `folder`. `Err` inside: the check refuses it, with its words.
    pub(super) fn plan(&self, count: u32, folder: &Path) -> anyhow::Result<Result<Plan, String>> {
        let file = folder.join("cameras.yml");
        std::fs::write(&file, format!("{:#}\n", self.cameras(count)?))
            .with_context(|| format!("{} cannot be written", file.display()))?;
        let of_decoder =
            |set: &&Set| self.decoders.iter().any(|d| d.id == set.node) && OURS.contains(&set.key.as_str());
        let mut sets: Vec<Set> = self.sets.iter().filter(|set| !of_decoder(set)).cloned().collect();
        for decoder in &self.decoders {
            let mut set = |key: &str, value: String| {
                sets.push(Set { node: decoder.id.clone(), key: key.to_owned(), value });
            };
            decoder.named.iter().for_each(|key| set(key, String::new()));
            set("CAMERAS", file.display().to_string());
            set("PACE", "realtime".to_owned());
        }
        let loaded = load(self.graph, &sets, &Programs::default())?;
        if !loaded.checked.report.is_ok() || loaded.checked.graph.is_none() {
            return Ok(Err(loaded.checked.report.text(false)));
        }
        let mut plan = Plan::of(&loaded)?;
        plan.force("FLOW", "live", |_| true);
        plan.withhold("FRAMES", |node| node.has("CAMERAS"));
        Ok(Ok(plan))
    }
}

/// A file that the graph plays, with the size of its picture where that is stated.
type Clip = (PathBuf, Option<(u32, u32)>);

/// The first file that a decoder plays.
fn played(node: &CheckedNode, folder: &Path) -> Option<Clip> {
    // what the command line names counts from where it was given
    let base = |key: &str| {
        let given = node.settings.iter().any(|setting| setting.key == key && setting.from == From::Set);
        if given { Path::new("") } else { folder }
    };
    let path = |base: &Path, text: &str| {
        let file = file_path(text).ok().filter(|file| !is_url(text) || file != Path::new(text))?;
        std::path::absolute(base.join(file)).ok()
    };
    if let Some(source) = value(node, "SOURCE") {
        return Some((path(base("SOURCE"), source)?, None));
    }
    if let Some(sources) = value(node, "SOURCES") {
        let mut named = sources.split_whitespace().filter_map(|one| one.split_once('='));
        return named.find_map(|(_, source)| Some((path(folder, source)?, None)));
    }
    let text = std::fs::read_to_string(base("CAMERAS").join(file_path(value(node, "CAMERAS")?).ok()?)).ok()?;
    let cameras = cameras::read(&text, 0, &mut Report::new("", &text))?;
    cameras.cameras.iter().filter(|camera| camera.enabled).find_map(|camera| match &camera.source.value {
        Source::File(file) => Some((path(folder, file)?, camera.size_px)),
        Source::Url(_) => None,
    })
}
