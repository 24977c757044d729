//! What a user says of a source: the same for every node that decodes.

use crate::{IngestOptions, RtspTransport};
use millrace_frame::{Colour, Matrix, Orientation, Range, Tagged};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Settings of every node that decodes, to be flattened into its own beside the names of its sources.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct SourceSettings {
    /// Frames per second of a byte stream, an AVI file or a folder of pictures. It overrides what the source states. By
    /// default what the source states, else 25. Sources with times of their own keep them: `frame_rate_ignored`.
    #[serde(default)]
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub frame_rate: Option<f64>,
    /// Play a file again and again; times and sequence numbers keep rising.
    #[serde(default, rename = "LOOP")]
    pub repeat: bool,
    /// How fast a file is played.
    #[serde(default)]
    pub pace: Pace,
    /// The source ends after this many pictures, also with `LOOP`. Left out, at its own end.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub frames: Option<u64>,
    /// What the frames are published as. `nv12` is what a decoder gives; `bgr24` converts each frame at its full size
    /// first, as programs do that know no YCbCr: the slow arm of a comparison.
    #[serde(default)]
    pub format: FrameFormat,
    /// The YCbCr matrix. It overrides the bitstream's.
    #[serde(default)]
    pub matrix: Option<MatrixName>,
    /// The sample range. It overrides the bitstream's.
    #[serde(default)]
    pub range: Option<RangeName>,
    /// How pictures are turned upright: first mirrored left to right, then turned clockwise by that many degrees.
    /// `auto` follows the file, and leaves a camera's pictures as they are.
    #[serde(default)]
    pub orientation: OrientationName,
    /// How a camera sends its packets.
    #[serde(default)]
    pub rtsp_transport: Transport,
    /// A camera without a picture for this long has stalled; the node connects to it again. By default 2500.
    #[serde(default)]
    #[schemars(range(min = 500, max = 60000))]
    pub stall_timeout_ms: Option<u32>,
}

/// What frames are published as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrameFormat {
    /// Luma, and chroma at half the size: 1.5 bytes a pixel of 8 bits.
    #[default]
    Nv12,
    /// Blue, green, red: 3 bytes a pixel.
    Bgr24,
}

/// How fast a file is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As fast as the graph takes the frames.
    #[default]
    Asfast,
    /// By its own times, as a camera would.
    Realtime,
}

/// A YCbCr matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatrixName {
    /// BT.601.
    Bt601,
    /// BT.709.
    Bt709,
    /// BT.2020, non-constant luminance.
    Bt2020ncl,
}

/// A sample range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RangeName {
    /// Luma 16 to 235.
    Limited,
    /// 0 to 255.
    Full,
}

/// What has to be done to pictures so that they are upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrientationName {
    /// What the file says.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// A quarter turn clockwise.
    #[serde(rename = "90")]
    Turn90,
    /// Half a turn.
    #[serde(rename = "180")]
    Turn180,
    /// A quarter turn counter-clockwise.
    #[serde(rename = "270")]
    Turn270,
    /// Left and right are exchanged.
    Mirror,
    /// The same, then a quarter turn clockwise.
    #[serde(rename = "mirror_90")]
    Mirror90,
    /// The same, then half a turn: top and bottom are exchanged.
    #[serde(rename = "mirror_180")]
    Mirror180,
    /// The same, then a quarter turn counter-clockwise.
    #[serde(rename = "mirror_270")]
    Mirror270,
}

impl OrientationName {
    /// What the user asks for; nothing where the file decides.
    fn asked(self) -> Option<Orientation> {
        Some(match self {
            Self::Auto => return None,
            Self::None => Orientation::Upright,
            Self::Turn90 => Orientation::Turn90,
            Self::Turn180 => Orientation::Turn180,
            Self::Turn270 => Orientation::Turn270,
            Self::Mirror => Orientation::Mirror,
            Self::Mirror90 => Orientation::Mirror90,
            Self::Mirror180 => Orientation::Mirror180,
            Self::Mirror270 => Orientation::Mirror270,
        })
    }
}

/// How RTSP packets travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// In the RTSP connection: nothing is lost on the way.
    #[default]
    Tcp,
    /// As datagrams.
    Udp,
}

impl SourceSettings {
    /// What concerns the source.
    pub fn options(&self) -> IngestOptions {
        let rtsp_transport = match self.rtsp_transport {
            Transport::Tcp => RtspTransport::Tcp,
            Transport::Udp => RtspTransport::Udp,
        };
        let stall_timeout = self.stall_timeout_ms.map(|ms| Duration::from_millis(u64::from(ms.clamp(500, 60_000))));
        IngestOptions {
            frame_rate: self.frame_rate,
            rtsp_transport,
            stall_timeout,
            orientation: self.orientation.asked(),
        }
    }

    /// The user's word over the bitstream's.
    pub fn override_colour(&self, colour: &mut Colour) {
        if let Some(matrix) = self.matrix {
            colour.matrix = Tagged::setting(match matrix {
                MatrixName::Bt601 => Matrix::Bt601,
                MatrixName::Bt709 => Matrix::Bt709,
                MatrixName::Bt2020ncl => Matrix::Bt2020Ncl,
            });
        }
        if let Some(range) = self.range {
            colour.range = Tagged::setting(match range {
                RangeName::Limited => Range::Limited,
                RangeName::Full => Range::Full,
            });
        }
    }
}
