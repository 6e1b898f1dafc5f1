//! What an instance is made of.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use amiforge_ami::ec2::PortForward;
use amiforge_ami::{Firmware, InstanceId};

use crate::accel::Accelerator;

/// An instance to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Its id, from which its UUID follows.
    pub instance_id: InstanceId,
    /// Its type, the product name that the guest sees.
    pub instance_type: String,
    /// What it starts with. Under UEFI its variables are kept in `vars.fd` in the folder, made when it is not there.
    pub firmware: Firmware,
    /// What executes it.
    pub accelerator: Accelerator,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Its disks, the root first; at most 20.
    pub disks: Vec<InstanceDisk>,
    /// Its network.
    pub network: InstanceNetwork,
    /// Where the console goes: appended, and begun anew beside an old one (`.1`) after 4 MiB.
    pub console_log: PathBuf,
    /// A folder of its own, only for this user; it exists. QEMU runs in it.
    pub folder: PathBuf,
}

/// A disk of an instance, an NVMe device to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceDisk {
    /// Serial number, at most 20 bytes: of a volume its id without the dash.
    pub serial: String,
    /// Place in the order of booting; absent: it is not booted from.
    pub boot_index: Option<u32>,
    /// Its bytes.
    pub source: DiskSource,
}

/// Where the bytes of a disk are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// Behind a socket that speaks NBD: a volume. Best in the instance's folder, since the address of a socket is short.
    Nbd(PathBuf),
    /// In a raw file that does not outlive the instance: an instance store volume. What the guest flushes is not made durable.
    Raw(PathBuf),
}

/// The network of an instance: one interface, behind QEMU's own network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceNetwork {
    /// Hardware address, as in the metadata.
    pub mac: String,
    /// The address that the guest gets by DHCP.
    pub private_ip: Ipv4Addr,
    /// What is started for each connection to the metadata service: a program and its arguments, UTF-8, without line
    /// breaks. It runs in the instance's folder. Absent: there is no such service.
    pub imds_relay: Option<Vec<String>>,
    /// Ports of 127.0.0.1 that lead into the guest.
    pub forwards: Vec<PortForward>,
    /// Whether the guest reaches what the host does. QEMU's own network then also leads to services on the host's loopback,
    /// through the gateway's address.
    pub outbound: bool,
}

/// An address that cannot be a guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an instance cannot have the address {0}: it must lie in 160.0.0.0/4, and not be one that the network needs itself"
)]
pub struct SubnetError(pub Ipv4Addr);

/// Addresses of QEMU's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) network: Ipv4Addr,
    pub(super) prefix: u32,
    pub(super) gateway: Ipv4Addr,
    pub(super) dns: Ipv4Addr,
}

impl InstanceNetwork {
    /// Where the metadata service is.
    pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
    /// The subnet from which instances that may reach the internet get their addresses; the first four and the last are not
    /// given, as in EC2.
    pub const SUBNET: (Ipv4Addr, u32) = (Ipv4Addr::new(169, 255, 16, 0), 20);

    /// The smallest network with both the metadata service and the guest. As in a VPC, the gateway is the subnet's (a /20)
    /// second address, and the name server the third one of the VPC (a /16).
    pub(super) fn subnet(&self) -> Result<Subnet, SubnetError> {
        let (guest, imds) = (u32::from(self.private_ip), u32::from(Self::IMDS));
        // QEMU wants a mask of 4 bits or more; one bit less than 32 leaves room for both addresses.
        let prefix = (guest ^ imds).leading_zeros();
        let network = guest & !u32::MAX.checked_shr(prefix).unwrap_or(0);
        let gateway = (guest & 0xFFFF_F000) + 1;
        let dns = (guest & 0xFFFF_0000) + 2;
        let taken = [
            imds,
            gateway,
            dns,
            network,
            network | (u32::MAX >> prefix.min(31)),
        ];
        // An address of 169.254.0.0/16 would be taken for one that needs no server.
        if !(4..16).contains(&prefix) || taken.contains(&guest) {
            return Err(SubnetError(self.private_ip));
        }
        Ok(Subnet {
            network: network.into(),
            prefix,
            gateway: gateway.into(),
            dns: dns.into(),
        })
    }
}
