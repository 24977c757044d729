//! What settings point to: files that are read are there, folders that are written into too, and nothing that is written
//! is something else that the graph reads or writes.

use super::{CheckedNode, Effective, From, place};
use crate::fault::{Fault, Report};
use crate::model::{Graph, Node};
use crate::nearest::nearest;
use crate::settings::{FileUse, file_path, is_url};
use crate::yaml::Yaml;
use rustix::fs::{Access, Mode, OFlags, access, open, unlink};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file that the graph reads or writes, and who names it.
pub(super) struct Use {
    what: String,
    identity: Identity,
}

/// What makes two names one file, whatever links they lead through.
#[derive(PartialEq, Eq)]
enum Identity {
    /// Device and inode.
    There(u64, u64),
    /// The folder's, and the name that the file is to have there.
    New(u64, u64, OsString),
}

impl Use {
    /// A file that is read; none where it is not there.
    pub(super) fn of(what: String, path: &Path) -> Option<Self> {
        Some(Self { what, identity: identity(path)? })
    }

    /// A source that is read: a video file, or each picture of a folder.
    pub(super) fn of_source(what: &str, path: &Path) -> Vec<Self> {
        let pictures = std::fs::read_dir(path).into_iter().flatten().flatten().take(MOST_PICTURES);
        let pictures = pictures.filter(|entry| is_picture(&entry.path()));
        Self::of(what.to_owned(), path)
            .into_iter()
            .chain(pictures.filter_map(|entry| Self::of(what.to_owned(), &entry.path())))
            .collect()
    }

    /// A model's description, and the files that it names.
    fn of_model(what: &str, path: &Path) -> Vec<Self> {
        let yaml = std::fs::read_to_string(path).ok().and_then(|text| Yaml::parse(&text).ok());
        let named = |keys: &[&str]| {
            let mut part = yaml.as_ref()?;
            for key in keys {
                part = part.get(key)?;
            }
            part.text().map(|name| path.with_file_name(name))
        };
        let files = [Some(path.to_owned()), named(&["file"]), named(&["labels", "file"])];
        files.into_iter().flatten().filter_map(|path| Self::of(what.to_owned(), &path)).collect()
    }
}

/// Pictures of a folder that are held against what is written.
const MOST_PICTURES: usize = 100_000;

/// Checks the described settings of all nodes. `read` is what the graph reads besides: its own file, those of cameras.
pub(super) fn check(graph: &Graph, nodes: &[CheckedNode], folder: &Path, mut read: Vec<Use>, report: &mut Report) {
    let mut written: Vec<(Use, Fault)> = Vec::new();
    for (node, checked) in graph.nodes.iter().zip(nodes) {
        for setting in &checked.settings {
            let Some((file, value)) = setting.file.zip(setting.value.as_deref()) else { continue };
            let what = format!("{} of node '{}'", setting.key, checked.id);
            let fault =
                |message: String| Fault::error(node.id.span, message).at_location(place(node, checked, setting));
            // what is no URL of a file here was reported where settings are read
            let Some(named) = file_path(value).ok().filter(|_| !value.trim().is_empty()) else { continue };
            let is_elsewhere = is_url(value) && named == Path::new(value);
            // cameras on a network are the decoder's business
            if is_elsewhere && file == FileUse::Source {
                continue;
            }
            let path = absolute(setting, folder, &named);
            let found = match file {
                _ if is_elsewhere => {
                    Err(("which is no file of this machine; a path or a file: URL is expected".to_owned(), None))
                }
                FileUse::Read | FileUse::Model => readable(&path),
                FileUse::Source => source(&path),
                FileUse::Write => writable(&path),
                FileUse::Folder => writable_folder(&path),
                FileUse::Made => makable_folder(&path),
            };
            if let Err((why, fix)) = found {
                let whose = whose(node, checked, setting);
                let fix = fix.or_else(|| near(setting, value, &path));
                report.push(fault(format!("{whose}: {} names '{value}', {why}", setting.key)).fix_with(fix));
                continue;
            }
            match file {
                FileUse::Read => read.extend(Use::of(what, &path)),
                FileUse::Source => read.extend(Use::of_source(&what, &path)),
                FileUse::Model => read.extend(Use::of_model(&what, &path)),
                FileUse::Write => written.extend(Use::of(what, &path).map(|used| (used, fault(String::new())))),
                FileUse::Folder | FileUse::Made => {}
            }
        }
    }
    for (index, (used, fault)) in written.iter().enumerate() {
        let same = |other: &&Use| other.identity == used.identity;
        if let Some(other) = read.iter().find(same) {
            let mut fault = fault.clone().fix("another name for what is written");
            fault.message = format!("{} is the file that {} reads: it would be emptied", used.what, other.what);
            report.push(fault);
        } else if let Some(other) = written[..index].iter().map(|(used, _)| used).find(same) {
            let mut fault =
                fault.clone().fix("a file for each writer, or one writer with several producers (PORT.NAME)");
            fault.message = format!("{} is the file that {} writes: neither would be whole", used.what, other.what);
            report.push(fault);
        }
    }
}

/// Relative paths count from the graph's folder, and those of the command line from where it was given.
fn absolute(setting: &Effective, folder: &Path, path: &Path) -> PathBuf {
    match setting.from {
        From::Set => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        _ => folder.join(path),
    }
}

/// What the graph's own `env:` says is one fault, although it shows at every node.
fn whose(node: &Node, checked: &CheckedNode, setting: &Effective) -> String {
    let name = checked.description.as_ref().map_or("", |is| is.name.as_str());
    match setting.from {
        From::Graph(_) => "for all nodes".to_owned(),
        _ => format!("node '{}' ({name})", node.id.value),
    }
}

/// A reason, and a fix where one is known.
pub(super) type Refusal = (String, Option<String>);

fn readable(path: &Path) -> Result<(), Refusal> {
    let found = std::fs::metadata(path).map_err(|error| (in_words(&error, path), None))?;
    let kind = found.file_type();
    if !kind.is_file() {
        let is = if kind.is_dir() {
            "a folder"
        } else if kind.is_fifo() {
            "a pipe"
        } else {
            "a device"
        };
        return Err((format!("which is {is}; a file is expected"), None));
    }
    access(path, Access::READ_OK).map_err(|error| (format!("which cannot be read: {error}"), None))
}

/// What a decoder can play: a video file, or a folder of pictures.
pub(super) fn source(path: &Path) -> Result<(), Refusal> {
    if path.is_dir() {
        return pictures(path);
    }
    readable(path)?;
    // in /proc files have content and no length
    let is_empty = std::fs::File::open(path).and_then(|mut file| file.read(&mut [0])).is_ok_and(|read| read == 0);
    if is_empty {
        Err(("which is empty; a video file or a folder of pictures is expected".to_owned(), None))
    } else {
        Ok(())
    }
}

/// A folder of pictures.
fn pictures(folder: &Path) -> Result<(), Refusal> {
    let unreadable = |error: std::io::Error| (format!("which cannot be read: {error}"), None);
    access(folder, Access::READ_OK | Access::EXEC_OK).map_err(|error| unreadable(error.into()))?;
    let mut entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let found = entries.any(|entry| entry.is_ok_and(|entry| is_picture(&entry.path())));
    let why =
        "which is a folder without pictures (.jpg, .jpeg, .png); a video file or a folder of pictures is expected";
    if found { Ok(()) } else { Err((why.to_owned(), None)) }
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && ["jpg", "jpeg", "jpe", "png"].iter().any(|known| extension == *known) && path.is_file()
}

fn writable(path: &Path) -> Result<(), Refusal> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(("which is a folder; the file to write is expected".to_owned(), None)),
        // opened, where that is without effect: in /proc even root is refused what its mode permits
        Ok(found) if found.is_file() => {
            let opened = std::fs::OpenOptions::new().write(true).open(path);
            opened.map(|_| ()).map_err(|error| (format!("which cannot be written: {error}"), None))
        }
        Ok(_) => access(path, Access::WRITE_OK).map_err(|error| (format!("which cannot be written: {error}"), None)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let (why, fix) = match writable_folder(parent) {
                Ok(()) => return Ok(()),
                Err((why, fix)) => (why, fix),
            };
            Err((format!("in the folder {}, {why}", parent.display()), fix))
        }
        Err(error) => Err((format!("which cannot be written: {error}"), None)),
    }
}

fn writable_folder(path: &Path) -> Result<(), Refusal> {
    let found = std::fs::metadata(path).map_err(|error| {
        let fix = (error.kind() == std::io::ErrorKind::NotFound).then(|| format!("mkdir -p '{}'", path.display()));
        (in_words(&error, path), fix)
    })?;
    if !found.is_dir() {
        return Err(("which is no folder".to_owned(), None));
    }
    let may = access(path, Access::WRITE_OK | Access::EXEC_OK).and_then(|()| takes_files(path));
    may.map_err(|error| (format!("in which no file can be made: {error}"), None))
}

/// A folder that is writable, or can be made with those above it.
fn makable_folder(path: &Path) -> Result<(), Refusal> {
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let above = |(why, fix): Refusal| (format!("in the folder {}, {why}", there.display()), fix);
    writable_folder(there).map_err(|refused| if there == path { refused } else { above(refused) })
}

/// Whether a file can be made there: a file without a name is, or one that is removed at once where the file system has
/// none. A mode alone does not tell: as root one may do everything in /proc, and can do nothing.
fn takes_files(folder: &Path) -> rustix::io::Result<()> {
    let made =
        |name: &Path, flags: OFlags| open(name, flags | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match made(folder, OFlags::TMPFILE) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
            let name = folder.join(format!(".millrace-check-{}", std::process::id()));
            made(&name, OFlags::CREATE | OFlags::EXCL)?;
            unlink(&name)
        }
        found => found.map(|_| ()),
    }
}

fn in_words(error: &std::io::Error, path: &Path) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound if path.is_symlink() => {
            let target = std::fs::read_link(path).unwrap_or_default();
            format!("which is a link to '{}', which does not exist", target.display())
        }
        std::io::ErrorKind::NotFound => format!("which does not exist (looked for {})", path.display()),
        _ => format!("which cannot be opened: {error}"),
    }
}

/// The name that was most likely meant, among those beside the file that is not there.
fn near(setting: &Effective, value: &str, path: &Path) -> Option<String> {
    let beside = std::fs::read_dir(path.parent()?).ok()?;
    // a link that leads nowhere is no better name
    let there = beside.flatten().filter(|entry| entry.path().exists());
    let names: Vec<String> = there.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    let value = Path::new(value).with_file_name(near);
    (!path.exists()).then(|| format!("{}: {}", setting.key, value.display()))
}

/// How far links are followed, as the kernel does.
const MOST_LINKS: usize = 40;

/// What the file is, also where it does not exist yet. Of a device there may be any number of users.
fn identity(path: &Path) -> Option<Identity> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Ok(found) = std::fs::metadata(&path) {
            let kind = found.file_type();
            return (!kind.is_char_device()).then(|| Identity::There(found.dev(), found.ino()));
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match std::fs::read_link(&path) {
            // a link to what is not there yet
            Ok(target) => path = folder.join(target),
            Err(_) => {
                let found = std::fs::metadata(folder).ok()?;
                return Some(Identity::New(found.dev(), found.ino(), path.file_name()?.to_owned()));
            }
        }
    }
    None
}
