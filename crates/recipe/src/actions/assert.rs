//! `Assert`: fail the step unless a condition holds.
//! Reference: AWSTOE action modules, Assert.

use amiforge_types::Span;

use super::{Inputs, required_inputs};
use crate::condition::{Condition, condition};
use crate::decode::Cx;
use crate::node::Node;

/// The condition, whose operator is the inputs' own field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assert {
    /// What must be true.
    pub condition: Condition,
}

impl Inputs for Assert {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let node = required_inputs(inputs, step, cx)?;
        condition(node, cx).map(|condition| Self { condition })
    }
}
