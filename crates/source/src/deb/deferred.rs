//! Packages that dpkg itself has to unpack.
//!
//! A `preinst` may divert a path (dpkg-divert(1)) and, with `--rename`, move away what is there. It
//! runs before dpkg unpacks its package, but here after all files of all packages are in place: it
//! would move a file of its own package, or find the path taken twice. What a script does can only
//! be known by running it, so such a package comes into the layer as it is, and the configuration
//! has the image's dpkg unpack it.

use super::tar::Entry;
use super::unpack::Member;
use super::{Control, DebError, EntryKind, TarReader};
use crate::ResolvedPackage;

/// Whether the package is one of these. The essential ones never are: dpkg could not run without
/// them, and none of them moves files.
pub(super) fn is_deferred(control: &Control, package: &ResolvedPackage) -> bool {
    let Some((_, script)) = control.files.get("preinst") else {
        return false;
    };
    let script = String::from_utf8_lossy(script);
    let code = || script.lines().filter(|l| !l.trim_start().starts_with('#'));
    let has = |word: &str| code().any(|line| line.contains(word));
    package.stage >= 3 && has("dpkg-divert") && has("--rename")
}

/// The one entry that a deferred package has: the package, `bytes` long, at `offset` of the spool.
pub(super) fn entry(
    package: &ResolvedPackage,
    bytes: usize,
    offset: u64,
    mut data: TarReader<'_>,
) -> Result<Member, DebError> {
    // As new as the newest of its files, for the build clock is the newest time of all.
    let mut mtime = 0;
    while let Some(entry) = data.next()? {
        mtime = mtime.max(entry.mtime);
    }
    let entry = Entry {
        path: path(&package.name).into_bytes(),
        kind: EntryKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime,
        size: bytes as u64,
        xattrs: std::collections::BTreeMap::new(),
    };
    Ok(Member { entry, offset })
}

/// Where `configure/deferred.sh` finds it, and what `configure/cleanup.sh` empties.
fn path(package: &str) -> String {
    format!("var/cache/apt/archives/{package}.deb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_that_move_files_defer() {
        let package = |stage| ResolvedPackage {
            name: "p".to_owned(),
            version: "1".to_owned(),
            arch: "all".to_owned(),
            sha256: amiforge_types::Digest::of(b""),
            size: 0,
            filename: String::new(),
            uri: String::new(),
            stage,
            auto: false,
        };
        let is = |script: &str, stage| {
            let mut control = Control {
                fields: Vec::new(),
                files: std::collections::BTreeMap::new(),
            };
            let text = format!("#!/bin/sh\nset -e\n{script}\n").into_bytes();
            control.files.insert("preinst".to_owned(), (true, text));
            is_deferred(&control, &package(stage))
        };
        let moves = "dpkg-divert --package p --add \\\n  --rename --divert /a.real /a";
        assert!(is(moves, 3) && !is(moves, 2));
        assert!(!is(
            "dpkg-divert --package p --add --no-rename --divert /a.real /a",
            3
        ));
        assert!(!is("  # dpkg-divert --rename /a", 3));
        assert!(!is("mv --rename /a", 3));
    }
}
