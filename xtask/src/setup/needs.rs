//! What demo and tests need from the host: one line per need.

use std::path::Path;

use crate::util::{find_program, output};

/// What the machine is set up for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building an image and booting it.
    Demo,
    /// The benchmarks: all of the demo, and the outside tools.
    Bench,
    /// The tests: all of that, and the Python environment.
    Test,
}

impl Purpose {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Bench => "benchmarks",
            Self::Test => "tests",
        }
    }
}

/// How to see whether something is there.
pub(super) enum Probe {
    /// A program on the search path (or in an `sbin` folder).
    Program(&'static str),
    /// A program that only an ordinary user needs; root does without.
    UsersProgram(&'static str),
    /// A file.
    File(&'static str),
    /// A module of the system's Python.
    Python(&'static str),
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Program(name) | Self::UsersProgram(name) | Self::File(name) => (*name).to_owned(),
            Self::Python(module) => format!("Python module {module}"),
        };
        f.pad(&text)
    }
}

/// One thing that must be there.
pub(super) struct Need {
    purpose: Purpose,
    pub(super) probe: Probe,
    /// The Debian package that brings it.
    pub(super) package: &'static str,
    pub(super) why: &'static str,
}

impl Need {
    const fn demo(probe: Probe, package: &'static str, why: &'static str) -> Self {
        Self {
            purpose: Purpose::Demo,
            probe,
            package,
            why,
        }
    }

    const fn test(probe: Probe, package: &'static str, why: &'static str) -> Self {
        Self {
            purpose: Purpose::Test,
            probe,
            package,
            why,
        }
    }

    const fn bench(probe: Probe, package: &'static str, why: &'static str) -> Self {
        Self {
            purpose: Purpose::Bench,
            probe,
            package,
            why,
        }
    }

    pub(super) fn wanted(&self, purpose: Purpose) -> bool {
        match self.purpose {
            Purpose::Demo => true,
            Purpose::Bench => purpose == Purpose::Bench,
            Purpose::Test => purpose != Purpose::Demo,
        }
    }

    pub(super) fn is_there(&self) -> bool {
        match self.probe {
            Probe::Program(name) => find_program(name).is_some(),
            Probe::UsersProgram(name) => {
                rustix::process::geteuid().is_root() || find_program(name).is_some()
            }
            Probe::File(path) => Path::new(path).exists(),
            Probe::Python(module) => output(
                std::process::Command::new("python3").args(["-c", &format!("import {module}")]),
            )
            .is_ok_and(|o| o.status.success()),
        }
    }
}

use Probe::{File, Program, Python, UsersProgram};

/// Every need. To add one: one line.
pub(super) static NEEDS: &[Need] = &[
    Need::demo(
        Program("qemu-system-x86_64"),
        "qemu-system-x86",
        "boots the finished image",
    ),
    Need::demo(
        File("/usr/share/OVMF/OVMF_CODE_4M.fd"),
        "ovmf",
        "UEFI firmware for the boot proof",
    ),
    Need::demo(
        UsersProgram("newuidmap"),
        "uidmap",
        "lets an ordinary user run build steps with many user ids",
    ),
    Need::demo(
        File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "debian-archive-keyring",
        "the keys that Debian's package index is signed with",
    ),
    Need::test(
        Program("newuidmap"),
        "uidmap",
        "the tests build as an ordinary user too",
    ),
    Need::test(Program("g++"), "g++", "compiles the fuzzer (libFuzzer)"),
    Need::test(
        Program("shellcheck"),
        "shellcheck",
        "checks the script that configures packages",
    ),
    Need::test(
        Program("e2fsck"),
        "e2fsprogs",
        "checks the ext4 we write; also debugfs and mke2fs",
    ),
    Need::test(
        Program("bsdtar"),
        "libarchive-tools",
        "archives with inode flags, which GNU tar does not have",
    ),
    Need::test(
        Program("fsck.vfat"),
        "dosfstools",
        "checks the FAT we write",
    ),
    Need::test(
        Program("sgdisk"),
        "gdisk",
        "checks the partition table we write",
    ),
    Need::test(
        Program("sfdisk"),
        "fdisk",
        "lists partitions; writes the peer's table in the benchmark",
    ),
    Need::test(
        Program("mdir"),
        "mtools",
        "reads FAT images without mounting them",
    ),
    Need::test(
        Program("bsdtar"),
        "libarchive-tools",
        "extracts and makes the archives that our reading is compared with",
    ),
    Need::test(
        Program("rsync"),
        "rsync",
        "compares folders, as the judge of image diffs",
    ),
    Need::test(
        Program("qemu-img"),
        "qemu-utils",
        "checks and compares the qcow2 we write",
    ),
    Need::test(
        Program("mmdebstrap"),
        "mmdebstrap",
        "the reference that our package roots are compared with",
    ),
    Need::bench(
        Program("mkosi"),
        "mkosi",
        "the peer that `build` is measured against",
    ),
    Need::bench(
        Program("debootstrap"),
        "debootstrap",
        "what that peer installs Debian with",
    ),
    Need::test(
        Program("grub-mkimage"),
        "grub-common",
        "the reference for the GRUB core image we make",
    ),
    Need::test(
        File("/usr/lib/grub/i386-pc/moddep.lst"),
        "grub-pc-bin",
        "GRUB's BIOS modules for that comparison",
    ),
    Need::test(
        Program("dpkg-scanpackages"),
        "dpkg-dev",
        "indexes the tiny package archives of the tests",
    ),
    Need::test(
        Python("yaml"),
        "python3-yaml",
        "loads the documents that `validate` is measured on",
    ),
    Need::test(
        Program("apt-ftparchive"),
        "apt-utils",
        "indexes the tiny package archives of the tests",
    ),
    Need::test(
        Program("gpg"),
        "gpg",
        "signs the tiny package archives of the tests",
    ),
    Need::test(Program("gpg-agent"), "gpg-agent", "holds the keys for that"),
    Need::test(
        File("/bin/busybox"),
        "busybox-static",
        "the programs of the tests' smallest roots",
    ),
    Need::test(
        Program("setcap"),
        "libcap2-bin",
        "sets and reads file capabilities",
    ),
    Need::test(
        Program("setfattr"),
        "attr",
        "sets and reads attributes of files",
    ),
    Need::test(Program("setfacl"), "acl", "sets access lists of files"),
    Need::test(
        Program("g++"),
        "g++",
        "compiles libFuzzer for the fuzz targets",
    ),
    Need::test(
        Program("faketime"),
        "faketime",
        "builds under another clock, for the test of reproducibility",
    ),
    Need::test(
        Program("skopeo"),
        "skopeo",
        "reads and copies the container images we write",
    ),
    Need::test(
        Program("umoci"),
        "umoci",
        "unpacks the container images we write",
    ),
    Need::test(
        Program("docker-registry"),
        "docker-registry",
        "the registry that container images are pushed to and read from",
    ),
    Need::test(
        Program("htpasswd"),
        "apache2-utils",
        "the logins of that registry",
    ),
    Need::test(
        Program("openssl"),
        "openssl",
        "the certificate of a web server that downloads are tested with",
    ),
    Need::test(
        Program("python3"),
        "python3",
        "runs the AWS command line and its local counterpart",
    ),
    Need::test(
        Python("ensurepip"),
        "python3-venv",
        "keeps those two in a folder of their own",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_tell_present_from_absent() {
        let there = |probe| Need::demo(probe, "p", "w").is_there();
        assert!(there(Program("sh")) && there(File("/proc/self")) && there(Python("os")));
        assert!(
            !there(Program("no-such-program"))
                && !there(File("/no/such"))
                && !there(Python("no_such_module"))
        );
    }
}
