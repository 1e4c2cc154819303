//! One published track.
//!
//! Owns what is known of a track from its announcement to its end, and the `TrackInfo` clients see.
//! Invariant: `live` is set exactly once, when media has bound the track to a section.

use std::collections::BTreeSet;
use std::time::Duration;

use livekit_protocol as lk;

use super::limits;
use super::spec::Publishing;
use crate::session::api::{AudioOptions, MediaKind, Quality, SessionId, TrackSid};

/// A track, announced or live.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    pub(super) sid: TrackSid,
    pub(super) kind: MediaKind,
    /// The msid track ids it may show up under; the first is the announced one.
    pub(super) cids: Vec<String>,
    pub(super) info: lk::TrackInfo,
    pub(super) live: bool,
    /// Muted by a moderator: the publisher can't undo it.
    pub(super) censored: bool,
    pub(super) subscribers: BTreeSet<SessionId>,
    /// The publisher was told of its first subscriber.
    pub(super) announced_subscribed: bool,
    /// Layers that subscribers want, as last told to the publisher.
    pub(super) told_highest: Option<Option<Quality>>,
    /// Since when less is wanted than was told.
    pub(super) lower_since: Option<Duration>,
}

/// Why an announcement can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrackError {
    #[error("the track's type is neither audio nor video")]
    Kind,
    #[error("a text or list of the announcement is too long")]
    TooLong,
    #[error("the announcement has no cid")]
    NoCid,
}

impl Track {
    /// From AddTrack.
    pub(super) fn announced(sid: TrackSid, request: &lk::AddTrackRequest) -> Result<Self, TrackError> {
        let kind = match lk::TrackType::try_from(request.r#type) {
            Ok(lk::TrackType::Audio) => MediaKind::Audio,
            Ok(lk::TrackType::Video) => MediaKind::Video,
            _ => return Err(TrackError::Kind),
        };
        check_lengths(request)?;
        let mut cids = Vec::new();
        if !request.cid.is_empty() {
            cids.push(request.cid.clone());
        }
        for codec in &request.simulcast_codecs {
            if !codec.cid.is_empty() && !cids.contains(&codec.cid) {
                cids.push(codec.cid.clone());
            }
        }
        if cids.is_empty() {
            return Err(TrackError::NoCid);
        }
        let mut codecs: Vec<lk::SimulcastCodecInfo> = request
            .simulcast_codecs
            .iter()
            .map(|c| codec_info(c, kind, request))
            .collect();
        if codecs.is_empty() && kind == MediaKind::Video {
            // Clients from before codec negotiation say only the layers.
            codecs.push(lk::SimulcastCodecInfo {
                cid: request.cid.clone(),
                layers: request.layers.clone(),
                ..Default::default()
            });
        }
        #[allow(deprecated, reason = "older clients still read and send the old fields")]
        let info = lk::TrackInfo {
            sid: sid.to_string(),
            r#type: request.r#type,
            name: request.name.clone(),
            muted: request.muted,
            width: request.width,
            height: request.height,
            simulcast: request.layers.len() > 1,
            disable_dtx: request.disable_dtx,
            source: request.source,
            layers: request.layers.clone(),
            mime_type: codecs.first().map(|c| c.mime_type.clone()).unwrap_or_default(),
            codecs,
            stereo: request.stereo,
            disable_red: request.disable_red,
            encryption: request.encryption,
            stream: if request.stream.is_empty() {
                stream_of(request.source).to_owned()
            } else {
                request.stream.clone()
            },
            audio_features: audio_features(request),
            backup_codec_policy: request.backup_codec_policy,
            packet_trailer_features: request.packet_trailer_features.clone(),
            ..Default::default()
        };
        Ok(Self {
            sid,
            kind,
            cids,
            info,
            live: false,
            censored: false,
            subscribers: BTreeSet::new(),
            announced_subscribed: false,
            told_highest: None,
            lower_since: None,
        })
    }

    /// A further codec of the same track: AddTrack with its sid.
    pub(super) fn add_codec(&mut self, request: &lk::AddTrackRequest) -> Result<Vec<String>, TrackError> {
        check_lengths(request)?;
        let mut added = Vec::new();
        for codec in &request.simulcast_codecs {
            if self.info.codecs.len() >= limits::TRACK_LAYERS {
                return Err(TrackError::TooLong);
            }
            let info = codec_info(codec, self.kind, request);
            match self
                .info
                .codecs
                .iter_mut()
                .find(|c| !c.mime_type.is_empty() && c.mime_type == info.mime_type)
            {
                Some(known) => known.cid.clone_from(&info.cid),
                None => self.info.codecs.push(info),
            }
            if !codec.cid.is_empty() && !self.cids.contains(&codec.cid) {
                self.cids.push(codec.cid.clone());
                added.push(codec.cid.clone());
            }
        }
        if !request.cid.is_empty() && !self.cids.contains(&request.cid) {
            self.cids.push(request.cid.clone());
            added.push(request.cid.clone());
        }
        Ok(added)
    }

    /// Media has bound it.
    pub(super) fn set_live(&mut self, mid: String, mime_type: String, simulcast: bool) {
        self.live = true;
        #[allow(deprecated, reason = "older clients still read and send the old fields")]
        {
            self.info.simulcast = simulcast;
        }
        if let Some(codec) = self.info.codecs.first_mut() {
            codec.mid.clone_from(&mid);
            codec.mime_type.clone_from(&mime_type);
        } else {
            self.info.codecs.push(lk::SimulcastCodecInfo {
                mime_type: mime_type.clone(),
                mid: mid.clone(),
                cid: self.cids.first().cloned().unwrap_or_default(),
                ..Default::default()
            });
        }
        self.info.mid = mid;
        self.info.mime_type = mime_type;
    }

    /// The picture has another size: that of the layers changes with it.
    pub(super) fn resize(&mut self, width: u32, height: u32) {
        let (old, new) = (self.short_side(), width.min(height));
        self.info.width = width;
        self.info.height = height;
        let turned = |layer: &lk::VideoLayer| (layer.width < layer.height) != (width < height);
        let scaled = |side: u32| {
            let side = u64::from(side) * u64::from(new) / u64::from(old.max(1));
            u32::try_from(side).unwrap_or(u32::MAX)
        };
        #[allow(deprecated, reason = "older clients still read and send the old fields")]
        let old_field = &mut self.info.layers;
        let layers = self.info.codecs.iter_mut().flat_map(|codec| &mut codec.layers);
        for layer in layers.chain(old_field).filter(|l| l.width > 0 && l.height > 0) {
            if turned(layer) {
                std::mem::swap(&mut layer.width, &mut layer.height);
            }
            if old > 0 && new > 0 {
                (layer.width, layer.height) = (scaled(layer.width), scaled(layer.height));
            }
        }
    }

    /// Pictures of a screen.
    pub(super) fn is_shared_screen(&self) -> bool {
        self.kind == MediaKind::Video && self.info.source == lk::TrackSource::ScreenShare as i32
    }

    fn short_side(&self) -> u32 {
        self.info.width.min(self.info.height)
    }

    /// Layers of the first codec, which is the one that is forwarded.
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    pub(super) fn layers(&self) -> &[lk::VideoLayer] {
        match self.info.codecs.first() {
            Some(codec) if !codec.layers.is_empty() => &codec.layers,
            _ => &self.info.layers,
        }
    }

    /// The lowest layer that fills `width` x `height`, or the highest there is.
    pub(super) fn layer_for(&self, width: u32, height: u32) -> Quality {
        // A picture is compared by its short side: an element's other side may be cropped or barred.
        let portrait = self.info.width < self.info.height;
        let wanted = if portrait { width } else { height };
        let size_of = |quality: Quality| {
            let number = quality as i32;
            let layer = self.layers().iter().find(|l| l.quality == number)?;
            Some(match layer.width.min(layer.height) {
                // Each layer has twice the size of the one below where nothing else is said.
                0 => self.short_side() >> (Quality::High as i32 - number),
                size => size,
            })
        };
        let mut best = Quality::High;
        for quality in [Quality::Medium, Quality::Low] {
            let Some(size) = size_of(quality) else { continue };
            // A tenth too small is not seen, and the next layer costs four times as much.
            if size == 0 || u64::from(size) * 10 < u64::from(wanted) * 9 {
                break;
            }
            // Of two layers of one size the higher one has more frames.
            if size_of(best) != Some(size) {
                best = quality;
            }
        }
        best
    }

    /// What was announced of its sound, as far as the room wants it so.
    pub(super) fn audio(&self, wanted: &Publishing) -> AudioOptions {
        let info = &self.info;
        let has = |feature: lk::AudioTrackFeature| info.audio_features.contains(&(feature as i32));
        let stereo = has(lk::AudioTrackFeature::TfStereo);
        let pauses = !has(lk::AudioTrackFeature::TfNoDtx);
        let microphone = matches!(
            lk::TrackSource::try_from(info.source),
            Ok(lk::TrackSource::Microphone | lk::TrackSource::Unknown)
        );
        AudioOptions {
            stereo,
            dtx: pauses && wanted.dtx,
            red: !info.disable_red && wanted.red,
            encrypted: info.encryption != lk::encryption::Type::None as i32,
            // Music, and what its client doesn't want cut in silence: whoever publishes so wants all of it
            // heard.
            one_of_many: microphone && pauses && !stereo,
        }
    }

    /// Short name of the codec announced for a msid track id, or of the first; empty = not announced.
    pub(super) fn codec_of(&self, cid: &str) -> String {
        let codecs = &self.info.codecs;
        let codec = codecs.iter().find(|c| c.cid == cid).or_else(|| codecs.first());
        codec.map(|c| short_name(&c.mime_type)).unwrap_or_default()
    }

    /// Short codec names, as `SubscribedCodec` carries them.
    pub(super) fn codec_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for codec in &self.info.codecs {
            let name = short_name(&codec.mime_type);
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn short_name(mime_type: &str) -> String {
    let name = mime_type.rsplit('/').next().unwrap_or_default();
    name.to_ascii_lowercase()
}

fn check_lengths(request: &lk::AddTrackRequest) -> Result<(), TrackError> {
    let texts = [&request.cid, &request.name, &request.stream];
    let too_long = texts.iter().any(|t| t.len() > limits::TRACK_TEXT)
        || request.layers.len() > limits::TRACK_LAYERS
        || request.simulcast_codecs.len() > limits::TRACK_LAYERS
        || request.simulcast_codecs.iter().any(|c| {
            c.layers.len() > limits::TRACK_LAYERS
                || c.cid.len() > limits::TRACK_TEXT
                || c.codec.len() > limits::TRACK_TEXT
        })
        || request.audio_features.len() > 32
        || request.packet_trailer_features.len() > 32;
    if too_long {
        Err(TrackError::TooLong)
    } else {
        Ok(())
    }
}

fn codec_info(
    codec: &lk::SimulcastCodec,
    kind: MediaKind,
    request: &lk::AddTrackRequest,
) -> lk::SimulcastCodecInfo {
    lk::SimulcastCodecInfo {
        mime_type: mime_type(&codec.codec, kind),
        cid: codec.cid.clone(),
        layers: if codec.layers.is_empty() {
            request.layers.clone()
        } else {
            codec.layers.clone()
        },
        video_layer_mode: codec.video_layer_mode,
        ..Default::default()
    }
}

/// `vp8` or `video/VP8` to the form clients compare with.
fn mime_type(codec: &str, kind: MediaKind) -> String {
    if codec.is_empty() || codec.contains('/') {
        return codec.to_owned();
    }
    match kind {
        MediaKind::Audio => format!("audio/{}", codec.to_ascii_lowercase()),
        MediaKind::Video => format!("video/{}", codec.to_ascii_uppercase()),
    }
}

/// Tracks that belong together are played in step.
fn stream_of(source: i32) -> &'static str {
    match lk::TrackSource::try_from(source) {
        Ok(lk::TrackSource::Camera | lk::TrackSource::Microphone) => "camera",
        Ok(lk::TrackSource::ScreenShare | lk::TrackSource::ScreenShareAudio) => "screen_share",
        _ => "",
    }
}

fn audio_features(request: &lk::AddTrackRequest) -> Vec<i32> {
    let mut features = request.audio_features.clone();
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    for (set, feature) in [
        (request.stereo, lk::AudioTrackFeature::TfStereo),
        (request.disable_dtx, lk::AudioTrackFeature::TfNoDtx),
    ] {
        if set && !features.contains(&(feature as i32)) {
            features.push(feature as i32);
        }
    }
    features
}
