//! Passwords of cameras: from the environment, or from a file that nobody else can read.

use super::Password;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a password cannot be had. No message holds it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum SecretError {
    #[error(
        "password_env names the variable {name}, which is not set in the decoder's environment; export {name} before the graph starts"
    )]
    Unset { name: String },
    #[error("password_file '{}' cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("password_file '{}' has the mode {mode:04o}, so others may read or change it; chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "password_file '{}' belongs to the user with the number {owner}, and the decoder runs as {own}; chown it, or run as its owner",
        path.display()
    )]
    Owner { path: PathBuf, owner: u32, own: u32 },
    #[error("password_file '{}' holds {found}; one line with the password is expected", path.display())]
    Content { path: PathBuf, found: &'static str },
}

/// Longer than any password.
const LONGEST_BYTES: u64 = 4096;

/// The password: the variable's value, or the file's first line.
///
/// # Errors
/// The variable is not set; the file is absent, open to others, another user's, or holds no single line.
pub fn password(
    which: &Password,
    folder: &Path,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<String, SecretError> {
    match which {
        Password::Env(name) => variables(name).ok_or_else(|| SecretError::Unset { name: name.clone() }),
        Password::File(file) => from_file(folder.join(file)),
    }
}

fn from_file(path: PathBuf) -> Result<String, SecretError> {
    let unreadable = |path: PathBuf, cause| SecretError::Unreadable { path, cause };
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(cause) => return Err(unreadable(path, cause)),
    };
    // of the file that was opened: another one may have come under its name
    let meta = match file.metadata() {
        Ok(meta) => meta,
        Err(cause) => return Err(unreadable(path, cause)),
    };
    let content = |path, found| Err(SecretError::Content { path, found });
    if !meta.is_file() {
        return content(path, "no file");
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open { path, mode });
    }
    let (owner, own) = (meta.uid(), rustix::process::geteuid().as_raw());
    if own != owner {
        return Err(SecretError::Owner { path, owner, own });
    }
    if meta.len() > LONGEST_BYTES {
        return content(path, "more than 4096 bytes");
    }
    let mut text = String::new();
    if let Err(cause) = std::io::Read::read_to_string(&mut file, &mut text) {
        return Err(unreadable(path, cause));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => content(path, "nothing"),
        line if line.contains('\n') => content(path, "several lines"),
        line => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_comes_from_a_file_that_nobody_else_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let read = |name: &str| password(&Password::File(name.into()), dir.path(), &|_| None);
        write("good", "p@ss w%rd\n", 0o600);
        write("strict", "x", 0o400);
        assert_eq!(read("good").unwrap(), "p@ss w%rd");
        assert_eq!(read("strict").unwrap(), "x");
        write("group", "hunter2", 0o640);
        write("all", "hunter2", 0o604);
        write("empty", "\n", 0o600);
        write("two", "hunter2\nhunter3\n", 0o600);
        write("long", &"x".repeat(5000), 0o600);
        if rustix::process::geteuid().is_root() {
            write("other", "hunter2", 0o600);
            std::os::unix::fs::chown(dir.path().join("other"), Some(1), None).unwrap();
            let error = read("other").unwrap_err().to_string();
            assert!(error.contains("belongs to the user with the number 1, and the decoder runs as 0"), "{error}");
        } else {
            millrace_needs::skip_without("root", "a file of another user cannot be made");
        }
        for (name, says) in [
            ("group", "has the mode 0640, so others may read or change it; chmod 600 it"),
            ("all", "has the mode 0604"),
            ("empty", "holds nothing"),
            ("two", "holds several lines"),
            ("long", "holds more than 4096 bytes"),
            (".", "holds no file"),
            ("absent", "cannot be read: No such file"),
        ] {
            let error = read(name).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hunter"), "{name}: {error}");
        }
    }

    #[test]
    fn a_password_comes_from_the_environment() {
        let variables = |name: &str| (name == "PW").then(|| "secret".to_owned());
        let read = |name: &str| password(&Password::Env(name.to_owned()), Path::new("/"), &variables);
        assert_eq!(read("PW").unwrap(), "secret");
        assert!(read("PQ").unwrap_err().to_string().contains("PQ, which is not set"));
    }
}
