//! Guests stay maintainable, and the file systems we write stand a kernel's hard use.
//!
//! All of it happens in five boots that the tests share (`Guests::get`): under each firmware one that
//! takes everything away that boots, lets apt put it back and changes the command line, and one to see
//! what came of it; the first under BIOS also loads the root file system, the one under UEFI a second
//! disk that holds a tree with everything. Then the disk that was maintained under UEFI is booted by BIOS.

mod corpus;
mod machine;

#[path = "../../../../fs/tests/it/corpus.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of amiforge-fs"
)]
mod everything;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use amiforge_ami::Firmware;
use amiforge_testkit::{
    Env, Running, amiforge_binary, check, disk, run, shared, tool, workspace_root,
};
use amiforge_types::{GIB, MIB};
use serde_json::{Value, json};

use crate::base::{Base, LIMIT};
use machine::{Extra, boot, write_disk};

/// What the volume is enlarged to, from less than one GiB.
const VOLUME: u64 = 40 * GIB;
const STRESS: &str = "/var/stress";
/// A word for the kernel's command line.
const WORD: &str = "amiforge.test=changed";
/// Where it is put: the variable that people edit.
const VARIABLE: &str = "GRUB_CMDLINE_LINUX=\"";

/// Packages with a part in booting, by the start of their names. Not `initramfs-tools`: the kernel's
/// scripts run it, and once is enough under emulation.
const BOOT_PACKAGES: [&str; 4] = ["grub", "shim", "linux-image-", "efibootmgr"];

/// The package whose trigger runs `grub-install` when a loader's files change. It is not reinstalled
/// with them: dpkg drops the triggers of a package that it configures in the same run, and its
/// configuration does nothing on an upgrade. What boots is then left as it is, which is no loss
/// unless somebody deleted it, as the test does.
const TRIGGERED: &str = "grub-cloud-amd64";

/// The folder that the boots left.
struct Guests {
    dir: PathBuf,
}

impl Guests {
    #[track_caller]
    fn get() -> Self {
        let exe = std::env::current_exe().unwrap();
        let sum = run(tool("sh")
            .args(["-c", "cat \"$@\" fixtures/guest/*.py | sha256sum", "sh"])
            .args([&amiforge_binary(), &exe])
            .current_dir(workspace_root()))
        .text();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let day = now.unwrap().as_secs() / 86_400;
        let dir = shared("guest", &format!("{}.{day}", &sum[..16]), make);
        Self { dir }
    }

    #[track_caller]
    fn result(&self, boot: &str, stage: &str) -> Value {
        machine::result(&self.dir, boot, stage)
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.raw"))
    }

    /// The root file system of a firmware's disk, for tools that take an offset.
    fn root(&self, name: &str) -> PathBuf {
        root_of(&self.disk(name))
    }
}

fn root_of(raw: &Path) -> PathBuf {
    let root = disk::partitions(raw).remove(0);
    PathBuf::from(format!("{}?offset={}", raw.display(), root.offset))
}

/// `e2fsck -fn` on what a kernel has changed: as `check::e2fsck`, but for a remark on how well its extent
/// trees are filled. A kernel that finds a node full splits it, and never joins the halves again.
#[track_caller]
fn e2fsck_after_load(image: &Path) {
    let end = run(tool("e2fsck").arg("-fn").arg(image));
    let filling = |line: &str| {
        line.starts_with("Inode ")
            && line.contains(" extent tree (at level ")
            && (line.contains(") could be narrower.") || line.contains(") could be shorter."))
    };
    let odd = end
        .text()
        .lines()
        .any(|line| (line.contains("? no") || line.contains("UNEXPECTED")) && !filling(line));
    assert!(!odd, "e2fsck would change something\n{end}");
}

fn make(dir: &Path) {
    let base = Base::get();
    let env = Env::new();
    // The parent of the shared build is in the store: only the disk is made, as small as it can be.
    let state = env.path("state");
    for part in [
        "cache",
        "store/version",
        "store/v1/layers",
        "store/v1/records",
    ] {
        let to = state.join(part);
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        run(tool("cp").arg("-r").arg(base.state().join(part)).arg(to));
    }
    let recipe = "name: guest\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\namiforge:\n  \
        bootMode: uefi-preferred\n  formats: [raw]\n";
    env.write("recipe/recipe.yaml", recipe);
    let mut command = env.amiforge();
    command
        .args(["build", "--offline", "--no-test"])
        .arg(env.path("recipe"))
        .arg("--out")
        .arg(env.path("out"));
    Running::spawn(&mut command).wait(LIMIT).expect_code(0);

    let packages = package_disk(&env, &state.join("cache/v1/archives"), dir);
    let (tree, blobs) = corpus::tree();
    write_disk(&corpus::disk(tree, &blobs), &blobs, &dir.join("corpus.raw"));
    std::thread::scope(|scope| {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            let (env, packages) = (&env, &packages);
            scope.spawn(move || maintain(env, dir, firmware, packages));
        }
    });
    boot(
        dir,
        "crossed",
        Firmware::Bios,
        &dir.join("uefi.raw"),
        &[],
        &json!([["facts", []]]),
    );
}

/// A disk with the packages that the image has, as an archive; their names.
fn package_disk(env: &Env, archives: &Path, dir: &Path) -> Vec<String> {
    let lock: Value =
        serde_json::from_slice(&fs_err::read(env.path("out/lock.json")).unwrap()).unwrap();
    let folder = env.path("tools/packages");
    fs_err::create_dir_all(&folder).unwrap();
    let mut names = Vec::new();
    for package in lock["packages"].as_array().unwrap() {
        let text = |key: &str| package[key].as_str().unwrap().to_owned();
        let name = text("name");
        if name != TRIGGERED && BOOT_PACKAGES.iter().any(|start| name.starts_with(start)) {
            let file = archives.join(format!("{}.deb", text("sha256")));
            fs_err::copy(file, folder.join(format!("{name}.deb"))).unwrap();
            names.push(name);
        }
    }
    let index = run(tool("dpkg-scanpackages")
        .args(["--multiversion", "."])
        .current_dir(&folder));
    fs_err::write(folder.join("Packages"), index.stdout).unwrap();
    let tar = env.path("tools.tar");
    run(tool("tar")
        .arg("-C")
        .arg(env.path("tools"))
        .arg("-cf")
        .arg(&tar)
        .arg("."));
    env.run(
        env.amiforge()
            .args(["disk", "assemble", "--boot", "none", "--rootfs"])
            .arg(&tar)
            .arg("--out")
            .arg(dir.join("tools.raw")),
    );
    names
}

/// Two boots of one disk under one firmware.
fn maintain(env: &Env, dir: &Path, firmware: Firmware, packages: &[String]) {
    let name = firmware.to_string();
    let raw = dir.join(format!("{name}.raw"));
    run(tool("cp")
        .arg("--sparse=always")
        .arg(env.path("out/disk.raw"))
        .arg(&raw));
    fs_err::OpenOptions::new()
        .write(true)
        .open(&raw)
        .unwrap()
        .set_len(VOLUME)
        .unwrap();
    let extra = |serial: &'static str, read_only| Extra {
        serial,
        path: dir.join(format!("{serial}.raw")),
        read_only,
    };
    let mut extras = vec![extra("tools", true)];
    let mut stages = vec![
        json!(["facts", []]),
        json!(["mount_tools", ["tools"]]),
        json!(["wipe_boot", []]),
        json!(["reinstall", [packages]]),
        json!([
            "change_command_line",
            [VARIABLE, format!("{VARIABLE}{WORD} "), WORD]
        ]),
    ];
    let mut later = vec![json!(["facts", []])];
    if firmware == Firmware::Bios {
        stages.push(json!(["stress", [STRESS, 4000, 2, 20_000]]));
        later.push(json!(["survivors", [STRESS]]));
    } else {
        extras.push(extra("corpus", false));
        stages.extend([
            json!(["dump_read_only", ["corpus"]]),
            json!(["dump_writable", ["corpus"]]),
            json!(["write_to_folder", ["corpus", corpus::LARGE.0, 10_000]]),
            json!(["stress_disk", ["corpus", 3000, 2]]),
        ]);
    }
    later.push(json!(["verify_packages", []]));
    for list in [&mut stages, &mut later] {
        list.push(json!(["kernel_complaints", []]));
    }
    boot(
        dir,
        &format!("{name}-1"),
        firmware,
        &raw,
        &extras,
        &Value::Array(stages),
    );
    boot(
        dir,
        &format!("{name}-2"),
        firmware,
        &raw,
        &[],
        &Value::Array(later),
    );
}

const FIRMWARES: [(&str, bool); 2] = [("bios", false), ("uefi", true)];

#[test]
fn image_guest_boots_again_after_kernel_and_boot_loaders_were_reinstalled() {
    let guests = Guests::get();
    for (name, efi) in FIRMWARES {
        let done = guests.result(&format!("{name}-1"), "reinstall");
        let log: Vec<&str> = done["log"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let said = |text: &str| log.iter().filter(|line| line.contains(text)).count();
        for text in ["update-initramfs: Generating", "Setting up shim-signed"] {
            assert!(said(text) > 0, "{name}: no {text:?} in\n{}", log.join("\n"));
        }
        assert!(
            said("Installing for i386-pc platform") > 0
                && said("Installing for x86_64-efi platform") > 0,
            "{name}:\n{}",
            log.join("\n")
        );
        for text in [
            "Failed",
            "not properly installed",
            "error:",
            "Skipping installation",
        ] {
            assert_eq!(said(text), 0, "{name}: {text:?} in\n{}", log.join("\n"));
        }
        // The kernel's script writes no configuration where there is none, which the test took away.
        let changed = guests.result(&format!("{name}-1"), "change_command_line");
        assert!(
            changed["log"].to_string().contains("Found linux image"),
            "{changed}"
        );
        assert_eq!(changed["all"], true, "{name}: {changed}");
        assert_eq!(done["coreIsInstalled"], true, "{name}");
        assert!(done["bootCode"].as_u64().unwrap() > 100, "{name}: {done}");

        let facts = guests.result(&format!("{name}-2"), "facts");
        assert_eq!(facts["efi"], efi, "{name}: {facts}");
        assert_eq!(facts["state"], "running", "{name}: {facts}");
        // Every file of every package is as its package has it, but for the one that was edited.
        assert_eq!(done["notAsPackaged"], json!([]), "{name}");
        let edited = guests.result(&format!("{name}-2"), "verify_packages");
        assert_eq!(edited, json!(["??5?????? c /etc/default/grub"]), "{name}");
    }
    // Maintained under UEFI, the disk still starts in a machine with BIOS.
    let facts = guests.result("crossed", "facts");
    assert_eq!(
        (&facts["efi"], &facts["state"]),
        (&json!(false), &json!("running")),
        "{facts}"
    );
}

#[test]
fn image_guest_has_new_boot_loaders_where_the_old_ones_were() {
    let guests = Guests::get();
    let env = Env::new();
    for (name, _) in FIRMWARES {
        let raw = guests.disk(name);
        check::sgdisk_verify(&raw);
        let esp = disk::partitions(&raw)[1].extract(&raw, &env.path(name));
        check::fsck_vfat(&esp);
        let root = guests.root(name);
        for (file, packaged) in [
            ("EFI/BOOT/BOOTX64.EFI", "/usr/lib/shim/shimx64.efi.signed"),
            (
                "EFI/BOOT/grubx64.efi",
                "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
            ),
            ("EFI/debian/shimx64.efi", "/usr/lib/shim/shimx64.efi.signed"),
            (
                "EFI/debian/grubx64.efi",
                "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
            ),
        ] {
            assert!(
                check::fat_cat(&esp, file) == check::ext4_cat(&root, packaged),
                "{name}: {file} is not {packaged}"
            );
        }
        let now = guests.result(&format!("{name}-1"), "change_command_line")["boot"].clone();
        let before = guests.result(&format!("{name}-1"), "wipe_boot");
        let missing: Vec<&Value> = before
            .as_array()
            .unwrap()
            .iter()
            .filter(|path| now.get(path.as_str().unwrap()).is_none())
            .collect();
        assert!(missing.is_empty(), "{name}: not put back: {missing:?}");
    }
}

#[test]
fn image_guest_takes_a_changed_command_line() {
    let guests = Guests::get();
    for (name, _) in FIRMWARES {
        let words = |boot: &str| {
            guests.result(boot, "facts")["cmdline"]
                .as_array()
                .unwrap()
                .clone()
        };
        let (before, after) = (words(&format!("{name}-1")), words(&format!("{name}-2")));
        assert!(!before.contains(&json!(WORD)), "{before:?}");
        assert!(after.contains(&json!(WORD)), "{after:?}");
        // What the image was built with is still there, but for the file that GRUB found the kernel in.
        for word in &before[1..] {
            assert!(after.contains(word), "{word} is not in {after:?}");
        }
    }
}

#[test]
fn image_guest_grows_to_its_disk_and_stays_whole_under_load() {
    let guests = Guests::get();
    for (name, _) in FIRMWARES {
        let facts = guests.result(&format!("{name}-1"), "facts");
        let number = |key: &str| facts[key].as_u64().unwrap();
        assert!(number("partitionBytes") > VOLUME - 100 * MIB, "{facts}");
        assert!(number("rootBytes") > VOLUME / 100 * 97, "{facts}");
        check::sgdisk_verify(&guests.disk(name));
        e2fsck_after_load(&guests.root(name));
        for boot in 1..=2 {
            let complaints = guests.result(&format!("{name}-{boot}"), "kernel_complaints");
            assert_eq!(complaints, json!([]), "{name}-{boot}");
        }
    }
    let counts = guests.result("bios-1", "stress");
    for (change, count) in counts.as_object().unwrap() {
        assert!(
            count.as_u64().unwrap() > 0,
            "{change} never succeeded: {counts}"
        );
    }
    let survivors = guests.result("bios-2", "survivors");
    assert_eq!(survivors["wrong"], json!([]), "{survivors}");
    assert_eq!(survivors["listed"], survivors["found"], "{survivors}");
    assert!(survivors["found"].as_u64().unwrap() > 10_000, "{survivors}");
}

#[test]
fn image_guest_kernel_sees_the_tree_that_was_written() {
    let guests = Guests::get();
    let (tree, blobs) = corpus::tree();
    let wanted = corpus::expected(&tree, &blobs);
    // As it was before any kernel saw it: then not even the shape of a tree is to be found fault with.
    let env = Env::new();
    let raw = env.path("corpus.raw");
    write_disk(&corpus::disk(tree.clone(), &blobs), &blobs, &raw);
    check::e2fsck(&root_of(&raw));
    for dump in ["dump_read_only", "dump_writable"] {
        let found = guests.result("uefi-1", dump);
        let found = found.as_object().unwrap();
        let mut numbers = std::collections::BTreeMap::new();
        for (path, ino) in tree.walk() {
            let shown = String::from_utf8_lossy(&path);
            let path = corpus::hex(&path);
            let seen = found
                .get(&path)
                .unwrap_or_else(|| panic!("{dump}: no {shown:?}"));
            let mut same = seen.clone();
            for extra in ["ino", "blocks"] {
                same.as_object_mut().unwrap().remove(extra);
            }
            assert_eq!(same, wanted[&path], "{dump}: {shown:?}");
            let number = numbers.entry(ino).or_insert(&seen["ino"]);
            assert_eq!(*number, &seen["ino"], "{dump}: {shown:?} is a hard link");
            if let amiforge_tree::Kind::File(content) = &tree.inode(ino).kind {
                let range = corpus::sectors(content);
                let blocks = seen["blocks"].as_u64().unwrap();
                assert!(
                    range.contains(&blocks),
                    "{dump}: {shown:?} takes {blocks}, not {range:?}"
                );
            }
        }
        let lost_found = usize::from(!wanted.contains_key(&corpus::hex(b"lost+found")));
        assert_eq!(found.len(), wanted.len() + lost_found, "{dump}: names");
    }
}

#[test]
fn image_guest_changes_and_fills_a_disk_that_we_wrote() {
    let guests = Guests::get();
    let folder = guests.result("uefi-1", "write_to_folder");
    let (_, names) = corpus::LARGE;
    assert_eq!(
        folder,
        json!({"before": names, "after": names, "absent": 1000})
    );
    let mut counts = guests.result("uefi-1", "stress_disk");
    let mut take = |key: &str| counts.as_object_mut().unwrap().remove(key).unwrap();
    assert_eq!(take("changedByFilling"), json!([]));
    assert!(take("checkedAfterFilling").as_u64().unwrap() > 20_000);
    // The kernel keeps 2 % for itself, and a few blocks are left where a write of many did not fit.
    assert!(take("freeBlocksWhenFull").as_u64().unwrap() < 4096);
    assert_eq!(take("freeInodesWhenFull"), json!(0));
    assert!(take("inodes").as_u64().unwrap() > 0);
    for (change, count) in counts.as_object().unwrap() {
        assert!(
            count.as_u64().unwrap() > 0,
            "{change} never succeeded: {counts}"
        );
    }
    let raw = guests.disk("corpus");
    check::sgdisk_verify(&raw);
    e2fsck_after_load(&guests.root("corpus"));
}
