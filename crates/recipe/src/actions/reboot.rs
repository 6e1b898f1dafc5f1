//! `Reboot`: restart the machine and go on with the next step.
//! Reference: AWSTOE action modules, Reboot.

use amiforge_types::Span;

use super::Inputs;
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// The timeout of the step does not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reboot {
    /// Seconds to wait before.
    pub delay_seconds: u32,
}

impl Inputs for Reboot {
    fn decode_inputs(inputs: Option<&Node>, _step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let Some(node) = inputs.filter(|node| !node.is_null()) else {
            return Some(Self::default());
        };
        let mut fields = Fields::of(node, "Reboot", cx)?;
        let delay = fields.optional("delaySeconds", cx, |n, cx| {
            u32::try_from(decode::integer(n, cx, 0..=i64::from(u32::MAX))?).ok()
        });
        fields.deny_unknown(cx);
        Some(Self {
            delay_seconds: delay?.unwrap_or(0),
        })
    }
}
