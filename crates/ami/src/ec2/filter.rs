//! Filters of the describing operations.
//!
//! Source: EC2 API reference `Filter`; EC2 user guide, `Using_Filtering`.

use super::{ApiError, ErrorCode, Filter, Tags};

/// Whether `text` matches `pattern`: `*` is any run, `?` is no or one character, `\` makes the next one literal.
///
/// Compares case-sensitively, in time proportional to the product of the lengths.
#[must_use]
pub fn wildcard(pattern: &str, text: &str) -> bool {
    enum Token {
        Any,
        One,
        Literal(char),
    }
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Literal(chars.next().unwrap_or('\\')),
            c => Token::Literal(c),
        });
    }
    // `reach[i]`: the first `i` tokens match what was read so far.
    let skip = |reach: &mut Vec<bool>| {
        for (i, token) in tokens.iter().enumerate() {
            if reach[i] && !matches!(token, Token::Literal(_)) {
                reach[i + 1] = true;
            }
        }
    };
    let mut reach = vec![false; tokens.len() + 1];
    reach[0] = true;
    skip(&mut reach);
    for c in text.chars() {
        let mut next = vec![false; tokens.len() + 1];
        for (i, token) in tokens.iter().enumerate() {
            if reach[i] {
                match token {
                    Token::Any => next[i] = true,
                    Token::One => next[i + 1] = true,
                    Token::Literal(l) => next[i + 1] |= *l == c,
                }
            }
        }
        skip(&mut next);
        reach = next;
    }
    reach[tokens.len()]
}

/// Whether a resource with these tags passes all filters. `values` gives what the resource has under a filter's name, or
/// `None` when there is no such filter: `InvalidParameterValue`.
pub(crate) fn passes(
    filters: &[Filter],
    tags: &Tags,
    values: impl Fn(&str) -> Option<Vec<String>>,
) -> Result<bool, ApiError> {
    let mut good = true;
    for filter in filters {
        let has = if let Some(key) = filter.name.strip_prefix("tag:") {
            tags.get(key).cloned().into_iter().collect()
        } else if filter.name == "tag-key" {
            tags.keys().cloned().collect()
        } else {
            values(&filter.name).ok_or_else(|| unknown(&filter.name))?
        };
        good &= has
            .iter()
            .any(|text| filter.values.iter().any(|pattern| wildcard(pattern, text)));
    }
    Ok(good)
}

/// Every filter is a known one, whether or not there is anything to be filtered.
pub(crate) fn check(filters: &[Filter], known: &[&str]) -> Result<(), ApiError> {
    match filters.iter().find(|f| {
        !known.contains(&f.name.as_str()) && !f.name.starts_with("tag:") && f.name != "tag-key"
    }) {
        None => Ok(()),
        Some(filter) => Err(unknown(&filter.name)),
    }
}

fn unknown(name: &str) -> ApiError {
    let shown: String = name.chars().take(60).collect();
    ApiError::new(
        ErrorCode::InvalidParameterValue,
        format!("The filter '{shown}' is invalid"),
    )
}

/// The page of `items` after `token`, at most `most` long, and the token of the next one. A token is the id of the last
/// item of the page before.
pub(crate) fn page<T>(
    items: Vec<T>,
    id: impl Fn(&T) -> &str,
    most: Option<u32>,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let most = match most {
        None => usize::MAX,
        Some(n @ 1..=1000) => n as usize,
        Some(n) => {
            return Err(ApiError::new(
                ErrorCode::InvalidMaxResults,
                format!(
                    "Value ({n}) for parameter maxResults is invalid. Expecting a value from 1 to 1000."
                ),
            ));
        }
    };
    let items: Vec<T> = match token {
        None => items,
        Some(token) => {
            let good = token.split_once('-').is_some_and(|(_, digits)| {
                !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
            });
            if !good {
                return Err(ApiError::new(
                    ErrorCode::InvalidNextToken,
                    "Invalid value for nextToken.",
                ));
            }
            items.into_iter().filter(|item| id(item) > token).collect()
        }
    };
    let next = (items.len() > most).then(|| id(&items[most - 1]).to_owned());
    Ok((items.into_iter().take(most).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::wildcard;

    #[test]
    fn wildcards_follow_the_guide() {
        for (pattern, text, good) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", true),
            ("a?c", "abbc", false),
            ("A", "a", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"a\?", "a", false),
            ("2026-11-*", "2026-11-28T02:00:00.000Z", true),
            ("*a*b*", "xxaxxbxx", true),
            ("é?", "éx", true),
        ] {
            assert_eq!(wildcard(pattern, text), good, "{pattern} {text}");
        }
        let long = "a".repeat(2000);
        assert!(!wildcard(&format!("{}b", "*a".repeat(40)), &long));
    }
}
