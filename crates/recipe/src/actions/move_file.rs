//! `MoveFile`: move or rename files.
//! Reference: AWSTOE action modules, MoveFile.

use super::Entry;
use super::transfer::{Transfer, files};
use crate::decode::{Cx, Fields};

/// One move; links move as links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveFile(pub Transfer);

impl Entry for MoveFile {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        Transfer::decode(fields, cx, files).map(Self)
    }
}
