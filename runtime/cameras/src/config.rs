//! A camera as it is configured, and how its source is opened.

use millrace_graph::cameras::{Camera, Password, Source, password};
use millrace_graph::settings::file_path;
use millrace_ingest::{
    MatrixName, OrientationName, PacedSource, RangeName, SourceSettings, Transport, is_camera_url, redact_url,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where a camera's video comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An `rtsp://` or `http://` URL.
    Url(String),
    /// A file.
    File(String),
}

impl Origin {
    /// What a setting names: a URL where it is one, else a file.
    pub fn of(text: &str) -> Self {
        if is_camera_url(text) { Self::Url(text.to_owned()) } else { Self::File(text.to_owned()) }
    }
}

/// A camera as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its id.
    pub id: String,
    /// Where its video comes from.
    pub origin: Origin,
    /// It is to be read.
    pub enabled: bool,
    /// Most frames a second.
    pub target_fps: Option<f64>,
    /// Its share of a consumer that cannot serve all cameras.
    pub weight: f32,
    pub(crate) transport: Option<Transport>,
    pub(crate) repeat: Option<bool>,
    pub(crate) matrix: Option<MatrixName>,
    pub(crate) range: Option<RangeName>,
    pub(crate) orientation: Option<OrientationName>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
}

impl Config {
    /// A camera with this source and defaults for the rest.
    pub fn new(id: impl Into<String>, origin: Origin) -> Self {
        Self {
            id: id.into(),
            origin,
            enabled: true,
            target_fps: None,
            weight: 1.0,
            transport: None,
            repeat: None,
            matrix: None,
            range: None,
            orientation: None,
            user: None,
            password: None,
        }
    }

    /// A camera of a cameras file.
    pub(crate) fn of(camera: &Camera) -> Self {
        Self {
            id: camera.id.value.clone(),
            origin: match &camera.source.value {
                Source::Url(url) => Origin::Url(url.clone()),
                Source::File(file) => Origin::File(file.clone()),
            },
            enabled: camera.enabled,
            target_fps: camera.target_fps,
            weight: camera.weight,
            transport: parse_enum(camera.transport.as_deref()),
            repeat: camera.repeat,
            matrix: parse_enum(camera.matrix.as_deref()),
            range: parse_enum(camera.range.as_deref()),
            orientation: parse_enum(camera.orientation.as_deref()),
            user: camera.user.clone(),
            password: camera.password.as_ref().map(|password| password.value.clone()),
        }
    }

    /// Its source as messages may name it.
    pub(crate) fn redacted_source(&self) -> String {
        match &self.origin {
            Origin::Url(text) | Origin::File(text) => redact_url(text),
        }
    }

    pub(crate) fn is_url(&self) -> bool {
        matches!(self.origin, Origin::Url(_))
    }

    /// The change from this to `other` needs another opening of the source.
    pub(crate) fn reopens(&self, other: &Self) -> bool {
        let source = |config: &Self| {
            let Self { origin, transport, repeat, orientation, user, password, .. } = config.clone();
            (origin, transport, repeat, orientation, user, password)
        };
        source(self) != source(other)
    }

    /// What the user says of the camera, where the node's settings have this.
    pub(crate) fn source_settings(&self, node: &SourceSettings) -> SourceSettings {
        let mut source_settings = node.clone();
        source_settings.rtsp_transport = self.transport.unwrap_or(source_settings.rtsp_transport);
        source_settings.repeat = self.repeat.unwrap_or(source_settings.repeat);
        source_settings.matrix = self.matrix.or(source_settings.matrix);
        source_settings.range = self.range.or(source_settings.range);
        source_settings.orientation = self.orientation.unwrap_or(source_settings.orientation);
        source_settings
    }

    /// Opens the source, with the password as it is now.
    pub(crate) fn open(&self, node: &SourceSettings) -> Result<PacedSource, String> {
        self.open_at(&self.address()?, node)
    }

    /// Opens the source at its address.
    pub(crate) fn open_at(&self, address: &OsStr, node: &SourceSettings) -> Result<PacedSource, String> {
        PacedSource::open(address, &self.source_settings(node)).map_err(|e| e.to_string())
    }

    /// Where the source is, with the password as it is now.
    pub(crate) fn address(&self) -> Result<OsString, String> {
        let url = match &self.origin {
            Origin::File(file) => return file_path(file).map(PathBuf::into_os_string),
            Origin::Url(url) => url,
        };
        let Some(user) = &self.user else { return Ok(url.into()) };
        // what is no URL is refused by the one who opens it, in better words
        let Ok(mut with_user) = url::Url::parse(url) else { return Ok(url.into()) };
        let variables = |name: &str| std::env::var(name).ok();
        // nodes are started in the graph's folder
        let password = self.password.as_ref().map(|which| password(which, Path::new("."), &variables)).transpose();
        let password = password.map_err(|e| e.to_string())?;
        // what is no '%XX' yet becomes one; '%' itself is left alone by the URL's own rules
        let escaped = |text: &str| text.replace('%', "%25");
        let set = with_user.set_username(&escaped(user));
        let set = set.and_then(|()| with_user.set_password(password.as_deref().map(escaped).as_deref()));
        set.map_err(|()| {
            "the url cannot have a user; rtsp://host[:port]/path or http://host[:port]/path is expected".to_owned()
        })?;
        Ok(String::from(with_user).into())
    }
}

/// A name that the check of the file has let through.
fn parse_enum<T: DeserializeOwned>(name: Option<&str>) -> Option<T> {
    name.and_then(|name| serde_json::from_value(Value::from(name)).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_password_is_put_into_the_url_as_one_can_write_it_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pw");
        std::fs::write(&file, "p@ss/w%rd\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut config = Config::new("gate", Origin::Url("rtsp://cam:8554/live?x=1".into()));
        assert_eq!(config.address().unwrap(), "rtsp://cam:8554/live?x=1");
        config.user = Some("ad min".into());
        config.password = Some(Password::File(file.to_str().unwrap().into()));
        assert_eq!(config.address().unwrap(), "rtsp://ad%20min:p%40ss%2Fw%25rd@cam:8554/live?x=1");
        config.password = Some(Password::Env("MILLRACE_TEST_NO_SUCH_PASSWORD".into()));
        assert!(config.address().unwrap_err().contains("MILLRACE_TEST_NO_SUCH_PASSWORD, which is not set"));
    }

    #[test]
    fn every_name_that_the_check_lets_through_is_known_here() {
        let schema = millrace_graph::cameras::schema();
        let names = |key: &str| -> Vec<String> {
            let property = &schema["properties"]["cameras"]["items"]["properties"][key]["enum"];
            property.as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        assert!(names("transport").iter().all(|name| parse_enum::<Transport>(Some(name)).is_some()));
        assert!(names("matrix").iter().all(|name| parse_enum::<MatrixName>(Some(name)).is_some()));
        assert!(names("range").iter().all(|name| parse_enum::<RangeName>(Some(name)).is_some()));
        assert!(names("orientation").iter().all(|name| parse_enum::<OrientationName>(Some(name)).is_some()));
        assert_eq!(["transport", "matrix", "range", "orientation"].map(|key| names(key).len()), [2, 3, 2, 9]);
    }
}
