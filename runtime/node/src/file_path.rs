//! Settings that name a file or a folder.

use millrace_graph::settings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The value of a setting that names a file or a folder: its name, or a `file:` URL, by
/// [`file_path`](settings::file_path). Every such setting has this type, so that a URL means the same everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(PathBuf);

impl TryFrom<String> for FilePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        settings::file_path(&text).map(Self)
    }
}

impl From<FilePath> for String {
    fn from(file: FilePath) -> Self {
        settings::file_text(&file)
    }
}

impl From<PathBuf> for FilePath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl JsonSchema for FilePath {
    fn schema_name() -> Cow<'static, str> {
        "FilePath".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_url_is_the_file_that_it_names() {
        let read = |text: &str| serde_json::from_value::<FilePath>(text.into()).map_err(|e| e.to_string());
        assert_eq!(&*read("a b%20.mp4").unwrap(), Path::new("a b%20.mp4"));
        assert_eq!(&*read("file:///tmp/a%20b.jsonl").unwrap(), Path::new("/tmp/a b.jsonl"));
        assert!(read("file://nas/a").unwrap_err().contains("the host 'nas'"));
        let odd = FilePath::from(PathBuf::from(OsString::from_vec(b"/caf\xe9 %/a".to_vec())));
        assert_eq!(serde_json::from_value::<FilePath>(serde_json::to_value(&odd).unwrap()).unwrap(), odd);
    }
}
