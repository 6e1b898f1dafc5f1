//! The script that configures a parent, as shellcheck sees it.

use std::io::Write as _;
use std::process::Command;

use amiforge_types::{Arch, Digest, Timestamp};

use crate::{Asked, ResolvedDebian, ResolvedPackage, Variant, configure_script};

#[test]
fn shellcheck_has_nothing_to_say() {
    let package = |name: &str, stage| ResolvedPackage {
        name: name.to_owned(),
        version: "1".to_owned(),
        arch: "all".to_owned(),
        sha256: Digest::of(b""),
        size: 0,
        filename: String::new(),
        uri: String::new(),
        stage,
        auto: false,
    };
    let resolved = ResolvedDebian {
        format: crate::lock::FORMAT,
        suite: "bookworm".to_owned(),
        codename: "bookworm".to_owned(),
        arch: Arch::X86_64,
        asked: Asked {
            mirror: None,
            suites: None,
            components: None,
            snapshot: None,
            variant: Variant::Minimal,
            packages: None,
            include: Vec::new(),
            exclude: Vec::new(),
        },
        packages: (0..4)
            .map(|stage| package(&format!("package{stage}"), stage))
            .collect(),
        archives: Vec::new(),
        newest: Timestamp::default(),
        sources: Vec::new(),
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(configure_script(&resolved, 1_700_000_000).as_bytes())
        .unwrap();
    let output = Command::new("shellcheck")
        .args(["--shell=bash", "--color=never"])
        .arg(file.path())
        .output()
        .expect("shellcheck (package shellcheck)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
