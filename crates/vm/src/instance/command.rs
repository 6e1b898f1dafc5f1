//! QEMU's command line for an instance.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::spec::{DiskSource, InstanceNetwork, InstanceSpec};
use super::{InstanceError, SubnetError};
use crate::args::{self, AGENT_PORT, AGENT_SOCKET, CONSOLE_SOCKET, MACHINE, QMP_SOCKET};
use crate::tools::{Ovmf, QemuTools};

/// Where the guest agent of QEMU speaks.
pub(super) const GUEST_AGENT_SOCKET: &str = "guest-agent.sock";
const GUEST_AGENT_PORT: &str = "org.qemu.guest_agent.0";
/// Id of its port, in events.
pub(super) const GUEST_AGENT_ID: &str = "guest-agent";
/// Disks that there is room for beside the other devices.
const MAX_DISKS: usize = 20;
/// Translated code that is kept, in MiB. A restart has to throw away all that lies where the firmware writes, which takes
/// minutes when there is much: from the login prompt to the next kernel 153 s with QEMU's own limit (1 GiB) and 22 s with
/// this one, side by side under QEMU 7.2 with OVMF; the first boot took the same 203 s with both, and memory 970 and 560 MiB.
const CODE_MIB: u32 = 128;
/// Longest address of a socket, in bytes.
const SOCKET_MAX: usize = 107;

/// The whole command, to be started in the instance's folder.
pub(super) fn command(
    tools: &QemuTools,
    spec: &InstanceSpec,
    ovmf: Option<&Ovmf>,
) -> Result<Command, InstanceError> {
    if spec.disks.len() > MAX_DISKS {
        return Err(InstanceError::TooManyDisks(spec.disks.len()));
    }
    let mut c = Command::new(&tools.qemu);
    c.current_dir(&spec.folder);
    c.args(["-name", spec.instance_id.as_str()]);
    c.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    // Its memory holds what nobody is to see.
    let mut machine = format!("{MACHINE},graphics=off,dump-guest-core=off");
    if ovmf.is_some() {
        machine.push_str(",pflash0=code,pflash1=vars");
    }
    c.args(["-machine", &machine, "-vga", "std"]);
    args::processors(
        &mut c,
        spec.accelerator,
        spec.memory_mib,
        spec.cpus,
        Some(CODE_MIB),
    );
    c.args(["-boot", "strict=on,menu=off"]);
    if let Some(ovmf) = ovmf {
        args::firmware_nodes(&mut c, ovmf);
    }
    for (n, disk) in spec.disks.iter().enumerate() {
        args::blockdev(&mut c, &node(spec, n, &disk.source)?);
        let boot = disk.boot_index.map(|i| format!(",bootindex={i}"));
        let serial = disk.serial.replace(',', ",,");
        c.args([
            "-device",
            &format!(
                "nvme,drive=disk{n},serial={serial}{}",
                boot.unwrap_or_default()
            ),
        ]);
    }
    c.args(["-netdev", &netdev(&spec.network)?]);
    let mac = spec.network.mac.replace(',', ",,");
    c.args([
        "-device",
        &format!("virtio-net-pci,netdev=net,mac={mac},romfile="),
    ]);
    args::entropy(&mut c);
    for (id, socket) in [
        ("console", CONSOLE_SOCKET),
        ("agent", AGENT_SOCKET),
        (GUEST_AGENT_ID, GUEST_AGENT_SOCKET),
        ("qmp", QMP_SOCKET),
    ] {
        c.args(["-chardev", &format!("socket,id={id},path={socket}")]);
    }
    c.args(["-serial", "chardev:console"]);
    c.args(["-mon", "chardev=qmp,mode=control"]);
    c.args(["-device", "virtio-serial-pci,id=serial"]);
    for (chardev, name) in [("agent", AGENT_PORT), (GUEST_AGENT_ID, GUEST_AGENT_PORT)] {
        c.args([
            "-device",
            &format!("virtserialport,bus=serial.0,id={chardev},chardev={chardev},name={name}"),
        ]);
    }
    let uuid = args::ec2_uuid(spec.instance_id.digits());
    args::smbios(
        &mut c,
        Some(&uuid),
        &spec.instance_type,
        spec.instance_id.as_str(),
    );
    Ok(c)
}

fn node(spec: &InstanceSpec, n: usize, source: &DiskSource) -> Result<Value, InstanceError> {
    let name = format!("disk{n}");
    Ok(match source {
        DiskSource::Nbd(socket) => {
            let path = text(spec, socket)?;
            if path.len() > SOCKET_MAX {
                return Err(InstanceError::Path {
                    path: socket.clone(),
                });
            }
            json!({"driver": "nbd", "node-name": name, "discard": "unmap",
                "server": {"type": "unix", "path": path}})
        }
        DiskSource::Raw(file) => {
            let path = text(spec, file)?;
            json!({"driver": "raw", "node-name": name, "discard": "unmap", "cache": {"no-flush": true},
                "file": {"driver": "file", "filename": path, "discard": "unmap", "cache": {"no-flush": true}}})
        }
    })
}

/// A path as QEMU gets it: short where it lies in the folder that QEMU runs in, which is what relative ones begin at.
fn text(spec: &InstanceSpec, path: &Path) -> Result<String, InstanceError> {
    let wrong = || InstanceError::Path {
        path: path.to_owned(),
    };
    let path = match path.strip_prefix(&spec.folder) {
        Ok(inside) => inside.to_owned(),
        Err(_) if path.is_relative() => path.to_owned(),
        Err(_) => std::path::absolute(path).map_err(|_| wrong())?,
    };
    path.into_os_string().into_string().map_err(|_| wrong())
}

fn netdev(network: &InstanceNetwork) -> Result<String, SubnetError> {
    let subnet = network.subnet()?;
    let mut net = format!(
        "user,id=net,ipv6=off,net={}/{},host={},dns={},dhcpstart={}",
        subnet.network, subnet.prefix, subnet.gateway, subnet.dns, network.private_ip
    );
    if !network.outbound {
        net.push_str(",restrict=on");
    }
    for forward in &network.forwards {
        net.push_str(&format!(
            ",hostfwd=tcp:127.0.0.1:{}-{}:{}",
            forward.host, network.private_ip, forward.guest
        ));
    }
    if let Some(relay) = &network.imds_relay {
        let words: Vec<String> = relay.iter().map(|word| quote(word)).collect();
        // QEMU takes a doubled comma for one; libslirp splits into words as a shell does, without being one.
        let command = words.join(" ").replace(',', ",,");
        net.push_str(&format!(
            ",guestfwd=tcp:{}:80-cmd:{command}",
            InstanceNetwork::IMDS
        ));
    }
    Ok(net)
}

/// A word as GLib's `g_shell_parse_argv` reads it.
pub(super) fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=+@%:,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
