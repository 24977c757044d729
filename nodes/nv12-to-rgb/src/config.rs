//! The settings, and the target that they name.

use millrace_detect::Model;
use millrace_frame::{Size, TensorDtype, TensorLayout};
use millrace_kernels::{Anchor, ChannelOrder, Fit, Rounding, Target, TargetError};
use millrace_node::{FilePath, Findings, GpuSettings};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Either `MODEL` alone, or `WIDTH_PX` and `HEIGHT_PX` and what else differs from the defaults.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Settings {
    /// Path of a `model.yml`. Size, layout, element type, colour order, scale, mean and fit are taken from it.
    #[serde(default)]
    #[schemars(extend("x-millrace-kind" = "path", "x-millrace-file" = "model"))]
    pub(crate) model: Option<FilePath>,
    /// Width of the tensor in pixels. Required where there is no `MODEL`.
    #[serde(default)]
    pub(crate) width_px: Option<u32>,
    /// Height of the tensor in pixels. Required where there is no `MODEL`.
    #[serde(default)]
    pub(crate) height_px: Option<u32>,
    /// Order of the axes. Default: `nchw`.
    #[serde(default)]
    pub(crate) layout: Option<Layout>,
    /// Type of the elements. Default: `f32`.
    #[serde(default)]
    pub(crate) dtype: Option<Dtype>,
    /// Order of the colour channels. Default: `rgb`.
    #[serde(default)]
    pub(crate) colour: Option<Colour>,
    /// Subtracted from the 0 to 255 sample. One number, or three with commas, in the order of `COLOUR`. Default: `0`.
    #[serde(default)]
    pub(crate) mean: Option<String>,
    /// Multiplied after `MEAN` is subtracted. One number, or three with commas, in the order of `COLOUR`. Default: `1`.
    #[serde(default)]
    pub(crate) scale: Option<String>,
    /// How the picture is fitted in. Default: `letterbox`.
    #[serde(default)]
    pub(crate) fit: Option<FitKind>,
    /// Position of a letterboxed picture in the tensor. Its size is rounded down for `top_left` (YOLOX) and to the
    /// nearest for `centre` (YOLOv5 and later). Default: `centre`.
    #[serde(default)]
    pub(crate) anchor: Option<AnchorKind>,
    /// Grey of the padding, 0 to 255. Default: `114`.
    #[serde(default)]
    pub(crate) pad: Option<u8>,
    /// One pass over the frame. With `false` the same work is done in separate passes over 8-bit RGB: the baseline of a comparison.
    #[serde(default = "yes")]
    pub(crate) fused: bool,
    /// With `FIT: crop`: the tensor's shorter side before the crop, in pixels, as 256 for a tensor of 224. Default: that side itself.
    #[serde(default)]
    pub(crate) resize_px: Option<u32>,
    /// The most frames, of all cameras, that are converted together. On a GPU they are one kernel launch.
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 32))]
    pub(crate) batch: u32,
    /// How long a frame waits for others to be converted with it, in milliseconds: until `BATCH` frames are there, or
    /// this time is over. With 0 no frame waits. Left out, a frame on a GPU waits up to 4 ms, but only if about six
    /// frames are expected in that time at their current rate.
    #[serde(default)]
    #[schemars(range(max = 10_000), extend("x-millrace-live" = true))]
    pub(crate) batch_wait_ms: Option<u32>,
    #[serde(flatten)]
    pub(crate) gpu: GpuSettings,
}

fn default_batch() -> u32 {
    16
}

fn yes() -> bool {
    true
}

/// `LAYOUT`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// Channel, row, column.
    Nchw,
    /// Row, column, channel.
    Nhwc,
}

/// `DTYPE`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dtype {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 8-bit unsigned, rounded and clamped.
    U8,
}

/// `COLOUR`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Colour {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// `FIT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FitKind {
    /// One scale for both axes; the rest is padding.
    Letterbox,
    /// Each axis fills the tensor.
    Stretch,
    /// The picture's middle fills the tensor, as classifiers are trained.
    Crop,
}

/// `ANCHOR`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnchorKind {
    /// In the middle.
    Centre,
    /// In the top left corner.
    TopLeft,
}

/// Why the settings name no target.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub(crate) enum SettingsError {
    #[error("neither MODEL nor WIDTH_PX and HEIGHT_PX are set; set MODEL to the path of a model.yml, or both sizes")]
    NoTarget,
    #[error("{name} is '{text}'; expected one number, or three with commas, as 0.5 or 123.7,116.3,103.5")]
    Numbers { name: &'static str, text: String },
    #[error("ANCHOR and PAD belong to FIT letterbox, but FIT is {0}; remove {1}")]
    NoLetterbox(&'static str, &'static str),
    #[error("RESIZE_PX belongs to FIT crop; remove it, or set FIT to crop")]
    NoCrop,
    #[error("{0}")]
    Model(#[from] millrace_detect::ModelError),
    #[error("{0}")]
    Target(#[from] TargetError),
}

impl SettingsError {
    /// The setting that it is about.
    fn setting(&self) -> &'static str {
        match self {
            Self::NoTarget | Self::Model(_) => "MODEL",
            Self::Numbers { name, .. } | Self::NoLetterbox(_, name) => name,
            Self::NoCrop | Self::Target(TargetError::Crop { .. }) => "RESIZE_PX",
            Self::Target(TargetError::Size(_)) => "WIDTH_PX",
            Self::Target(TargetError::Normalize { .. } | TargetError::HalfRange { .. }) => "SCALE",
        }
    }
}

impl Settings {
    /// Which of them exclude each other, or ask for no tensor. That the model can be read is for [`Self::target`].
    pub(crate) fn check(&self, findings: &mut Findings<'_>) {
        if self.model.is_some() {
            for name in self.explicit() {
                let why =
                    format!("MODEL and {name} are both set; {name} would contradict the model.yml: remove one of them");
                findings.refuse(name, why);
            }
        } else if let Err(why) = self.of_settings().and_then(|target| Ok(target.validate()?)) {
            findings.refuse(why.setting(), why);
        }
        if self.batch == 1 && self.batch_wait_ms.is_some_and(|ms| ms > 0) {
            findings.no_effect(&["BATCH_WAIT_MS"], "where BATCH is 1: no frame waits for another");
        }
    }

    /// `None` where nothing is set: as long as pays.
    pub(crate) fn batch_wait(&self) -> Option<Duration> {
        self.batch_wait_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    /// The tensor that the settings ask for; reads the `model.yml` where one is named.
    pub(crate) fn target(&self) -> Result<Target, SettingsError> {
        let target = match &self.model {
            Some(path) => Model::load(path)?.target(),
            None => self.of_settings()?,
        };
        target.validate()?;
        Ok(target)
    }

    /// The settings that describe the tensor by themselves.
    fn explicit(&self) -> impl Iterator<Item = &'static str> {
        [
            ("WIDTH_PX", self.width_px.is_some()),
            ("HEIGHT_PX", self.height_px.is_some()),
            ("LAYOUT", self.layout.is_some()),
            ("DTYPE", self.dtype.is_some()),
            ("COLOUR", self.colour.is_some()),
            ("MEAN", self.mean.is_some()),
            ("SCALE", self.scale.is_some()),
            ("FIT", self.fit.is_some()),
            ("ANCHOR", self.anchor.is_some()),
            ("PAD", self.pad.is_some()),
            ("RESIZE_PX", self.resize_px.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
    }

    fn of_settings(&self) -> Result<Target, SettingsError> {
        let (Some(width_px), Some(height_px)) = (self.width_px, self.height_px) else {
            return Err(SettingsError::NoTarget);
        };
        let kind = self.fit.unwrap_or(FitKind::Letterbox);
        let unpadded = match kind {
            FitKind::Letterbox => None,
            FitKind::Stretch => Some("stretch"),
            FitKind::Crop => Some("crop"),
        };
        let padding = [("ANCHOR", self.anchor.is_some()), ("PAD", self.pad.is_some())];
        if let (Some(word), Some((name, _))) = (unpadded, padding.iter().find(|(_, set)| *set)) {
            return Err(SettingsError::NoLetterbox(word, name));
        }
        if kind != FitKind::Crop && self.resize_px.is_some() {
            return Err(SettingsError::NoCrop);
        }
        let fit = match kind {
            FitKind::Letterbox => letterbox(match self.anchor {
                None | Some(AnchorKind::Centre) => Anchor::Centre,
                Some(AnchorKind::TopLeft) => Anchor::TopLeft,
            }),
            FitKind::Stretch => Fit::Stretch,
            FitKind::Crop => Fit::Crop { resize_px: self.resize_px.unwrap_or(width_px.min(height_px)) },
        };
        Ok(Target {
            size: Size::new(width_px, height_px),
            layout: match self.layout {
                None | Some(Layout::Nchw) => TensorLayout::Nchw,
                Some(Layout::Nhwc) => TensorLayout::Nhwc,
            },
            dtype: match self.dtype {
                None | Some(Dtype::F32) => TensorDtype::F32,
                Some(Dtype::F16) => TensorDtype::F16,
                Some(Dtype::U8) => TensorDtype::U8,
            },
            order: match self.colour {
                None | Some(Colour::Rgb) => ChannelOrder::Rgb,
                Some(Colour::Bgr) => ChannelOrder::Bgr,
            },
            mean: numbers("MEAN", self.mean.as_deref().unwrap_or("0"))?,
            scale: numbers("SCALE", self.scale.as_deref().unwrap_or("1"))?,
            fit,
            pad: self.pad.unwrap_or(114),
        })
    }
}

/// The rounding of the placed size that the anchor's family of detectors trains with.
fn letterbox(anchor: Anchor) -> Fit {
    let rounding = match anchor {
        Anchor::TopLeft => Rounding::Down,
        Anchor::Centre => Rounding::Nearest,
    };
    Fit::Letterbox { anchor, rounding }
}

/// One number for all channels, or one for each.
fn numbers(name: &'static str, text: &str) -> Result<[f32; 3], SettingsError> {
    let wrong = || SettingsError::Numbers { name, text: text.to_owned() };
    let values: Vec<f32> =
        text.split(',').map(|part| part.trim().parse::<f32>()).collect::<Result<_, _>>().map_err(|_| wrong())?;
    match values[..] {
        [one] => Ok([one; 3]),
        [first, second, third] => Ok([first, second, third]),
        _ => Err(wrong()),
    }
}
