//! Texts of a policy that stand for other texts: wildcards and policy variables.
//!
//! Source: IAM user guide, `reference_policies_elements_resource`, `reference_policies_variables`.

use super::context::Context;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `${key}` or `${key, 'default'}`
    Variable {
        key: String,
        default: Option<String>,
    },
}

/// A text with wildcards and variables, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

/// What the characters of a pattern mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    /// `*` and `?` are wildcards.
    pub(super) wildcards: bool,
    /// `${…}` is a variable.
    pub(super) variables: bool,
}

/// A character of a pattern whose variables have their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Char(char),
    One,
    Many,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with a variable.
    pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Self, String> {
        let mut pieces = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if syntax.variables && rest.starts_with("${") {
                let (inside, after) = rest[2..]
                    .split_once('}')
                    .ok_or_else(|| format!("the variable in {text:?} has no `}}`"))?;
                pieces.push(variable(inside)?);
                rest = after;
                continue;
            }
            pieces.push(match c {
                '*' if syntax.wildcards => Piece::Many,
                '?' if syntax.wildcards => Piece::One,
                _ => Piece::Char(c),
            });
            rest = &rest[c.len_utf8()..];
        }
        Ok(Self {
            text: text.to_owned(),
            pieces,
        })
    }

    /// As written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The pattern with the values of its variables, or the key of the first that has none. A value is never a wildcard.
    pub(super) fn resolve(&self, context: &Context) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            match piece {
                Piece::Char(c) => tokens.push(Token::Char(*c)),
                Piece::One => tokens.push(Token::One),
                Piece::Many => tokens.push(Token::Many),
                Piece::Variable { key, default } => {
                    let value = match context.get(key) {
                        Some([value]) => value,
                        // A key with several values cannot be a variable.
                        Some([_, _, ..]) => return Err(key.clone()),
                        Some([]) | None => default.as_ref().ok_or_else(|| key.clone())?,
                    };
                    tokens.extend(value.chars().map(Token::Char));
                }
            }
        }
        Ok(tokens)
    }
}

fn variable(inside: &str) -> Result<Piece, String> {
    if let "*" | "?" | "$" = inside {
        return Ok(Piece::Char(inside.chars().next().unwrap_or_default()));
    }
    let (key, default) = match inside.split_once(',') {
        None => (inside, None),
        Some((key, default)) => {
            let default = default
                .trim()
                .strip_prefix('\'')
                .and_then(|d| d.strip_suffix('\''))
                .ok_or_else(|| format!("the default of `${{{inside}}}` stands in single quotes"))?;
            (key, Some(default.to_owned()))
        }
    };
    let key = key.trim();
    if !key.contains(':') {
        return Err(format!(
            "`${{{inside}}}` is no variable: one is called as a condition key, such as `${{aws:username}}`"
        ));
    }
    Ok(Piece::Variable {
        key: key.to_lowercase(),
        default,
    })
}

/// How `*` treats colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colons {
    /// They are characters as all others.
    Plain,
    /// They part segments: `?` is none of them, and `*` runs across only where it ends a segment.
    Segments,
}

/// Whether `text` is one of the texts that `pattern` stands for.
pub(super) fn matches(pattern: &[Token], text: &str, colons: Colons) -> bool {
    let text: Vec<char> = text.chars().collect();
    // `reached[i]`: the pattern up to here can stand for the first `i` characters.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for (at, token) in pattern.iter().enumerate() {
        match *token {
            Token::Many => {
                let ends_segment = matches!(pattern.get(at + 1), None | Some(Token::Char(':')));
                let across = colons == Colons::Plain || ends_segment;
                for i in 0..text.len() {
                    if reached[i] && (across || text[i] != ':') {
                        reached[i + 1] = true;
                    }
                }
            }
            single => {
                for i in (0..text.len()).rev() {
                    let same = match single {
                        Token::Char(c) => c == text[i],
                        _ => colons == Colons::Plain || text[i] != ':',
                    };
                    reached[i + 1] = reached[i] && same;
                }
                reached[0] = false;
            }
        }
    }
    reached[text.len()]
}

/// Whether an ARN is one of those that `pattern` stands for, each of its six segments by itself; the last holds all further
/// colons. Colons that a variable brings in part nothing.
pub(super) fn matches_arn(pattern: &[Token], text: &str) -> bool {
    let mut rest = pattern;
    let mut texts = text.splitn(6, ':');
    for segment in 0..6 {
        let Some(text) = texts.next() else {
            return false;
        };
        let part = if segment == 5 {
            rest
        } else {
            let Some(colon) = rest.iter().position(|t| *t == Token::Char(':')) else {
                return false;
            };
            let part = &rest[..colon];
            rest = &rest[colon + 1..];
            part
        };
        if !matches(part, text, Colons::Plain) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Syntax = Syntax {
        wildcards: true,
        variables: true,
    };

    fn tokens(pattern: &str) -> Vec<Token> {
        let mut context = Context::default();
        context.set("aws:username", ["a*b"]);
        context.set("aws:many", ["1", "2"]);
        Pattern::parse(pattern, ALL)
            .unwrap()
            .resolve(&context)
            .unwrap()
    }

    #[test]
    fn wildcards_by_segment() {
        for (pattern, text, expected) in [
            ("*", "arn:aws:ec2:us-east-1::image/ami-1", true),
            (
                "arn:aws:ec2:*::image/*",
                "arn:aws:ec2:us-east-1::image/ami-1",
                true,
            ),
            (
                "arn:aws:ec2:*::image/*",
                "arn:aws:ec2:us-east-1:123456789012:image/ami-1",
                false,
            ),
            (
                "arn:aws:ec2:us-east-1:*",
                "arn:aws:ec2:us-east-1:123456789012:volume/*",
                true,
            ),
            (
                "arn:aws:ec2:*:volume/*",
                "arn:aws:ec2:us-east-1:123456789012:volume/vol-1",
                true,
            ),
            (
                "arn:aws:ec2:us-*-1:1:volume/*",
                "arn:aws:ec2:us-east-1:1:volume/a/b",
                true,
            ),
            (
                "arn:aws:ec2:us-*1:1:volume/x",
                "arn:aws:ec2:us-east-1:1:1:volume/x",
                false,
            ),
            (
                "arn:aws:ec2:u?-east-1:1:volume/x",
                "arn:aws:ec2:us-east-1:1:volume/x",
                true,
            ),
            (
                "arn:aws:ec2:us-east-1?1:volume/x",
                "arn:aws:ec2:us-east-1:1:volume/x",
                false,
            ),
            (
                "arn:aws:ec2:us-east-1:1:Volume/x",
                "arn:aws:ec2:us-east-1:1:volume/x",
                false,
            ),
            (
                "arn:aws:iam::1:user/${aws:username}",
                "arn:aws:iam::1:user/a*b",
                true,
            ),
            (
                "arn:aws:iam::1:user/${aws:username}",
                "arn:aws:iam::1:user/axb",
                false,
            ),
            ("x${*}y${?}${$}", "x*y?$", true),
            ("x${*}", "xy", false),
            ("${aws:none, 'd'}", "d", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
        ] {
            assert_eq!(
                matches(&tokens(pattern), text, Colons::Segments),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn arns_have_six_segments() {
        for (pattern, text, expected) in [
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b/c:d", true),
            ("arn:*:*:*:*:*", "arn:aws:ec2:us-east-1::image/ami-1", true),
            ("arn:aws:*", "arn:aws:ec2:us-east-1::image/ami-1", false),
            (
                "arn:aws:ec2:*:image/*",
                "arn:aws:ec2:us-east-1::image/ami-1",
                false,
            ),
            ("arn:aws:iam::1:user/?", "arn:aws:iam::1:user/ab", false),
            ("arn:aws:iam::1:user/a", "nothing", false),
        ] {
            assert_eq!(
                matches_arn(&tokens(pattern), text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn variables_that_are_none() {
        for (text, message) in [
            ("${aws:username", "no `}`"),
            ("${username}", "no variable"),
            ("${aws:x, d}", "single quotes"),
        ] {
            let found = Pattern::parse(text, ALL).unwrap_err();
            assert!(found.contains(message), "{text}: {found}");
        }
        let old = Syntax {
            variables: false,
            ..ALL
        };
        let literal = Pattern::parse("${aws:username}", old).unwrap();
        let tokens = literal.resolve(&Context::default()).unwrap();
        assert!(matches(&tokens, "${aws:username}", Colons::Plain));
        let pattern = Pattern::parse("${aws:Nothing}", ALL).unwrap();
        assert_eq!(
            pattern.resolve(&Context::default()),
            Err("aws:nothing".to_owned())
        );
    }

    #[test]
    fn many_stars_cost_no_more_than_the_product() {
        let pattern = "*a".repeat(2_000);
        let text = "a".repeat(1_999);
        assert!(!matches(&tokens(&pattern), &text, Colons::Plain));
    }
}
