//! IAM policies: may a principal do an action to a resource.
//!
//! [`Policy::parse`] reads a document, [`evaluate`] decides one [`Request`] by all policies that take part and names the
//! statements that decided. One call of the API is several requests, one for each resource that it touches, all of which must be
//! allowed: [`launch_requests`] and [`image_requests`] make them with the condition keys that EC2 fills, and [`authorize`] asks them all.
//!
//! ```
//! use amiforge_ami::ec2::{AccountId, policy::{Policy, PolicyKind, Principal, Request, Verdict, evaluate}};
//!
//! let text = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}}"#;
//! let policy = Policy::parse("readers.json", PolicyKind::Identity, text).unwrap();
//! let ann = Principal::user(&AccountId::local(), "ann");
//! let decision = evaluate(&[policy], &Request::new(&ann, "ec2:DescribeImages", "*"));
//! assert_eq!(decision.verdict, Verdict::Allow);
//! ```
//!
//! What is *not* here: launch permissions and key grants (those are EC2's and KMS's own), and ABAC over sessions' transitive tags.
//!
//! Source: IAM user guide, `reference_policies_evaluation-logic` and the pages that the modules name.

mod condition;
mod context;
mod document;
mod evaluate;
mod json;
mod operation;
mod pattern;
mod requests;
#[cfg(test)]
mod tests;

pub use context::{Context, Principal, Request};
pub use document::{Effect, Policy, PolicyKind};
pub use evaluate::{Decision, Miss, StatementRef, Verdict, authorize, evaluate};
pub use operation::{ImageOperation, UnknownAction};
pub use requests::{
    ImageCall, LaunchTags, LaunchWishes, LocalNetwork, image_arn, image_requests, launch_requests,
    snapshot_arn,
};
