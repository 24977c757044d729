//! What the cameras need of the world, for the decoder's sandbox.

use crate::CameraSettings;
use crate::config::{Config, Origin};
use crate::settings::Members;
use crate::watch::load;
use millrace_graph::cameras::Password;
use millrace_graph::settings::file_path;
use millrace_node::{Findings, Needs, Sandboxed, sandboxed};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a decoder with these settings reads and connects to, as far as it is known at its start.
pub(crate) fn needs(settings: &CameraSettings, node: &str) -> Needs {
    let mut needs = Needs {
        read: listed(settings.sandbox_read.as_deref().unwrap_or_default()).map(PathBuf::from).collect(),
        // a fault is reported by `check`, before the node is made
        connect: ports(&settings.sandbox_ports).unwrap_or_default(),
    };
    // as above
    let cameras = match settings.members(node) {
        Ok(Members::One(config)) => vec![config],
        Ok(Members::Several(configs)) => configs,
        Ok(Members::File { path, choice }) => {
            needs.read.extend(around(Path::new(&path)));
            load(&path, &choice).unwrap_or_default()
        }
        Err(_) => Vec::new(),
    };
    for camera in &cameras {
        match &camera.origin {
            Origin::Url(_) => needs.connect.extend(camera.port()),
            Origin::File(file) => needs.read.extend(file_path(file)),
        }
        if let Some(Password::File(file)) = &camera.password {
            needs.read.extend(around(Path::new(file)));
        }
    }
    needs
}

/// The folder of a file that may be put in the place of another while it is read, and that of the file it is a link to.
fn around(file: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = |file: &Path| {
        let folder = file.parent()?;
        Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
    };
    let target = file.canonicalize().ok();
    [folder(file), target.as_deref().and_then(folder)].into_iter().flatten()
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Refuses settings of the sandbox that cannot be: what is to be in its reach is there when it is made.
pub(crate) fn check(settings: &CameraSettings, findings: &mut Findings<'_>) {
    if let Err(why) = ports(&settings.sandbox_ports) {
        findings.refuse("SANDBOX_PORTS", why);
    }
    // one that was removed since is no reason for cameras to stay down
    if findings.is_restarted() {
        return;
    }
    for named in listed(settings.sandbox_read.as_deref().unwrap_or_default()) {
        if let Err(error) = std::fs::metadata(named) {
            let looked = std::path::absolute(named).unwrap_or_else(|_| named.into());
            findings.refuse(
                "SANDBOX_READ",
                format!(
                    "SANDBOX_READ names '{named}', which is not there when the decoder starts ({}: {error}); make it, or \
                     leave it out",
                    looked.display()
                ),
            );
        }
    }
}

/// The ports of `SANDBOX_PORTS`.
fn ports(text: &str) -> Result<BTreeSet<u16>, String> {
    let port = |part: &str| match part.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("SANDBOX_PORTS has '{part}', and ports from 1 to 65535 with commas in between are expected")),
    };
    listed(text).map(port).collect()
}

impl Config {
    /// The port that the camera is connected to by TCP.
    fn port(&self) -> Option<u16> {
        let Origin::Url(url) = &self.origin else { return None };
        let url = url::Url::parse(url).ok()?;
        url.port_or_known_default().or_else(|| (url.scheme() == "rtsp").then_some(554))
    }

    /// Whether the decoder's sandbox lets the camera be reached; a camera that came later may be beyond it.
    ///
    /// # Errors
    /// What it refuses, and what permits it.
    pub(crate) fn is_within_reach(&self) -> Result<(), String> {
        let Some(sandbox) = sandboxed() else { return Ok(()) };
        if let Some(port) = self.port()
            && let Some(permitted) = sandbox.refused_port(port)
        {
            let permitted = permitted.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "the decoder's sandbox permits connections to the ports {permitted}, and this camera has port {port}; add it \
                 to SANDBOX_PORTS, or start the decoder again, which permits the ports of its cameras"
            ));
        }
        let files = match &self.origin {
            Origin::File(file) => file_path(file).ok(),
            Origin::Url(_) => None,
        };
        let password = match &self.password {
            Some(Password::File(file)) => Some(PathBuf::from(file)),
            _ => None,
        };
        files.into_iter().chain(password).try_for_each(|file| readable(&file))
    }
}

/// Whether the sandbox lets a file be read; what else is wrong with it is found by its reader.
pub(crate) fn readable(file: &Path) -> Result<(), String> {
    let confined = sandboxed().is_some_and(Sandboxed::confines_files);
    // a pipe would keep the opener waiting
    if !confined || std::fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Ok(());
    }
    match File::open(file) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(format!(
            "'{}' cannot be read: {e}; the decoder's sandbox permits the files that were named when it started. Add the file \
             or its folder to SANDBOX_READ, or start the decoder again. Where it still cannot be read, its own permissions \
             are the cause",
            file.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> CameraSettings {
        let map: serde_json::Map<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        serde_json::from_value(map.into()).unwrap()
    }

    #[test]
    fn a_decoder_needs_its_sources_and_the_ports_of_its_cameras() {
        let of = |pairs: &[(&str, &str)]| needs(&settings(pairs), "decode");
        let one = of(&[("SOURCE", "rtsp://u:p@h:5554/s"), ("SANDBOX_PORTS", "8000, 8001")]);
        assert_eq!((one.connect, one.read.len()), (BTreeSet::from([5554, 8000, 8001]), 0));
        let several = of(&[("SOURCES", "a=rtsp://h/s b=http://h/s c=clip.mp4"), ("SANDBOX_PORTS", "")]);
        assert_eq!(several.connect, BTreeSet::from([554, 80]));
        assert_eq!(several.read, [PathBuf::from("clip.mp4")]);
        assert_eq!(of(&[("SOURCE", "a.mp4")]).connect, BTreeSet::from([80, 554, 8080, 8554]));
        let more = of(&[("SOURCE", "file:///clips/a%20b.mp4"), ("SANDBOX_READ", "/more, /clips/c.mp4")]);
        assert_eq!(more.read, ["/more", "/clips/c.mp4", "/clips/a b.mp4"].map(PathBuf::from));
        for text in ["0", "65536", "x", "80 81"] {
            assert!(ports(text).unwrap_err().contains("ports from 1 to 65535"), "{text}");
        }
    }

    #[test]
    fn files_that_are_replaced_are_reached_by_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (here, linked, secrets) = (folder.join("here"), folder.join("linked"), folder.join("secrets"));
        for made in [&here, &linked, &secrets] {
            std::fs::create_dir(made).unwrap();
        }
        let password = secrets.join("pw").display().to_string();
        let text = format!(
            "cameras:\n  - {{ id: a, url: \"rtsp://h:9001/s\", user: u, password_file: {password} }}\n  - {{ id: b, file: /clips/b.mp4 }}\n"
        );
        std::fs::write(linked.join("cameras.yml"), text).unwrap();
        std::os::unix::fs::symlink(linked.join("cameras.yml"), here.join("cameras.yml")).unwrap();
        let of = |file: PathBuf| needs(&settings(&[("CAMERAS", file.to_str().unwrap())]), "decode");
        let found = of(here.join("cameras.yml"));
        assert!(found.connect.contains(&9001), "{found:?}");
        // the link's folder and its target's, the password's, and the clip by itself
        for path in [here.as_path(), &linked, &secrets, Path::new("/clips/b.mp4")] {
            assert!(found.read.iter().any(|read| read == path), "{path:?} is not in {found:?}");
        }
        assert_eq!(found.read.len(), 4, "{found:?}");
        // one that is not there yet, or has faults, may be right later
        assert_eq!(of(here.join("absent.yml")).read, [here]);
        assert_eq!(around(Path::new("cameras.yml")).next().unwrap(), Path::new("."));
    }
}
