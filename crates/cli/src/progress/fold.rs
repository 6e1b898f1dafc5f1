//! The output of a step on a terminal: folded into one line while all goes well, shown when it does not.

use std::collections::VecDeque;

/// Lines that are shown of a step that failed; the log has all of them.
const MOST: usize = 200;

/// What a step has printed so far.
#[derive(Default)]
pub(crate) struct Fold {
    lines: VecDeque<String>,
    count: usize,
}

impl Fold {
    /// Takes a line in.
    pub(crate) fn push(&mut self, line: String) {
        if self.lines.len() == MOST {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.count += 1;
    }

    /// How many lines, in words; empty for none.
    pub(crate) fn told(&self) -> String {
        match self.count {
            0 => String::new(),
            1 => " (1 line)".to_owned(),
            count => format!(" ({count} lines)"),
        }
    }

    /// The lines to show, and empty again.
    pub(crate) fn unfold(&mut self) -> Vec<String> {
        let left_out = self.count - self.lines.len();
        let head = (left_out > 0).then(|| format!("… {left_out} lines before are in the log"));
        self.count = 0;
        head.into_iter().chain(self.lines.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_the_others_counted() {
        let mut fold = Fold::default();
        assert_eq!((fold.told(), fold.unfold()), (String::new(), Vec::new()));
        fold.push("one".to_owned());
        assert_eq!(fold.told(), " (1 line)");
        assert_eq!(fold.unfold(), ["one"]);
        for number in 0..MOST + 3 {
            fold.push(number.to_string());
        }
        assert_eq!(fold.told(), " (203 lines)");
        let lines = fold.unfold();
        assert_eq!(lines.len(), MOST + 1);
        assert_eq!(lines[0], "… 3 lines before are in the log");
        assert_eq!((lines[1].as_str(), lines[MOST].as_str()), ("3", "202"));
        assert_eq!(fold.told(), "");
    }
}
