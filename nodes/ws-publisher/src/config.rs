//! The settings of `ws-publisher`.

use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Settings of `ws-publisher`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// IP address to listen on. With the default only this machine can connect. With `0.0.0.0` every machine of its
    /// networks can connect, and sees the pictures without a password.
    #[serde(default = "default_bind")]
    pub(crate) bind: String,
    /// TCP port to listen on. With 0 the system chooses a free port; the page's address has its number.
    #[serde(default = "default_port")]
    pub(crate) port: u16,
    /// Most WebSocket clients at a time. Each may hold about 36 MiB when it is slow.
    #[serde(default = "default_max_clients")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) max_clients: u32,
    /// Origins of web pages that may connect besides the node's own page, separated by commas; `*` for all.
    #[serde(default)]
    pub(crate) origins: String,
    /// Title of the page.
    #[serde(default = "default_title")]
    pub(crate) title: String,
    /// Quality of JPEG pictures, 1 to 100.
    #[serde(default = "default_jpeg_quality")]
    #[schemars(range(min = 1, max = 100), extend("x-millrace-live" = true))]
    pub(crate) jpeg_quality: u8,
    /// Most JPEG pictures a second, per camera; 0 for none.
    #[serde(default = "default_jpeg_fps")]
    #[schemars(range(min = 0.0, max = 1000.0), extend("x-millrace-live" = true))]
    pub(crate) jpeg_fps: f64,
}

impl Settings {
    /// The least time between two JPEG pictures of a camera; `None`: there are none.
    pub(crate) fn jpeg_every(&self) -> Option<Duration> {
        (self.jpeg_fps > 0.0).then(|| Duration::from_secs_f64(1.0 / self.jpeg_fps.max(0.001)))
    }
}

fn default_bind() -> String {
    "127.0.0.1".into()
}
fn default_port() -> u16 {
    8080
}
fn default_max_clients() -> u32 {
    32
}
fn default_title() -> String {
    "Millrace".into()
}
fn default_jpeg_quality() -> u8 {
    75
}
fn default_jpeg_fps() -> f64 {
    10.0
}
