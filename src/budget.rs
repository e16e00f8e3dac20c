//! What may be done so often and not more: a burst, then one each interval.

use std::time::Duration;

use crate::time::UnixTime;

/// A budget that time refills. How fast, and how far, is the caller's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What is left.
    pub left: u32,
    /// When it was refilled last.
    pub refilled: UnixTime,
}

impl Budget {
    /// A budget of `burst` at `now`.
    pub const fn full(burst: u32, now: UnixTime) -> Self {
        Self { left: burst, refilled: now }
    }

    /// The budget at `now`: one more for each whole `interval` that has passed, `burst` at most.
    #[must_use]
    pub fn refill(self, interval: Duration, burst: u32, now: UnixTime) -> Self {
        if now < self.refilled {
            // The clock was set back: what has passed since cannot be told, and must not be waited for again.
            return Self { refilled: now, ..self };
        }
        let intervals = now.since(self.refilled).as_nanos().checked_div(interval.as_nanos()).unwrap_or_default();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        if intervals == 0 {
            return self;
        }
        let refilled = self.refilled.after(interval.saturating_mul(intervals));
        Self { left: self.left.saturating_add(intervals).min(burst), refilled }
    }

    /// Takes one. False if none is left.
    #[must_use]
    pub fn take(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_each_interval() {
        let (start, each) = (UnixTime::from_secs(1000), Duration::from_millis(500));
        let mut budget = Budget::full(2, start);
        assert_eq!([budget.take(), budget.take(), budget.take()], [true, true, false]);
        budget = budget.refill(each, 2, start.after(Duration::from_millis(499)));
        assert!(!budget.take());
        budget = budget.refill(each, 2, start.after(Duration::from_millis(999)));
        assert_eq!([budget.take(), budget.take()], [true, false]);
        budget = budget.refill(each, 2, start.after(Duration::from_secs(1)));
        assert_eq!([budget.take(), budget.take()], [true, false], "the rest of an interval counts on");
        budget = budget.refill(each, 2, start.after(Duration::from_secs(1000)));
        assert_eq!([budget.take(), budget.take(), budget.take()], [true, true, false]);
    }

    #[test]
    fn a_clock_that_goes_back_refills_nothing_and_stops_nothing() {
        let (start, each) = (UnixTime::from_secs(1000), Duration::from_secs(1));
        let mut budget = Budget::full(0, start).refill(each, 1, UnixTime::from_secs(500));
        assert!(!budget.take());
        budget = budget.refill(each, 1, UnixTime::from_secs(501));
        assert!(budget.take());
    }
}
