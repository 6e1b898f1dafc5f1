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

/// An `ar` archive of a package, its members packed by the real tools.
fn deb(control: &[u8], data: &[u8], program: &str, extension: &str) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary".to_owned(), b"2.0\n".to_vec()),
        (format!("control.tar{extension}"), packed(program, control)),
        (format!("data.tar{extension}"), packed(program, data)),
    ] {
        out.extend(
            format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100_644,
                content.len()
            )
            .into_bytes(),
        );
        out.extend(&content);
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = std::process::Command::new(program)
        .args(["-q", "-1", "-c"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

/// A `tar` header of a file that claims `size` bytes, and zeros for its content.
fn tar_file(name: &str, size: u64, content: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    // Base 256, so that any size can be claimed.
    put(124, &[0x80, 0, 0, 0]);
    put(128, &size.to_be_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.resize(512 + content, 0);
    header
}

#[test]
fn a_small_package_that_unpacks_to_very_much_is_refused_before_it_does() {
    let package = lock("libone", "1.2-1", "amd64");
    let text = b"Package: libone\nVersion: 1.2-1\nArchitecture: amd64\n";
    let mut control = [tar_file("./control", text.len() as u64, 0), text.to_vec()].concat();
    control.resize(512 * 4, 0);
    let empty = vec![0; 1024];
    for (program, extension) in [("gzip", ".gz"), ("xz", ".xz"), ("zstd", ".zst")] {
        let good = deb(&control, &empty, program, extension);
        parse(&package, &good).unwrap_or_else(|e| panic!("{program}: {e:?}"));

        // 20 MB of zeros as a maintainer script: a few kilobytes packed.
        let script = tar_file("./postinst", 20 << 20, 20 << 20);
        let bomb = deb(
            &[script, control.clone()].concat(),
            &empty,
            program,
            extension,
        );
        assert!(bomb.len() < 100_000, "{program}: {}", bomb.len());
        let error = parse(&package, &bomb).unwrap_err();
        assert!(
            matches!(error, DebError::Limit { .. }),
            "{program}: {error}"
        );

        // A file of 100 GiB: it is the claim that is refused.
        let huge = tar_file("./usr/share/huge", 100 << 30, 1 << 20);
        let error = parse(&package, &deb(&control, &huge, program, extension)).unwrap_err();
        assert!(
            matches!(error, DebError::Limit { .. }),
            "{program}: {error}"
        );

        // A stream that is cut off.
        let mut cut = deb(&control, &tar_file("./usr/x", 4096, 0), program, extension);
        let error = parse(&package, &cut).unwrap_err();
        assert!(matches!(error, DebError::Io { .. }), "{program}: {error}");
        cut.truncate(cut.len() - 20);
        parse(&package, &cut).unwrap_err();
    }
}
