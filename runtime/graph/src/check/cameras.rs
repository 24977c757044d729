//! The cameras of a graph: whom each decoder serves, by its settings and its cameras file, and where their frames go.

use super::files::{self, Use};
use super::parts::{self, Served};
use super::{CheckedNode, Effective, From, World, place};
use crate::cameras::{self, Camera, Cameras, Choice, Part, Password, Source, id_fault};
use crate::dora::Upstream;
use crate::fault::{Fault, Report};
use crate::model::{Graph, Input, Node};
use crate::nearest::nearest;
use crate::settings::{file_path, is_url, redacted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A camera whose frames go through the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    /// Its id.
    pub(super) id: String,
    /// The decoder that serves it, by its number in the graph.
    pub(super) decoder: usize,
    /// The size of its picture, where it is stated.
    pub(super) size_px: Option<(u32, u32)>,
}

/// The cameras that reach each node, by the node's number.
pub(super) type Reach = Vec<BTreeSet<Member>>;

/// The file that a setting names, and what it says.
struct Named {
    name: String,
    cameras: Cameras,
    /// Which of them each decoder serves.
    served: Vec<Served>,
}

impl Named {
    /// The files that its cameras are, and those of their passwords.
    fn files(&self, folder: &Path) -> Vec<Use> {
        let mut files = Vec::new();
        for camera in &self.cameras.cameras {
            let what = format!("camera '{}' of {}", camera.id.value, self.name);
            if let Source::File(file) = &camera.source.value
                && let Ok(path) = file_path(file)
            {
                files.extend(Use::of_source(&what, &folder.join(path)));
            }
            if let Some(Password::File(path)) = camera.password.as_ref().map(|password| &password.value) {
                files.extend(Use::of(what, &folder.join(path)));
            }
        }
        files
    }
}

/// Finds faults of cameras and their files; gives the cameras that reach each node, and the files that are read for them.
pub(super) fn check(
    graph: &Graph,
    nodes: &[CheckedNode],
    folder: &Path,
    file: &str,
    world: &World<'_>,
    report: &mut Report,
) -> (Reach, Vec<Use>) {
    let mut files: BTreeMap<PathBuf, Option<Named>> = BTreeMap::new();
    let mut read = Vec::new();
    let mut own: Reach = vec![BTreeSet::new(); graph.nodes.len()];
    for (index, (node, checked)) in graph.nodes.iter().zip(nodes).enumerate() {
        if is_decoder(checked) {
            let decoder = Decoder { graph, node, checked, index, folder, file, world };
            own[index] = decoder.members(&mut files, report);
            read.extend(decoder.listed());
        }
    }
    for named in files.values().flatten() {
        check_groups(named, report);
        parts::check(&named.name, &named.served, report);
    }
    let reach = spread(graph, own);
    check_unique(graph, nodes, &reach, report);
    for (path, named) in &files {
        read.extend(Use::of("CAMERAS".to_owned(), path));
        read.extend(named.iter().flat_map(|named| named.files(folder)));
    }
    (reach, read)
}

/// It decodes cameras: it says so by its settings.
fn is_decoder(node: &CheckedNode) -> bool {
    let has = |key: &str| node.settings.iter().any(|setting| setting.described && setting.key == key);
    let inputs = node.description.as_ref().is_some_and(|is| is.inputs.is_empty());
    inputs && has("SOURCE") && has("CAMERA")
}

struct Decoder<'a> {
    graph: &'a Graph,
    node: &'a Node,
    checked: &'a CheckedNode,
    index: usize,
    folder: &'a Path,
    file: &'a str,
    world: &'a World<'a>,
}

impl Decoder<'_> {
    fn given(&self, key: &str) -> Option<(&Effective, String)> {
        let setting = self.checked.settings.iter().find(|setting| setting.key == key)?;
        let text = setting.value.as_deref()?;
        // a file's name may have blanks at its ends
        let kept = if setting.is_path { text } else { text.trim() };
        (!text.trim().is_empty()).then(|| (setting, kept.to_owned()))
    }

    fn error(&self, setting: &Effective, message: String) -> Fault {
        Fault::error(self.node.id.span, message).at_location(place(self.node, self.checked, setting))
    }

    fn members(&self, files: &mut BTreeMap<PathBuf, Option<Named>>, report: &mut Report) -> BTreeSet<Member> {
        let id = &self.node.id.value;
        let given: Vec<(&Effective, String)> =
            ["SOURCE", "SOURCES", "CAMERAS"].iter().filter_map(|key| self.given(key)).collect();
        let (setting, value) = match given.as_slice() {
            [] => {
                let reported = self.checked.settings.iter().any(|setting| setting.key == "SOURCE" && !setting.optional);
                let empty = self.empty();
                if !reported && !self.graph.is_module && (empty.is_some() || !self.stands_in_file()) {
                    let but = empty.map_or(String::new(), |setting| format!(", and {} is empty", setting.key));
                    let message = format!(
                        "node '{id}' serves no camera: SOURCE (one), SOURCES (several) or CAMERAS (a file) is required{but}"
                    );
                    let fault = match empty {
                        Some(setting) => self.error(setting, message),
                        None => Fault::error(self.node.id.span, message),
                    };
                    report.push(fault.fix("CAMERAS: cameras.yml"));
                }
                return BTreeSet::new();
            }
            [one] => one,
            [(first, _), (second, _), ..] => {
                let message =
                    format!("node '{id}' has {} and {}; one of them says whom it serves", first.key, second.key);
                report.push(self.error(second, message).fix("keep one of them"));
                return BTreeSet::new();
            }
        };
        for key in ["GROUP", "PART"] {
            if let Some((chooses, _)) = self.given(key).filter(|_| setting.key != "CAMERAS") {
                let message =
                    format!("node '{id}' has a {key}, which chooses cameras of a cameras file, and no CAMERAS");
                report.push(self.error(chooses, message).fix(format!("leave {key} out")));
            }
        }
        let member = |id: String, size_px| Member { id, decoder: self.index, size_px };
        match setting.key.as_str() {
            "SOURCE" => {
                let camera = self.given("CAMERA").map_or_else(|| id.clone(), |(_, camera)| camera);
                report.extend(self.source_fault(setting, value));
                BTreeSet::from([member(camera, None)])
            }
            "SOURCES" => self.sources(setting, value, report).into_iter().map(|id| member(id, None)).collect(),
            _ => {
                let served = self.cameras(setting, value, files, report);
                served.into_iter().map(|camera| member(camera.id.value, camera.size_px)).collect()
            }
        }
    }

    /// One of the settings that is given, as nothing.
    fn empty(&self) -> Option<&Effective> {
        let is_empty = |setting: &&Effective| {
            ["SOURCE", "SOURCES", "CAMERAS"].contains(&setting.key.as_str())
                && setting.from != From::Default
                && setting.value.as_ref().is_some_and(|text| text.trim().is_empty())
        };
        self.checked.settings.iter().find(is_empty)
    }

    /// The file gives one of the settings, if perhaps in a form that could not be read, which was reported.
    fn stands_in_file(&self) -> bool {
        let meant = |key: &str| nearest(key, ["SOURCE", "SOURCES", "CAMERAS"]).is_some() && key != "CAMERA";
        self.node.env.iter().chain(&self.graph.env).any(|value| meant(&value.key.value))
    }

    fn source_fault(&self, setting: &Effective, value: &str) -> Option<Fault> {
        // files are looked at with all that settings point to
        if !is_url(value) || file_path(value) != Ok(value.into()) {
            return None;
        }
        let (what, fix) = cameras::address(value).err()?;
        Some(self.error(setting, format!("{} of node '{}': {what}", setting.key, self.node.id.value)).fix_with(fix))
    }

    fn sources(&self, setting: &Effective, value: &str, report: &mut Report) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for text in value.split_whitespace() {
            let split = text.split_once('=').filter(|(id, source)| !id.is_empty() && !source.is_empty());
            let Some((id, source)) = split.filter(|(id, _)| !id.contains("://")) else {
                let message =
                    format!("'{}' in SOURCES of node '{}' names no camera", redacted("", text), self.node.id.value);
                report.push(self.error(setting, message).fix("id=rtsp://host/path, or id=file"));
                continue;
            };
            if ids.iter().any(|known| known == id) {
                let message = format!("SOURCES of node '{}' names camera '{id}' twice", self.node.id.value);
                report.push(self.error(setting, message).fix("give each camera an id of its own"));
                continue;
            }
            report.extend(id_fault(id).map(|fault| self.error(setting, fault)));
            report.extend(self.source_fault(setting, source));
            let is_file = !is_url(source) || file_path(source) != Ok(source.into());
            if let Some(why) = self.unplayable(source).filter(|_| self.looks_at_files() && is_file) {
                let message = format!("camera '{id}' of node '{}' {why}", self.node.id.value);
                report.push(self.error(setting, message).fix("an absolute path, or one from the graph's folder"));
            }
            ids.push(id.to_owned());
        }
        ids
    }

    /// The files that SOURCES names.
    fn listed(&self) -> Vec<Use> {
        let value = self.given("SOURCES").map(|(_, value)| value).unwrap_or_default();
        let listed = value.split_whitespace().filter_map(|text| {
            let (id, source) = text.split_once('=')?;
            let path = self.folder.join(file_path(source).ok()?);
            Some(Use::of_source(&format!("camera '{id}' of node '{}'", self.node.id.value), &path))
        });
        listed.flatten().collect()
    }

    /// The decoder says that it reads the file of SOURCE, and so those of SOURCES.
    fn looks_at_files(&self) -> bool {
        self.checked.settings.iter().any(|setting| setting.key == "SOURCE" && setting.file.is_some())
    }

    /// The cameras that it serves of the file that it names.
    fn cameras(
        &self,
        setting: &Effective,
        value: &str,
        files: &mut BTreeMap<PathBuf, Option<Named>>,
        report: &mut Report,
    ) -> Vec<Camera> {
        // what the command line names counts from where it was given
        let Ok(named) = file_path(value) else { return Vec::new() }; // reported where settings are read
        let path = if setting.from == From::Set { named } else { self.folder.join(named) };
        let known = path.canonicalize().unwrap_or_else(|_| path.clone());
        let named = match files.entry(known) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                // a pipe would keep the check waiting
                let irregular = std::fs::metadata(&path).is_ok_and(|found| !found.is_file());
                let read =
                    if irregular { Err(std::io::Error::other("it is no regular file")) } else { std::fs::read(&path) };
                let text = match read.map(String::from_utf8) {
                    Ok(Ok(text)) => Ok(text),
                    Ok(Err(_)) => Err("is no text: a byte in it is not UTF-8".to_owned()),
                    Err(e) => Err(format!("cannot be read: {e}")),
                };
                match text {
                    Ok(text) => entry.insert(self.read(setting, value, &text, report)),
                    Err(why) => {
                        let message = format!("the cameras file '{value}' of node '{}' {why}", self.node.id.value);
                        report.push(
                            self.error(setting, message).fix("a path from the graph's folder, for example cameras.yml"),
                        );
                        return Vec::new();
                    }
                }
            }
        };
        let Some(named) = named else { return Vec::new() };
        let group = self.given("GROUP");
        let part = self.given("PART");
        let in_group = Choice { group: group.as_ref().map(|(_, group)| group.clone()), part: None };
        let choice = match part.as_ref().map(|(setting, part)| (setting, part.parse::<Part>())) {
            Some((setting, Err(message))) => {
                report.push(self.error(setting, message));
                return Vec::new();
            }
            Some((_, Ok(part))) => Choice { part: Some(part), ..in_group.clone() },
            None => in_group.clone(),
        };
        let chosen_by = part.as_ref().map_or(setting, |(setting, _)| *setting);
        named.served.push(Served {
            node: self.node.id.value.clone(),
            choice: choice.clone(),
            location: (self.node.id.span, place(self.node, self.checked, chosen_by)),
        });
        // a part may be empty today, and a group that has no camera is misspelt
        if let Some((setting, group)) = group
            && named.cameras.chosen(&in_group).next().is_none()
        {
            let groups: BTreeSet<&str> =
                named.cameras.cameras.iter().filter_map(|camera| camera.group.as_deref()).collect();
            let there = if groups.is_empty() {
                "none".to_owned()
            } else {
                groups.iter().copied().collect::<Vec<_>>().join(", ")
            };
            let message = format!(
                "no camera of {} has the group '{group}' of node '{}'; groups there: {there}",
                named.name, self.node.id.value
            );
            let near = nearest(&group, groups).map(|near| format!("GROUP: {near}"));
            report.push(self.error(setting, message).fix_with(near));
        }
        named.cameras.chosen(&choice).cloned().collect()
    }

    /// Reads a cameras file for the first time.
    fn read(&self, setting: &Effective, value: &str, text: &str, report: &mut Report) -> Option<Named> {
        let beside = Path::new(self.file).parent().unwrap_or(Path::new(""));
        let file = file_path(value).ok()?;
        let name = if setting.from == From::Set { file } else { beside.join(file) };
        let name = name.display().to_string();
        let source = report.add_source(name.clone(), text, String::new());
        let cameras = cameras::read(text, source, report)?;
        for camera in cameras.cameras.iter().filter(|camera| camera.enabled) {
            self.check_camera(camera, report);
        }
        if cameras.cameras.is_empty() {
            let span = crate::yaml::Span { source, line: 1, column: 1, len: 0 };
            report.push(Fault::warning(span, "the file names no camera").fix("- { id: gate, url: rtsp://host/path }"));
        }
        Some(Named { name, cameras, served: Vec::new() })
    }

    /// Why a decoder cannot play what a camera names as its file.
    fn unplayable(&self, file: &str) -> Option<String> {
        let (why, _) = match file_path(file) {
            Ok(path) => files::source(&self.folder.join(path)).err()?,
            Err(why) => (why, None),
        };
        Some(format!("names the file '{file}', {why}"))
    }

    /// What the camera names exists.
    fn check_camera(&self, camera: &Camera, report: &mut Report) {
        let id = &camera.id.value;
        if let Source::File(file) = &camera.source.value
            && let Some(why) = self.unplayable(file)
        {
            let message = format!("camera '{id}' {why}");
            report.push(
                Fault::error(camera.source.span, message).fix("a path from the graph's folder, or enabled: false"),
            );
        }
        let Some(password) = &camera.password else { return };
        if let Err(error) = cameras::password(&password.value, self.folder, self.world.variables) {
            let message = format!("camera '{id}': {error}");
            report.push(match error {
                // another environment may have it
                cameras::SecretError::Unset { .. } => Fault::warning(password.span, message),
                _ => Fault::error(password.span, message),
            });
        }
    }
}

/// A camera that nobody serves is most likely a mistake.
fn check_groups(named: &Named, report: &mut Report) {
    if named.served.iter().any(|served| served.choice.group.is_none()) {
        return;
    }
    for camera in named.cameras.cameras.iter().filter(|camera| camera.enabled) {
        if named.served.iter().any(|served| served.choice.group == camera.group) {
            continue;
        }
        let message = match &camera.group {
            Some(group) => {
                format!("no decoder of the graph serves the group '{group}' of camera '{}'", camera.id.value)
            }
            None => format!("camera '{}' has no group, and each decoder of the graph serves one", camera.id.value),
        };
        report.push(
            Fault::warning(camera.id.span, message).fix("give a decoder this GROUP, or the camera another group"),
        );
    }
}

/// The cameras that reach each node, where each decoder has these.
fn spread(graph: &Graph, mut reach: Reach) -> Reach {
    // each round goes one node further
    for _ in 0..graph.nodes.len() {
        let mut grown = false;
        for (index, node) in graph.nodes.iter().enumerate() {
            for input in &node.inputs {
                let Some(from) = producer(graph, input).filter(|from| *from != index) else { continue };
                let new: Vec<Member> = reach[from].difference(&reach[index]).cloned().collect();
                grown |= !new.is_empty();
                reach[index].extend(new);
            }
        }
        if !grown {
            break;
        }
    }
    reach
}

/// The number of the node that feeds an input.
pub(super) fn producer(graph: &Graph, input: &Input) -> Option<usize> {
    let Some(Upstream::Output { node, .. }) = &input.upstream else { return None };
    graph.nodes.iter().position(|known| known.id.value == *node)
}

/// What comes together in one port has different ids, and comes once.
fn check_unique(graph: &Graph, nodes: &[CheckedNode], reach: &Reach, report: &mut Report) {
    for (node, checked) in graph.nodes.iter().zip(nodes) {
        let Some(is) = &checked.description else { continue };
        let mut seen: BTreeMap<&str, Vec<(&Input, usize)>> = BTreeMap::new();
        for input in &node.inputs {
            let (Some(port), Some(from)) = (is.input(&input.name.value), producer(graph, input)) else { continue };
            let earlier = seen.entry(port.name.as_str()).or_default();
            for (other, before) in earlier.iter() {
                let clash = clash(graph, node, (other, *before), (input, from), reach);
                report.extend(clash.map(|(message, fix)| Fault::error(input.source.span, message).fix(fix)));
            }
            earlier.push((input, from));
        }
    }
}

fn clash(
    graph: &Graph,
    node: &Node,
    (other, before): (&Input, usize),
    (input, from): (&Input, usize),
    reach: &Reach,
) -> Option<(String, String)> {
    let (id, name) = (&node.id.value, &input.name.value);
    if input.source.value == other.source.value {
        let message =
            format!("inputs '{}' and '{name}' of node '{id}' both take '{}'", other.name.value, input.source.value);
        return Some((message, "keep one of them".to_owned()));
    }
    let twice = reach[from].iter().find_map(|member| {
        let same = |known: &&Member| known.id == member.id && known.decoder != member.decoder;
        Some((member, reach[before].iter().find(same)?))
    });
    let (member, known) = twice?;
    let (one, two) = (&graph.nodes[known.decoder].id.value, &graph.nodes[member.decoder].id.value);
    let message = format!(
        "input '{name}' of node '{id}' brings the camera '{0}' of '{two}', and input '{1}' the camera '{0}' of '{one}'; \
         cameras that come together have different ids",
        member.id, other.name.value
    );
    Some((
        message,
        format!(
            "give the camera of '{two}' another id (CAMERA, or id in its cameras file), or split the file by GROUP or PART"
        ),
    ))
}
