//! Picks the packages that satisfy a request, the way apt does: depth first in the order of the
//! fields, the first alternative that can be had, real packages before those that provide a name.
//! Where apt would give up on a conflict this goes back and tries the next alternative.

mod order;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::apt::index::Universe;
use crate::apt::relation::{self, Atom};

pub(crate) use order::installation_order;

/// Part of the key under which a resolution is cached: raise it when the choice can change.
pub(crate) const SOLVER_VERSION: u32 = 1;

/// Decisions tried before the search is given up.
const MAX_STEPS: u32 = 300_000;

/// Longest chain of dependencies that is followed; the longest in Debian is below 100.
const MAX_DEPTH: usize = 1_000;

/// Why no set of packages satisfies a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolvable {
    /// From the package asked for to the one that cannot be had.
    pub chain: Vec<String>,
    /// What is wrong with the last of the chain.
    pub reason: String,
}

impl std::error::Error for Unresolvable {}

impl fmt::Display for Unresolvable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, link) in self.chain.iter().enumerate() {
            if i > 0 {
                f.write_str(" needs ")?;
            }
            f.write_str(link)?;
        }
        if !self.chain.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)
    }
}

/// What to install.
pub(crate) struct Goal<'a> {
    /// Packages to install, as text (`name`, `name=version`, `name/suite`), in order.
    pub(crate) wanted: Vec<&'a str>,
    /// Packages never to install.
    pub(crate) exclude: BTreeSet<&'a str>,
    /// The archive a `name/suite` means.
    pub(crate) suites: Vec<&'a str>,
    /// Debian name of the architecture.
    pub(crate) arch: &'a str,
}

/// The packages picked: position in the universe, and whether it was asked for by name.
pub(crate) type Picked = BTreeMap<u32, bool>;

/// The solver's state; every change can be undone to a mark.
struct Search<'u, 'a> {
    universe: &'u Universe<'a>,
    goal: &'u Goal<'a>,
    /// Name to the version picked.
    picked: HashMap<&'a str, u32>,
    /// Version that a name is pinned to by the request.
    pinned: HashMap<&'a str, u32>,
    /// Picked, in order, to undo.
    trail: Vec<u32>,
    /// What picked packages forbid: name to (who, relation).
    forbidden: HashMap<&'a str, Vec<(u32, Atom<'a>)>>,
    steps: u32,
    /// The first failure: the most telling one.
    failure: Option<Unresolvable>,
    chain: Vec<String>,
}

/// Picks packages for `goal`.
pub(crate) fn solve(universe: &Universe<'_>, goal: &Goal<'_>) -> Result<Picked, Unresolvable> {
    let mut search = Search {
        universe,
        goal,
        picked: HashMap::new(),
        pinned: HashMap::new(),
        trail: Vec::new(),
        forbidden: HashMap::new(),
        steps: 0,
        failure: None,
        chain: Vec::new(),
    };
    let mut manual = Vec::new();
    for text in &goal.wanted {
        let (position, pinned) = search.wanted(text)?;
        let name = universe.entry(position).name;
        if pinned {
            search.pinned.insert(name, position);
        }
        manual.push(position);
    }
    // As with apt, all that was asked for is marked before any dependency is looked at, so that an
    // alternative that is asked for anyhow is taken.
    for position in &manual {
        let position = search
            .pinned
            .get(universe.entry(*position).name)
            .copied()
            .unwrap_or(*position);
        search.mark(position).map_err(|reason| Unresolvable {
            chain: vec![universe.entry(position).name.to_owned()],
            reason,
        })?;
    }
    let queue: Vec<u32> = search.trail.clone();
    if !search.satisfy_all(&queue, 0) {
        return Err(search.failure.unwrap_or_else(|| Unresolvable {
            chain: Vec::new(),
            reason: "the search was given up".to_owned(),
        }));
    }
    let manual: BTreeSet<&str> = manual.iter().map(|p| universe.entry(*p).name).collect();
    Ok(search
        .picked
        .values()
        .map(|p| (*p, manual.contains(universe.entry(*p).name)))
        .collect())
}

impl<'u, 'a> Search<'u, 'a> {
    /// The package that a text of the request means, and whether it pins a version.
    fn wanted(&self, text: &str) -> Result<(u32, bool), Unresolvable> {
        let fail = |reason: String| Unresolvable {
            chain: vec![text.to_owned()],
            reason,
        };
        let (name, version, suite) = match (text.split_once('='), text.split_once('/')) {
            (Some((name, version)), _) => (name, Some(version), None),
            (None, Some((name, suite))) => (name, None, Some(suite)),
            (None, None) => (text, None, None),
        };
        let name = name.split_once(':').map_or(name, |(name, _)| name);
        let Some(list) = self.universe.by_name.get(name) else {
            let mut providers: Vec<u32> = self
                .universe
                .providers
                .get(name)
                .map_or_else(Vec::new, |l| l.iter().map(|(p, _)| *p).collect());
            providers.retain(|p| self.universe.candidate(self.universe.entry(*p).name) == Some(*p));
            providers.dedup();
            return match providers.as_slice() {
                [] => Err(fail("no such package in the archive".to_owned())),
                [one] => Ok((*one, false)),
                many => {
                    let mut names: Vec<_> =
                        many.iter().map(|p| self.universe.entry(*p).name).collect();
                    names.sort_unstable();
                    Err(fail(format!(
                        "is provided by several packages: name one of {}",
                        names.join(", ")
                    )))
                }
            };
        };
        let found = list.iter().copied().find(|p| {
            let entry = self.universe.entry(*p);
            version.is_none_or(|v| v == entry.version)
                && suite
                    .is_none_or(|s| self.goal.suites.get(entry.archive).is_some_and(|a| *a == s))
        });
        match found {
            Some(p) => Ok((p, version.is_some() || suite.is_some())),
            None => {
                let versions: Vec<_> = list
                    .iter()
                    .map(|p| self.universe.entry(*p).version)
                    .collect();
                Err(fail(format!(
                    "not in the archive, which has {}",
                    versions.join(", ")
                )))
            }
        }
    }

    /// The one version of a name that may be installed.
    fn candidate(&self, name: &str) -> Option<u32> {
        self.pinned
            .get(name)
            .copied()
            .or_else(|| self.universe.candidate(name))
    }

    /// Picks a package, without its dependencies. The error says which conflict forbids it.
    fn mark(&mut self, position: u32) -> Result<bool, String> {
        let entry = self.universe.entry(position);
        if let Some(have) = self.picked.get(entry.name) {
            return match *have == position {
                true => Ok(false),
                false => Err(format!(
                    "version {} is needed, and {} too",
                    entry.version,
                    self.universe.entry(*have).version
                )),
            };
        }
        if self.goal.exclude.contains(entry.name) {
            return Err("is excluded by the recipe".to_owned());
        }
        if let Some(reason) = self.forbidden_by(position) {
            return Err(reason);
        }
        for field in [entry.conflicts, entry.breaks] {
            for atom in relation::parse(field, self.goal.arch).into_iter().flatten() {
                if let Some(other) = self
                    .installed(&atom)
                    .into_iter()
                    .find(|other| *other != position)
                {
                    let other = self.universe.entry(other);
                    return Err(format!(
                        "conflicts with {} {} ({atom})",
                        other.name, other.version
                    ));
                }
            }
        }
        for field in [entry.conflicts, entry.breaks] {
            for atom in relation::parse(field, self.goal.arch).into_iter().flatten() {
                self.forbidden
                    .entry(atom.name)
                    .or_default()
                    .push((position, atom));
            }
        }
        self.picked.insert(entry.name, position);
        self.trail.push(position);
        Ok(true)
    }

    /// Which picked package forbids this one, if any.
    fn forbidden_by(&self, position: u32) -> Option<String> {
        let entry = self.universe.entry(position);
        let says = |who: u32, atom: &Atom<'_>| {
            let who = self.universe.entry(who);
            format!("{} {} conflicts with it ({atom})", who.name, who.version)
        };
        for (who, atom) in self.forbidden.get(entry.name).into_iter().flatten() {
            if *who != position && atom.matches(entry.version) {
                return Some(says(*who, atom));
            }
        }
        if entry.provides.is_empty() {
            return None;
        }
        for provided in relation::parse(entry.provides, self.goal.arch)
            .into_iter()
            .flatten()
        {
            for (who, atom) in self.forbidden.get(provided.name).into_iter().flatten() {
                let hit = match provided.version {
                    Some((_, version)) => atom.matches(version),
                    // An unversioned Provides never satisfies a versioned relation.
                    None => atom.version.is_none(),
                };
                if hit && *who != position {
                    return Some(says(*who, atom));
                }
            }
        }
        None
    }

    /// Picked packages that satisfy an alternative, by name or by what they provide.
    fn installed(&self, atom: &Atom<'_>) -> Vec<u32> {
        let mut out = Vec::new();
        if let Some(p) = self.picked.get(atom.name)
            && atom.matches(self.universe.entry(*p).version)
        {
            out.push(*p);
        }
        for (p, version) in self.universe.providers.get(atom.name).into_iter().flatten() {
            if provides(*version, atom) && self.picked.get(self.universe.entry(*p).name) == Some(p)
            {
                out.push(*p);
            }
        }
        out
    }

    /// What could satisfy a group, in the order of preference.
    fn choices(&self, group: &[Atom<'a>]) -> Vec<u32> {
        let mut out = Vec::new();
        for atom in group {
            if let Some(p) = self.candidate(atom.name)
                && atom.matches(self.universe.entry(p).version)
                && !out.contains(&p)
            {
                out.push(p);
            }
            let mut providers: Vec<u32> = self
                .universe
                .providers
                .get(atom.name)
                .into_iter()
                .flatten()
                .filter(|(p, version)| {
                    provides(*version, atom)
                        && self.candidate(self.universe.entry(*p).name) == Some(*p)
                })
                .map(|(p, _)| *p)
                .collect();
            providers.sort_by_key(|p| {
                let entry = self.universe.entry(*p);
                (!entry.essential, priority_rank(entry.priority), *p)
            });
            for p in providers {
                if !out.contains(&p) {
                    out.push(p);
                }
            }
        }
        out
    }

    /// Satisfies what these picked packages need. On failure everything is as before.
    fn satisfy_all(&mut self, packages: &[u32], depth: usize) -> bool {
        let arch = self.goal.arch;
        let universe = self.universe;
        let mut groups = Vec::new();
        for package in packages {
            let entry = universe.entry(*package);
            for field in [entry.pre_depends, entry.depends] {
                groups.extend(
                    relation::parse(field, arch)
                        .into_iter()
                        .map(|group| (*package, group)),
                );
            }
        }
        self.satisfy(&groups, depth)
    }

    fn satisfy(&mut self, groups: &[(u32, Vec<Atom<'a>>)], depth: usize) -> bool {
        let mut groups = groups;
        loop {
            let Some(((owner, group), rest)) = groups.split_first() else {
                return true;
            };
            self.steps += 1;
            if self.steps > MAX_STEPS || depth > MAX_DEPTH {
                return false;
            }
            if group.iter().any(|atom| !self.installed(atom).is_empty()) {
                groups = rest;
                continue;
            }
            let owner_name = self.universe.entry(*owner).name.to_owned();
            let top = depth == 0;
            if top {
                self.chain.clear();
            }
            self.chain.push(owner_name);
            let choices = self.choices(group);
            let wanted = group
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" | ");
            if choices.is_empty() {
                self.fail(wanted.clone(), self.why_missing(group));
            }
            let mut done = None;
            for choice in &choices {
                let mark = self.trail.len();
                match self.mark(*choice) {
                    Ok(_) => {
                        if self.satisfy_all(&[*choice], depth + 1) {
                            // With a single way there is nothing to come back to.
                            if choices.len() == 1 {
                                done = Some(None);
                                break;
                            }
                            let chain = std::mem::take(&mut self.chain);
                            let ok = self.satisfy(rest, depth);
                            self.chain = chain;
                            if ok {
                                done = Some(Some(true));
                                break;
                            }
                        }
                    }
                    Err(reason) => self.fail(self.universe.entry(*choice).name.to_owned(), reason),
                }
                self.undo(mark);
            }
            self.chain.pop();
            match done {
                Some(None) => groups = rest,
                Some(Some(ok)) => return ok,
                None => return false,
            }
        }
    }

    fn why_missing(&self, group: &[Atom<'a>]) -> String {
        let mut reasons = Vec::new();
        for atom in group {
            match self.candidate(atom.name) {
                Some(p) => reasons.push(format!(
                    "{} is available in version {}",
                    atom.name,
                    self.universe.entry(p).version
                )),
                None => reasons.push(format!("{} is not in the archive", atom.name)),
            }
        }
        if reasons.is_empty() {
            "it is for another architecture".to_owned()
        } else {
            reasons.join(", ")
        }
    }

    fn fail(&mut self, what: String, reason: String) {
        if self.failure.is_none() {
            let mut chain = self.chain.clone();
            chain.push(what);
            self.failure = Some(Unresolvable { chain, reason });
        }
    }

    fn undo(&mut self, mark: usize) {
        for position in self.trail.split_off(mark) {
            let entry = self.universe.entry(position);
            self.picked.remove(entry.name);
            for field in [entry.conflicts, entry.breaks] {
                for atom in relation::parse(field, self.goal.arch).into_iter().flatten() {
                    if let Some(list) = self.forbidden.get_mut(atom.name) {
                        list.retain(|(who, _)| *who != position);
                    }
                }
            }
        }
    }
}

/// True when a provided name, with or without a version, satisfies an alternative.
fn provides(version: Option<&str>, atom: &Atom<'_>) -> bool {
    match version {
        Some(version) => atom.matches(version),
        None => atom.version.is_none(),
    }
}

fn priority_rank(priority: &str) -> u8 {
    match priority {
        "required" => 0,
        "important" => 1,
        "standard" => 2,
        "optional" => 3,
        _ => 4,
    }
}
