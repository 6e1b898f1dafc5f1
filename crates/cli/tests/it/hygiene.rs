//! The hygiene gate, on a container recipe, which takes no boot; and the clean-up, on a disk.

use amiforge_testkit::{Env, Finished, check, disk, finish};

use crate::tiny::Tiny;
use crate::web::{Web, build, recipe};

/// What no message, log of ours or event may show.
const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

#[test]
fn secrets_end_a_build_unless_they_are_meant() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    env.write("token", SECRET);
    env.write(
        "makes.yaml",
        "name: makes\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Make\n        \
         action: ExecuteBash\n        inputs:\n          commands:\n            \
         - mkdir -p /root/.ssh /opt\n            - echo ssh-ed25519 AAAA > /root/.ssh/authorized_keys\n            \
         - echo ghp_0123456789abcdefghij''ABCDEFGHIJ012345 > /opt/env\n            \
         - echo 'root:$6$salt$hash:19000:0:99999:7:::' > /etc/shadow\n",
    );
    env.write(
        "hides.yaml",
        "name: hides\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Remove\n        \
         action: ExecuteBash\n        inputs: {commands: [rm /opt/env, 'echo root:*:1:::::: > /etc/shadow']}\n",
    );
    let build = |hygiene: &str| -> Finished {
        let mut command = env.amiforge();
        command
            .arg("build")
            .arg(tiny.container("tiny", &["makes.yaml", "hides.yaml"], hygiene))
            .arg("--out")
            .arg(env.path("out"));
        finish(&mut command)
    };
    // Layers show what others above them hide.
    let end = build("").expect_code(1);
    for told in [
        "/etc/shadow: the hash of a password of root (from makes, step Make)",
        "/opt/env: a token of GitHub (from makes, step Make)",
        "/root/.ssh/authorized_keys: keys that may log in (from makes, step Make)",
        "amiforge.hygiene.allow",
    ] {
        assert!(end.stderr.contains(told), "{told}: {end}");
    }
    assert!(
        !end.stderr.contains("(from hides") && !end.stderr.contains(SECRET),
        "{end}"
    );
    assert!(!env.path("out").exists());

    let some = build("  hygiene: {allow: ['/root/.ssh/*', /etc/shadow]}\n").expect_code(1);
    assert!(some.stderr.contains("/opt/env"), "{some}");
    assert!(
        !some.stderr.contains("/etc/shadow") && !some.stderr.contains(".ssh"),
        "{some}"
    );

    let warned = build("  hygiene: {findings: warning, allow: [/etc/shadow]}\n").expect_code(0);
    assert!(
        warned
            .stderr
            .contains("warning: /opt/env: a token of GitHub"),
        "{warned}"
    );
    // The same layers and the same bytes, held against something else.
    build("").expect_code(1);
    let kept = build("  hygiene: {allow: [/etc/shadow, /opt/**, '/root/.ssh/*']}\n").expect_code(0);
    // The clean-up is one of machines.
    assert!(!kept.stderr.contains("not in the image"), "{kept}");
}

/// Image Builder's clean-up, and two of its markers: one where documents of the service leave them, one in the working directory.
#[test]
fn image_clean_up_is_that_of_the_service() {
    let web = Web::get();
    let env = web.env();
    let recipe = recipe(
        &env,
        "name: leaves\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Leave\n        \
         action: ExecuteBash\n        inputs:\n          commands:\n            \
         - mkdir -p /etc/ssh /root/.ssh /home/a/.ssh /var/log/sa /var/log/amazon/ssm /srv/toe/TOE_1\n            \
         - echo ssh-ed25519 AAAA | tee /root/.ssh/authorized_keys > /home/a/.ssh/authorized_keys\n            \
         - mkdir -p /etc/sudoers.d; touch /etc/ssh/ssh_host_ed25519_key /etc/sudoers.d/90-cloud-init-users /var/log/sa/sa1 /var/log/amazon/ssm/a.log /var/log/boot.log /etc/.updated\n            \
         - touch /srv/toe/TOE_1/console.log /srv/toe/skip_cleanup_instance_log_files /tmp/skip_cleanup_instance_files\n            \
         - echo here > /etc/hostname\n",
    );
    let text = fs_err::read_to_string(&recipe).unwrap();
    let text = text.replace("components:", "workingDirectory: /srv/toe\ncomponents:");
    let text = text + "  hygiene: {allow: ['/home/*/.ssh/authorized_keys']}\n";
    fs_err::write(&recipe, text).unwrap();
    let out = env.path("out");
    let end = finish(&mut build(&env, &recipe, &out)).expect_code(0);
    let told = "/root/.ssh/authorized_keys is not in the image";
    assert!(end.stderr.contains(told), "{end}");
    assert!(!end.stderr.contains("/home/a/.ssh"), "{end}");
    let raw = out.join("disk.raw");
    let root = disk::partitions(&raw)[0].extract(&raw, &env.path("root.ext4"));
    let names = |dir: &str| -> Vec<String> {
        let listed = check::debugfs(&root, &format!("ls -p {dir}"));
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let names = listed.lines().filter_map(|line| line.split('/').nth(5));
        names.map(str::to_owned).collect()
    };
    let there = |dir: &str, name: &str| names(dir).iter().any(|found| found == name);
    for (dir, name) in [
        ("/root/.ssh", "authorized_keys"),
        ("/etc/sudoers.d", "90-cloud-init-users"),
        ("/etc/ssh", "ssh_host_ed25519_key"),
        ("/var/log/sa", "sa1"),
        ("/var/log/amazon/ssm", "a.log"),
        ("/srv/toe", "TOE_1"),
        ("/srv/toe", "skip_cleanup_instance_log_files"),
    ] {
        assert!(names(dir).iter().any(|found| found == "."), "{dir}");
        assert!(!there(dir, name), "{dir}/{name}");
    }
    for (dir, name) in [
        ("/home/a/.ssh", "authorized_keys"),
        ("/var/log", "boot.log"),
        ("/etc", ".updated"),
        ("/etc", "hostname"),
    ] {
        assert!(there(dir, name), "{dir}/{name}");
    }
}
