//! From the text of a cameras file to its cameras, with all that is wrong with it.

use super::{Camera, Cameras, Password, Source, address, id_fault};
use crate::dora::Shape;
use crate::fault::{Fault, Report};
use crate::model::{Located, check_keys, check_word, text_of};
use crate::settings::file_path;
use crate::yaml::{Data, Span, Yaml};
use std::collections::BTreeMap;

pub(super) const ROOT_KEYS: &[(&str, Shape)] = &[("cameras", Shape::List)];
pub(super) const CAMERA_KEYS: &[(&str, Shape)] = &[
    ("id", Shape::Text),
    ("url", Shape::Text),
    ("file", Shape::Text),
    ("enabled", Shape::Truth),
    ("transport", Shape::Text),
    ("user", Shape::Text),
    ("password_env", Shape::Text),
    ("password_file", Shape::Text),
    ("loop", Shape::Truth),
    ("target_fps", Shape::Number),
    ("weight", Shape::Number),
    ("matrix", Shape::Text),
    ("range", Shape::Text),
    ("orientation", Shape::Text),
    ("group", Shape::Text),
    ("size", Shape::Text),
];
pub(super) const TRANSPORTS: &[&str] = &["tcp", "udp"];
pub(super) const MATRICES: &[&str] = &["bt601", "bt709", "bt2020ncl"];
pub(super) const RANGES: &[&str] = &["limited", "full"];
pub(super) const ORIENTATIONS: &[&str] =
    &["auto", "none", "90", "180", "270", "mirror", "mirror_90", "mirror_180", "mirror_270"];
/// What a URL has and a file has not.
const OF_URLS: [&str; 4] = ["transport", "user", "password_env", "password_file"];
pub(super) const MOST: f64 = 1000.0;

/// More cameras than one graph can serve; a larger file is something else.
const LARGEST_BYTES: usize = 4 << 20;

/// Reads a cameras file, whose text the report has under this number. Nothing comes back where the file has a fault; the
/// report has them all.
pub fn read(text: &str, source: u16, report: &mut Report) -> Option<Cameras> {
    let before = report.errors();
    let cameras = read_all(text, source, report);
    (report.errors() == before).then_some(cameras)
}

fn read_all(text: &str, source: u16, report: &mut Report) -> Cameras {
    let mut found = Cameras::default();
    let start = Span { source, line: 1, column: 1, len: 0 };
    if text.len() > LARGEST_BYTES {
        report.push(Fault::error(start, "larger than 4 MiB: this is not a cameras file"));
        return found;
    }
    let root = match Yaml::parse_as(text, source) {
        Ok(root) => root,
        Err(error) => {
            report.push(Fault::error(error.span, error.what).fix_with(error.fix));
            return found;
        }
    };
    const FORM: &str = "cameras: [{ id: gate, url: rtsp://host/path }]";
    let Data::Map(entries) = &root.data else {
        let message = format!("a cameras file is a mapping with the key 'cameras', and this is {}", root.kind());
        report.push(Fault::error(root.span, message).fix(FORM));
        return found;
    };
    check_keys(entries, ROOT_KEYS, "a cameras file", report);
    let Some(list) = root.get("cameras") else {
        if !entries
            .iter()
            .any(|(key, _)| key.text().is_some_and(|key| crate::nearest::nearest(key, ["cameras"]).is_some()))
        {
            report.push(Fault::error(root.span, "the file has no list 'cameras'").fix(FORM));
        }
        return found;
    };
    if let Data::List(items) = &list.data {
        found.cameras.extend(items.iter().filter_map(|item| camera(item, report)));
    }
    check_ids(&found, report);
    found
}

fn check_ids(found: &Cameras, report: &mut Report) {
    let mut first: BTreeMap<&str, Span> = BTreeMap::new();
    for Camera { id, .. } in &found.cameras {
        match first.get(id.value.as_str()) {
            Some(earlier) => {
                let other = report.place_from(id.span, *earlier);
                let message = format!("two cameras have the id '{}'; the other is in {other}", id.value);
                report.push(Fault::error(id.span, message).fix("give each camera an id of its own"));
            }
            None => {
                first.insert(&id.value, id.span);
            }
        }
    }
}

fn camera(item: &Yaml, report: &mut Report) -> Option<Camera> {
    let Data::Map(entries) = &item.data else {
        let message = format!("a camera is a mapping with an 'id', and this is {}", item.kind());
        report.push(Fault::error(item.span, message).fix("- { id: gate, url: rtsp://host/path }"));
        return None;
    };
    let id = text_of(item, "id");
    let name = id.as_ref().map_or("a camera".to_owned(), |id| format!("camera '{}'", id.value));
    check_keys(entries, CAMERA_KEYS, &name, report);
    match &id {
        None if item.get("id").is_none() => {
            report.push(
                Fault::error(item.span, "this camera has no id").fix("add 'id: …', its name in metrics and keys"),
            );
        }
        Some(id) => {
            if let Some(fault) = id_fault(&id.value) {
                report.push(Fault::error(id.span, fault).fix("id: gate"));
            }
        }
        None => {}
    }
    let source = source(item, entries, &name, report);
    let word = |key: &str, allowed: &[&str], report: &mut Report| {
        let word = text_of(item, key);
        check_word(word.as_ref(), &format!("{key} of {name}"), allowed, report);
        word.map(|word| word.value)
    };
    let (transport, matrix, range) =
        (word("transport", TRANSPORTS, report), word("matrix", MATRICES, report), word("range", RANGES, report));
    let orientation = word("orientation", ORIENTATIONS, report);
    let target_fps = number(item, "target_fps", &name, report);
    let weight = number(item, "weight", &name, report).unwrap_or(1.0) as f32;
    let password = password(item, &name, report);
    let truth = |key: &str| text_of(item, key).map(|truth| truth.value == "true");
    Some(Camera {
        source: source?,
        transport,
        enabled: truth("enabled").unwrap_or(true),
        target_fps,
        weight,
        matrix,
        range,
        orientation,
        repeat: truth("loop"),
        user: text_of(item, "user").map(|user| user.value),
        password,
        group: text_of(item, "group").map(|group| group.value),
        size_px: size(item, &name, report),
        id: id?,
    })
}

fn source(item: &Yaml, entries: &[(Yaml, Yaml)], name: &str, report: &mut Report) -> Option<Located<Source>> {
    match (text_of(item, "url"), text_of(item, "file")) {
        (Some(url), None) => {
            if let Some(span) = item.get("loop").map(|value| value.span) {
                report.push(
                    Fault::error(span, format!("loop of {name} is for a file, and it has a url")).fix("leave loop out"),
                );
            }
            match address::check(&url.value) {
                Ok(address) => check_user(item, &url, address, name, report),
                Err((what, fix)) => report.push(Fault::error(url.span, format!("{name}: {what}")).fix_with(fix)),
            }
            Some(Located { span: url.span, value: Source::Url(url.value) })
        }
        (None, Some(file)) => {
            for (key, _) in entries {
                if let Some(of_url) = key.text().filter(|key| OF_URLS.contains(key)) {
                    let message = format!("{of_url} of {name} is for a url, and it has a file");
                    report.push(Fault::error(key.span, message).fix(format!("leave {of_url} out")));
                }
            }
            if file.value.contains("://") {
                let message = format!("file of {name} is a URL: '{}'", crate::redact::redact(&file.value));
                report.push(Fault::error(file.span, message).fix("url: …"));
            } else if file.value.trim().is_empty() {
                report.push(Fault::error(file.span, format!("file of {name} is empty")).fix("file: clip.mp4"));
            }
            Some(Located { span: file.span, value: Source::File(file.value) })
        }
        (Some(_), Some(file)) => {
            let message = format!("{name} has a url and a file; a camera has one of them");
            report.push(Fault::error(file.span, message).fix("keep one of them"));
            None
        }
        (None, None) => {
            // one that is misspelt or has no value was reported
            let meant =
                |key: &str| ["url", "file"].contains(&key) || crate::nearest::nearest(key, ["url", "file"]).is_some();
            if !entries.iter().any(|(key, _)| key.text().is_some_and(meant)) {
                let message = format!("{name} has neither a url nor a file: nothing says where its video comes from");
                report.push(Fault::error(item.span, message).fix("url: rtsp://host/path, or file: clip.mp4"));
            }
            None
        }
    }
}

fn check_user(item: &Yaml, url: &Located<String>, address: address::Address, name: &str, report: &mut Report) {
    if address.has_user
        && let Some(user) = item.get("user")
    {
        let message = format!("{name} has a user, and its url has one, too");
        report.push(Fault::error(user.span, message).fix("take the user out of the url"));
    } else if address.has_password {
        let message = format!("the url of {name} has a password in it, which everyone who can read the file can read");
        report.push(Fault::warning(url.span, message).fix("user: …, and password_env: … or password_file: …"));
    }
}

fn password(item: &Yaml, name: &str, report: &mut Report) -> Option<Located<Password>> {
    let (env, file) = (text_of(item, "password_env"), text_of(item, "password_file"));
    if let (Some(_), Some(file)) = (&env, &file) {
        let message = format!("{name} has password_env and password_file; one password is enough");
        report.push(Fault::error(file.span, message).fix("keep one of them"));
    }
    let found = match (env, file) {
        (Some(env), _) => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if env.value.is_empty()
                || !env.value.chars().all(is_name)
                || env.value.starts_with(|c: char| c.is_ascii_digit())
            {
                // it may be the password itself
                let message = format!("password_env of {name} is no variable's name; it names one, and has no '$'");
                report.push(Fault::error(env.span, message).fix("password_env: GATE_PASSWORD"));
            }
            Located { span: env.span, value: Password::Env(env.value) }
        }
        (None, Some(file)) => match file_path(&file.value) {
            Ok(path) => Located { span: file.span, value: Password::File(path) },
            Err(why) => {
                report.push(Fault::error(file.span, format!("password_file of {name}: {why}")));
                return None;
            }
        },
        (None, None) => return None,
    };
    if item.get("user").is_none() && item.get("url").is_some() {
        let message = format!("{name} has a password and no user");
        report.push(Fault::error(found.span, message).fix("user: …"));
    }
    Some(found)
}

/// `1280x720`.
fn size(item: &Yaml, name: &str, report: &mut Report) -> Option<(u32, u32)> {
    let given = text_of(item, "size")?;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=16384).contains(side));
    let read = given.value.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    if read.is_none() {
        let message =
            format!("size of {name} is '{}', which is not the width and height of its picture in pixels", given.value);
        report.push(Fault::error(given.span, message).fix("size: 1280x720"));
    }
    read
}

/// A number over 0; what is none at all was reported.
fn number(item: &Yaml, key: &str, name: &str, report: &mut Report) -> Option<f64> {
    let given = text_of(item, key)?;
    let number: f64 = given.value.parse().ok().filter(|number: &f64| number.is_finite())?;
    if number > 0.0 && number <= MOST {
        return Some(number);
    }
    let fix = match key {
        "target_fps" => "target_fps: 10; to read no frame at all, enabled: false",
        _ => "weight: 1",
    };
    let message = format!("{key} of {name} is {}, which is not a number over 0 and up to {MOST}", given.value);
    report.push(Fault::error(given.span, message).fix(fix));
    None
}
