//! Changes of members of a lock, for people: digests as far as they differ, lists by what came and went. No JSON.

use serde_json::Value;

use crate::shown::shown;

/// Characters of an old or new value that the text shows.
const SHOWN: usize = 100;
/// Digits of a digest.
const SHORT: usize = 12;
/// Characters before the first difference of two long values.
const BEFORE: usize = 12;

/// How a member changed, of which there is an old value, a new one or both.
pub(super) fn change(old: Option<&Value>, new: Option<&Value>) -> String {
    match (old, new) {
        (Some(Value::Array(old)), Some(Value::Array(new))) => lists(old, new),
        (Some(Value::Object(a)), Some(Value::Object(b))) if digest(a) == digest(b) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            let keys: Vec<String> = keys
                .filter(|key| a.get(*key) != b.get(*key))
                .map(|key| shown(key.as_bytes()))
                .collect();
            keys.join(", ")
        }
        (Some(old), Some(new)) => pair(&alone(old), &alone(new)),
        (Some(one), None) | (None, Some(one)) => {
            let text = alone(one);
            match is_digest(&text) {
                true => text[..SHORT].to_owned(),
                false => cut(&text, 0),
            }
        }
        (None, None) => String::new(),
    }
}

/// Two values, both from where they are told apart.
pub(super) fn pair(old: &str, new: &str) -> String {
    let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b);
    let same = same.count();
    if is_digest(old) && is_digest(new) {
        let digits = SHORT.max(same + 4).min(old.len());
        return format!("{} -> {}", &old[..digits], &new[..digits]);
    }
    // What both begin with says nothing, where the difference would not be seen for it.
    let from = match same + BEFORE > SHOWN {
        true => same - BEFORE,
        false => 0,
    };
    format!("{} -> {}", cut(old, from), cut(new, from))
}

/// A part of a value that can be read.
pub(super) fn cut(text: &str, from: usize) -> String {
    let mut rest = text.chars().skip(from);
    let mut part: String = rest.by_ref().take(SHOWN).collect();
    if from > 0 {
        part.insert(0, '…');
    }
    if rest.next().is_some() {
        part.push('…');
    }
    part
}

fn lists(old: &[Value], new: &[Value]) -> String {
    let missing = |from: &[Value], of: &[Value]| -> usize {
        let mut left: Vec<&Value> = from.iter().collect();
        of.iter()
            .filter(|item| match left.iter().position(|l| l == item) {
                Some(at) => {
                    left.swap_remove(at);
                    false
                }
                None => true,
            })
            .count()
    };
    let (came, went) = (missing(old, new), missing(new, old));
    let moved = match came + went {
        0 => "in another order".to_owned(),
        _ => format!("{came} came, {went} went"),
    };
    format!("{} -> {}, {moved}", old.len(), new.len())
}

/// A value as a few words.
fn alone(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text.as_bytes()),
        Value::Array(list) => list.len().to_string(),
        Value::Object(members) => match digest(members) {
            Some(digest) => shown(digest.as_bytes()),
            None => {
                let keys = members.keys().map(|key| shown(key.as_bytes()));
                keys.collect::<Vec<_>>().join(", ")
            }
        },
        other => other.to_string(),
    }
}

/// That of a blob.
fn digest(members: &serde_json::Map<String, Value>) -> Option<&str> {
    members.get("digest").and_then(Value::as_str)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_in_words_and_never_as_two_same_texts() {
        let (a, b) = ("a".repeat(64), format!("{}b", "a".repeat(63)));
        let c = "c".repeat(64);
        let layer = |digest: &str| json!({"digest": digest, "mediaType": "x", "size": 1});
        for (old, new, told) in [
            (
                json!(a),
                json!(c),
                "aaaaaaaaaaaa -> cccccccccccc".to_owned(),
            ),
            (json!(a), json!(b), format!("{a} -> {b}")),
            (
                layer(&a),
                layer(&c),
                "aaaaaaaaaaaa -> cccccccccccc".to_owned(),
            ),
            (
                json!([layer(&a), layer(&b)]),
                json!([layer(&a), layer(&c), layer(&a)]),
                "2 -> 3, 2 came, 1 went".to_owned(),
            ),
            (
                json!([layer(&a), layer(&b)]),
                json!([layer(&b), layer(&a)]),
                "2 -> 2, in another order".to_owned(),
            ),
            (
                json!({"Cmd": ["a"], "Env": ["A=1"]}),
                json!({"Cmd": ["a"], "Env": ["A=2"], "User": "1"}),
                "Env, User".to_owned(),
            ),
            (json!(1), json!(2), "1 -> 2".to_owned()),
        ] {
            assert_eq!(change(Some(&old), Some(&new)), told);
        }
        let long = |end: &str| format!("{}{end}", "x".repeat(150));
        assert_eq!(
            pair(&long("old"), &long("new")),
            "…xxxxxxxxxxxxold -> …xxxxxxxxxxxxnew"
        );
        assert_eq!(
            pair("short", &long("")),
            format!("short -> {}…", "x".repeat(100))
        );
        assert_eq!(change(None, Some(&json!(a))), "aaaaaaaaaaaa");
        assert_eq!(change(Some(&json!([layer(&a)])), None), "1");
    }
}
