//! `millrace model add`.

use super::check::{report, try_out};
use super::replace::Target;
use super::{New, picture};
use crate::Engine;
use millrace_detect::heads::{Guess, Recipe, Seen, Task, guesses, shape_text};
use millrace_detect::onnx::{Declared, declared};
use millrace_detect::{Model, Port, labels_of};
use millrace_frame::{Size, counted};
use std::collections::VecDeque;
use std::fmt::Write;
use std::path::Path;

/// The input that is a picture.
struct Input<'a> {
    port: &'a Port,
    layout: &'static str,
    size: Size,
}

/// Writes a description of the model file and tries it, and says in `out` what was seen, and what was assumed.
pub(super) fn add<E: Engine>(new: &New, out: &mut String) -> Result<(), String> {
    let file = new.onnx.display();
    let declared = declared(&new.onnx).map_err(|e| e.to_string())?;
    let input = input(&declared, new.size).map_err(|why| format!("'{file}': {why}"))?;
    let guesses = guesses(&seen(&declared, input.size).map_err(|why| format!("'{file}': {why}"))?);
    if guesses.is_empty() {
        let shown = |port: &Port| format!("'{}' {}", port.name, shape_text(port.shape.as_deref().unwrap_or_default()));
        let outputs: Vec<String> = declared.signature.outputs.iter().map(shown).collect();
        let is_open = |port: &Port| port.shape.as_ref().is_none_or(|shape| shape.iter().skip(1).any(Option::is_none));
        let open = if declared.signature.outputs.iter().any(is_open) {
            "; it leaves their extents open, which say what they are: export it for a fixed size (Ultralytics: dynamic=False)"
        } else {
            ""
        };
        return Err(format!(
            "'{file}': no head is known for its outputs {}{open}; docs/models.md lists the heads, and which export fits each",
            outputs.join(", ")
        ));
    }
    let picture = picture::load(new.picture.as_deref())?;
    let path = new.output.clone().unwrap_or_else(|| new.onnx.with_file_name("model.yml"));
    let drawn = path.with_extension("boxes.jpg");
    may_write(new, &path, &drawn)?;
    // what is there stays until another is known to be right
    let trying = path.with_file_name(format!(".{}.{}", std::process::id(), NAME_WHILE_TRYING));
    let named = |text: String| text.replace(&trying.display().to_string(), &path.display().to_string());
    let mut refused = String::new();
    let mut left: VecDeque<Guess> = guesses.into();
    while let Some(guess) = left.pop_front() {
        let (text, assumed) = describe(new, &declared, &input, &guess, &path)?;
        std::fs::write(&trying, &text).map_err(|e| format!("'{}' cannot be written: {e}", path.display()))?;
        let trial = try_out::<E>(&trying, &picture, &[]);
        match trial {
            Ok(trial) if trial.doubt.is_none() => {
                std::fs::rename(&trying, &path).map_err(|e| format!("'{}' cannot be written: {e}", path.display()))?;
                let _ = writeln!(out, "{} is written: head {}", path.display(), guess.head);
                for line in &assumed {
                    let _ = writeln!(out, "  not in the file: {line}");
                }
                return report(&trial, new.picture.as_deref(), picture, &drawn, out);
            }
            Ok(trial) => _ = write!(refused, "\nas {}: {}", guess.head, named(trial.doubt.unwrap_or_default())),
            Err(failed) => {
                let other = failed.scores().and_then(|scores| guess.with_scores(scores));
                if other.is_none() {
                    let why = names_beside(&guess, &trying).unwrap_or_else(|| named(failed.to_string()));
                    let _ = write!(refused, "\nas {}: {why}", guess.head);
                }
                other.into_iter().for_each(|other| left.push_front(other));
            }
        }
        let _ = std::fs::remove_file(&trying);
    }
    Err(format!("'{file}' can be read by no head that its outputs look like:{refused}"))
}

/// End of the name of a description that is being tried, beside the one that is to be written.
const NAME_WHILE_TRYING: &str = "trying.yml";

/// Whether the description and the picture can be written, before anything is computed.
fn may_write(new: &New, path: &Path, drawn: &Path) -> Result<(), String> {
    let mut read = vec![("the model file", new.onnx.as_path())];
    read.extend(new.labels.as_deref().map(|labels| ("the file of labels", labels)));
    read.extend(new.picture.as_deref().map(|picture| ("the picture that is read", picture)));
    let target = |path| Target { path, option: "--output", force: new.force, read: &read };
    target(path).is_for_a_description()?;
    if new.picture.is_some() { target(drawn).is_for_a_picture() } else { Ok(()) }
}

/// What to do about a description that names more or fewer classes than its outputs have room for.
fn names_beside(guess: &Guess, path: &Path) -> Option<String> {
    let (classes, names) = (guess.classes?, Model::load(path).ok()?.labels.len());
    (classes != names).then(|| {
        format!(
            "its outputs have room for {}, and {} given: give --labels a file of {}. \
             RF-DETR has a class more than it was trained on: its last line is 'none'",
            counted(classes, "class", "classes"),
            counted(names, "name is", "names are"),
            counted(classes, "line", "lines")
        )
    })
}

fn input(declared: &Declared, size: Option<(u32, u32)>) -> Result<Input<'_>, String> {
    let picture = |port: &&Port| port.shape.as_ref().is_some_and(|shape| shape.len() == 4);
    let port =
        declared.signature.inputs.iter().find(picture).ok_or("it has no input with four axes, so none for pictures")?;
    let shape = port.shape.as_deref().unwrap_or_default();
    let (layout, height, width) = match shape {
        [_, Some(3), height, width] => ("nchw", height, width),
        [_, height, width, Some(3)] => ("nhwc", height, width),
        _ => return Err(format!("its input '{}' {} has no axis of 3 colours", port.name, shape_text(shape))),
    };
    let of_file = |n: &Option<usize>| n.and_then(|n| u32::try_from(n).ok());
    // as Ultralytics writes it: [height, width]
    let said: Vec<u32> =
        declared.metadata.get("imgsz").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let of_exporter = match said[..] {
        [height, width] => Some((width, height)),
        _ => None,
    };
    let fixed = (of_file(width), of_file(height));
    if let Some((width, height)) = size.filter(|&(width, height)| {
        fixed.0.is_some_and(|fixed| fixed != width) || fixed.1.is_some_and(|fixed| fixed != height)
    }) {
        return Err(format!(
            "its input '{}' {} has a fixed size, which is not the {width}x{height} of --size; leave --size out, or export the \
             model for that size",
            port.name,
            shape_text(shape)
        ));
    }
    let (width_px, height_px) = fixed.0.zip(fixed.1).or(size).or(of_exporter).ok_or_else(|| {
        format!("its input '{}' {} leaves width and height open; give `--size 640x640`", port.name, shape_text(shape))
    })?;
    Ok(Input { port, layout, size: Size::new(width_px, height_px) })
}

/// What the outputs are by themselves and by what Ultralytics writes beside them.
fn seen(declared: &Declared, input: Size) -> Result<Seen<'_>, String> {
    let said = |key: &str| declared.metadata.get(key);
    let task = match said("task").map(String::as_str) {
        None => None,
        Some(task) => {
            Some(Task::ALL.iter().find(|(name, _)| *name == task).map(|(_, task)| *task).ok_or_else(|| {
                let known = Task::ALL.map(|(name, _)| name).join(", ");
                format!(
                    "its exporter says that its task is '{task}', which no head is for; there are heads for {known}"
                )
            })?)
        }
    };
    let keypoints: Option<(usize, usize)> = said("kpt_shape").and_then(|text| serde_json::from_str(text).ok());
    Ok(Seen { task, keypoints, ..Seen::shapes(&declared.signature.outputs, input) })
}

/// The names that Ultralytics writes: a Python dictionary of numbers and texts.
fn names(text: &str) -> Option<Vec<String>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let (mut names, mut rest) = (Vec::new(), inside.trim_start());
    while !rest.is_empty() {
        let (number, value) = rest.split_once(':')?;
        if number.trim().parse() != Ok(names.len()) {
            return None;
        }
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| "'\"".contains(*c))?;
        let (name, after) = value[1..].split_once(quote)?;
        names.push(name.to_owned());
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(names)
}

/// The text of `model.yml`, and what in it the file does not say.
fn describe(
    new: &New,
    declared: &Declared,
    input: &Input<'_>,
    guess: &Guess,
    path: &Path,
) -> Result<(String, Vec<String>), String> {
    let dtype = input.port.dtype.as_deref().unwrap_or("f32");
    let Recipe { colour, scaling, fit, others } = &guess.recipe;
    // a model that is given bytes scales them itself
    let scaling = if dtype == "u8" || scaling.is_empty() { String::new() } else { format!(", {scaling}") };
    let mut assumed = vec![format!(
        "how pictures are prepared, `colour: {colour}{scaling}` and `{}`, as models of this family are mostly trained",
        fit.replace('\n', ", ")
    )];
    if !others.is_empty() {
        assumed.push(format!("whether it is another model with such outputs: {others}"));
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let whole = |path: &Path| std::path::absolute(path).map_err(|e| format!("'{}': {e}", path.display()));
    // beside the description a file is named alone
    let from_there = |file: &Path| -> Result<String, String> {
        let (file, folder) = (whole(file)?, whole(path)?);
        let beside = folder.parent().and_then(|folder| file.strip_prefix(folder).ok()).map(Path::to_owned);
        Ok(quoted(&beside.unwrap_or(file).to_string_lossy()))
    };
    let of_file = declared.metadata.get("names").and_then(|text| names(text)).filter(|names| !names.is_empty());
    let list = |names: &[String]| format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "));
    let labels = match (&new.labels, of_file, guess.classes) {
        // the names themselves, so that the description can be moved
        (Some(file), ..) => list(&labels_of(file)?),
        (None, Some(names), _) => list(&names),
        (None, None, Some(n)) => {
            let whose =
                if n == 1 { "the name of its class".to_owned() } else { format!("the names of its {n} classes") };
            assumed.push(format!("{whose}: give --labels, or write them into 'labels'"));
            format!("[{}]", (0..n).map(|n| format!("class {n}")).collect::<Vec<_>>().join(", "))
        }
        (None, None, None) => {
            return Err(format!(
                "'{}' does not say how many classes it has, nor their names; give --labels with a text of one name a line",
                new.onnx.display()
            ));
        }
    };
    let name = new.onnx.file_stem().map_or("model".into(), |stem| stem.to_string_lossy());
    let Input { port, layout, size } = input;
    let text = format!(
        "schema: 1\nname: {}\nfile: {}\ninput: {{name: {}, width_px: {}, height_px: {}, layout: {layout}, dtype: {dtype}, \
         colour: {colour}{scaling}}}\n{fit}\nhead: {}\nlabels: {labels}\n",
        quoted(&name),
        from_there(&new.onnx)?,
        quoted(&port.name),
        size.width_px,
        size.height_px,
        guess.head,
    );
    Ok((text, assumed))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn the_names_of_an_exporter_are_a_python_dictionary() {
        let all = |text: &str| names(text).map(|names| names.join("|"));
        assert_eq!(
            all("{0: 'person', 1: 'traffic light', 2: \"driver's seat\"}").as_deref(),
            Some("person|traffic light|driver's seat")
        );
        assert_eq!(all("{}").as_deref(), Some(""));
        for wrong in ["", "person", "{1: 'a'}", "{0: a}", "{0: 'a'", "['a']", "{0 'a'}", "{0: 'a}"] {
            assert_eq!(all(wrong), None, "{wrong}");
        }
    }
}
