//! How fast a stage is, and how long it goes on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::boots::clock;

/// What is looked back on: long enough to even out bursts, short enough that one is soon forgotten.
const WINDOW: Duration = Duration::from_secs(10);
/// Before this time, nothing can be said.
const LEAST: Duration = Duration::from_secs(2);
/// Time between two samples.
const BETWEEN: Duration = Duration::from_millis(250);
/// More than this is not told: nobody knows.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// What was done until when, within [`WINDOW`] and once before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    /// Notes that `done` units are done now.
    pub(super) fn note(&mut self, now: Instant, done: u64) {
        // Another file, or the stage once more.
        if self.0.back().is_some_and(|(_, last)| *last > done) {
            self.0.clear();
        }
        let is_early = |last: &(Instant, u64)| now.saturating_duration_since(last.0) < BETWEEN;
        if !self.0.back().is_some_and(is_early) {
            self.0.push_back((now, done));
        }
        while self.0.len() > 1 && now.saturating_duration_since(self.0[1].0) >= WINDOW {
            self.0.pop_front();
        }
    }

    /// Units done, and the milliseconds that they took; `None` while nothing can be said.
    fn looked_back(&self, now: Instant, done: u64) -> Option<(u64, u64)> {
        // Seen from now, whatever came last: a stage that stands still is not as fast as it was.
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= WINDOW;
        let last_old = self.0.iter().rev().find(|(at, _)| is_old(at));
        let (from, before) = last_old.or(self.0.front())?;
        let time = now.saturating_duration_since(*from);
        let units = done.checked_sub(*before).filter(|units| *units > 0)?;
        let millis = u64::try_from(time.as_millis()).ok()?;
        (time >= LEAST).then_some((units, millis))
    }

    /// Units in a second; `None` while nothing can be said.
    pub(super) fn per_second(&self, now: Instant, done: u64) -> Option<u64> {
        let (units, millis) = self.looked_back(now, done)?;
        Some(units.saturating_mul(1000) / millis)
    }

    /// `, 1:15 left` of `total` units, when something can be said.
    pub(super) fn left(&self, now: Instant, done: u64, total: u64) -> String {
        let left = self.looked_back(now, done).map(|(units, millis)| {
            let millis = total.saturating_sub(done).saturating_mul(millis) / units;
            // A part of a second is one.
            Duration::from_secs(millis.div_ceil(1000))
        });
        match left.filter(|left| *left < MOST) {
            Some(left) => format!(", {} left", clock(left)),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.left(start, 0, 1000), "");
        rate.note(start, 0);
        // Too early to say.
        assert_eq!(rate.left(at(1), 500, 1000), "");
        // A burst, and then one unit in a second: the burst is forgotten.
        for second in 1..=5 {
            rate.note(at(second), second * 100);
        }
        assert_eq!(rate.left(at(5), 500, 1000), ", 0:05 left");
        for second in 6..=40 {
            rate.note(at(second), 500 + second - 5);
        }
        assert_eq!(rate.per_second(at(40), 535), Some(1));
        assert_eq!(rate.left(at(40), 535, 1000), ", 7:45 left");
        // Nothing comes any more: it is told ever longer, and then not at all.
        assert_eq!(rate.left(at(45), 535, 1000), ", 15:30 left");
        assert_eq!(rate.left(at(60), 535, 1000), "");
        // And then goes on.
        rate.note(at(61), 545);
        assert_eq!(rate.left(at(61), 545, 1000), ", 15:56 left");
        // The stage begins anew.
        rate.note(at(130), 0);
        assert_eq!(rate.left(at(131), 10, 1000), "");
        assert_eq!(rate.left(at(132), 20, 1000), ", 1:38 left");
    }
}
