//! From paths to inodes.

use super::FileKind;
use super::dir;
use super::error::ReadError;
use super::fs::Fs;
use super::inode::{Inode, ROOT};

/// Symbolic links that Linux follows on one path.
const MAX_LINKS: u32 = 40;
const MAX_NAME: usize = 255;

/// Where a path led.
pub(super) struct Found {
    pub(super) inode: Inode,
    names: Vec<Vec<u8>>,
}

impl Found {
    /// The path without links and `..`.
    pub(super) fn path(&self) -> Vec<u8> {
        if self.names.is_empty() {
            return b"/".to_vec();
        }
        let mut path = Vec::new();
        for name in &self.names {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }
}

/// Follows a path from the root. A link at its end is followed only where that is wanted.
pub(super) fn walk(fs: &Fs, path: &[u8], follow_last: bool) -> Result<Found, ReadError> {
    if path.contains(&0) {
        return Err(ReadError::BadPath(path.to_vec()));
    }
    let mut inode = fs.named_inode(ROOT).map_err(|fault| fault.at(b"/"))?;
    // The names that led here, each with the directory that it was found in.
    let mut way: Vec<(Vec<u8>, Inode)> = Vec::new();
    let mut rest: Vec<Vec<u8>> = Vec::new();
    push(&mut rest, path);
    let ends_in_slash = path.last() == Some(&b'/');
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if inode.kind != FileKind::Dir {
            return Err(ReadError::NotADirectory(path.to_vec()));
        }
        match name.as_slice() {
            b"." => continue,
            b".." => {
                // Above the root is the root.
                if let Some((_, parent)) = way.pop() {
                    inode = parent;
                }
                continue;
            }
            name if name.len() > MAX_NAME => return Err(ReadError::BadPath(path.to_vec())),
            _ => {}
        }
        let next = dir::lookup(fs, &inode, &name).map_err(|fault| fault.at(path))?;
        let next = next.ok_or_else(|| ReadError::NotFound(path.to_vec()))?;
        let next = fs.named_inode(next).map_err(|fault| fault.at(path))?;
        let follows = !rest.is_empty() || follow_last || ends_in_slash;
        if next.kind == FileKind::Symlink && follows {
            links += 1;
            if links > MAX_LINKS {
                return Err(ReadError::TooManyLinks(path.to_vec()));
            }
            let target = fs.link_target(&next).map_err(|fault| fault.at(path))?;
            if target.first() == Some(&b'/') {
                let root = way.drain(..).next();
                inode = root.map_or(inode, |(_, root)| root);
            }
            push(&mut rest, &target);
            continue;
        }
        way.push((name, std::mem::replace(&mut inode, next)));
    }
    if ends_in_slash && inode.kind != FileKind::Dir {
        return Err(ReadError::NotADirectory(path.to_vec()));
    }
    Ok(Found {
        inode,
        names: way.into_iter().map(|(name, _)| name).collect(),
    })
}

/// Puts the names of a path before the others, the first one on top.
fn push(rest: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|b| *b == b'/').filter(|name| !name.is_empty());
    rest.extend(names.rev().map(<[u8]>::to_vec));
}
