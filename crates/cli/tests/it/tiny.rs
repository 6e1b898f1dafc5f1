//! A signed archive of a few tiny packages in a folder, made with the real tools, and a recipe for it.

use std::path::PathBuf;

use amiforge_testkit::{Env, run, tool};

/// Packages and their contents.
pub(crate) type Packages<'a> = &'a [(&'a str, &'a str, &'a str)];

/// `repo` below the environment's folder. An image of it cannot be configured, since it has no shell.
pub(crate) struct Tiny<'e> {
    env: &'e Env,
}

impl<'e> Tiny<'e> {
    /// A key and an archive with these packages: name, version, content of `/usr/share/<name>`.
    pub(crate) fn new(env: &'e Env, packages: Packages<'_>) -> Self {
        let tiny = Self { env };
        fs_err::create_dir_all(env.path("gnupg")).unwrap();
        run(tool("chmod").arg("700").arg(env.path("gnupg")));
        tiny.gpg(&[
            "--quick-generate-key",
            "tiny@example.org",
            "ed25519",
            "sign",
            "never",
        ]);
        let key = env.path("tiny.gpg");
        tiny.gpg(&["-o", &key.to_string_lossy(), "--export", "tiny@example.org"]);
        tiny.publish(packages);
        tiny
    }

    fn gpg(&self, args: &[&str]) {
        run(tool("gpg")
            .args(["--batch", "--yes", "--quiet", "--passphrase", ""])
            .args(["--pinentry-mode", "loopback", "--homedir"])
            .arg(self.env.path("gnupg"))
            .args(args));
    }

    /// Makes these packages all that the archive has.
    pub(crate) fn publish(&self, packages: Packages<'_>) {
        let repo = self.root();
        let _ = fs_err::remove_dir_all(&repo);
        let index_dir = repo.join("dists/tiny/main/binary-amd64");
        fs_err::create_dir_all(&index_dir).unwrap();
        fs_err::create_dir_all(repo.join("pool")).unwrap();
        let mut index = String::new();
        for (name, version, content) in packages {
            let control = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nEssential: yes\n\
                 Maintainer: Nobody <nobody@example.org>\nDescription: tiny\n"
            );
            let root = self.env.path(format!("build/{name}-{version}"));
            fs_err::create_dir_all(root.join("DEBIAN")).unwrap();
            fs_err::create_dir_all(root.join("usr/share")).unwrap();
            fs_err::write(root.join("DEBIAN/control"), &control).unwrap();
            fs_err::write(root.join("usr/share").join(name), content).unwrap();
            let path = format!("pool/{name}_{version}_all.deb");
            run(tool("dpkg-deb")
                .env("SOURCE_DATE_EPOCH", "1700000000")
                .args(["--root-owner-group", "--build"])
                .arg(&root)
                .arg(repo.join(&path)));
            let (sum, size) = sum_and_size(&repo.join(&path));
            index.push_str(&format!(
                "{control}Filename: {path}\nSize: {size}\nSHA256: {sum}\n\n"
            ));
        }
        fs_err::write(index_dir.join("Packages"), index).unwrap();
        let (sum, size) = sum_and_size(&index_dir.join("Packages"));
        let date = run(tool("date").args(["-u", "+%a, %d %b %Y %H:%M:%S UTC"])).text();
        let release = format!(
            "Origin: Tiny\nSuite: tiny\nCodename: tiny\nDate: {date}Architectures: amd64\n\
             Components: main\nSHA256:\n {sum} {size} main/binary-amd64/Packages\n"
        );
        let file = self.env.write("Release", release);
        let signed = repo.join("dists/tiny/InRelease");
        self.gpg(&[
            "-o",
            &signed.to_string_lossy(),
            "--clearsign",
            &file.to_string_lossy(),
        ]);
    }

    /// The archive's folder.
    pub(crate) fn root(&self) -> PathBuf {
        self.env.path("repo")
    }

    /// A recipe whose parent is this archive at `mirror`.
    pub(crate) fn recipe(&self, mirror: &str, packages: &str) -> PathBuf {
        self.env.write(
            "component.yaml",
            "name: nothing\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
             - name: Nothing\n        action: ExecuteBash\n        inputs:\n          commands: [\"true\"]\n",
        );
        self.env.write(
            "recipe.yaml",
            format!(
                "name: tiny\nsemanticVersion: 1.0.0\nparentImage: debian:tiny\n\
                 components:\n  - componentArn: ./component.yaml\n\
                 blockDeviceMappings:\n  - deviceName: /dev/xvda\n    ebs: {{volumeSize: 1, volumeType: gp3}}\n\
                 amiforge:\n  formats: [raw]\n  apt: {{mirror: \"{mirror}\", keyring: tiny.gpg, variant: essential, packages: {packages}}}\n"
            ),
        )
    }
}

fn sum_and_size(path: &std::path::Path) -> (String, u64) {
    let sum = run(tool("sha256sum").arg(path)).text();
    (sum[..64].to_owned(), fs_err::metadata(path).unwrap().len())
}
