//! Ownership, set-id bits and file capabilities arrive in the image, as debugfs sees it.

use amiforge_testkit::{Env, Running, check, disk, run, tool};

use crate::base::{Base, LIMIT};

#[test]
fn image_has_owners_set_id_bits_and_capabilities() {
    let base = Base::get();
    let env = Env::new();
    let raw = base.out().join("disk.raw");
    let root = disk::partitions(&raw)
        .into_iter()
        .find(|p| p.name == "root")
        .expect("a root partition")
        .extract(&raw, &env.path("root.ext4"));
    let text =
        |request: &str| String::from_utf8_lossy(&check::debugfs(&root, request)).into_owned();
    let passwd = String::from_utf8(check::ext4_cat(&root, "/etc/passwd")).unwrap();
    let group = String::from_utf8(check::ext4_cat(&root, "/etc/group")).unwrap();
    let id = |table: &str, name: &str| -> String {
        let line = table
            .lines()
            .find(|l| l.split(':').next() == Some(name))
            .unwrap_or_else(|| panic!("no {name} in\n{table}"));
        line.split(':').nth(2).unwrap().to_owned()
    };
    for (path, mode, owner, owning_group) in [
        ("/usr/bin/sudo", "04755", "root", "root"),
        ("/usr/bin/passwd", "04755", "root", "root"),
        ("/usr/bin/chage", "02755", "root", "shadow"),
        ("/usr/bin/su", "04755", "root", "root"),
        ("/usr/bin/ssh-agent", "02755", "root", "_ssh"),
        (
            "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
            "04754",
            "root",
            "messagebus",
        ),
        ("/etc/shadow", "0640", "root", "shadow"),
        ("/etc/sudoers", "0440", "root", "root"),
        ("/tmp", "01777", "root", "root"),
        ("/var/mail", "02775", "root", "mail"),
        ("/var/log/nginx", "0755", "root", "adm"),
    ] {
        let stat = text(&format!("stat \"{path}\""));
        let field = |name: &str| {
            let words: Vec<&str> = stat.split_whitespace().collect();
            let at = words
                .iter()
                .position(|w| *w == name)
                .unwrap_or_else(|| panic!("{path}: {stat}"));
            words[at + 1].to_owned()
        };
        let number = |octal: &str| u32::from_str_radix(octal, 8).unwrap();
        assert_eq!(
            (number(&field("Mode:")), field("User:"), field("Group:")),
            (number(mode), id(&passwd, owner), id(&group, owning_group)),
            "{path}\n{stat}"
        );
    }
}

#[test]
fn image_has_a_file_capability_of_the_host_s_user_namespace() {
    let base = Base::get();
    let env = Env::new();
    run(tool("cp")
        .arg("-r")
        .arg(base.state().join("cache"))
        .arg(env.path("state/cache")));
    let recipe = "name: capability\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\namiforge:\n  \
        formats: [raw]\n  apt:\n    include: [iputils-ping, libcap2-bin]\n";
    env.write("recipe/recipe.yaml", recipe);
    let mut command = env.amiforge();
    command
        .arg("build")
        .arg(env.path("recipe"))
        .args(["--no-test", "--out"])
        .arg(env.path("out"));
    Running::spawn(&mut command).wait(LIMIT).expect_code(0);
    let raw = env.path("out/disk.raw");
    let root = disk::partitions(&raw)
        .into_iter()
        .find(|p| p.name == "root")
        .expect("a root partition")
        .extract(&raw, &env.path("root.ext4"));
    // VFS_CAP_REVISION_2 with the effective bit, CAP_NET_RAW permitted: revision 3 would be bound to a
    // user namespace of the build.
    let list = check::debugfs(&root, "ea_get -x /usr/bin/ping security.capability");
    let list = String::from_utf8_lossy(&list);
    let hex: String = list
        .split_once('=')
        .map_or("", |(_, value)| value)
        .chars()
        .filter(char::is_ascii_hexdigit)
        .collect();
    assert_eq!(hex, "0100000200200000000000000000000000000000", "{list}");
}
