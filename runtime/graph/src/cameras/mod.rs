//! A cameras file: whom a decoder serves. It is checked as a graph is: every fault at once, each with its place.
//!
//! ```yaml
//! cameras:
//!   - id: gate
//!     url: rtsp://10.0.0.11/stream1
//!     user: viewer
//!     password_env: GATE_PASSWORD
//!   - id: yard
//!     file: yard.mp4
//! ```

mod address;
mod choice;
mod read;
mod schema;
mod secret;

pub use choice::{Choice, Part};
pub use read::read;
pub use schema::schema;
pub use secret::{SecretError, password};

use crate::model::Located;
use std::path::PathBuf;

/// What is wrong with the URL of a camera, and how it is corrected.
pub(crate) fn address(url: &str) -> Result<(), (String, Option<String>)> {
    address::check(url).map(drop)
}

/// What a cameras file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cameras {
    /// Its cameras, in the order of the file, the disabled ones too.
    pub cameras: Vec<Camera>,
}

/// One camera of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// Its id, which every frame carries.
    pub id: Located<String>,
    /// Where its video comes from.
    pub source: Located<Source>,
    /// `tcp` or `udp`: how RTSP carries its packets. None: as the decoder's setting has it.
    pub transport: Option<String>,
    /// It is to be read.
    pub enabled: bool,
    /// Most frames a second that leave the decoder.
    pub target_fps: Option<f64>,
    /// Its share of a consumer that cannot serve all cameras, relative to the others'.
    pub weight: f32,
    /// The YCbCr matrix, over what the bitstream says.
    pub matrix: Option<String>,
    /// The sample range, over what the bitstream says.
    pub range: Option<String>,
    /// How its pictures are turned and mirrored to be upright. None: as the decoder's setting has it.
    pub orientation: Option<String>,
    /// A file is played again and again. None: as the decoder's setting has it.
    pub repeat: Option<bool>,
    /// The user of the URL.
    pub user: Option<String>,
    /// Where the user's password is.
    pub password: Option<Located<Password>>,
    /// The decoders with this `GROUP` serve it.
    pub group: Option<String>,
    /// The size of its picture, for the check's estimate of memory.
    pub size_px: Option<(u32, u32)>,
}

/// Where a camera's video comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An `rtsp://` or `http://` URL.
    Url(String),
    /// A file, from the folder that the graph is in.
    File(String),
}

/// Where a password is. It is never in the cameras file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// In this environment variable of the decoder.
    Env(String),
    /// In this file, from the folder that the graph is in.
    File(PathBuf),
}

impl Cameras {
    /// The cameras that a decoder serves.
    pub fn chosen(&self, choice: &Choice) -> impl Iterator<Item = &Camera> {
        self.cameras.iter().filter(|camera| choice.serves(camera))
    }
}

/// More than a camera's name; each metric, key and message carries it.
const LONGEST_ID_BYTES: usize = 128;

/// What is wrong with a camera's id; nothing where it can be one.
pub fn id_fault(id: &str) -> Option<String> {
    if id.is_empty() {
        return Some("a camera's id is empty".to_owned());
    }
    if id.trim() != id {
        return Some(format!("the camera's id '{id}' begins or ends with a blank"));
    }
    if let Some(bad) = id.chars().find(|c| c.is_control()) {
        return Some(format!("the camera's id {id:?} has the control character {bad:?} in it"));
    }
    (id.len() > LONGEST_ID_BYTES).then(|| format!("a camera's id is at most {LONGEST_ID_BYTES} bytes long"))
}
