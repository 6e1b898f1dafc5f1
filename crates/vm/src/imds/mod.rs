//! The instance metadata service at 169.254.169.254, as cloud-init, ec2-utils and the SDKs read it.
//!
//! ```text
//! guest ─▶ QEMU's guestfwd ─▶ imds_relay (a process each) ─▶ Unix socket ─▶ ImdsServer ─▶ Service ─▶ Tree
//! ```
//!
//! [`Metadata`] is what there is to tell of an instance; a [`Tree`] is the same as paths and texts; a [`Service`] answers a
//! [`Request`] by the rules of versions 1 and 2; an [`ImdsServer`] speaks HTTP/1.1 with guests, whom it does not trust. While
//! it runs, [`Service::update`] changes what is told: tags, a notice of interruption.
//!
//! Left out: credentials of roles and of the instance itself (there is nobody who would take them), and the hop limit of
//! tokens, since QEMU's own network sets the time to live.
//!
//! Source: EC2 user guide, pages on instance metadata; cloud-init's `DataSourceEc2`; amazon-ec2-metadata-mock.

mod http;
mod metadata;
mod places;
mod relay;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod token;
mod tree;

pub use http::{Request, Response};
pub use metadata::{Metadata, SpotAction, SpotNotice};
pub use relay::imds_relay;
pub use server::ImdsServer;
pub use service::Service;
pub use tree::{Found, Tree};

#[cfg(fuzzing)]
pub(crate) use http::read_request;
