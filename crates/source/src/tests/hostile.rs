//! Bytes that nobody should have signed: errors, never a panic, never out of bounds.

use std::sync::atomic::AtomicU64;

use amiforge_types::Digest;

use super::repo::{Repo, noise};
use crate::apt::index;
use crate::deb::{SpoolWriter, members, parse_bytes};
use crate::{DebError, ResolvedPackage};

fn lock(name: &str, version: &str, arch: &str) -> ResolvedPackage {
    ResolvedPackage {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: arch.to_owned(),
        sha256: Digest::of(b""),
        size: 0,
        filename: String::new(),
        uri: String::new(),
        stage: 3,
        auto: false,
    }
}

fn parse(package: &ResolvedPackage, bytes: &[u8]) -> Result<(), DebError> {
    let spool = tempfile::tempfile().unwrap();
    let end = AtomicU64::new(0);
    let mut writer = SpoolWriter {
        file: &spool,
        end: &end,
        at: 0,
        left: 0,
        buffer: Vec::new(),
    };
    parse_bytes(package, bytes, &mut writer).map(|_| ())
}

#[test]
fn every_cut_and_many_flips_of_a_package_end_in_an_error_or_a_package() {
    let repo = Repo::new();
    let bytes = std::fs::read(repo.path("repo/pool/libone_1.2-1.deb")).unwrap();
    let package = lock("libone", "1.2-1", "amd64");
    parse(&package, &bytes).unwrap();
    assert!(matches!(
        parse(&lock("other", "1", "all"), &bytes),
        Err(DebError::WrongPackage { .. })
    ));
    for length in 0..bytes.len() - 1 {
        if length % 7 == 0 {
            assert!(
                parse(&package, &bytes[..length]).is_err(),
                "cut at {length}"
            );
        }
    }
    let flips = noise(bytes.len());
    for at in (0..bytes.len()).step_by(3) {
        let mut copy = bytes.clone();
        copy[at] ^= flips[at] | 1;
        let _ = parse(&package, &copy);
    }
}

#[test]
fn ar_sizes_are_checked() {
    let header = |size: &str| {
        format!(
            "!<arch>\n{:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n2.0\n",
            "debian-binary", 0, 0, 0, 0
        )
    };
    for size in ["99999999", "-1", "", "0x4", "4294967296"] {
        assert!(members(header(size).as_bytes()).is_err(), "{size}");
    }
}

#[test]
fn index_entries_that_could_do_harm_are_refused() {
    let good = "Package: ab\nVersion: 1\nArchitecture: all\nFilename: pool/a.deb\nSize: 1\n";
    let sum = format!("SHA256: {}\n", "0".repeat(64));
    let read = |text: &str| index::parse(text, "x", "amd64", 0, &mut Vec::new());
    read(&format!("{good}{sum}")).unwrap();
    assert!(read(good).is_err(), "without a digest");
    for (from, to) in [
        ("Package: ab", "Package: a$(b)"),
        ("Package: ab", "Package: ../b"),
        ("pool/a.deb", "../a.deb"),
        ("pool/a.deb", "/etc/a.deb"),
        ("Version: 1", "Version: 1 2"),
        ("Size: 1", "Size: many"),
        ("Size: 1", "Size"),
    ] {
        assert!(
            read(&format!("{good}{sum}").replace(from, to)).is_err(),
            "{to}"
        );
    }
}
