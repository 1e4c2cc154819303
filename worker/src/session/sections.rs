//! What each section of a peer connection is used for.
//!
//! Owns the table of one leg, from offer to offer, and the rules about when a section may change hands.
//! Pure. Invariants: a section is never bound to a second track before a completed answer had it
//! inactive (a browser tells its application of a new track only then), but for one that was promised to
//! a client which makes one offer; a section keeps its place.

use super::api::{MediaKind, TrackSid};
use super::codecs::Negotiated;
use super::once::Promise;
use super::sdp::{MediaType, Section};
use crate::forward::extension::Extension;

/// What a section carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Use {
    Idle,
    Application,
    /// From the client.
    Publishes(TrackSid),
    /// To the client.
    Subscribes(TrackSid),
    Rejected,
}

/// One section.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) mid: String,
    pub(crate) kind: Option<MediaKind>,
    pub(crate) used: Use,
    /// May be bound to a track in the next description.
    pub(crate) clean: bool,
    /// The client would receive on it.
    pub(crate) receivable: bool,
    /// It sends a track that was not announced.
    stray: bool,
    pub(crate) codecs: Vec<Negotiated>,
    pub(crate) extensions: Vec<(u8, Extension)>,
    /// Encodings that are taken of what it publishes; empty: it sends one, without a name.
    pub(crate) rids: Vec<String>,
    /// Ours while it subscribes: media and RTX.
    pub(crate) ssrcs: (u32, u32),
    /// Answered as sending for good, with these SSRCs, whatever it carries.
    pub(crate) promise: Option<Promise>,
}

impl Slot {
    pub(crate) fn new(mid: String, kind: Option<MediaKind>) -> Self {
        Slot {
            mid,
            kind,
            used: Use::Idle,
            clean: true,
            receivable: false,
            stray: false,
            codecs: Vec::new(),
            extensions: Vec::new(),
            rids: Vec::new(),
            ssrcs: (0, 0),
            promise: None,
        }
    }

    /// Could carry a new track of `kind` to the client.
    pub(crate) fn bindable(&self, kind: MediaKind) -> bool {
        let clean = self.clean || self.promise.is_some();
        self.kind == Some(kind) && self.used == Use::Idle && clean && self.receivable
    }

    /// Will be bindable after one more round.
    pub(crate) fn soon_bindable(&self, kind: MediaKind) -> bool {
        self.kind == Some(kind) && self.used == Use::Idle && self.receivable
    }
}

/// A leg's sections in order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) slots: Vec<Slot>,
    /// The client negotiated with another engine last, and perhaps more than we were told.
    adopted: bool,
}

/// What an offer changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Tracks that are (still) published, with their place.
    pub(crate) published: Vec<(TrackSid, usize)>,
    /// Tracks whose section stopped sending.
    pub(crate) ended: Vec<TrackSid>,
    /// Subscriptions that lost their section.
    pub(crate) unbound: Vec<TrackSid>,
}

/// The kind a section is of.
pub(crate) fn kind_of(section: &Section) -> Option<MediaKind> {
    match section.kind {
        MediaType::Audio => Some(MediaKind::Audio),
        MediaType::Video => Some(MediaKind::Video),
        MediaType::Application | MediaType::Other => None,
    }
}

impl Table {
    /// Goes on with what was negotiated elsewhere: nothing may be bound before the next round has shown it
    /// inactive.
    pub(crate) fn adopt(&mut self, mut slots: Vec<Slot>) {
        for slot in &mut slots {
            slot.clean = false;
        }
        self.slots = slots;
        self.adopted = true;
    }

    /// Takes an offer. `track_of` finds the announced track of a msid track id; a section that begins to
    /// send under an unknown id (Firefox makes one up) gets the first track of its kind in `announced` that
    /// no other section sends. Afterwards [`Self::bind`] may fill idle sections, and [`Self::complete`]
    /// closes the round.
    pub(crate) fn offer(
        &mut self,
        sections: &[Section],
        track_of: &dyn Fn(&str, MediaKind) -> Option<TrackSid>,
        announced: &[(TrackSid, MediaKind)],
    ) -> Changes {
        let mut changes = Changes::default();
        let mut claimed: Vec<TrackSid> = Vec::new();
        let mut nameless: Vec<(usize, MediaKind)> = Vec::new();
        let clean = !std::mem::take(&mut self.adopted);
        let fresh = |mid, kind| Slot {
            clean,
            ..Slot::new(mid, kind)
        };
        for (at, section) in sections.iter().enumerate() {
            let mid = section.mid.clone().unwrap_or_else(|| at.to_string());
            let kind = kind_of(section);
            match self.slots.get_mut(at) {
                // A stopped section may be taken over by a new one (RFC 8829 section 5.2.2).
                Some(slot) if slot.mid != mid || slot.kind != kind => {
                    let old = std::mem::replace(slot, fresh(mid, kind));
                    drop_use(old.used, &mut changes);
                }
                Some(_) => {}
                None => self.slots.push(fresh(mid, kind)),
            }
            let Some(slot) = self.slots.get_mut(at) else {
                continue;
            };
            let before = std::mem::replace(&mut slot.used, Use::Idle);
            slot.receivable = false;
            let stray = std::mem::take(&mut slot.stray);
            if section.kind == MediaType::Application {
                slot.used = if section.rejected() {
                    Use::Rejected
                } else {
                    Use::Application
                };
                continue;
            }
            let Some(kind) = kind.filter(|_| !section.rejected()) else {
                drop_use(before, &mut changes);
                slot.used = Use::Rejected;
                continue;
            };
            if section.direction.sends() {
                let named = section.track_ids.iter().find_map(|id| track_of(id, kind));
                let unknown = named.is_none();
                let sid = match (&before, named) {
                    (_, Some(sid)) if !claimed.contains(&sid) => Some(sid),
                    // The id of a section that already publishes may be unknown after a resume.
                    (Use::Publishes(sid), None) => Some(sid.clone()),
                    _ => None,
                };
                match sid {
                    Some(sid) => {
                        if before != Use::Publishes(sid.clone()) {
                            drop_use(before, &mut changes);
                        }
                        claimed.push(sid.clone());
                        changes.published.push((sid.clone(), at));
                        slot.used = Use::Publishes(sid);
                        slot.clean = false;
                    }
                    None => {
                        drop_use(before, &mut changes);
                        slot.stray = stray && unknown;
                        if unknown && !stray {
                            nameless.push((at, kind));
                        }
                    }
                }
                continue;
            }
            slot.receivable = section.direction.receives();
            match before {
                Use::Subscribes(sid) if slot.receivable => slot.used = Use::Subscribes(sid),
                other => drop_use(other, &mut changes),
            }
        }
        // Once all names are known: what a section says of itself comes first.
        for (at, kind) in nameless {
            let mut free = announced
                .iter()
                .filter(|(sid, of)| *of == kind && !claimed.contains(sid) && !changes.ended.contains(sid));
            let found = free.next().map(|(sid, _)| sid.clone());
            let Some(slot) = self.slots.get_mut(at) else {
                continue;
            };
            match found {
                Some(sid) => {
                    claimed.push(sid.clone());
                    changes.published.push((sid.clone(), at));
                    slot.used = Use::Publishes(sid);
                    slot.clean = false;
                }
                None => slot.stray = true,
            }
        }
        for slot in self.slots.iter_mut().skip(sections.len()) {
            // Not allowed by the rules of offers; treated as gone.
            let old = std::mem::replace(&mut slot.used, Use::Rejected);
            drop_use(old, &mut changes);
        }
        changes.ended.retain(|sid| !claimed.contains(sid));
        changes
    }

    /// Binds `sid` to the first section it may use.
    pub(crate) fn bind(&mut self, sid: &TrackSid, kind: MediaKind) -> Option<usize> {
        let at = self.slots.iter().position(|s| s.bindable(kind))?;
        let slot = self.slots.get_mut(at)?;
        slot.used = Use::Subscribes(sid.clone());
        slot.clean = false;
        Some(at)
    }

    /// The subscription ends: its section is idle from the next description on.
    pub(crate) fn unbind(&mut self, sid: &TrackSid) -> bool {
        match self
            .slots
            .iter_mut()
            .find(|s| matches!(&s.used, Use::Subscribes(x) if x == sid))
        {
            Some(slot) => {
                slot.used = Use::Idle;
                true
            }
            None => false,
        }
    }

    /// The published track was removed: its section is answered inactive from now on.
    pub(crate) fn unpublish(&mut self, sid: &TrackSid) {
        for slot in &mut self.slots {
            if matches!(&slot.used, Use::Publishes(x) if x == sid) {
                slot.used = Use::Idle;
            }
        }
    }

    /// The round is over: what was idle in it may be bound in the next.
    pub(crate) fn complete(&mut self) {
        for slot in &mut self.slots {
            if slot.used == Use::Idle {
                slot.clean = true;
            }
        }
    }

    /// Where a subscription is bound.
    pub(crate) fn bound(&self, sid: &TrackSid) -> Option<usize> {
        self.slots
            .iter()
            .position(|s| matches!(&s.used, Use::Subscribes(x) if x == sid))
    }

    /// Sections that could take a track of this kind now.
    pub(crate) fn ready(&self, kind: MediaKind) -> usize {
        self.slots.iter().filter(|s| s.bindable(kind)).count()
    }

    /// Sections of this kind, whatever they carry.
    pub(crate) fn of_kind(&self, kind: MediaKind) -> usize {
        self.slots.iter().filter(|s| s.kind == Some(kind)).count()
    }

    /// Sections that could take a track of this kind, now or after the next answer.
    pub(crate) fn idle(&self, kind: MediaKind) -> usize {
        self.slots.iter().filter(|s| s.soon_bindable(kind)).count()
    }
}

fn drop_use(used: Use, changes: &mut Changes) {
    match used {
        Use::Publishes(sid) => changes.ended.push(sid),
        Use::Subscribes(sid) => changes.unbound.push(sid),
        Use::Idle | Use::Application | Use::Rejected => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::sdp::parse;
    use super::*;

    fn offer(sections: &[(&str, &str)]) -> Vec<Section> {
        let mut text = "v=0\r\n".to_owned();
        for (i, (kind, rest)) in sections.iter().enumerate() {
            text += &format!("m={kind} 9 X 96\r\na=mid:{i}\r\na={rest}\r\n");
        }
        parse(&text).unwrap().sections
    }

    fn tracks(id: &str, _: MediaKind) -> Option<TrackSid> {
        id.strip_prefix("cid").map(|n| TrackSid::from(format!("TR_{n}")))
    }

    fn sid(s: &str) -> TrackSid {
        TrackSid::from(s)
    }

    #[test]
    fn placeholders_are_bound_and_released_only_through_inactive() {
        let mut t = Table::default();
        let o = offer(&[
            ("application", "sendrecv"),
            ("audio", "recvonly"),
            ("video", "recvonly"),
        ]);
        assert_eq!(t.offer(&o, &tracks, &[]), Changes::default());
        assert_eq!(t.bind(&sid("TR_a"), MediaKind::Audio), Some(1));
        assert_eq!(t.bind(&sid("TR_b"), MediaKind::Audio), None);
        t.complete();
        // Unsubscribed: not to be reused at once.
        assert!(t.unbind(&sid("TR_a")));
        t.offer(&o, &tracks, &[]);
        assert_eq!(
            t.bind(&sid("TR_b"), MediaKind::Audio),
            None,
            "still active in the last answer"
        );
        assert_eq!(t.idle(MediaKind::Audio), 1);
        t.complete();
        t.offer(&o, &tracks, &[]);
        assert_eq!(t.bind(&sid("TR_b"), MediaKind::Audio), Some(1));
    }

    #[test]
    fn what_was_negotiated_elsewhere_is_seen_inactive_before_it_is_used() {
        let mut t = Table::default();
        let mut mine = Slot::new("0".to_owned(), Some(MediaKind::Audio));
        mine.used = Use::Publishes(sid("TR_1"));
        t.adopt(vec![mine, Slot::new("1".to_owned(), Some(MediaKind::Audio))]);
        // The third section came to be after we were told.
        let o = offer(&[
            ("audio", "sendonly\r\na=msid:- unheard"),
            ("audio", "recvonly"),
            ("audio", "recvonly"),
        ]);
        assert_eq!(t.offer(&o, &tracks, &[]).published, vec![(sid("TR_1"), 0)]);
        assert_eq!(t.bind(&sid("TR_b"), MediaKind::Audio), None);
        assert_eq!(t.idle(MediaKind::Audio), 2);
        t.complete();
        t.offer(&o, &tracks, &[]);
        assert_eq!(t.bind(&sid("TR_b"), MediaKind::Audio), Some(1));
        assert_eq!(t.bind(&sid("TR_c"), MediaKind::Audio), Some(2));
    }

    #[test]
    fn a_track_is_published_and_ends_with_its_direction() {
        let mut t = Table::default();
        let o = offer(&[("audio", "sendonly\r\na=msid:- cid1")]);
        assert_eq!(t.offer(&o, &tracks, &[]).published, vec![(sid("TR_1"), 0)]);
        t.complete();
        // The id may change under a running section.
        let o = offer(&[("audio", "sendonly\r\na=msid:- other")]);
        assert_eq!(t.offer(&o, &tracks, &[]).published, vec![(sid("TR_1"), 0)]);
        let o = offer(&[("audio", "recvonly")]);
        assert_eq!(t.offer(&o, &tracks, &[]).ended, vec![sid("TR_1")]);
        assert_eq!(
            t.bind(&sid("TR_x"), MediaKind::Audio),
            None,
            "it was active a round ago"
        );
        t.complete();
        t.offer(&o, &tracks, &[]);
        assert_eq!(t.bind(&sid("TR_x"), MediaKind::Audio), Some(0));
        let o = offer(&[("audio", "inactive")]);
        assert_eq!(t.offer(&o, &tracks, &[]).unbound, vec![sid("TR_x")]);
    }

    #[test]
    fn a_moved_track_does_not_end() {
        let mut t = Table::default();
        t.offer(
            &offer(&[("video", "sendonly\r\na=msid:- cid1"), ("video", "inactive")]),
            &tracks,
            &[],
        );
        t.complete();
        let c = t.offer(
            &offer(&[("video", "inactive"), ("video", "sendonly\r\na=msid:- cid1")]),
            &tracks,
            &[],
        );
        assert_eq!((c.published, c.ended), (vec![(sid("TR_1"), 1)], vec![]));
    }

    #[test]
    fn a_section_under_a_made_up_id_gets_the_track_that_waits() {
        let mut t = Table::default();
        let named = [
            (sid("TR_a"), MediaKind::Audio),
            (sid("TR_1"), MediaKind::Video),
            (sid("TR_v"), MediaKind::Video),
        ];
        // The second names one itself, so the first gets the other; there is no third.
        let o = offer(&[
            ("video", "sendonly\r\na=msid:- {made-up}"),
            ("video", "sendonly\r\na=msid:- cid1"),
            ("video", "sendonly\r\na=msid:- {another}"),
        ]);
        let mut published = t.offer(&o, &tracks, &named).published;
        published.sort_by_key(|(_, at)| *at);
        assert_eq!(published, vec![(sid("TR_v"), 0), (sid("TR_1"), 1)]);
        assert_eq!(t.slots[2].used, Use::Idle);
        t.complete();
        // One announced later is not what a section sent before.
        let later = [(sid("TR_1"), MediaKind::Video), (sid("TR_w"), MediaKind::Video)];
        let o = offer(&[
            ("video", "inactive"),
            ("video", "sendonly\r\na=msid:- cid1"),
            ("video", "sendonly\r\na=msid:- {another}"),
            ("video", "sendonly\r\na=msid:- {fresh}"),
        ]);
        let changes = t.offer(&o, &tracks, &later);
        assert_eq!(changes.ended, vec![sid("TR_v")]);
        assert_eq!(changes.published, vec![(sid("TR_1"), 1), (sid("TR_w"), 3)]);
    }

    #[test]
    fn a_track_that_ends_is_not_taken_for_the_one_that_begins() {
        let mut t = Table::default();
        let both = [(sid("TR_a"), MediaKind::Audio), (sid("TR_b"), MediaKind::Audio)];
        let o = offer(&[("audio", "sendonly\r\na=msid:- {a}"), ("audio", "inactive")]);
        t.offer(&o, &tracks, &both[..1]);
        t.complete();
        let o = offer(&[("audio", "inactive"), ("audio", "sendonly\r\na=msid:- {b}")]);
        let changes = t.offer(&o, &tracks, &both);
        assert_eq!(changes.ended, vec![sid("TR_a")]);
        assert_eq!(changes.published, vec![(sid("TR_b"), 1)]);
    }

    #[test]
    fn two_sections_cannot_claim_one_track() {
        let mut t = Table::default();
        let both = [
            ("video", "sendonly\r\na=msid:- cid1"),
            ("video", "sendonly\r\na=msid:- cid1"),
        ];
        assert_eq!(t.offer(&offer(&both), &tracks, &[]).published.len(), 1);
        assert_eq!(t.slots[1].used, Use::Idle);
    }
}
