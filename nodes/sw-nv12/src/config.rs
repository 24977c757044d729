//! The settings of `sw-nv12`.

use millrace_cameras::CameraSettings;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `sw-nv12`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct Settings {
    #[serde(flatten)]
    pub(crate) cameras: CameraSettings,
}

impl AsRef<CameraSettings> for Settings {
    fn as_ref(&self) -> &CameraSettings {
        &self.cameras
    }
}
