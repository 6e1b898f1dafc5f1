//! The texts that give a tree of Debian's family what a machine needs to boot, where its parent was made for a
//! container: run by a sandbox with the tree as the root directory.

use amiforge_types::Arch;

use crate::defaults;

/// Which packages, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootPackages {
    /// Take the place of the default packages.
    pub packages: Option<Vec<String>>,
    /// Packages in addition.
    pub include: Vec<String>,
    /// The archive to take them from; `None` leaves the tree's own sources.
    pub archive: Option<BootArchive>,
}

/// An archive in the place of a tree's own sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootArchive {
    /// Base address, `http` or `https`.
    pub mirror: String,
    /// Suites of it.
    pub suites: Vec<String>,
    /// Its components.
    pub components: Vec<String>,
    /// The OpenPGP keys that sign it, armoured; `None` leaves the keys that the tree trusts.
    pub keys: Option<String>,
}

/// The two halves of the work. Both are for `/bin/bash`, and end with a status other than 0 as soon as anything fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootScripts {
    /// Has the tree's apt choose the packages and fetch them into [`BOOT_PACKAGES`], with their [`BOOT_LIST`]; needs the
    /// network. Nothing else that it leaves is of use.
    pub download: String,
    /// Installs what is in [`BOOT_PACKAGES`], makes the initrds, sets up the network, cleans up; without the network.
    pub install: String,
}

/// Folder of a tree with the packages that are to be installed; a name in it is that of apt's own archive of packages,
/// `<name>_<version>_<architecture>.deb`.
pub const BOOT_PACKAGES: &str = "amiforge-packages";
/// File in [`BOOT_PACKAGES`] with what `apt-get --print-uris` says of each: `'URI' name size digest` (apt-get(8)).
pub const BOOT_LIST: &str = "list";

/// Where the sources of a [`BootArchive`] lie while the packages are installed.
const SOURCES: &str = "/tmp/amiforge-later/sources.list";
const KEYS: &str = "/tmp/amiforge-later/keys.asc";

/// The scripts for these packages. `source_date_epoch` is the build clock in seconds.
#[must_use]
pub fn boot_scripts(wanted: &BootPackages, arch: Arch, source_date_epoch: i64) -> BootScripts {
    let head = format!(
        "#!/bin/bash\nexport SOURCE_DATE_EPOCH={source_date_epoch}\n{}",
        concat!(
            include_str!("configure/prologue.sh"),
            include_str!("boot/fail.sh")
        )
    );
    let defaults = || -> Vec<String> {
        defaults::packages(arch)
            .into_iter()
            .map(|name| name.replace(' ', ""))
            .collect()
    };
    let packages = wanted.packages.clone().unwrap_or_else(defaults);
    let packages: Vec<String> = packages.into_iter().chain(wanted.include.clone()).collect();
    let head = format!(
        "{head}wanted={}\nplace=/{BOOT_PACKAGES}\n",
        quoted(&packages.join(" "))
    );
    let mut download = head.clone();
    download.push_str("sources=\n");
    if let Some(archive) = &wanted.archive {
        let signed = match &archive.keys {
            Some(_) => format!("[signed-by={KEYS}] "),
            None => String::new(),
        };
        let lines: String = archive
            .suites
            .iter()
            .map(|suite| {
                let components = archive.components.join(" ");
                format!("deb {signed}{} {suite} {components}\n", archive.mirror)
            })
            .collect();
        download.push_str("mkdir -p /tmp/amiforge-later\n");
        download.push_str(&format!("printf %s {} >{SOURCES}\n", quoted(&lines)));
        if let Some(keys) = &archive.keys {
            download.push_str(&format!("printf %s {} >{KEYS}\n", quoted(keys)));
        }
        download.push_str(&format!(
            "sources='-o Dir::Etc::SourceList={SOURCES} -o Dir::Etc::SourceParts=/dev/null'\n"
        ));
    }
    download.push_str(include_str!("boot/download.sh"));
    let mut install = head;
    install.push_str(include_str!("boot/packages.sh"));
    install.push_str(include_str!("boot/finish.sh"));
    install.push_str(include_str!("configure/system.sh"));
    install.push_str(include_str!("boot/cleanup.sh"));
    BootScripts { download, install }
}

/// A word that no shell reads anything into.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recipe_says_is_text_to_the_shell() {
        let wanted = BootPackages {
            packages: Some(vec!["a'b; reboot".to_owned()]),
            include: vec!["$(c)".to_owned()],
            archive: Some(BootArchive {
                mirror: "http://example.org/'x".to_owned(),
                suites: vec!["tiny".to_owned()],
                components: vec!["main".to_owned()],
                keys: Some("-----BEGIN".to_owned()),
            }),
        };
        let scripts = boot_scripts(&wanted, Arch::X86_64, 7);
        for script in [&scripts.download, &scripts.install] {
            assert!(script.contains("\nwanted='a'\\''b; reboot $(c)'\n"));
        }
        assert!(scripts.download.contains(
            "'deb [signed-by=/tmp/amiforge-later/keys.asc] http://example.org/'\\''x tiny main\n'"
        ));
        assert!(!scripts.install.contains("example.org"));
    }

    #[test]
    fn the_packages_are_those_of_debian_parents() {
        let scripts = boot_scripts(&BootPackages::default(), Arch::X86_64, 7);
        let line = scripts.install.lines().find(|l| l.starts_with("wanted="));
        let line = line.unwrap();
        for name in defaults::packages(Arch::X86_64) {
            let name = name.replace(" ", "");
            assert!(line.contains(&name), "{name}");
        }
        assert!(line.contains("linux-image-cloud-amd64|linux-image-virtual"));
    }
}
