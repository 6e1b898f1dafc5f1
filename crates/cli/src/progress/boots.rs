//! Boots that run, for the line that shows them.

use std::time::{Duration, Instant};

/// Machines that were started and have not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Boots(Vec<Boot>);

#[derive(Clone, Debug)]
struct Boot {
    recipe: Option<String>,
    firmware: String,
    started: Instant,
    limit: Duration,
}

impl Boots {
    /// Takes one more; one of the same firmware is tried again.
    pub(super) fn start(&mut self, recipe: Option<&str>, firmware: &str, limit: Duration) {
        self.end(recipe, firmware);
        self.0.push(Boot {
            recipe: recipe.map(str::to_owned),
            firmware: firmware.to_owned(),
            started: Instant::now(),
            limit,
        });
    }

    /// Sets the clock of one: it had run for `seconds` since it was powered on, for which its disks were read before.
    pub(super) fn reached(&mut self, recipe: Option<&str>, firmware: &str, seconds: f64) {
        let Ok(ran) = Duration::try_from_secs_f64(seconds) else {
            return;
        };
        let of = (recipe, firmware);
        for boot in &mut self.0 {
            if (boot.recipe.as_deref(), boot.firmware.as_str()) == of {
                boot.started = Instant::now().checked_sub(ran).unwrap_or(boot.started);
            }
        }
    }

    /// Takes one out.
    pub(super) fn end(&mut self, recipe: Option<&str>, firmware: &str) {
        self.0
            .retain(|boot| (boot.recipe.as_deref(), boot.firmware.as_str()) != (recipe, firmware));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `booting under BIOS and UEFI`; of several recipes, those of the last one.
    pub(super) fn shown(&self) -> String {
        let Some(last) = self.0.last() else {
            return String::new();
        };
        let own = self.0.iter().filter(|boot| boot.recipe == last.recipe);
        let mut names: Vec<String> = own.map(|boot| boot.firmware.to_uppercase()).collect();
        names.sort();
        format!("booting under {}", names.join(" and "))
    }

    /// `0:42 of at most 10:00`: of the one that runs for longest.
    pub(super) fn clock(&self, now: Instant) -> String {
        let first = self.0.iter().min_by_key(|boot| boot.started);
        first.map_or_else(String::new, |boot| {
            // Beyond its limit it is being ended, and its disks are read once more.
            let elapsed = now.saturating_duration_since(boot.started).min(boot.limit);
            format!("{} of at most {}", clock(elapsed), clock(boot.limit))
        })
    }
}

/// `0:42`, `12:05`, `1:02:03`.
pub(super) fn clock(time: Duration) -> String {
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    match minutes / 60 {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{:02}:{seconds:02}", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_on_a_clock() {
        let all = [0, 42, 725, 3600, 3723].map(|s| clock(Duration::from_secs(s)));
        assert_eq!(all, ["0:00", "0:42", "12:05", "1:00:00", "1:02:03"]);
    }

    #[test]
    fn boots_that_run_are_shown_with_how_long_they_may_take() {
        let mut boots = Boots::default();
        let limit = Duration::from_secs(600);
        boots.start(None, "uefi", limit);
        boots.start(None, "bios", limit);
        assert_eq!(boots.shown(), "booting under BIOS and UEFI");
        let later = Instant::now() + Duration::from_secs(42);
        assert_eq!(boots.clock(later), "0:42 of at most 10:00");
        let late = later + limit;
        assert_eq!(boots.clock(late), "10:00 of at most 10:00");
        for firmware in ["bios", "uefi"] {
            boots.reached(None, firmware, 7.5);
        }
        boots.reached(None, "uefi", f64::NAN);
        assert_eq!(boots.clock(Instant::now()), "0:07 of at most 10:00");
        boots.end(None, "bios");
        assert_eq!(boots.shown(), "booting under UEFI");
        // Once more, without the acceleration that failed.
        boots.start(None, "uefi", Duration::from_secs(1500));
        assert_eq!(boots.shown(), "booting under UEFI");
        assert_eq!(boots.clock(Instant::now()), "0:00 of at most 25:00");
        boots.end(None, "uefi");
        assert!(boots.is_empty());
        assert_eq!(boots.shown() + &boots.clock(later), "");
    }

    #[test]
    fn a_boot_of_another_recipe_is_another() {
        let mut boots = Boots::default();
        let limit = Duration::from_secs(60);
        boots.start(Some("a"), "uefi", limit);
        boots.start(Some("b"), "uefi", limit);
        boots.end(Some("b"), "uefi");
        assert!(!boots.is_empty());
        assert_eq!(boots.shown(), "booting under UEFI");
    }
}
