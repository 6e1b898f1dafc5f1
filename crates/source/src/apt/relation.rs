//! Relations between packages: `a | b (>= 1), c:any [amd64]` (Debian Policy, chapter 7).

use std::cmp::Ordering;

use super::version;

/// How a version has to relate to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
}

/// One package name, perhaps with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Atom<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: Option<(Op, &'a str)>,
}

impl Atom<'_> {
    /// True when a package of this version satisfies the relation.
    pub(crate) fn matches(&self, candidate: &str) -> bool {
        let Some((op, wanted)) = self.version else {
            return true;
        };
        let order = version::compare(candidate, wanted);
        match op {
            Op::Lt => order == Ordering::Less,
            Op::Le => order != Ordering::Greater,
            Op::Eq => order == Ordering::Equal,
            Op::Ge => order != Ordering::Less,
            Op::Gt => order == Ordering::Greater,
        }
    }
}

impl std::fmt::Display for Atom<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        let Some((op, version)) = self.version else {
            return Ok(());
        };
        let op = match op {
            Op::Lt => "<<",
            Op::Le => "<=",
            Op::Eq => "=",
            Op::Ge => ">=",
            Op::Gt => ">>",
        };
        write!(f, " ({op} {version})")
    }
}

/// The groups of a relation field, each a list of alternatives for this architecture. What cannot be
/// read is left out as apt leaves it out: such an alternative cannot be satisfied.
pub(crate) fn parse<'a>(field: &'a str, arch: &str) -> Vec<Vec<Atom<'a>>> {
    field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .filter_map(|group| {
            let mut for_us = 0;
            let atoms: Vec<_> = group
                .split('|')
                .filter(|text| arch_matches(text, arch))
                .inspect(|_| for_us += 1)
                .filter_map(atom)
                .collect();
            // A group restricted to other architectures does not exist here.
            (for_us > 0).then_some(atoms)
        })
        .collect()
}

fn arch_matches(text: &str, arch: &str) -> bool {
    let Some(list) = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list)
    else {
        return true;
    };
    let is = |name: &str| {
        name == arch
            || name == "any"
            || name == "linux-any"
            || name.strip_prefix("any-") == Some(arch)
    };
    let names: Vec<_> = list.split_whitespace().collect();
    if names.iter().any(|n| n.starts_with('!')) {
        !names.iter().any(|n| n.strip_prefix('!').is_some_and(is))
    } else {
        names.into_iter().any(is)
    }
}

/// One alternative. `:any` and `:native` mean the one architecture of the image.
pub(crate) fn atom(text: &str) -> Option<Atom<'_>> {
    let text = text
        .split(['[', '<'].as_slice())
        .next()
        .filter(|_| !text.contains('('))
        .unwrap_or(text)
        .trim();
    let (name, version) = match text.split_once('(') {
        None => (text, None),
        Some((name, rest)) => (
            name.trim(),
            Some(constraint(rest.split_once(')')?.0.trim())?),
        ),
    };
    let name = match name.split_once(':') {
        Some((name, "any" | "native")) => name,
        Some(_) => return None,
        None => name,
    };
    let ok = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-' | b'_'));
    ok.then_some(Atom { name, version })
}

fn constraint(text: &str) -> Option<(Op, &str)> {
    let operators = [
        ("<<", Op::Lt),
        ("<=", Op::Le),
        (">=", Op::Ge),
        (">>", Op::Gt),
        ("=", Op::Eq),
        ("<", Op::Le),
        (">", Op::Ge),
    ];
    operators
        .into_iter()
        .find_map(|(token, op)| Some((op, text.strip_prefix(token)?.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_alternatives_versions_and_qualifiers() {
        let groups = parse(
            "a (>= 1:2-3) | b:any, c [!amd64], d [amd64] , python3:any (<< 4), e:i386 | f,",
            "amd64",
        );
        let text: Vec<Vec<String>> = groups
            .iter()
            .map(|g| g.iter().map(ToString::to_string).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            text,
            [
                vec!["a (>= 1:2-3)", "b"],
                vec!["d"],
                vec!["python3 (<< 4)"],
                vec!["f"]
            ]
            .map(|g| g.iter().map(ToString::to_string).collect::<Vec<_>>())
        );
        assert_eq!(parse("x:i386", "amd64"), [vec![]]);
    }

    #[test]
    fn versions_satisfy() {
        for (relation, version, expected) in [
            ("a (>= 2)", "2", true),
            ("a (>> 2)", "2", false),
            ("a (<< 2)", "2~rc1", true),
            ("a (= 1:2-3)", "1:2-3", true),
            ("a (<= 2)", "2.1", false),
            ("a", "0", true),
        ] {
            assert_eq!(
                atom(relation).unwrap().matches(version),
                expected,
                "{relation} {version}"
            );
        }
    }
}
