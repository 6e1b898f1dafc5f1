//! What an imported parent lacks for a boot: the layer of the packages that a machine image needs besides.

mod packages;

use std::collections::BTreeMap;

use amiforge_exec::Sandbox;
use amiforge_plan::{LayerKind, LayerPlan, Plan};
use amiforge_recipe::BootMode;
use amiforge_source::{BootArchive, BootPackages, BootScripts, boot_scripts};
use amiforge_store::Store;
use amiforge_tree::layer::LayerInfo;
use amiforge_tree::{Kind, LayerDiff, Tree};
use amiforge_types::{Arch, BlobTable, Digest};

pub(crate) use self::packages::{BootAsked, BootLock, BootPackage};
use super::Boot;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::{FailedAt, Made, Work, keep_boot_packages, layer_boot_packages};
use crate::load::LoadedRecipe;
use crate::parent::Parent;
use crate::settings::Engine;

/// Largest file that says what distribution a tree is of, in bytes.
const MAX_RELEASE: u64 = 64 << 10;
/// Largest keyring that is handed to apt, in bytes.
const MAX_KEYS: u64 = 1 << 20;

/// What decides the layer, apart from the tree below it and from what the package sources have when it is made.
/// `None` of containers, which need no boot.
pub(crate) fn inputs(recipe: &LoadedRecipe) -> Result<Boot, EngineError> {
    if recipe.recipe.container.is_some() {
        return Ok(None);
    }
    // The clock is an input of its own.
    let BootScripts { download, install } = scripts(recipe, 0)?;
    let digest = Digest::of(format!("{download}\0{install}").as_bytes());
    let mode = recipe.recipe.amiforge.boot_mode.name();
    Ok(Some(BTreeMap::from([
        ("bootMode".to_owned(), mode.to_owned()),
        ("bootScripts".to_owned(), format!("sha256:{digest}")),
    ])))
}

/// What a recipe asks for.
pub(crate) fn asked(recipe: &LoadedRecipe) -> Result<BootAsked, EngineError> {
    Ok(BootAsked::of(&wanted(recipe)?))
}

fn scripts(recipe: &LoadedRecipe, clock: i64) -> Result<BootScripts, EngineError> {
    Ok(boot_scripts(&wanted(recipe)?, Arch::X86_64, clock))
}

fn wanted(recipe: &LoadedRecipe) -> Result<BootPackages, EngineError> {
    let apt = &recipe.recipe.amiforge.apt;
    let archive = match &apt.mirror {
        None => None,
        Some(mirror) => {
            let context = || "amiforge.apt of an imported parent".to_owned();
            let Some(suites) = apt.suites.clone() else {
                let message = format!("{}: `mirror` needs `suites`", context());
                return Err(EngineError::new(ErrorKind::Invalid, message));
            };
            let keys = match &apt.keyring {
                None => None,
                Some(keyring) => {
                    let path = recipe.dir().join(keyring);
                    let bytes = crate::files::read_file(&path, MAX_KEYS)
                        .or_fail(ErrorKind::Invalid, context)?;
                    let text = String::from_utf8(bytes).or_fail(ErrorKind::Invalid, || {
                        format!(
                            "{}: {} is not armoured (`gpg --armor --export`)",
                            context(),
                            path.display()
                        )
                    })?;
                    Some(text)
                }
            };
            Some(BootArchive {
                mirror: mirror.clone(),
                suites,
                components: apt
                    .components
                    .clone()
                    .unwrap_or_else(|| vec!["main".to_owned()]),
                keys,
            })
        }
    };
    Ok(BootPackages {
        packages: apt.packages.clone(),
        include: apt.include.clone(),
        archive,
    })
}

impl Engine {
    /// Makes the layer: empty when the tree below boots by itself.
    pub(crate) fn boot_packages(
        &self,
        work: &Work<'_>,
        planned: &LayerPlan,
        made: &Made,
        sandbox: &mut Option<Sandbox>,
    ) -> Result<LayerInfo, EngineError> {
        let Some(lacking) = lacking(work, made)? else {
            return self.put_diff(work, planned, made, &LayerDiff::default());
        };
        let parent = &work.plan.parent_image;
        let Lacking { what, release } = lacking;
        self.stage("boot", format!("{parent} has no {what}"));
        let BootScripts { download, install } = scripts(work.recipe, made.clock.secs)?;
        let sandbox = self.sandbox(work.store, sandbox)?;
        let asked = asked(work.recipe)?;
        let packages = match work.pins.map(|pins| &pins.boot) {
            Some(Some(lock)) if lock.asked != asked => {
                let message = "--locked: the packages for a boot in the lock are of other settings of amiforge.apt";
                return Err(EngineError::new(ErrorKind::Invalid, message).with_hint(
                    "`amiforge lock update` takes what there is now for the recipe as it is",
                ));
            }
            Some(Some(lock)) => lock.packages.clone(),
            Some(None) => {
                let message = format!(
                    "--locked: the lock has no packages for a boot, and {parent} ({release}) has no {what}"
                );
                return Err(EngineError::new(ErrorKind::Invalid, message)
                    .with_hint("build without --locked to get a new lock, in the output folder"));
            }
            None if work.offline => {
                let message = format!(
                    "{parent} ({release}) has no {what}, and the packages for a boot cannot be installed offline: no lock names them"
                );
                return Err(EngineError::new(ErrorKind::Environment, message).with_hint(
                    "build once without --offline: the layer is then in the store, and its packages in lock.json, which --locked --offline repeats",
                ));
            }
            None => self.download_boot_packages(work, planned, made, sandbox, download)?,
        };
        let lent = self.lend_boot_packages(work, planned, made, sandbox, &packages)?;
        let info = self.in_overlay_with(
            work,
            sandbox,
            FailedAt::Layer(planned),
            made,
            Some(&lent.lower),
            |root, cancel| {
                let what = format!("installing the packages for a boot of {parent}");
                let script = (install, what);
                self.run_script(sandbox, &root.cut_off(), cancel, planned, made, script)
            },
        )?;
        // After the layer, and of this file alone: a record that is not of it counts as none, and the layer is made again.
        let lock = BootLock { asked, packages };
        keep_boot_packages(work.store, (planned.id, &info), &lock)?;
        Ok(info)
    }
}

impl Engine {
    /// The packages for a boot that the parent's apt chooses now: those of the layer where it is one of an image that is
    /// continued; `None` when nothing has to be added.
    pub(crate) fn boot_packages_now(
        &self,
        store: &Store,
        recipe: &LoadedRecipe,
        parent: &Parent,
        plan: &Plan,
    ) -> Result<Option<BootLock>, EngineError> {
        let mut layers = plan.layers.iter();
        let Some(at) = layers.position(|layer| layer.kind == LayerKind::BootPackages) else {
            return Ok(None);
        };
        if at < parent.continued() {
            return layer_boot_packages(store, plan.layers[at].id);
        }
        let work = Work::passing(self, store, recipe, (parent, plan), false)?;
        let made = self.make_layers_below(&work, at)?;
        if lacking(&work, &made)?.is_none() {
            return Ok(None);
        }
        let script = scripts(recipe, made.clock.secs)?.download;
        let sandbox = self.chosen_sandbox(store)?;
        let packages =
            self.download_boot_packages(&work, &plan.layers[at], &made, &sandbox, script)?;
        Ok(Some(BootLock {
            asked: asked(recipe)?,
            packages,
        }))
    }
}

/// What a parent is without, and its distribution, for people.
struct Lacking {
    what: String,
    release: String,
}

/// What packages have to be added for; `None` when the layers made so far boot by themselves.
fn lacking(work: &Work<'_>, made: &Made) -> Result<Option<Lacking>, EngineError> {
    let tree = made.tree().or_fail(ErrorKind::Failed, || {
        "the layers of the parent do not fit on one another".to_owned()
    })?;
    let missing = missing(&tree, work.recipe.recipe.amiforge.boot_mode);
    if missing.is_empty() {
        return Ok(None);
    }
    let parent = &work.plan.parent_image;
    let what = missing.join(", ");
    let release = Release::of(&tree, &made.blobs);
    if !release.is_of_debian() {
        let message = format!(
            "{parent} ({}) does not boot as a machine: it has no {what}",
            release.name
        );
        return Err(EngineError::new(ErrorKind::Failed, message).with_hint(
            "they are added to Debian, Ubuntu and their like alone: start from a disk or archive that has kernel, initrd, init and GRUB where Debian has them, or make a container of it (a container recipe)",
        ));
    }
    Ok(Some(Lacking {
        what,
        release: release.name,
    }))
}

/// What a boot needs and the tree does not have.
fn missing(tree: &Tree, mode: BootMode) -> Vec<&'static str> {
    let has = |paths: &[&str]| {
        paths
            .iter()
            .any(|path| tree.lookup(path.as_bytes()).is_some())
    };
    let boot = tree.lookup(b"boot").and_then(|ino| tree.children(ino));
    let names: Vec<Vec<u8>> =
        boot.map_or_else(Vec::new, |c| c.names().map(<[u8]>::to_vec).collect());
    let version = |prefix: &'static str| {
        let names = names.iter();
        names.filter_map(move |name| name.strip_prefix(prefix.as_bytes()))
    };
    let with_initrd = |kernel: &[u8]| version("initrd.img-").any(|initrd| initrd == kernel);
    let mut missing = Vec::new();
    if version("vmlinuz-").next().is_none() {
        missing.push("kernel");
    } else if !version("vmlinuz-").any(with_initrd) {
        missing.push("initrd");
    }
    if !has(&["sbin/init", "usr/sbin/init"]) {
        missing.push("init");
    }
    let bios = has(&["usr/lib/grub/i386-pc/boot.img"]);
    let uefi = has(&[
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
        "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
    ]);
    let loader = match mode {
        BootMode::LegacyBios => bios,
        BootMode::Uefi => uefi,
        BootMode::UefiPreferred => bios && uefi,
    };
    if !loader {
        missing.push("boot loader");
    }
    missing
}

/// Which distribution a tree is of. Source: os-release(5).
struct Release {
    /// For people.
    name: String,
    ids: Vec<String>,
}

impl Release {
    fn of(tree: &Tree, blobs: &BlobTable) -> Self {
        let text = |path: &str| {
            let Kind::File(content) = tree.inode(tree.lookup(path.as_bytes())?).kind else {
                return None;
            };
            let bytes = content.read_to_vec(blobs, MAX_RELEASE).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        // The first is usually a link to the second.
        let text = text("etc/os-release").or_else(|| text("usr/lib/os-release"));
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
            Some(line.trim().trim_matches(['"', '\'']).to_owned())
        };
        let ids = [value("ID"), value("ID_LIKE")];
        let ids = ids.iter().flatten().flat_map(|ids| ids.split_whitespace());
        let name = value("PRETTY_NAME").or_else(|| value("ID"));
        Self {
            ids: ids.map(str::to_owned).collect(),
            name: crate::shown::shown(
                name.unwrap_or_else(|| "of no known distribution".to_owned())
                    .as_bytes(),
            ),
        }
    }

    fn is_of_debian(&self) -> bool {
        let is = |id: &String| matches!(id.as_str(), "debian" | "ubuntu");
        self.ids.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use amiforge_tree::{Inode, Stat};
    use amiforge_types::Timestamp;

    use super::*;

    #[test]
    fn the_family_is_told_by_os_release() {
        let family = |text: &str| Release::parse(text).is_of_debian();
        assert!(family("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(family("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(family("ID='ubuntu'\n"));
        assert!(!family("ID=fedora\nVARIANT_ID=debian\n"));
        assert!(!family(""));
        assert_eq!(Release::parse("ID=\x1b[2J\n").name, "\\u{1b}[2J");
    }

    #[test]
    fn what_is_missing_is_named() {
        let stat = Stat {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        let mut tree = Tree::new(stat);
        let mode = BootMode::UefiPreferred;
        assert_eq!(missing(&tree, mode), ["kernel", "init", "boot loader"]);
        let mut add = |paths: &[&str]| {
            for path in paths {
                for (at, _) in path.match_indices('/') {
                    if tree.lookup(&path.as_bytes()[..at]).is_none() {
                        tree.insert(&path.as_bytes()[..at], Inode::new(stat, Kind::Dir))
                            .unwrap();
                    }
                }
                let file = Inode::new(stat, Kind::File(amiforge_tree::Content::default()));
                tree.insert(path.as_bytes(), file).unwrap();
            }
            [BootMode::LegacyBios, BootMode::Uefi, mode].map(|mode| missing(&tree, mode).join(" "))
        };
        let all = |text: &str| [text, text, text].map(str::to_owned);
        assert_eq!(
            add(&["boot/vmlinuz-1", "boot/initrd.img-2"]),
            all("initrd init boot loader")
        );
        assert_eq!(
            add(&["boot/initrd.img-1", "usr/sbin/init"]),
            all("boot loader")
        );
        let bios = add(&["usr/lib/grub/i386-pc/boot.img"]);
        assert_eq!(bios, ["", "boot loader", "boot loader"].map(str::to_owned));
        let both = add(&["usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"]);
        assert_eq!(both, all(""));
    }
}
