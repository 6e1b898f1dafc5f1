//! The text that turns the unpacked layer into a system: run by a sandbox, as root of its user
//! namespace, with the layer as the root directory and without a network.

use crate::ResolvedDebian;

/// A program that the sandbox puts in the place of the image's own while scripts run. It does not reach the
/// image.
#[derive(Clone, Copy, Debug)]
pub struct Shim {
    /// Path in the image.
    pub path: &'static str,
    /// The whole program.
    pub text: &'static str,
    /// Whether it stands aside only while the parent is configured, and not while components run.
    pub configuring_only: bool,
}

/// The programs that stand aside.
///
/// - `policy-rc.d` makes every start of a service fail politely (invoke-rc.d(8)).
/// - `update-initramfs` only notes that it was asked for: the script makes the one initrd.
pub const SHIMS: &[Shim] = &[
    Shim {
        path: "/usr/sbin/policy-rc.d",
        text: "#!/bin/sh\nexit 101\n",
        configuring_only: false,
    },
    Shim {
        path: "/usr/sbin/update-initramfs",
        text: "#!/bin/sh\n[ ! -d /tmp/amiforge-later ] || : >/tmp/amiforge-later/update-initramfs\n",
        configuring_only: true,
    },
];

/// The whole run: `preinst` scripts, configuration with one initrd beside it, clean-up. For `/bin/bash`; ends with
/// a status other than 0 as soon as anything fails. `source_date_epoch` is the build clock in seconds.
#[must_use]
pub fn configure_script(resolved: &ResolvedDebian, source_date_epoch: i64) -> String {
    let names = |keep: &dyn Fn(u8) -> bool| -> String {
        resolved
            .packages
            .iter()
            .filter(|p| keep(p.stage))
            .map(|p| p.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let file = |name: &str, text: &str| format!("\ncat >\"$later/{name}\" <<'END'\n{text}END\n");
    // Package names are checked when the index is read: no character of them means anything to a shell.
    let mut out = String::from("#!/bin/bash\n");
    out.push_str(&format!("export SOURCE_DATE_EPOCH={source_date_epoch}\n"));
    out.push_str(&format!("native={}\n", resolved.arch.debian()));
    out.push_str(&format!("order=\"{}\"\n", names(&|_| true)));
    for stage in 0..3u8 {
        out.push_str(&format!("stage{stage}=\"{}\"\n", names(&|s| s == stage)));
    }
    out.push_str(include_str!("configure/prologue.sh"));
    out.push_str(include_str!("configure/packages.sh"));
    out.push_str(&file(
        "py3compile.py",
        include_str!("configure/py3compile.py"),
    ));
    out.push_str(include_str!("configure/ahead.sh"));
    out.push_str(include_str!("configure/essential.sh"));
    out.push_str(include_str!("configure/deferred.sh"));
    out.push_str(&file("initrd.pl", include_str!("configure/initrd.pl")));
    out.push_str(include_str!("configure/initrd.sh"));
    out.push_str(include_str!("configure/pending.sh"));
    out.push_str(include_str!("configure/system.sh"));
    out.push_str(include_str!("configure/later.sh"));
    out.push_str(include_str!("configure/cleanup.sh"));
    out
}
