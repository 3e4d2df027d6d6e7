//! What a client may send of frames that cost work and carry nothing: so many at once, and as many again over each
//! refill time. Over it the connection ends with ENHANCE_YOUR_CALM.

use h2::Reason;
use tidegate_plan::{Limit, Limits};
use tidegate_rt::Instant;

use crate::http::frames::{FrameHead, FrameKind};

/// The bounds of one connection, in numbers of frames.
#[derive(Debug, Clone, Copy)]
pub struct Allowances {
    /// Nanoseconds in which an allowance that is used up is whole again.
    refill: u64,
    resets: u64,
    pings: u64,
    settings: u64,
    window_updates: u64,
    empty: u64,
    ignored: u64,
    continuations: u64,
}

impl Allowances {
    /// The rows in force.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            refill: u64::try_from(limits.duration(Limit::Http2RefillTime).as_nanos()).unwrap_or(u64::MAX),
            resets: limits.get(Limit::Http2Resets),
            pings: limits.get(Limit::Http2Pings),
            settings: limits.get(Limit::Http2Settings),
            window_updates: limits.get(Limit::Http2WindowUpdates),
            empty: limits.get(Limit::Http2EmptyFrames),
            ignored: limits.get(Limit::Http2IgnoredFrames),
            continuations: limits.get(Limit::Http2Continuations),
        }
    }
}

/// Why a frame ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The client sends more of its kind than it may.
    Flood(FrameKind),
    /// It cannot be as long as it says (RFC 9113 section 4.2).
    Length(FrameKind),
    /// The first frame is not SETTINGS (RFC 9113 section 3.4).
    Preface,
}

impl Refused {
    /// What the client is told.
    pub(super) fn reason(self) -> Reason {
        match self {
            Refused::Flood(_) => Reason::ENHANCE_YOUR_CALM,
            Refused::Length(_) => Reason::FRAME_SIZE_ERROR,
            Refused::Preface => Reason::PROTOCOL_ERROR,
        }
    }
}

/// Counts a connection's frames.
#[derive(Debug)]
pub(crate) struct Meter {
    allowances: Allowances,
    begun: Instant,
    /// The client's SETTINGS have come.
    settled: bool,
    resets: Level,
    pings: Level,
    settings: Level,
    window_updates: Level,
    empty: Level,
    ignored: Level,
    /// CONTINUATION frames of the field block that is open.
    continuations: u64,
    /// Since when a field block is open.
    block: Option<Instant>,
}

impl Meter {
    pub(crate) fn new(allowances: Allowances, now: Instant) -> Self {
        Self {
            allowances,
            begun: now,
            settled: false,
            resets: Level::default(),
            pings: Level::default(),
            settings: Level::default(),
            window_updates: Level::default(),
            empty: Level::default(),
            ignored: Level::default(),
            continuations: 0,
            block: None,
        }
    }

    /// Since when a field block is open, or the client's SETTINGS have been missing.
    pub(super) fn unfinished(&self) -> Option<Instant> {
        self.block.or((!self.settled).then_some(self.begun))
    }

    /// Counts a frame that has arrived.
    pub(crate) fn received(&mut self, head: &FrameHead, now: Instant) -> Result<(), Refused> {
        // RFC 9113 section 3.4: a client's own, not its answer to ours.
        if !self.settled && (head.kind != FrameKind::Settings || head.is_ack()) {
            return Err(Refused::Preface);
        }
        self.settled = true;
        if !head.has_valid_length() {
            return Err(Refused::Length(head.kind));
        }
        let at = u64::try_from(now.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX);
        let refill = self.allowances.refill;
        let carries_nothing = head.carried == 0 && !head.ends_stream() && !head.ends_block();
        let within = match head.kind {
            FrameKind::Data if carries_nothing => self.empty.take(self.allowances.empty, refill, at),
            FrameKind::Data | FrameKind::PushPromise | FrameKind::GoAway => true,
            FrameKind::Headers => {
                self.continuations = 0;
                self.block = (!head.ends_block()).then_some(now);
                // Each stream brings its own window, which its client opens as it reads.
                self.window_updates
                    .earn(2, self.allowances.window_updates, refill);
                !carries_nothing || self.empty.take(self.allowances.empty, refill, at)
            }
            FrameKind::Continuation => {
                self.continuations += 1;
                if head.ends_block() {
                    self.block = None;
                }
                self.continuations <= self.allowances.continuations
                    && (!carries_nothing || self.empty.take(self.allowances.empty, refill, at))
            }
            FrameKind::RstStream => self.resets.take(self.allowances.resets, refill, at),
            FrameKind::Settings => self.settings.take(self.allowances.settings, refill, at),
            FrameKind::Ping => self.pings.take(self.allowances.pings, refill, at),
            FrameKind::WindowUpdate => self
                .window_updates
                .take(self.allowances.window_updates, refill, at),
            FrameKind::Priority | FrameKind::Other => self.ignored.take(self.allowances.ignored, refill, at),
        };
        if within {
            Ok(())
        } else {
            Err(Refused::Flood(head.kind))
        }
    }

    /// Counts a frame that has been sent: whoever receives data opens its windows again, and may measure with pings.
    pub(crate) fn sent(&mut self, head: &FrameHead) {
        if head.kind == FrameKind::Data {
            let refill = self.allowances.refill;
            self.window_updates
                .earn(4, self.allowances.window_updates, refill);
            self.pings.earn(1, self.allowances.pings, refill);
        }
    }
}

/// How much of an allowance is used: the instant at which it would be whole again, in nanoseconds (GCRA).
#[derive(Debug, Default)]
struct Level(u64);

impl Level {
    fn take(&mut self, allowance: u64, refill: u64, now: u64) -> bool {
        let Some(one) = refill.checked_div(allowance) else {
            return false;
        };
        let whole = self.0.max(now) + one;
        let within = whole - now <= refill;
        if within {
            self.0 = whole;
        }
        within
    }

    /// Gives back, as far as something is used.
    fn earn(&mut self, count: u64, allowance: u64, refill: u64) {
        let one = refill.checked_div(allowance).unwrap_or(0);
        self.0 = self.0.saturating_sub(one.saturating_mul(count));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::frames::Frames;

    fn head(kind: u8, flags: u8, length: u8) -> FrameHead {
        let mut wire = crate::http::frames::PREFACE.to_vec();
        wire.extend([0, 0, length, kind, flags, 0, 0, 0, 1, 0]);
        let mut seen = None;
        let _ = Frames::new().advance(&wire, |head| {
            seen = Some(head);
            Err(())
        });
        seen.unwrap()
    }

    /// Of a connection whose SETTINGS have come.
    fn meter(limits: &Limits, now: Instant) -> Meter {
        let mut meter = Meter::new(Allowances::new(limits), now);
        meter.settled = true;
        meter
    }

    /// How many frames of a kind pass at once, how many more after half the refill time, and which is refused.
    fn run(limit: Limit, allowance: u64, head: FrameHead) -> (usize, usize) {
        let mut limits = Limits::default();
        limits.set_number(limit, allowance).unwrap();
        let now = Instant::now();
        let mut meter = meter(&limits, now);
        let mut count = |at| {
            (0..100_000)
                .take_while(|_| meter.received(&head, at) == Ok(()))
                .count()
        };
        let later = now + limits.duration(Limit::Http2RefillTime) / 2;
        (count(now), count(later))
    }

    #[test]
    fn each_kind_has_its_allowance_which_refills_over_time() {
        for (limit, head) in [
            (Limit::Http2Resets, head(3, 0, 4)),
            (Limit::Http2Settings, head(4, 0, 6)),
            (Limit::Http2Settings, head(4, 1, 0)),
            (Limit::Http2Pings, head(6, 0, 8)),
            (Limit::Http2WindowUpdates, head(8, 0, 4)),
            (Limit::Http2EmptyFrames, head(0, 0, 0)),
            (Limit::Http2EmptyFrames, head(1, 0, 0)),
            (Limit::Http2EmptyFrames, head(0, 8, 1)),
            (Limit::Http2IgnoredFrames, head(2, 0, 5)),
            (Limit::Http2IgnoredFrames, head(0x42, 0, 5)),
        ] {
            assert_eq!(run(limit, 20, head), (20, 10), "{limit} {head:?}");
        }
    }

    #[test]
    fn frames_that_carry_something_are_not_counted() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut meter = meter(&limits, now);
        for head in [head(0, 0, 1), head(0, 1, 0), head(1, 5, 1), head(1, 4, 1)] {
            for _ in 0..100_000 {
                assert_eq!(meter.received(&head, now), Ok(()));
            }
        }
    }

    #[test]
    fn continuations_are_counted_for_each_block() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut meter = meter(&limits, now);
        let allowance = limits.count(Limit::Http2Continuations);
        for _ in 0..3 {
            assert_eq!(meter.received(&head(1, 0, 5), now), Ok(()));
            assert!(meter.block.is_some());
            for _ in 1..allowance {
                assert_eq!(meter.received(&head(9, 0, 5), now), Ok(()));
            }
            assert_eq!(meter.received(&head(9, 4, 5), now), Ok(()));
            assert_eq!(meter.block, None);
        }
        assert_eq!(meter.received(&head(1, 0, 5), now), Ok(()));
        for _ in 0..allowance {
            assert_eq!(meter.received(&head(9, 0, 5), now), Ok(()));
        }
        assert_eq!(
            meter.received(&head(9, 4, 5), now),
            Err(Refused::Flood(FrameKind::Continuation))
        );
    }

    /// A client may open its windows twice for each DATA frame that it gets, and ping as often.
    #[test]
    fn data_that_is_sent_earns_window_updates_and_pings() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut meter = meter(&limits, now);
        for _ in 0..100_000 {
            for head in [head(8, 0, 4), head(8, 0, 4), head(6, 0, 8)] {
                assert_eq!(meter.received(&head, now), Ok(()));
            }
            meter.sent(&head(0, 0, 1));
        }
        let later = now + Duration::from_secs(3600);
        let passed = (0..100_000).take_while(|_| meter.received(&head(6, 0, 8), later) == Ok(()));
        assert_eq!(
            passed.count(),
            limits.count(Limit::Http2Pings),
            "nothing is saved up"
        );
    }

    /// RFC 9113 sections 3.4 and 4.2.
    #[test]
    fn settings_come_first_and_lengths_fit_their_kinds() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut new = Meter::new(Allowances::new(&limits), now);
        assert_eq!(new.received(&head(6, 0, 8), now), Err(Refused::Preface));
        assert_eq!(new.received(&head(4, 0, 0), now), Ok(()));
        assert_eq!(new.received(&head(6, 0, 8), now), Ok(()));
        for (kind, flags, length) in [
            (2, 0, 4),
            (3, 0, 5),
            (4, 0, 5),
            (4, 1, 6),
            (6, 0, 7),
            (7, 0, 7),
            (8, 0, 3),
        ] {
            let head = head(kind, flags, length);
            let refused = meter(&limits, now).received(&head, now);
            assert_eq!(refused, Err(Refused::Length(head.kind)));
        }
    }
}
