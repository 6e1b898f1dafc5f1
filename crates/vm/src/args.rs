//! QEMU's command line.
//!
//! The machine imitates a Nitro instance where QEMU can: NVMe volumes with EC2's serial numbers, a
//! 16550 console, SMBIOS texts. It has virtio where EC2 has devices of its own (ENA).

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use amiforge_ami::{ArtifactFormat, Firmware};
use serde_json::{Value, json};

use crate::accel::Accelerator;
use crate::spec::{BootSpec, VolumeSource};
use crate::tools::{Ovmf, QemuTools};

/// QEMU's machine type.
pub(crate) const MACHINE: &str = "q35";
/// The processor under TCG.
const TCG_CPU: &str = "Nehalem";
/// The name of the agent's virtio-serial port.
pub(crate) const AGENT_PORT: &str = "org.amiforge.agent.0";

/// Files in the temporary folder, which is QEMU's working folder: short relative names keep
/// socket addresses below their 107 bytes.
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";
pub(crate) const AGENT_SOCKET: &str = "agent.sock";
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
pub(crate) const SEED_FILE: &str = "seed.raw";
pub(crate) const VARS_FILE: &str = "vars.fd";

/// The overlay of the volume at `index`.
pub(crate) fn overlay_file(index: usize) -> String {
    format!("overlay-{index}.qcow2")
}

/// The whole command, to be started in `dir`. `volumes` are absolute paths of the artefacts.
pub(crate) fn command(
    tools: &QemuTools,
    spec: &BootSpec,
    ovmf: Option<&Ovmf>,
    dir: &Path,
) -> Command {
    let o = &spec.options;
    let mut c = Command::new(&tools.qemu);
    c.current_dir(dir);
    c.args([
        "-name",
        "amiforge",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]);
    // graphics=off makes SeaBIOS speak on the serial line too; there is a VGA as EC2 has one.
    let mut machine = format!("{MACHINE},graphics=off");
    if ovmf.is_some() {
        machine.push_str(",pflash0=code,pflash1=vars");
    }
    c.args(["-machine", &machine, "-vga", "std"]);
    let accelerator = o.acceleration.accelerator;
    processors(&mut c, accelerator, o.memory_mib, o.cpus, None);
    c.args(["-boot", "strict=on,menu=off"]);
    if let Some(ovmf) = ovmf {
        firmware_nodes(&mut c, ovmf);
    }
    for (index, volume) in spec.volumes.iter().enumerate() {
        let backing = match &volume.source {
            VolumeSource::Empty => Value::Null,
            VolumeSource::File { path, format, .. } => {
                let file = json!({"driver": "file", "filename": path, "read-only": true});
                match format {
                    // A backing file named inside the artefact is not opened.
                    ArtifactFormat::Qcow2 => {
                        json!({"driver": "qcow2", "read-only": true, "backing": null, "file": file})
                    }
                    _ => json!({"driver": "raw", "read-only": true, "file": file}),
                }
            }
        };
        blockdev(
            &mut c,
            &json!({"driver": "qcow2", "node-name": format!("volume{index}"), "backing": backing,
            "discard": "unmap", "cache": {"no-flush": true},
            "file": {"driver": "file", "filename": overlay_file(index), "cache": {"no-flush": true}}}),
        );
        let boot = if index == 0 { ",bootindex=0" } else { "" };
        c.args([
            "-device",
            &format!("nvme,drive=volume{index},serial={}{boot}", volume.serial),
        ]);
    }
    if o.seed.is_some() {
        blockdev(
            &mut c,
            &json!({"driver": "raw", "node-name": "seed", "read-only": true,
            "file": {"driver": "file", "filename": SEED_FILE, "read-only": true}}),
        );
        c.args(["-device", "virtio-blk-pci,drive=seed,serial=amiforge-seed"]);
    }
    network(&mut c);
    entropy(&mut c);
    c.args([
        "-chardev",
        &format!("socket,id=console,path={CONSOLE_SOCKET}"),
        "-serial",
        "chardev:console",
    ]);
    c.args([
        "-chardev",
        &format!("socket,id=agent,path={AGENT_SOCKET}"),
        "-device",
        "virtio-serial-pci,id=serial",
    ]);
    c.args([
        "-device",
        &format!("virtserialport,bus=serial.0,chardev=agent,name={AGENT_PORT}"),
    ]);
    c.args([
        "-chardev",
        &format!("socket,id=qmp,path={QMP_SOCKET}"),
        "-mon",
        "chardev=qmp,mode=control",
    ]);
    proof_smbios(&mut c, spec);
    c
}

/// Processors, memory and clock. `code_mib` limits what the translator keeps; QEMU's own limit is 1 GiB.
pub(crate) fn processors(
    c: &mut Command,
    accelerator: Accelerator,
    memory_mib: u32,
    cpus: u32,
    code_mib: Option<u32>,
) {
    let code = code_mib.map_or_else(String::new, |mib| format!(",tb-size={mib}"));
    match accelerator {
        Accelerator::Kvm => c.args(["-accel", "kvm", "-cpu", "host"]),
        // Not `max`: under QEMU 7.2 its five-level page tables (LA57) make systemd of Debian 12 lose
        // mounts and udev (4 boots of 5 here; with `max,la57=off` and with this model none).
        // Nehalem is x86-64-v2, which Debian, Amazon Linux 2023 and EL 9 ask for, and boots
        // faster, as there is less to translate.
        Accelerator::Tcg => {
            let accel = format!("tcg,thread=multi{code}");
            c.args(["-accel", &accel, "-cpu", TCG_CPU])
        }
    };
    let (memory, cpus) = (format!("{memory_mib}M"), cpus.to_string());
    c.args(["-m", &memory, "-smp", &cpus]);
    c.args(["-rtc", "base=utc,clock=host"]);
}

/// The nodes `code` and `vars` of UEFI firmware.
pub(crate) fn firmware_nodes(c: &mut Command, ovmf: &Ovmf) {
    blockdev(
        c,
        &json!({"driver": "raw", "node-name": "code", "read-only": true,
            "file": {"driver": "file", "filename": ovmf.code, "read-only": true}}),
    );
    blockdev(
        c,
        &json!({"driver": "raw", "node-name": "vars",
            "file": {"driver": "file", "filename": VARS_FILE}}),
    );
}

/// What a guest reaches on the host's own 127.0.0.1, in QEMU's own network (invocation, `-netdev user`, `host`).
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// QEMU's own network.
pub(crate) fn network(c: &mut Command) {
    c.args(["-netdev", "user,id=net", "-device"]);
    c.arg("virtio-net-pci,netdev=net,mac=02:00:00:00:00:01,romfile=");
}

/// A source of random numbers.
pub(crate) fn entropy(c: &mut Command) {
    c.args(["-object", "rng-builtin,id=rng"]);
    c.args(["-device", "virtio-rng-pci,rng=rng"]);
}

pub(crate) fn blockdev(c: &mut Command, node: &Value) {
    c.args(["-blockdev", &node.to_string()]);
}

/// Of a boot proof. The UUID that makes cloud-init look for the instance metadata service is only given when there is no
/// seed disk: there is no such service here, and waiting for it takes minutes.
fn proof_smbios(c: &mut Command, spec: &BootSpec) {
    let id = spec.image_id.digits();
    let uuid = (spec.options.seed.is_none() && id.len() == 17).then(|| ec2_uuid(id));
    smbios(c, uuid.as_deref(), "m5.large", &format!("i-{id}"));
}

/// A UUID that begins with `ec2`, by which guests know where they are, from the 17 digits of an id.
pub(crate) fn ec2_uuid(digits: &str) -> String {
    let id = format!("{digits:0<17}");
    format!(
        "ec2{}-{}-4{}-8{}-{}0",
        &id[..5],
        &id[5..9],
        &id[9..12],
        &id[12..15],
        &id[6..17]
    )
}

/// What EC2 sets (user guide, `identify_ec2_instances`). `product` is the instance type, `asset` the instance's id.
pub(crate) fn smbios(c: &mut Command, uuid: Option<&str>, product: &str, asset: &str) {
    c.args([
        "-smbios",
        "type=0,vendor=Amazon EC2,version=1.0,date=10/16/2017,release=1.0",
    ]);
    let product = product.replace(',', ",,");
    let mut system = format!("type=1,manufacturer=Amazon EC2,product={product}");
    if let Some(uuid) = uuid {
        system.push_str(&format!(",serial={uuid},uuid={uuid}"));
    }
    c.args(["-smbios", &system]);
    c.args([
        "-smbios",
        &format!("type=2,manufacturer=Amazon EC2,asset={asset}"),
    ]);
    c.args(["-smbios", "type=3,manufacturer=Amazon EC2,asset=Amazon EC2"]);
}

/// The firmware files a spec needs.
pub(crate) fn firmware<'a>(
    tools: &'a QemuTools,
    spec: &BootSpec,
) -> Result<Option<&'a Ovmf>, crate::ToolError> {
    match spec.firmware {
        Firmware::Bios => Ok(None),
        Firmware::Uefi => tools.ovmf().map(Some),
    }
}
