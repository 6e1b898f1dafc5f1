//! Which packages have to be configured before an initrd can be made.

use std::path::Path;
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/configure/initrd.pl");

const STATUS: &str = "\
Package: kernel
Status: install ok unpacked
Depends: tools (>= 1) | other-tools,
 modules

Package: tools
Status: install ok half-configured
Pre-Depends: base:any

Package: other-tools
Status: install ok unpacked

Package: real-modules
Status: install ok unpacked
Provides: modules (= 2), unused

Package: base
Status: install ok installed

Package: asks
Status: install ok unpacked
Architecture: amd64
Multi-Arch: same

Package: hooks
Status: install ok unpacked

Package: editor
Status: install ok unpacked
Depends: base, absent | kernel-doc
Recommends: kernel
";

fn chosen(dpkg: &Path) -> String {
    let output = Command::new("perl")
        .arg(SCRIPT)
        .arg(dpkg)
        .args(["/etc/udev", "/lib/modules", "/usr/share/initramfs-tools"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn packages_with_a_hand_in_the_initrd_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let dpkg = dir.path();
    std::fs::create_dir(dpkg.join("info")).unwrap();
    std::fs::write(dpkg.join("status"), STATUS).unwrap();
    assert_eq!(chosen(dpkg), "");

    let info = |name: &str, text: &str| std::fs::write(dpkg.join("info").join(name), text).unwrap();
    info(
        "editor.list",
        "/.\n/etc\n/etc/udev\n/usr/share/initramfs-tools.txt\n",
    );
    info("editor.postinst", "#!/bin/sh\nupdate-menus\n");
    assert_eq!(chosen(dpkg), "", "a folder alone is no input");

    info(
        "kernel.list",
        "/.\n/lib/modules\n/lib/modules/6.1/modules.order\n",
    );
    assert_eq!(chosen(dpkg), "kernel other-tools real-modules tools\n");

    info("asks:amd64.triggers", "activate-noawait update-initramfs\n");
    info("hooks.list", "/usr/share/initramfs-tools/hooks/some\n");
    assert_eq!(
        chosen(dpkg),
        "asks hooks kernel other-tools real-modules tools\n"
    );
}

/// What the end of the configuration says and does when an initrd was begun before all was configured.
fn at_the_end(between: &str, initrd: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    std::fs::create_dir_all(dir.path().join("inputs/hooks")).unwrap();
    let script = format!(
        "set -eu\nfail() {{ echo \"failed: $*\"; exit 1; }}\nlater={place}\nahead=\ninitrd_inputs=\"$later/none $later/inputs\"\naside=$later/aside\n\
         initrds() {{ {initrd}; }}\ntouch \"$later/initrd-begun\"\nsleep 0.1\n\
         initrds >\"$later/initrd.log\" 2>&1 &\ninitrd=$!\n{between}\n{}",
        include_str!("../configure/later.sh")
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let stdout = String::from_utf8_lossy(&output.stdout).replace(&place.to_string(), "");
    (output.status.success(), stdout)
}

#[test]
fn an_initrd_is_made_again_when_it_was_too_early() {
    let make = "echo made";
    assert_eq!(at_the_end("", make), (true, "made\n".to_owned()));
    let asked = ": >\"$later/update-initramfs\"";
    assert_eq!(
        at_the_end(asked, make),
        (
            true,
            "made\nthe initrd is made again: a package asked for it\nmade\n".to_owned()
        )
    );
    let changed = "echo x >\"$later/inputs/hooks/new\"";
    let (ok, said) = at_the_end(changed, make);
    assert!(ok);
    assert!(
        said.starts_with("made\nthe initrd is made again: /inputs/") && said.ends_with("\nmade\n"),
        "{said}"
    );
    assert_eq!(
        at_the_end("", "echo no space; return 1"),
        (
            false,
            "no space\nfailed: making the initrd failed\n".to_owned()
        )
    );
}
