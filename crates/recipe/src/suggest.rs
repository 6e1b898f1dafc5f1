//! "Did you mean": the known name nearest to a wrong one.

/// The candidate that is most like `wrong`, when it is like enough to be meant: at most one slip
/// per three characters, letter case apart.
pub(crate) fn nearest<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Long garbage cannot be a slip of the keyboard, and the distance costs the product of lengths. One letter is like
    // any other.
    if !(2..=64).contains(&wrong.chars().count()) {
        return None;
    }
    let lower: Vec<char> = wrong.chars().flat_map(char::to_lowercase).collect();
    let letters = letters(lower.iter().copied());
    let limit = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| {
            let (count, others) = (candidate.chars().count(), self::letters(lowered(candidate)));
            // Each edit changes the length by one at most, and brings or takes one letter.
            lower.len().abs_diff(count) <= limit
                && bits(letters & !others) <= limit
                && bits(others & !letters) <= limit
        })
        .map(|candidate| {
            let other: Vec<char> = lowered(candidate).collect();
            (distance(&lower, &other), candidate)
        })
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

fn lowered(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

/// Which letters there are, as bits; several letters may share one.
fn letters(word: impl Iterator<Item = char>) -> u64 {
    word.fold(0, |all, letter| all | 1 << (u32::from(letter) % 64))
}

fn bits(letters: u64) -> usize {
    usize::try_from(letters.count_ones()).unwrap_or(usize::MAX)
}

/// `did you mean "x"?`, when there is a near candidate, or one alone begins with the word.
pub fn did_you_mean<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let near = nearest(wrong, candidates.iter().copied());
    near.or_else(|| longer(wrong, &candidates))
        .map(|name| format!("did you mean `{name}`?"))
}

/// The one candidate that begins with `short`: `val` for `value`.
fn longer<'a>(short: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if !short.is_ascii() || !(3..=64).contains(&short.len()) {
        return None;
    }
    let begins = |name: &&&str| {
        let start = name.get(..short.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(short))
    };
    let mut found = candidates.iter().filter(begins);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    // Three rows of the table, by turns.
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = before_last.clone();
    for i in 0..a.len() {
        row[0] = i + 1;
        for j in 0..b.len() {
            let replace = last[j] + usize::from(a[i] != b[j]);
            let mut best = replace.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before_last[j - 1] + 1);
            }
            row[j + 1] = best;
        }
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_refuses_strangers() {
        let names = ["ExecuteBash", "ExecuteBinary", "CreateFile", "UpdateOS"];
        assert_eq!(nearest("ExecuteBahs", names), Some("ExecuteBash"));
        assert_eq!(nearest("updateos", names), Some("UpdateOS"));
        assert_eq!(nearest("Reticulate", names), None);
        assert_eq!(nearest(&"x".repeat(10_000_000), names), None);
        assert_eq!(
            did_you_mean("val", ["value", "type"]),
            Some("did you mean `value`?".to_owned())
        );
        assert_eq!(did_you_mean("exe", names), None);
        let between = |a: &str, b: &str| {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            distance(&chars(a), &chars(b))
        };
        assert_eq!(between("kitten", "sitting"), 3);
        assert_eq!(between("", "abc"), 3);
        assert_eq!(between("ab", "ba"), 1);
        assert_eq!(between("abcd", "acbd"), 1);
    }
}
