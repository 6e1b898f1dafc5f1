//! The failures of a run that were not ignored: the one it ended with first.

use crate::event::Failure;

/// Lines of output that failures beside the first one keep: the run as a whole has to fit into a message.
const ALSO_LINES: usize = 5;

/// Failures that keep any.
const WITH_LINES: usize = 20;

#[derive(Default)]
pub(super) struct Failures(Vec<Failure>);

impl Failures {
    /// Adds those of a step, its own or the first of a document in it before the others. One that ends the run
    /// is the first of all; else the first to happen stays it. Returns those of the step with the lines that they
    /// keep.
    pub(super) fn add(&mut self, ends: bool, mut new: Vec<Failure>) -> Vec<Failure> {
        let before = self.0.len();
        for (at, failure) in new.iter_mut().enumerate() {
            shorten(failure, if ends && at == 0 { 0 } else { before + at });
        }
        self.0.extend(new.iter().cloned());
        if ends && before < self.0.len() {
            self.0[..=before].rotate_right(1);
            if let Some(failure) = self.0.get_mut(1) {
                shorten(failure, 1);
            }
        }
        new
    }

    pub(super) fn into_list(self) -> Vec<Failure> {
        self.0
    }
}

/// Keeps the lines of the failure with this number.
fn shorten(failure: &mut Failure, at: usize) {
    let keep = match at {
        0 => return,
        _ if at < WITH_LINES => ALSO_LINES,
        _ => 0,
    };
    let cut = failure.tail.len().saturating_sub(keep);
    failure.tail.drain(..cut);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(step: &str) -> Failure {
        Failure {
            document: "d".to_owned(),
            phase: "build".to_owned(),
            step: step.to_owned(),
            action: "ExecuteBash".to_owned(),
            command: String::new(),
            exit_code: Some(1),
            reason: "r".to_owned(),
            tail: (0..9).map(|line| line.to_string()).collect(),
            went_on: false,
            within: Vec::new(),
        }
    }

    #[test]
    fn what_ended_the_run_comes_first_and_with_all_its_lines() {
        let mut failures = Failures::default();
        for number in 0..WITH_LINES {
            failures.add(false, vec![failure(&number.to_string())]);
        }
        let kept = failures.add(true, vec![failure("end"), failure("nested")]);
        assert_eq!((kept[0].tail.len(), kept[1].tail.len()), (9, 0));
        let list = failures.into_list();
        let short: Vec<(&str, usize)> = list
            .iter()
            .map(|failure| (failure.step.as_str(), failure.tail.len()))
            .collect();
        assert_eq!(short[..3], [("end", 9), ("0", 5), ("1", 5)]);
        assert_eq!(
            short[WITH_LINES - 1..],
            [("18", 5), ("19", 5), ("nested", 0)]
        );
        assert_eq!(list[1].tail, ["4", "5", "6", "7", "8"]);
    }
}
