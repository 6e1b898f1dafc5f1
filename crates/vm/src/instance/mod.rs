//! An instance: a machine that runs for as long as it is wanted, with its volumes, network, metadata and console.
//!
//! [`InstanceSpec`] says what it is made of, [`RunningInstance`] is one that runs. A restart by the guest happens in place; a
//! power-off ends it. Everything that QEMU needs lies in one folder, by short relative names; QEMU connects to us, so no
//! socket of its own is open to anybody.
//!
//! # Network
//! QEMU's own network serves 169.254.169.254 only where that is an address of the guest's network. [`InstanceNetwork`]
//! takes the smallest network that holds both it and the guest's own address; what lies in it beside these cannot be reached.
//! With an address like EC2's, 172.31.16.10, that is 168.0.0.0/5, a thirty-second of the internet, and more of what is
//! there to be reached (networks of Google and Cloudflare lie in it). With one from 169.255.0.0/16
//! ([`InstanceNetwork::SUBNET`]) it is 169.254.0.0/15: nothing is lost but that /16 itself, and DHCP clients that refuse
//! addresses of 169.254.0.0/16 (dhcpcd) take it. So that is the subnet for instances that may reach the internet.

mod agent;
mod command;
mod console;
mod error;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use console::{ConsoleReader, ConsoleServer};
pub use error::InstanceError;
pub use run::{Exit, ExitReason, InstanceEvent, RunningInstance, ScreenFormat, Status};
pub use spec::{DiskSource, InstanceDisk, InstanceNetwork, InstanceSpec, SubnetError};
