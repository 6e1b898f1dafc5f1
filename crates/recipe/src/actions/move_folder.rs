//! `MoveFolder`: move or rename folders with all below them.
//! Reference: AWSTOE action modules, MoveFolder.

use super::Entry;
use super::transfer::{Transfer, folders};
use crate::decode::{Cx, Fields};

/// One move; an existing folder is added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveFolder(pub Transfer);

impl Entry for MoveFolder {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        Transfer::decode(fields, cx, folders).map(Self)
    }
}
