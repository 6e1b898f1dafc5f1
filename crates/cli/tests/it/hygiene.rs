//! The hygiene gate, on a container recipe, which takes no boot.

use amiforge_testkit::{Env, Finished, finish};

use crate::tiny::Tiny;

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
    build("  hygiene: {allow: [/etc/shadow, /opt/**, '/root/.ssh/*']}\n").expect_code(0);
}
