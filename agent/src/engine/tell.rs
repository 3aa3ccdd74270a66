//! Telling: the view of this moment, signed and kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

use attestation::digest::Digest;
use attestation::statement::{Attestation, Difference};
use attestation::time::Timestamp;

use super::gaps::gap;
use super::group::{Compared, Group};
use super::{Engine, count};
use crate::actor::{Told as Sessions, user_name};
use crate::chain::{ChainError, Signed};
use crate::clock;
use crate::event::AgentEvent;
use crate::monitor::Event;
use crate::spool::{Appended, SpoolError};
use crate::statement::{Composed, Report, Seen, Told, compose};
use crate::status::ImageStatus;

impl Engine {
    /// The view to attest: of the image with the fewest differences.
    pub(super) fn nearest(&self, now: Timestamp) -> Option<(&Group, &Compared)> {
        self.groups
            .iter()
            .filter_map(|group| Some((group, group.nearest(now)?)))
            .min_by_key(|(_, compared)| compared.rank())
    }

    /// Signs a statement, if one may be signed now.
    pub(super) fn attest(&mut self, quiet: bool, goodbye: bool) {
        let now = Instant::now();
        let quiet = quiet && self.touched.is_empty() && !self.parts.attribution.has_news();
        if quiet && self.is_replaced_soon(now) {
            // As if it had been told: the next one is.
            self.monitor.event(now, Event::Attested);
            return;
        }
        if quiet && (self.parts.link.challenges(now) == 0 || self.parts.chain.quiet_waits()) {
            // Without a challenge it would make nobody fresh; it waits until it can.
            self.parts.link.uplink.notify_one();
            self.monitor.event(now, Event::Postponed);
            return;
        }
        if !self.parts.chain.has_room() {
            self.spool_full(now);
            return;
        }
        // What grew is said with the heartbeat; whatever else it shows is no quiet matter.
        let found = (quiet || goodbye) && self.gather_grown();
        let quiet = quiet && !found;
        self.save_pins();
        if let Some(since) = self.unsigned_since.take() {
            self.open_gap(gap(since, clock::now(), "spool"));
            self.monitor.event(now, Event::RescanWanted);
        }
        let (mut composed, listed) = self.report(now, goodbye);
        let unlisted = composed.unlisted;
        let sessions = self.sessions(&mut composed);
        self.name_snapshot(&mut composed);
        match self.parts.chain.sign(composed.statement, quiet) {
            Ok(signed) => {
                self.parts.attribution.clear(&sessions);
                self.attested(now, signed, quiet, unlisted, listed);
            }
            Err(ChainError::Spool(SpoolError::Full)) => self.spool_full(now),
            Err(error) => {
                let error = crate::journal::chain(&error);
                tracing::error!(%error, "no statement signed");
                self.unsigned_since.get_or_insert_with(clock::now);
                self.monitor.event(now, Event::Held);
            }
        }
    }

    /// Whether the image of this view is allowed no more while the view of the next is being read. One heartbeat is left
    /// out for it: it would only be told as another image. A reading that takes longer silences nobody.
    fn is_replaced_soon(&self, now: Instant) -> bool {
        let Some(beginning) = &self.beginning else {
            return false;
        };
        let nearest = self.nearest(clock::now());
        let replaced = nearest
            .is_some_and(|(_, compared)| !beginning.allows(&compared.candidate.reference.payload));
        replaced && beginning.runs_for(now) < self.monitor.interval()
    }

    fn spool_full(&mut self, now: Instant) {
        if self.unsigned_since.is_none() {
            tracing::error!("no statement signed while the spool is full");
            self.unsigned_since = Some(clock::now());
        }
        self.monitor.event(now, Event::Held);
        self.monitor.event(now, Event::Postponed);
    }

    /// The statement; and image, version and number of the differences that it lists in full.
    fn report(&self, now: Instant, goodbye: bool) -> (Composed, Option<(Digest, u64, u64)>) {
        let issued = clock::now();
        let nothing = (BTreeMap::new(), BTreeMap::new());
        let nearest = self.nearest(issued);
        let image = nearest.map(|(_, compared)| compared.candidate.reference.payload);
        let sealed = nearest.map_or(&nothing.0, |(_, compared)| &compared.differences);
        let view = nearest.map(|(group, _)| self.pins.view(&group.scope));
        self.parts.link.hold_pins(view.clone());
        let own = view.as_ref().map_or(&[][..], |view| &view.differences);
        let differences: Vec<&Difference> = sealed.values().chain(own).collect();
        let version = nearest.map_or(0, |(_, compared)| compared.version) + self.pins.differing();
        let mut unreadable = nearest.map_or(Cow::Borrowed(&nothing.1), |(group, _)| {
            Cow::Borrowed(&group.unreadable)
        });
        if let Some(view) = view.as_ref().filter(|view| !view.unreadable.is_empty()) {
            unreadable.to_mut().extend(view.unreadable.clone());
        }
        let (grown, grown_total) = self.pins.grown(Attestation::MAX_LIST);
        let told = self
            .told
            .filter(|(_, of, at)| Some(*of) == image && *at == version && !differences.is_empty())
            .map(|(told, ..)| told)
            .filter(|told| self.parts.chain.is_receipted(told.sequence));
        let unsettled = nearest.map_or_else(Vec::new, |(group, _)| {
            group.unsettled.iter().cloned().collect()
        });
        let (touched, touched_total) = self.touched.told();
        let gaps = self.gaps.list();
        let composed = compose(&Report {
            node: self.parts.chain.node(),
            log: &self.parts.facts.log,
            boot: &self.parts.facts.boot,
            issued,
            monotonic: clock::since_boot(),
            goodbye,
            challenge: self.parts.link.challenge(now),
            image,
            tree: nearest.map_or(Digest::ZERO, |(group, _)| group.tree.root()),
            entries: nearest.map_or(0, |(group, _)| count(group.tree.len())),
            seen: Seen {
                watch: self.coverage(),
                since: self.since,
                read: self.read,
                gaps: &gaps,
                unreadable: &unreadable,
                unsettled,
                mounts: self.mounts,
                unexpected: &self.unexpected,
            },
            differences: &differences,
            told,
            own: view.as_deref(),
            grown,
            grown_total,
            touched: &touched,
            touched_total,
            agent: &self.parts.facts.agent,
        });
        let listed = match (image, told) {
            (Some(image), None) if !differences.is_empty() => {
                Some((image, version, count(differences.len())))
            }
            _ => None,
        };
        (composed, listed)
    }

    /// Logins, in what room the rest of the statement leaves.
    fn sessions(&self, composed: &mut Composed) -> Sessions {
        if !self.parts.attribution.has_news() {
            return Sessions::default();
        }
        let name = |uid| user_name(&self.eyes.as_ref()?.root, uid);
        let told = self.parts.attribution.tell(composed.room(), name);
        let predicate = &mut composed.statement.predicate;
        predicate.sessions.clone_from(&told.sessions);
        predicate.sessions_total = told.total;
        told
    }

    fn attested(
        &mut self,
        now: Instant,
        signed: Signed,
        quiet: bool,
        unlisted: bool,
        listed: Option<(Digest, u64, u64)>,
    ) {
        self.parts.link.uplink.notify_one();
        self.touched.clear();
        self.pins.told();
        self.told_nothing = false;
        if let Some((image, version, total)) = listed {
            let told = Told {
                sequence: signed.sequence,
                total: unlisted.then_some(total),
            };
            self.told = Some((told, image, version));
        }
        self.monitor.event(now, Event::Attested);
        self.monitor.set_weight(signed.bytes, unlisted);
        if signed.appended == Appended::Memory {
            tracing::error!(
                sequence = signed.sequence,
                "the disk takes no write: a statement is sent that is not on disk"
            );
        }
        if self.gaps.told() {
            // They are told, and closed already.
            self.monitor.event(now, Event::Begun);
        }
        self.show(&signed, quiet);
    }

    fn show(&self, signed: &Signed, quiet: bool) {
        let now = clock::now();
        let nearest = self.nearest(now);
        let differences = nearest.map_or(0, |(_, compared)| {
            count(compared.differences.len() + self.pins.differences())
        });
        tracing::debug!(
            sequence = signed.sequence,
            quiet,
            differences,
            bytes = signed.bytes,
            "attested"
        );
        let waits = self.parts.chain.state();
        self.parts.board.update(|status| {
            status.sequence = signed.sequence + 1;
            status.spool = waits.into();
            status.differences = differences;
            status.coverage = Some(self.coverage());
            status.attribution = self.eyes.as_ref().map(|eyes| eyes.watch.attributed());
            status.since = self.since;
            status.read = self.read;
            status.gaps = self.gaps.list();
            status.tree = nearest.map_or(Digest::ZERO, |(group, _)| group.tree.root());
            status.entries = nearest.map_or(0, |(group, _)| count(group.tree.len()));
            status.unreadable = nearest.map_or(0, |(group, _)| count(group.unreadable.len()));
            status.image = nearest.map(|(_, compared)| {
                let reference = &compared.candidate.reference;
                ImageStatus {
                    name: reference.statement.name().unwrap_or_default().to_owned(),
                    version: reference.statement.predicate.version.clone(),
                    payload: reference.payload,
                }
            });
        });
        let sequence = signed.sequence;
        self.parts.observer.tell(AgentEvent::Attested {
            sequence,
            quiet,
            differences,
        });
    }
}
