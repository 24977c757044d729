//! A module's file: where it lies, and what it says of itself.

use crate::dora::{self, Shape};
use crate::fault::{Fault, Report};
use crate::model::{Located, check_keys, text_of};
use crate::nearest::nearest;
use crate::yaml::{Data, Yaml};
use std::path::{Component, Path, PathBuf};

/// dora's own bound on the file of a module.
const LARGEST_BYTES: u64 = 1 << 20;

pub(crate) const KEYS: &[(&str, Shape)] = &[("module", Shape::Map), ("nodes", Shape::List), ("build", Shape::Text)];
pub(crate) const HEADER_KEYS: &[(&str, Shape)] =
    &[("name", Shape::Text), ("inputs", Shape::List), ("inputs_optional", Shape::List), ("outputs", Shape::List)];

/// What cannot be done, and how it is mended.
pub(super) type Refusal = (String, Option<String>);

/// The ports of a module.
pub(super) struct Header {
    pub(super) inputs: Vec<Located<String>>,
    pub(super) optional: Vec<Located<String>>,
    pub(super) outputs: Vec<Located<String>>,
}

impl Header {
    /// All inputs, those first that must be connected.
    pub(super) fn all_inputs(&self) -> impl Iterator<Item = &str> + Clone {
        self.inputs.iter().chain(&self.optional).map(|port| port.value.as_str())
    }
}

/// `dir/text` without `.` and `..`; none where it leads out of the folder that `dir` counts from.
pub(super) fn lexical(dir: &Path, text: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in dir.join(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// Where the file of a module lies, from the graph's folder: as dora finds it, which refuses to leave that folder.
pub(super) fn locate(folder: &Path, dir: &Path, text: &str) -> Result<PathBuf, Refusal> {
    if Path::new(text).is_absolute() {
        return Err((format!("the path of a module is relative, and '{text}' is not"), None));
    }
    let outside = || {
        let fix = "put the module beside the graph, or into a folder there".to_owned();
        (format!("the module '{text}' lies outside the graph's folder, which dora refuses"), Some(fix))
    };
    let found = lexical(dir, text).ok_or_else(outside)?;
    let file = folder.join(&found);
    if !file.exists() {
        let near = near(&file).map(|near| Path::new(text).with_file_name(near).display().to_string());
        let from = if dir.as_os_str().is_empty() { "the graph's" } else { "this module's" };
        let what = format!("there is no module '{text}'; the path counts from {from} folder");
        return Err((what, near.map(|near| format!("module: {near}"))));
    }
    // dora refuses '..' after a link that leads elsewhere
    if folder.join(dir).join(text).canonicalize().ok() != file.canonicalize().ok() {
        return Err(outside());
    }
    Ok(found)
}

fn near(file: &Path) -> Option<String> {
    let beside = std::fs::read_dir(file.parent()?).ok()?.flatten().map(|entry| entry.path());
    let alike = beside.filter(|other| other.extension() == file.extension());
    let stems: Vec<String> = alike.filter_map(|other| Some(other.file_stem()?.to_str()?.to_owned())).collect();
    let near = nearest(file.file_stem()?.to_str()?, stems.iter().map(String::as_str))?;
    Path::new(near).with_extension(file.extension()?).to_str().map(str::to_owned)
}

/// The text of a module's file.
pub(super) fn read(file: &Path) -> Result<String, String> {
    let about = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no file".to_owned());
    }
    if about.len() > LARGEST_BYTES {
        return Err("it is larger than 1 MiB, dora's bound".to_owned());
    }
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| format!("byte {} of it is not UTF-8", error.utf8_error().valid_up_to()))
}

/// Checks the form of a module but for its nodes, and gives its ports.
pub(super) fn read_header(root: &Yaml, report: &mut Report) -> Option<Header> {
    let Data::Map(entries) = &root.data else {
        let message = format!("a module is a mapping with the keys 'module' and 'nodes', and this is {}", root.kind());
        report.push(Fault::error(root.span, message));
        return None;
    };
    let header = root.get("module")?;
    check_keys(entries, KEYS, "a module", report);
    if let Data::Map(entries) = &header.data {
        check_keys(entries, HEADER_KEYS, "a module's header", report);
        if header.get("name").is_none() {
            report.push(Fault::error(header.span, "the module has no name, which dora wants").fix("add 'name: …'"));
        }
    }
    if root.get("nodes").is_none() {
        report.push(Fault::error(root.span, "the module has no nodes").fix("add a list 'nodes:'"));
    }
    let inputs = read_ports(header, "inputs", report);
    let optional = read_ports(header, "inputs_optional", report);
    for port in &optional {
        if inputs.iter().any(|input| input.value == port.value) {
            let message = format!("the input '{}' is required and optional at once", port.value);
            report.push(Fault::error(port.span, message).fix("name it in one of the two lists"));
        }
    }
    Some(Header { inputs, optional, outputs: read_ports(header, "outputs", report) })
}

fn read_ports(header: &Yaml, key: &str, report: &mut Report) -> Vec<Located<String>> {
    let Some(Data::List(items)) = header.get(key).map(|list| &list.data) else { return Vec::new() };
    let mut ports: Vec<Located<String>> = Vec::new();
    for item in items {
        let Some(name) = item.text() else {
            let message = format!("one of the module's {key} is a name, and this is {}", item.kind());
            report.push(Fault::error(item.span, message));
            continue;
        };
        if let Some(fault) = dora::port_fault(name) {
            report.push(Fault::error(item.span, format!("not the name of an input or output: {fault}")));
        }
        if ports.iter().any(|port| port.value == name) {
            report.push(Fault::error(item.span, format!("the module's {key} name '{name}' twice")));
            continue;
        }
        ports.push(Located { span: item.span, value: name.to_owned() });
    }
    ports
}

/// The id of a node that is a module, where it has one.
pub(super) fn id_of(node: &Yaml) -> Option<Located<String>> {
    node.get("module")?;
    text_of(node, "id")
}
