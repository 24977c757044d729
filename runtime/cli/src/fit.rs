//! Models that settings point to: that their descriptions can be read, and that a converter makes the tensor that the
//! detector behind it takes.

use millrace_detect::Model;
use millrace_detect::model::{Anchor, ChannelOrder, FitSpec, InputSpec};
use millrace_graph::Upstream;
use millrace_graph::check::{Checked, CheckedNode, From, place};
use millrace_graph::fault::Fault;
use millrace_graph::model::{Graph, Node};
use millrace_graph::settings::{FileUse, file_path};
use std::path::Path;

/// The tensor that a node makes or takes, in words.
#[derive(PartialEq)]
struct Tensor {
    shape: String,
    /// How a picture becomes it; what differs here gives wrong boxes and no error.
    picture: String,
}

/// Checks the models of a graph that has been checked otherwise. Paths count from `folder`.
pub(crate) fn check(checked: &mut Checked, folder: &Path) {
    let Some(graph) = checked.graph.take() else { return };
    if !graph.is_module {
        let faults = faults(&graph, &checked.nodes, folder);
        faults.into_iter().for_each(|fault| checked.report.push(fault));
    }
    checked.graph = Some(graph);
}

fn faults(graph: &Graph, nodes: &[CheckedNode], folder: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut models = Vec::new();
    for (node, checked) in graph.nodes.iter().zip(nodes) {
        let loaded = model_of(node, checked, folder);
        let model = match loaded {
            Some(Ok(model)) => Some(model),
            Some(Err(fault)) => {
                faults.push(fault);
                None
            }
            None => None,
        };
        models.push(model);
    }
    for (at, (node, checked)) in graph.nodes.iter().zip(nodes).enumerate() {
        let Some((setting, model)) = setting_of(checked).zip(models[at].as_ref()) else { continue };
        for input in &node.inputs {
            let Some(Upstream::Output { node: from, output }) = &input.upstream else { continue };
            let Some(from) = graph.nodes.iter().position(|other| other.id.value == *from) else { continue };
            if carries(&nodes[from], output) != Some("tensor") {
                continue;
            }
            let made = models[from].as_ref().map(tensor).or_else(|| stated(&nodes[from]));
            let (Some(made), taken) = (made, tensor(model)) else { continue };
            let (maker, taker) = (&nodes[from].id, &checked.id);
            let at = place(node, checked, setting);
            let differ = |made: &str, taken: &str| {
                format!("'{maker}' makes a tensor of {made}, and {} of '{taker}' takes {taken}", setting.key)
            };
            let fix = format!("give '{maker}' the same MODEL");
            if made.shape != taken.shape {
                faults.push(Fault::error(node.id.span, differ(&made.shape, &taken.shape)).at_location(at).fix(fix));
            } else if made.picture != taken.picture {
                let message = format!("{}: boxes will be wrong", differ(&made.picture, &taken.picture));
                faults.push(Fault::warning(node.id.span, message).at_location(at).fix(fix));
            }
        }
    }
    faults
}

/// The setting that names a model's description, where it names a file that is there.
fn setting_of(checked: &CheckedNode) -> Option<&millrace_graph::check::Effective> {
    checked.settings.iter().find(|setting| setting.file == Some(FileUse::Model))
}

fn model_of(node: &Node, checked: &CheckedNode, folder: &Path) -> Option<Result<Model, Fault>> {
    let setting = setting_of(checked)?;
    let value = setting.value.as_deref().filter(|value| !value.is_empty())?;
    let named = file_path(value).ok()?;
    let path = if setting.from == From::Set { named } else { folder.join(named) };
    // that it is not there was reported
    if !path.is_file() {
        return None;
    }
    let computes = carries_any(checked, "detections");
    let loaded = Model::load(&path).map_err(|error| error.to_string()).and_then(|model| {
        // who only prepares a model's input does not need its file
        let fits = if computes { model.check_file() } else { Ok(()) };
        fits.map(|()| model)
    });
    Some(loaded.map_err(|error| {
        let message = format!("{} does not describe a model that can be used:\n{error}", setting.key);
        Fault::error(node.id.span, message).at_location(place(node, checked, setting))
    }))
}

fn carries<'a>(checked: &'a CheckedNode, output: &str) -> Option<&'a str> {
    let port = checked.description.as_ref()?.outputs.iter().find(|port| port.name == output)?;
    Some(&port.carries)
}

fn carries_any(checked: &CheckedNode, kind: &str) -> bool {
    checked.description.as_ref().is_some_and(|is| is.outputs.iter().any(|port| port.carries == kind))
}

fn tensor(model: &Model) -> Tensor {
    let InputSpec { width_px, height_px, layout, dtype, order, .. } = &model.input;
    let colour = match order {
        ChannelOrder::Rgb => "rgb",
        ChannelOrder::Bgr => "bgr",
    };
    let fit = match model.fit {
        FitSpec::Stretch => "stretch".to_owned(),
        FitSpec::Crop { resize_px } => format!("crop of {resize_px}"),
        FitSpec::Letterbox { anchor: Anchor::Centre, pad } => format!("letterbox at centre with {pad}"),
        FitSpec::Letterbox { anchor: Anchor::TopLeft, pad } => format!("letterbox at top_left with {pad}"),
    };
    let [mean, scale] = [model.input.mean, model.input.scale].map(|of| of.map(|number| number.to_string()).join(","));
    Tensor {
        shape: format!("{width_px}x{height_px} {layout} {dtype}"),
        picture: format!("{colour}, mean {mean}, scale {scale}, {fit}"),
    }
}

/// What a converter makes by settings of its own, without a model.
fn stated(checked: &CheckedNode) -> Option<Tensor> {
    let value = |key: &str, default: &str| {
        let setting = checked.settings.iter().find(|setting| setting.described && setting.key == key);
        setting
            .and_then(|setting| setting.value.clone())
            .filter(|value| !value.is_empty())
            .unwrap_or(default.to_owned())
    };
    let (width, height) = (value("WIDTH_PX", ""), value("HEIGHT_PX", ""));
    if width.is_empty() || height.is_empty() {
        return None;
    }
    let three = |text: String| {
        let numbers: Vec<String> = text
            .split(',')
            .map(|part| part.trim().parse::<f32>().map_or_else(|_| part.to_owned(), |number| number.to_string()))
            .collect();
        if let [one] = numbers.as_slice() { [one.as_str(); 3].join(",") } else { numbers.join(",") }
    };
    let fit = match value("FIT", "letterbox").as_str() {
        "letterbox" => format!("letterbox at {} with {}", value("ANCHOR", "centre"), value("PAD", "114")),
        "crop" => {
            let side = width.parse::<u32>().ok().zip(height.parse::<u32>().ok()).map_or(0, |(w, h)| w.min(h));
            format!("crop of {}", value("RESIZE_PX", &side.to_string()))
        }
        other => other.to_owned(),
    };
    Some(Tensor {
        shape: format!("{width}x{height} {} {}", value("LAYOUT", "nchw"), value("DTYPE", "f32")),
        picture: format!(
            "{}, mean {}, scale {}, {fit}",
            value("COLOUR", "rgb"),
            three(value("MEAN", "0")),
            three(value("SCALE", "1"))
        ),
    })
}
