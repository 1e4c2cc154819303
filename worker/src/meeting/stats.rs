//! What is counted of hubs.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

use super::state::{Count, Refusal};
use crate::quality::Metrics;

/// The series of all hubs of the worker.
#[derive(Debug)]
pub(super) struct Stats {
    numbered: IntCounterVec,
    gateways: IntGauge,
    replayed: IntCounter,
    refused: IntCounterVec,
    cut: IntCounter,
}

impl Stats {
    /// Registers everything.
    pub(super) fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let registry = metrics.registry();
        let numbered = IntCounterVec::new(
            Opts::new(
                "plenum_worker_meeting_signals_total",
                "Signals numbered for meetings whose main room is here.",
            ),
            &["signal"],
        )?;
        let gateways = IntGauge::new(
            "plenum_worker_meeting_gateways",
            "Gateways attached to meetings whose main room is here, one per meeting and gateway.",
        )?;
        let replayed = IntCounter::new(
            "plenum_worker_meeting_entries_replayed_total",
            "Signals sent to gateways on attaching because they lacked them.",
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "plenum_worker_meeting_posts_refused_total",
                "Signals of gateways that were not numbered.",
            ),
            &["reason"],
        )?;
        let cut = IntCounter::new(
            "plenum_worker_meeting_streams_cut_total",
            "Gateways' streams that were ended because they did not keep up.",
        )?;
        registry.register(Box::new(numbered.clone()))?;
        registry.register(Box::new(gateways.clone()))?;
        registry.register(Box::new(replayed.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(cut.clone()))?;
        for reason in Refusal::ALL {
            refused.with_label_values(&[reason.as_str()]);
        }
        Ok(Self {
            numbered,
            gateways,
            replayed,
            refused,
            cut,
        })
    }

    pub(super) fn count(&self, count: Count) {
        match count {
            Count::Numbered(kind) => self.numbered.with_label_values(&[kind]).inc(),
            Count::Replayed(entries) => self.replayed.inc_by(entries),
            Count::Refused(reason) => self.refused.with_label_values(&[reason.as_str()]).inc(),
        }
    }

    pub(super) fn gateways(&self, attached: usize) {
        self.gateways.set(i64::try_from(attached).unwrap_or(i64::MAX));
    }

    pub(super) fn cut(&self) {
        self.cut.inc();
    }
}
