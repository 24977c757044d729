//! The settings of `nvdec-nv12`.

use millrace_ingest::{FeedSettings, redact_url};
use millrace_node::GpuSettings;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Settings of `nvdec-nv12`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Settings {
    /// What to decode, for one camera: a file or an `rtsp://` URL. MP4/MOV and Annex-B streams of H.264 and H.265 are told
    /// apart by their content.
    #[serde(default)]
    #[schemars(extend("x-millrace-kind" = "path"))]
    pub(crate) source: Option<String>,
    /// In place of SOURCE, what to decode for several cameras: `id=file` or `id=rtsp://...`, with blanks or line ends in
    /// between. A file's path is absolute, or from the folder that the graph is started in.
    #[serde(default)]
    pub(crate) sources: Option<String>,
    /// The id of SOURCE's camera, which every frame carries. By default the node's id.
    #[serde(default)]
    pub(crate) camera: Option<String>,
    /// The GPU, by its number among those that the process sees.
    #[serde(default)]
    pub(crate) device: u32,
    /// Give each picture out as soon as its place in presentation order is known. Otherwise up to four more are held back, so
    /// that the decoder is never without work.
    #[serde(default)]
    pub(crate) low_delay: bool,
    /// Where the frames are published.
    #[serde(default)]
    pub(crate) memory: Memory,
    /// In how many CUDA streams the cameras' work is queued: each camera's beside the others' (`per_camera`), or all in one
    /// row (`one`, the slower arm of a comparison).
    #[serde(default)]
    pub(crate) streams: Streams,
    #[serde(flatten)]
    pub(crate) feed: FeedSettings,
    #[serde(flatten)]
    pub(crate) gpu: GpuSettings,
}

/// Where the frames are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Memory {
    /// In the GPU's memory.
    #[default]
    Cuda,
    /// Copied to host memory: for consumers on the CPU, and the slower arm of a comparison.
    Host,
}

/// In how many CUDA streams the cameras' work is queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Streams {
    /// Each camera has one.
    #[default]
    PerCamera,
    /// All cameras share one.
    One,
}

/// A camera, and where its video comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) camera: String,
    pub(crate) source: String,
}

impl Settings {
    /// The cameras that the settings name.
    pub(crate) fn cameras(&self, node_id: &str) -> Result<Vec<Source>, String> {
        let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        match (given(&self.source), given(&self.sources)) {
            (Some(source), None) => {
                let camera = given(&self.camera).unwrap_or_else(|| node_id.to_owned());
                Ok(vec![Source { camera, source }])
            }
            (None, Some(_)) if given(&self.camera).is_some() => {
                Err("CAMERA names the camera of SOURCE; in SOURCES each has its id: 'id=url'".to_owned())
            }
            (None, Some(sources)) => several(&sources),
            (None, None) => {
                Err("one of SOURCE (one camera) and SOURCES (several, 'id=url ...') is required".to_owned())
            }
            (Some(_), Some(_)) => {
                Err("SOURCE and SOURCES are both set; set SOURCE for one camera, or SOURCES".to_owned())
            }
        }
    }
}

fn several(sources: &str) -> Result<Vec<Source>, String> {
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
        Ok(Source { camera: id.to_owned(), source: source.to_owned() })
    };
    sources.split_whitespace().map(one).collect()
}
