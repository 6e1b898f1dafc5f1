//! The names of a directory: sorted, eight bytes each beside the text.
//!
//! The text of all names of a tree lies in one buffer, a byte of length before each. A directory is a
//! list of places in it, in the order of the names, cut into chunks so that a name can be put into the
//! middle of a large directory without moving all others.

use crate::model::{Ino, MAX_NAME, TreeError};

/// Most names of a chunk.
const CHUNK: usize = 512;

const _: () = assert!(MAX_NAME == u8::MAX as usize);
const _: () = assert!(size_of::<Entry>() == 8);

/// The text of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameStore(Vec<u8>);

impl NameStore {
    fn get(&self, at: u32) -> &[u8] {
        let at = at as usize;
        let len = usize::from(self.0[at]);
        &self.0[at + 1..at + 1 + len]
    }

    pub(crate) fn text(&self, name: NameRef) -> &[u8] {
        self.get(name.0)
    }

    fn add(&mut self, name: &[u8]) -> Result<u32, TreeError> {
        let len = u8::try_from(name.len()).map_err(|_| TreeError::BadName(name.to_vec()))?;
        let at = u32::try_from(self.0.len()).map_err(|_| TreeError::TooMany)?;
        self.0.push(len);
        self.0.extend_from_slice(name);
        Ok(at)
    }

    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.0.len()
    }
}

/// The text of a name in the tree that gave it; see [`Children::refs`] and [`Tree::text`](crate::Tree::text).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameRef(u32);

/// A name and what it leads to.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name: u32,
    ino: Ino,
}

/// One directory. `first` is empty only when all of it is; no chunk of `rest` ever is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    first: Vec<Entry>,
    rest: Vec<Vec<Entry>>,
}

/// Where a name is, or would be: chunk and place in it.
type Found = (usize, Result<usize, usize>);

impl Directory {
    /// With the room that chunks have in reserve.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let chunks = std::iter::once(&self.first).chain(&self.rest);
        let entries: usize = chunks.map(|c| c.capacity() * size_of::<Entry>()).sum();
        size_of::<Self>() + self.rest.capacity() * size_of::<Vec<Entry>>() + entries
    }

    fn chunk(&self, index: usize) -> &Vec<Entry> {
        match index.checked_sub(1) {
            None => &self.first,
            Some(index) => &self.rest[index],
        }
    }

    fn chunk_mut(&mut self, index: usize) -> &mut Vec<Entry> {
        match index.checked_sub(1) {
            None => &mut self.first,
            Some(index) => &mut self.rest[index],
        }
    }

    fn find(&self, names: &NameStore, name: &[u8]) -> Found {
        // Names mostly come in order.
        let last = self.rest.len();
        if let Some(entry) = self.chunk(last).last()
            && names.get(entry.name) < name
        {
            return (last, Err(self.chunk(last).len()));
        }
        let index = self
            .rest
            .partition_point(|chunk| names.get(chunk[0].name) <= name);
        let place = self
            .chunk(index)
            .binary_search_by(|entry| names.get(entry.name).cmp(name));
        (index, place)
    }

    fn get(&self, names: &NameStore, name: &[u8]) -> Option<Ino> {
        let (index, place) = self.find(names, name);
        Some(self.chunk(index)[place.ok()?].ino)
    }

    /// Makes a name lead to `ino`; gives what it led to before.
    pub(crate) fn insert(
        &mut self,
        names: &mut NameStore,
        name: &[u8],
        ino: Ino,
    ) -> Result<Option<Ino>, TreeError> {
        let (index, place) = self.find(names, name);
        let mut at = match place {
            Ok(at) => {
                let entry = &mut self.chunk_mut(index)[at];
                return Ok(Some(std::mem::replace(&mut entry.ino, ino)));
            }
            Err(at) => at,
        };
        let entry = Entry {
            name: names.add(name)?,
            ino,
        };
        let last = index == self.rest.len();
        let mut chunk = self.chunk_mut(index);
        if chunk.len() >= CHUNK {
            // Behind all others a new chunk, so that a directory that is filled in order has full ones.
            let keep = match at == CHUNK && last {
                true => CHUNK,
                false => CHUNK / 2,
            };
            let tail = chunk.split_off(keep);
            if at < keep {
                self.rest.insert(index, tail);
                chunk = self.chunk_mut(index);
            } else {
                at -= keep;
                self.rest.insert(index, tail);
                chunk = self.chunk_mut(index + 1);
            }
        }
        chunk.insert(at, entry);
        Ok(None)
    }

    /// Takes a name away. True when it was there.
    pub(crate) fn remove(&mut self, names: &NameStore, name: &[u8]) -> bool {
        let (index, Ok(at)) = self.find(names, name) else {
            return false;
        };
        self.chunk_mut(index).remove(at);
        if self.chunk(index).is_empty() {
            if index > 0 {
                self.rest.remove(index - 1);
            } else if !self.rest.is_empty() {
                self.first = self.rest.remove(0);
            }
        }
        true
    }
}

/// The names of a directory and their inodes, in byte order.
#[derive(Clone, Copy, Debug)]
pub struct Children<'t> {
    directory: &'t Directory,
    names: &'t NameStore,
}

impl<'t> Children<'t> {
    pub(crate) const fn new(directory: &'t Directory, names: &'t NameStore) -> Self {
        Self { directory, names }
    }

    /// Number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        let rest: usize = self.directory.rest.iter().map(Vec::len).sum();
        self.directory.first.len() + rest
    }

    /// True without any name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.first.is_empty()
    }

    /// The inode that a name leads to.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Ino> {
        self.directory.get(self.names, name)
    }

    /// Names and inodes.
    pub fn iter(&self) -> impl Iterator<Item = (&'t [u8], Ino)> + use<'t> {
        let names = self.names;
        self.refs().map(|(name, ino)| (names.text(name), ino))
    }

    /// The same, with names of four bytes: for who has to hold those of a large directory.
    pub fn refs(&self) -> impl Iterator<Item = (NameRef, Ino)> + use<'t> {
        std::iter::once(&self.directory.first)
            .chain(&self.directory.rest)
            .flatten()
            .map(|entry| (NameRef(entry.name), entry.ino))
    }

    /// The names alone.
    pub fn names(&self) -> impl Iterator<Item = &'t [u8]> + use<'t> {
        self.iter().map(|(name, _)| name)
    }

    /// The inodes alone, in the order of the names.
    pub fn inodes(&self) -> impl Iterator<Item = Ino> + use<'t> {
        self.iter().map(|(_, ino)| ino)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn same(model: &BTreeMap<Vec<u8>, Ino>, directory: &Directory, names: &NameStore) {
        let children = Children::new(directory, names);
        let all: Vec<_> = children.iter().map(|(n, i)| (n.to_vec(), i)).collect();
        let wanted: Vec<_> = model.iter().map(|(n, i)| (n.clone(), *i)).collect();
        assert_eq!(all, wanted);
        assert_eq!(children.len(), model.len());
        assert_eq!(children.is_empty(), model.is_empty());
        assert!(directory.rest.iter().all(|chunk| !chunk.is_empty()));
    }

    #[test]
    fn names_in_order_fill_their_chunks() {
        let (mut names, mut directory) = (NameStore::default(), Directory::default());
        for n in 0..10 * CHUNK {
            let name = format!("{n:06}");
            let ino = Ino(u32::try_from(n).unwrap());
            directory.insert(&mut names, name.as_bytes(), ino).unwrap();
        }
        assert_eq!(directory.rest.len(), 9);
        assert!(directory.rest.iter().all(|chunk| chunk.len() == CHUNK));
    }

    #[test]
    fn names_in_any_order_leave_chunks_half_full() {
        let (mut names, mut directory) = (NameStore::default(), Directory::default());
        let forth = (0..2 * CHUNK).map(|n| format!("{n:06}"));
        let back = (0..50 * CHUNK).rev().map(|n| format!("z{n:06}"));
        for (ino, name) in (0..).zip(forth.chain(back)) {
            directory
                .insert(&mut names, name.as_bytes(), Ino(ino))
                .unwrap();
        }
        assert!(directory.rest.len() <= 2 * 52, "{}", directory.rest.len());
    }

    proptest! {
        #[test]
        fn a_directory_is_a_sorted_map(
            edits in prop::collection::vec((any::<bool>(), 0..3000_u32), 0..6000),
        ) {
            let (mut names, mut directory) = (NameStore::default(), Directory::default());
            let mut model = BTreeMap::new();
            // Four of five insert, so that chunks are cut.
            for (n, (flip, number)) in (0_u32..).zip(edits) {
                let name = format!("{:x}", number.wrapping_mul(2_654_435_761));
                if flip && n % 3 == 0 {
                    let there = model.remove(name.as_bytes()).is_some();
                    prop_assert_eq!(directory.remove(&names, name.as_bytes()), there);
                } else {
                    let old = directory.insert(&mut names, name.as_bytes(), Ino(n)).unwrap();
                    prop_assert_eq!(old, model.insert(name.clone().into_bytes(), Ino(n)));
                }
                let got = Children::new(&directory, &names).get(name.as_bytes());
                prop_assert_eq!(got, model.get(name.as_bytes()).copied());
            }
            same(&model, &directory, &names);
            for name in model.keys() {
                prop_assert!(directory.remove(&names, name));
            }
            same(&BTreeMap::new(), &directory, &names);
        }
    }
}
