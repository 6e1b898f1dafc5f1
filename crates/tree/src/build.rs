//! Building a tree by inodes instead of paths, for whoever reads a file system.

use crate::model::{Ino, Inode, Tree, TreeError};

impl Tree {
    /// Adds an inode that no name leads to yet. The caller names it in a directory's
    /// [`Kind::Dir`](crate::Kind::Dir), and answers for the names there.
    pub fn add(&mut self, inode: Inode) -> Result<Ino, TreeError> {
        let ino = Ino(u32::try_from(self.inodes.len()).map_err(|_| TreeError::TooMany)?);
        self.inodes.push(inode);
        Ok(ino)
    }
}
