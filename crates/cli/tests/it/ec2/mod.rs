//! Instances, images, snapshots and keys, with a guest of a boot sector: it prints a line, and writes one sector of its disk.
//! What an operating system has to say to it is in [`story`].

mod abandoned;
mod answers;
mod bundles;
mod governance;
mod keys;
mod kills;
mod lost;
mod owners;
mod side_by_side;
mod story;
mod volumes;

use std::path::PathBuf;
use std::process::Command;

use amiforge_testkit::{Env, Finished, finish};
use amiforge_vm::{TinyEnding, TinyGuest};

/// What the guest prints.
pub(crate) const HELLO: &str = "tiny guest is up";

/// An environment with machines, which are all ended with it.
pub(crate) struct Cloud {
    env: Env,
    /// The state, when it is not that of the environment.
    home: Option<PathBuf>,
}

impl Cloud {
    pub(crate) fn new() -> Self {
        Self {
            env: Env::new(),
            home: None,
        }
    }

    /// Has its state elsewhere from now on.
    pub(crate) fn at(&mut self, home: PathBuf) {
        self.home = Some(home);
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.env.amiforge();
        command
            .args(line.split_whitespace())
            .current_dir(self.env.path("tmp"));
        if let Some(home) = &self.home {
            command.env("AMIFORGE_HOME", home);
        }
        command
    }

    /// Runs a command line, which has to succeed, and gives what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        finish(&mut self.command(line))
            .expect_code(0)
            .text()
            .trim()
            .to_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    /// Runs a command line, which has to be refused with this code of the API.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str, code: &str) -> Finished {
        let end = finish(&mut self.command(line));
        assert!(end.code() != 0, "{line} was granted: {}", end.text());
        assert!(end.stderr.contains(code), "{line}: {}", end.stderr);
        end
    }

    /// A disk with the guest on it.
    pub(crate) fn disk(&self, ending: TinyEnding) -> PathBuf {
        let guest = TinyGuest {
            message: HELLO.to_owned(),
            writes: true,
            ending,
        };
        let mut disk = guest.disk();
        // Some text that can be looked for.
        let at = disk.len() / 2;
        disk[at..at + SECRET.len()].copy_from_slice(SECRET.as_bytes());
        self.env
            .write(format!("{ending:?}.raw").replace(['(', ')'], ""), disk)
    }

    /// Registers the guest that loops for ever; gives the image.
    #[track_caller]
    pub(crate) fn image(&self, name: &str) -> String {
        let disk = self.disk(TinyEnding::Hang);
        self.ok(&format!(
            "image register --disk {} --name {name} --boot-mode legacy-bios",
            disk.display()
        ))
    }

    #[track_caller]
    pub(crate) fn state(&self, instance: &str) -> String {
        let found = self.json(&format!("instance list {instance} --json"));
        found["Reservations"][0]["Instances"][0]["State"]["Name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The process of an instance, and its QEMU.
    pub(crate) fn processes(&self, instance: &str) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(instance) {
                found.push(pid);
            }
        }
        found.sort_unstable();
        found
    }
}

/// Kills a process.
pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// What the disk of the guest holds beside its program.
pub(crate) const SECRET: &str = "a text that lies in the open on the disk of the guest";

impl Drop for Cloud {
    fn drop(&mut self) {
        let list = finish(&mut self.command("instance list --json"));
        let Ok(list) = serde_json::from_str::<serde_json::Value>(&list.text()) else {
            return;
        };
        let ids: Vec<&str> = list["Reservations"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|r| r["Instances"].as_array().into_iter().flatten())
            .filter_map(|i| i["InstanceId"].as_str())
            .collect();
        if !ids.is_empty() {
            finish(&mut self.command(&format!("instance terminate --force {}", ids.join(" "))));
        }
        // Those of other accounts and regions, when a test has failed: a machine goes with its process.
        let folders = self.env.state().join("store/v1/ec2/instances");
        for folder in std::fs::read_dir(folders).into_iter().flatten().flatten() {
            let id = folder.file_name().to_string_lossy().into_owned();
            let left = self.processes(&id).into_iter();
            for pid in left.filter_map(rustix::process::Pid::from_raw) {
                // It may have ended meanwhile.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

#[test]
fn an_instance_lives_from_launch_to_termination() {
    let cloud = Cloud::new();
    let image = cloud.image("tiny");
    let listed = cloud.json("image list --json");
    assert_eq!(listed["Images"][0]["ImageId"], image);
    assert_eq!(listed["Images"][0]["State"], "available");

    let started = cloud.json(&format!(
        "run {image} --instance-type t2.micro --tag Name=one --json"
    ));
    let instance = &started["Instances"][0];
    assert_eq!(instance["State"]["Name"], "running");
    let id = instance["InstanceId"].as_str().unwrap().to_owned();
    cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));
    assert!(cloud.ok(&format!("instance console {id}")).contains(HELLO));
    assert_eq!(cloud.processes(&id).len(), 2, "a process of ours, and QEMU");
    let screen = cloud.env().path("screen.png");
    cloud.ok(&format!(
        "instance screenshot {id} --out {}",
        screen.display()
    ));
    assert!(fs_err::read(&screen).unwrap().starts_with(b"\x89PNG"));

    // The guest has written a sector: an image of it has one block that is new.
    let made = cloud.json(&format!(
        "instance create-image {id} --name copy --no-reboot --json"
    ));
    assert_eq!(made["storedBlocks"], 1, "{made}");
    assert!(made["notFrozen"].is_string(), "{made}");
    let copy = made["ImageId"].as_str().unwrap();
    let snapshot = |image: &str| {
        let shown = cloud.json(&format!("image show {image}"));
        shown["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (old, new) = (snapshot(&image), snapshot(copy));
    assert!(
        cloud
            .ok(&format!("snapshot diff {old} {new}"))
            .starts_with("1 of the blocks")
    );
    let shown = cloud.json(&format!("image show {copy}"));
    assert_eq!(
        (&shown["SourceInstanceId"], &shown["SourceImageId"]),
        (&id.as_str().into(), &image.as_str().into())
    );

    // What the snapshots hold, by another program: sector 1 is the boot sector's copy in the new one alone.
    let export = |id: &str, name: &str| {
        let file = cloud.env().path(name);
        cloud.ok(&format!("snapshot export {id} --out {}", file.display()));
        fs_err::read(file).unwrap()
    };
    let (before, after) = (export(&old, "old.raw"), export(&new, "new.raw"));
    assert_eq!(before.len(), 1 << 30);
    assert!(before[512..1024].iter().all(|b| *b == 0));
    assert_eq!(after[512..1024], after[..512]);

    let other = cloud.ok(&format!("run {copy} --instance-type t2.micro"));
    cloud.ok(&format!("instance wait {other} --timeout 120 --console up"));

    cloud.ok(&format!("instance stop --force {id}"));
    assert_eq!(cloud.state(&id), "stopped");
    assert!(cloud.processes(&id).is_empty());
    cloud.refused(
        &format!("instance stop {id} --region eu-west-1"),
        "InvalidInstanceID.NotFound",
    );
    cloud.ok(&format!("instance start {id}"));
    assert_eq!(cloud.state(&id), "running");
    cloud.ok(&format!("instance reboot --force {id}"));
    assert_eq!(
        cloud.ok(&format!("instance terminate --force {id} {other}")),
        format!("{id} terminated\n{other} terminated")
    );
    let volumes = cloud.env().state().join("store/v1/ec2/volumes");
    assert_eq!(
        fs_err::read_dir(volumes).unwrap().count(),
        0,
        "they went with their instances"
    );
    cloud.ok("snapshot verify");

    let lineage = cloud.ok(&format!("image lineage {copy}"));
    assert!(
        lineage.contains(&image) && lineage.contains(&id),
        "{lineage}"
    );
    cloud.refused(&format!("snapshot delete {new}"), "InvalidSnapshot.InUse");
    assert!(
        cloud
            .ok(&format!(
                "image deregister {copy} --delete-associated-snapshots"
            ))
            .contains("success")
    );
    cloud.refused(&format!("run {copy}"), "InvalidAMIID");
}

#[test]
fn a_guest_that_powers_off_stops_its_instance() {
    let cloud = Cloud::new();
    let disk = cloud.disk(TinyEnding::PowerOff);
    let image = cloud.ok(&format!(
        "image register --disk {} --name off --boot-mode legacy-bios",
        disk.display()
    ));
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    cloud.ok(&format!("instance wait {id} --state stopped --timeout 120"));
    let found = cloud.json(&format!("instance list {id} --json"));
    let instance = &found["Reservations"][0]["Instances"][0];
    assert_eq!(
        instance["StateReason"]["Code"], "Client.InstanceInitiatedShutdown",
        "{instance}"
    );
    // An image of a stopped instance is taken by the command itself.
    let made = cloud.ok(&format!("instance create-image {id} --name stopped"));
    assert!(made.starts_with("ami-"));
}
