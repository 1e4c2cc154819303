//! What is sent in a meeting: `spec.media`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::yes;
use crate::quantity::BitRate;

/// Codecs and rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.codecs) || size(self.codecs) == 0 || self.codecs.exists(c, c == 'Opus')")
        .message("media.codecs without Opus leaves the meeting without sound; add Opus, or remove the list to allow every codec")
)]
pub struct Media {
    /// Codecs that may be published. Empty: all the worker can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6), extend("x-kubernetes-list-type" = "set"))]
    pub codecs: Vec<Codec>,
    /// Publishers send several sizes of their camera, receivers get what fits them; otherwise the largest
    /// alone. Holds for what is published from then on, as does the rest of this but `speakers`.
    #[serde(default = "yes")]
    pub simulcast: bool,
    /// Upper bound of the video that one participant publishes, told to its client. Left out: no bound but
    /// the network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bitrate: Option<BitRate>,
    /// Sound.
    #[serde(default)]
    pub audio: Audio,
    /// End-to-end encryption.
    #[serde(default)]
    pub e2ee: EndToEndEncryption,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            codecs: Vec::new(),
            simulcast: true,
            max_bitrate: None,
            audio: Audio::default(),
            e2ee: EndToEndEncryption::default(),
        }
    }
}

/// A codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Codec {
    /// Opus.
    Opus,
    /// VP8.
    VP8,
    /// VP9.
    VP9,
    /// H.264.
    H264,
    /// H.265.
    H265,
    /// AV1.
    AV1,
}

impl Codec {
    /// The name as in the workers' contract.
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::VP8 => "vp8",
            Self::VP9 => "vp9",
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::AV1 => "av1",
        }
    }
}

/// Sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audio {
    /// Redundant audio: each packet repeats the one before, so that loss is not heard.
    #[serde(default = "yes")]
    pub red: bool,
    /// Send next to nothing in silence.
    #[serde(default = "yes")]
    pub dtx: bool,
    /// Whom everybody hears where many microphones are on. Left out: as the workers of the pool are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speakers: Option<Speakers>,
}

impl Default for Audio {
    fn default() -> Self {
        Self {
            red: true,
            dtx: true,
            speakers: None,
        }
    }
}

/// Which microphones are forwarded. A shared screen, stereo, and what is published without DTX (music,
/// interpreters) is always heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Speakers {
    /// So many, the loudest. 0: all.
    #[serde(default = "default_speakers")]
    #[schemars(range(min = 0, max = 50))]
    pub max: u32,
    /// Where fewer microphones of others than this are on, all are.
    #[serde(default = "default_speakers_from")]
    #[schemars(range(min = 0, max = 10_000))]
    pub from: u32,
}

const fn default_speakers() -> u32 {
    3
}

const fn default_speakers_from() -> u32 {
    10
}

/// End-to-end encryption: frames pass the worker as they are, keys never reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndToEndEncryption {
    /// Only encrypted tracks may be published.
    #[serde(default)]
    pub required: bool,
    /// Chat and other data between participants must be encrypted too. What clients say to the server,
    /// such as requests about breakout rooms, is exempt.
    #[serde(default)]
    pub required_for_data: bool,
}
