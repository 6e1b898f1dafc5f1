//! `CopyFolder`: copy folders with all below them.
//! Reference: AWSTOE action modules, CopyFolder.

use super::Entry;
use super::transfer::{Transfer, folders};
use crate::decode::{Cx, Fields};

/// One copy; an existing folder is added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFolder(pub Transfer);

impl Entry for CopyFolder {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        Transfer::decode(fields, cx, folders).map(Self)
    }
}
