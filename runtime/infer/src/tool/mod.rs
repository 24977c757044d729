//! `millrace model`: what a detector's program does beside being a node. It is done by the program that later computes the
//! model, so that what holds here holds there.

mod add;
mod check;
pub(crate) mod picture;
mod replace;

use crate::{Engine, InferNode};
use clap::Parser;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The first argument of a detector's program that is no node.
const VERB: &str = "--model";

#[derive(Parser)]
#[command(name = "millrace model", bin_name = "millrace model")]
enum Request {
    /// Try a model on a picture: does its file fit its description, and can its boxes be those of a picture?
    Check(Tried),
    /// Write the description of a model file, as far as the file says it, and try it.
    Add(New),
    /// Build the engine of a model before a graph starts, as its node would at the first start.
    Build(Ahead),
}

#[derive(clap::Args)]
struct Tried {
    /// The model's description, a model.yml file.
    model: PathBuf,
    /// A picture to try it on, a JPEG or PNG, that shows what the model finds.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Where the picture with the boxes drawn is written, a JPEG; by default beside the description.
    #[arg(long)]
    drawn: Option<PathBuf>,
    /// Write the picture over another that is there, and that no `millrace model` has drawn.
    #[arg(long)]
    force: bool,
    /// A setting of the detector, as in a graph's `env:`; for example PROVIDER=cuda. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    sets: Vec<Pair>,
}

#[derive(clap::Args)]
struct Ahead {
    /// The model's description, a model.yml file.
    model: PathBuf,
    /// A setting of the node as the graph has it; may be repeated. An engine is used by a node that has the same.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    sets: Vec<Pair>,
}

/// A setting's name and its value.
type Pair = (String, String);

fn pair(text: &str) -> Result<Pair, String> {
    let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    pair.ok_or_else(|| format!("'{text}' is no setting; write for example BATCH=8"))
}

#[derive(clap::Args)]
struct New {
    /// The model file.
    onnx: PathBuf,
    /// A picture to try it on, a JPEG or PNG, that shows what the model finds.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// A text with the names of the classes, one a line, where the file does not have them.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// Size of the input as 640x480, where the file leaves it open. One that the file fixes is refused.
    #[arg(long, value_parser = size)]
    size: Option<(u32, u32)>,
    /// Where the description is written; by default model.yml beside the file.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Write over a description, and a picture with boxes, that are there.
    #[arg(long)]
    force: bool,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides: Option<(u32, u32)> = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides
        .filter(|&(width, height)| width > 0 && height > 0)
        .ok_or_else(|| format!("'{text}' is no size; write for example 640x480"))
}

/// A detector's `main`: the node, or what `millrace model` asks.
pub fn main<E: Engine>() -> ExitCode {
    if std::env::args().nth(1).as_deref() != Some(VERB) {
        return millrace_node::main::<InferNode<E>>();
    }
    let mut out = String::new();
    let done = answer::<E>(std::env::args_os().skip(1), &mut out);
    // a reader that closes the pipe early has what it wanted
    let _ = std::io::Write::write_all(&mut std::io::stdout(), out.as_bytes());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("millrace model: {text}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Does what the arguments ask; the first is [`VERB`].
pub(crate) fn answer<E: Engine>(arguments: impl Iterator<Item = OsString>, out: &mut String) -> Result<(), String> {
    match Request::parse_from(arguments) {
        Request::Check(tried) => check::check::<E>(&tried, out),
        Request::Add(new) => add::add::<E>(&new, out),
        Request::Build(ahead) => build::<E>(ahead, out),
    }
}

fn build<E: Engine>(ahead: Ahead, out: &mut String) -> Result<(), String> {
    millrace_node::log_to_stderr(E::NAME, "info");
    let settings = settings::<E>(&ahead.model, &ahead.sets)?;
    // before a library is looked for
    millrace_detect::Model::load(&ahead.model).map_err(|e| e.to_string())?;
    let _ = writeln!(out, "{}", E::build(&settings).map_err(|e| e.to_string())?);
    Ok(())
}

/// The node's settings with this model, where `sets` are others of them: the values that a graph may have, and no others.
fn settings<E: Engine>(model: &Path, sets: &[Pair]) -> Result<E::Settings, String> {
    let model = ("MODEL".to_owned(), millrace_node::file_text(model));
    millrace_node::settings_from(&[sets, &[model]].concat())
}
