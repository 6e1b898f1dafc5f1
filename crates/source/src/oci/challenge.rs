//! What a registry asks for when it answers 401: the header `WWW-Authenticate` (RFC 9110, 11.6.1).

/// One way to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// `basic` or `bearer`, in small letters.
    pub(super) scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter by its name in small letters.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The challenges of one header; what is not understood ends the list.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut out: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return out;
        }
        let spaced = after.trim_start_matches([' ', '\t']);
        match (spaced.strip_prefix('='), out.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = parameter(value.trim_start_matches([' ', '\t'])) else {
                    return out;
                };
                challenge.params.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => return out,
            (None, _) => {
                out.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    params: Vec::new(),
                });
                rest = spaced;
            }
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, after) = token(text);
        return Some((word.to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(header: &str) -> Vec<String> {
        let text = |c: &Challenge| {
            let params: Vec<_> = c.params.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{}({})", c.scheme, params.join(";"))
        };
        parse(header).iter().map(text).collect()
    }

    #[test]
    fn challenges_of_every_form() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            show(docker),
            [
                "bearer(realm=https://auth.docker.io/token;service=registry.docker.io;scope=repository:a/b:pull,push)"
            ]
        );
        assert_eq!(
            show(r#"Basic realm = "a \"b\"" , BEARER Realm=x, scope="y""#),
            [r#"basic(realm=a "b")"#, "bearer(realm=x;scope=y)"]
        );
        assert_eq!(show("Negotiate, Basic"), ["negotiate()", "basic()"]);
        // What is cut or foreign ends the list, whatever it is.
        assert_eq!(show(r#"Basic realm="x"#), ["basic()"]);
        assert_eq!(show("realm=x, Basic"), [""; 0]);
        assert_eq!(show("\u{e4}"), [""; 0]);
    }
}
