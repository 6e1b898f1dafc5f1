//! The order in which picked packages are unpacked and configured.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Picked;
use crate::apt::index::Universe;
use crate::apt::relation::{self, Atom};

/// One place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) position: u32,
    /// See [`crate::ResolvedPackage::stage`].
    pub(crate) stage: u8,
}

/// Sorts the picked packages: what base-passwd needs, base-files, the other essential packages, the
/// rest; inside each, what a package pre-depends on before it, then what it depends on unless that
/// closes a circle. Depends on nothing but the set.
pub(crate) fn installation_order(
    universe: &Universe<'_>,
    picked: &Picked,
    arch: &str,
) -> Vec<Placed> {
    let by_name: BTreeMap<&str, u32> = picked
        .keys()
        .map(|p| (universe.entry(*p).name, *p))
        .collect();
    let mut provided: HashMap<&str, Vec<u32>> = HashMap::new();
    for p in by_name.values() {
        for atom in relation::parse(universe.entry(*p).provides, arch)
            .into_iter()
            .flatten()
        {
            provided.entry(atom.name).or_default().push(*p);
        }
    }
    let satisfies = |group: &[Atom<'_>]| -> Option<u32> {
        group.iter().find_map(|atom| {
            let named = by_name
                .get(atom.name)
                .filter(|p| atom.matches(universe.entry(**p).version));
            named.or_else(|| provided.get(atom.name)?.first()).copied()
        })
    };
    let needs = |p: u32, field: &str| -> Vec<u32> {
        relation::parse(field, arch)
            .iter()
            .filter_map(|group| satisfies(group))
            .filter(|n| *n != p)
            .collect()
    };

    let mut out: Vec<Placed> = Vec::with_capacity(picked.len());
    let mut placed = BTreeSet::new();
    let mut take = |roots: Vec<u32>, stage: u8, out: &mut Vec<Placed>| {
        for root in roots {
            // Depth first without recursion: (package, its needs, how many are done).
            let mut open = BTreeSet::new();
            let mut stack: Vec<(u32, Vec<u32>, usize)> = Vec::new();
            let push =
                |p: u32, stack: &mut Vec<_>, open: &mut BTreeSet<u32>, placed: &BTreeSet<u32>| {
                    if !placed.contains(&p) && open.insert(p) {
                        let entry = universe.entry(p);
                        let mut list = needs(p, entry.pre_depends);
                        list.extend(needs(p, entry.depends));
                        stack.push((p, list, 0));
                    }
                };
            push(root, &mut stack, &mut open, &placed);
            while let Some((p, list, next)) = stack.last_mut() {
                if let Some(need) = list.get(*next).copied() {
                    *next += 1;
                    push(need, &mut stack, &mut open, &placed);
                } else {
                    let p = *p;
                    stack.pop();
                    placed.insert(p);
                    out.push(Placed { position: p, stage });
                }
            }
        }
    };
    let named = |names: &[&str]| -> Vec<u32> {
        names
            .iter()
            .filter_map(|n| by_name.get(n).copied())
            .collect()
    };
    let essential: Vec<u32> = by_name
        .values()
        .copied()
        .filter(|p| universe.entry(*p).essential)
        .collect();
    take(named(&["base-passwd"]), 0, &mut out);
    take(named(&["base-files"]), 1, &mut out);
    take(essential, 2, &mut out);
    take(by_name.values().copied().collect(), 3, &mut out);
    out
}
