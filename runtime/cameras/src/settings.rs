//! The settings of every node that decodes cameras: whom it serves.

use crate::config::{Config, Origin};
use millrace_graph::cameras::{Choice, id_fault};
use millrace_graph::settings::file_path;
use millrace_ingest::{SourceSettings, redact_url};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Settings of every node that decodes cameras, to be flattened into its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct CameraSettings {
    /// What to decode, for one camera: a file, a folder of JPEG or PNG pictures, a `file:` URL or an `rtsp://` URL. MP4/MOV,
    /// Matroska/WebM, MPEG transport streams, AVI and byte streams, of H.264, H.265 and Motion JPEG, are recognized by their
    /// content.
    #[serde(default)]
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "source"))]
    pub source: Option<String>,
    /// In place of SOURCE, what to decode for several cameras: `id=file` or `id=rtsp://...`, with blanks or line ends
    /// in between. A file's path is absolute, or relative to the folder that the graph is started in.
    #[serde(default)]
    pub sources: Option<String>,
    /// In place of SOURCE, a cameras file, which lists the cameras with their fields. It may change while the node runs: cameras
    /// that are added, removed or changed in it come, go and change.
    #[serde(default)]
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-live" = true))]
    pub cameras: Option<String>,
    /// Of the cameras file, serve only the cameras of this group. By default all.
    #[serde(default)]
    pub group: Option<String>,
    /// Of the cameras file, serve only this part: `1/2` and `2/2` divide the cameras between two decoders. A camera's
    /// part follows from its id, so adding or removing a camera moves no other camera. By default all.
    #[serde(default)]
    pub part: Option<String>,
    /// The id of SOURCE's camera, which every frame carries. By default the node's id.
    #[serde(default)]
    pub camera: Option<String>,
    /// Files and folders that the decoder may read in its sandbox, in addition to those that its settings and the
    /// cameras file name when it starts: for cameras that are added later. A list with commas.
    #[serde(default)]
    pub sandbox_read: Option<String>,
    /// TCP ports that the decoder may connect to in its sandbox, in addition to those of its cameras when it starts:
    /// for cameras that are added to the cameras file later. A list with commas.
    #[serde(default = "default_ports")]
    pub sandbox_ports: String,
    /// How the sources are read.
    #[serde(flatten)]
    pub source_settings: SourceSettings,
}

/// Those that cameras have as they are delivered.
fn default_ports() -> String {
    "80,554,8080,8554".to_owned()
}

impl AsRef<Self> for CameraSettings {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Whom a node serves.
#[derive(Clone, Debug, PartialEq)]
pub enum Members {
    /// One camera: `SOURCE`.
    One(Config),
    /// Several that stay: `SOURCES`.
    Several(Vec<Config>),
    /// Those of a cameras file.
    File {
        /// The file.
        path: String,
        /// Which of them.
        choice: Choice,
    },
}

/// Why settings name no cameras.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unclear {
    /// The setting that is wrong.
    pub setting: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Unclear {
    fn new(setting: &'static str, why: impl Into<String>) -> Self {
        Self { setting, why: why.into() }
    }
}

impl CameraSettings {
    /// Whom the settings name.
    ///
    /// # Errors
    /// They name nobody, or by two settings at once.
    pub fn members(&self, node_id: &str) -> Result<Members, Unclear> {
        let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        // a file's name may have blanks at its ends
        let named = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let (source, sources, cameras) = (named(&self.source), given(&self.sources), named(&self.cameras));
        let named: Vec<&'static str> = [("SOURCE", &source), ("SOURCES", &sources), ("CAMERAS", &cameras)]
            .into_iter()
            .filter_map(|(name, value)| value.is_some().then_some(name))
            .collect();
        if let [first, second, ..] = named.as_slice() {
            let why = format!("{first} and {second} are both set; set one of SOURCE, SOURCES and CAMERAS");
            return Err(Unclear::new(second, why));
        }
        if given(&self.camera).is_some() && source.is_none() {
            let why = "CAMERA names the camera of SOURCE; in SOURCES and in a cameras file each has its id";
            return Err(Unclear::new("CAMERA", why));
        }
        let group = given(&self.group);
        if group.is_some() && cameras.is_none() {
            let why = "GROUP chooses cameras of the file that CAMERAS names, and CAMERAS is not set";
            return Err(Unclear::new("GROUP", why));
        }
        let part =
            given(&self.part).map(|part| part.parse()).transpose().map_err(|why: String| Unclear::new("PART", why))?;
        if part.is_some() && cameras.is_none() {
            let why = "PART chooses cameras of the file that CAMERAS names, and CAMERAS is not set";
            return Err(Unclear::new("PART", why));
        }
        match (source, sources, cameras) {
            (Some(source), ..) => {
                let camera = given(&self.camera).unwrap_or_else(|| node_id.to_owned());
                let id = checked(camera).map_err(|why| Unclear::new("CAMERA", why))?;
                Ok(Members::One(Config::new(id, Origin::of(&source))))
            }
            (_, Some(sources), _) => {
                several(&sources).map(Members::Several).map_err(|why| Unclear::new("SOURCES", why))
            }
            (.., Some(named)) => {
                let unclear = |why| Unclear::new("CAMERAS", why);
                let path = file_path(&named).map_err(unclear)?.into_os_string().into_string();
                let path =
                    path.map_err(|_| unclear(format!("CAMERAS is '{named}', whose name is not UTF-8; rename it")))?;
                Ok(Members::File { path, choice: Choice { group, part } })
            }
            (None, None, None) => {
                let why = "one of SOURCE (one camera), SOURCES (several, 'id=url ...') and CAMERAS (a cameras file) is required";
                Err(Unclear::new("SOURCE", why))
            }
        }
    }
}

fn checked(id: String) -> Result<String, String> {
    id_fault(&id).map_or(Ok(id), Err)
}

fn several(sources: &str) -> Result<Vec<Config>, String> {
    let mut seen = BTreeSet::new();
    let one = |text: &str| {
        let shown = redact_url(text);
        let split = text.split_once('=').filter(|(id, source)| !id.is_empty() && !source.is_empty());
        // without an id, the first '=' may be one of a URL's query
        let Some((id, source)) = split.filter(|(id, _)| !id.contains("://")) else {
            return Err(format!("'{shown}' in SOURCES is not 'id=file' or 'id=rtsp://...'"));
        };
        if !seen.insert(id.to_owned()) {
            return Err(format!("SOURCES names camera '{id}' twice; each needs an id of its own"));
        }
        Ok(Config::new(checked(id.to_owned())?, Origin::of(source)))
    };
    sources.split_whitespace().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> CameraSettings {
        let map: serde_json::Map<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        serde_json::from_value(map.into()).unwrap()
    }

    fn file(id: &str, path: &str) -> Config {
        Config::new(id, Origin::File(path.into()))
    }

    #[test]
    fn cameras_are_named_by_one_of_three_settings() {
        let of = |pairs: &[(&str, &str)]| settings(pairs).members("decode");
        assert_eq!(of(&[("SOURCE", "a.mp4")]).unwrap(), Members::One(file("decode", "a.mp4")));
        assert_eq!(of(&[("SOURCE", "a.mp4"), ("CAMERA", "x")]).unwrap(), Members::One(file("x", "a.mp4")));
        let url = Config::new("x", Origin::Url("rtsp://u:p@h/s?a=1&b=2".into()));
        assert_eq!(of(&[("SOURCE", " a.mp4 ")]).unwrap(), Members::One(file("decode", " a.mp4 ")));
        let two = of(&[("SOURCES", " x=rtsp://u:p@h/s?a=1&b=2\n\n y=b.mp4 ")]).unwrap();
        assert_eq!(two, Members::Several(vec![url, file("y", "b.mp4")]));
        let named = of(&[("CAMERAS", "cameras.yml"), ("GROUP", "a"), ("PART", "2/3")]).unwrap();
        let choice = Choice { group: Some("a".into()), part: "2/3".parse().ok() };
        assert_eq!(named, Members::File { path: "cameras.yml".into(), choice });
        let url = of(&[("CAMERAS", "file:///etc/my%20cameras.yml")]).unwrap();
        assert!(matches!(url, Members::File { path, .. } if path == "/etc/my cameras.yml"));
        for (pairs, says) in [
            (&[][..], "one of SOURCE (one camera), SOURCES"),
            (&[("SOURCE", " ")], "one of SOURCE"),
            (&[("SOURCE", "a"), ("SOURCES", "b=c")], "SOURCE and SOURCES are both set"),
            (&[("SOURCES", "b=c"), ("CAMERAS", "c.yml")], "SOURCES and CAMERAS are both set"),
            (&[("SOURCES", "a=b"), ("CAMERA", "x")], "CAMERA names the camera of SOURCE"),
            (&[("CAMERAS", "c.yml"), ("CAMERA", "x")], "CAMERA names the camera of SOURCE"),
            (&[("SOURCE", "a"), ("GROUP", "x")], "CAMERAS is not set"),
            (&[("SOURCES", "a=b"), ("PART", "1/2")], "PART chooses cameras of the file that CAMERAS names"),
            (&[("CAMERAS", "c.yml"), ("PART", "3/2")], "PART is '3/2', and a part of the cameras file is expected"),
            (&[("SOURCES", "a=b a=c")], "camera 'a' twice"),
            (&[("SOURCES", "a.mp4")], "'a.mp4' in SOURCES is not"),
            (&[("SOURCES", "=a.mp4")], "'=a.mp4' in SOURCES is not"),
            (&[("SOURCES", "a=")], "'a=' in SOURCES is not"),
            (&[("SOURCES", "rtsp://h/s?a=1")], "in SOURCES is not"),
            (&[("SOURCE", "a"), ("CAMERA", "x\u{7}")], "control character"),
        ] {
            let error = of(pairs).unwrap_err().why;
            assert!(error.contains(says), "{pairs:?}: {error}");
        }
        let error = of(&[("SOURCES", "rtsp://user:secret@h/s?a=1")]).unwrap_err().why;
        assert!(!error.contains("secret"), "{error}");
    }
}
