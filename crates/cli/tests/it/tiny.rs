//! A signed archive of a few tiny packages in a folder, made with the real tools, and a recipe for it.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, run, tool};

/// Packages and their contents.
pub(crate) type Packages<'a> = &'a [(&'a str, &'a str, &'a str)];

/// Fills the folder `$1`.
const SHELL: &str = r#"
cd "$1"
mkdir -p usr/bin usr/sbin etc tmp
ln -s usr/bin bin; ln -s usr/sbin sbin
for link in lib lib64; do [ ! -L "/$link" ] || { mkdir -p "usr/$link"; ln -s "usr/$link" "$link"; }; done
cp /bin/busybox usr/bin/busybox
for name in $(usr/bin/busybox --list); do [ "$name" = busybox ] || ln -s busybox "usr/bin/$name"; done
rm -f usr/bin/bash usr/bin/dpkg usr/bin/setcap
for program in bash setcap; do
    file=$(command -v "$program")
    cp "$file" "usr/bin/$program"
    for lib in $(ldd "$file" | grep -o '/[^ ]*'); do mkdir -p ".${lib%/*}"; cp -nL "$lib" ".$lib"; done
done
printf '#!/bin/sh
exit 0
' >usr/bin/dpkg
printf '#!/bin/sh
[ "$3" != dpkg ] || echo 1.0
' >usr/bin/dpkg-query
chmod 755 usr/bin/dpkg usr/bin/dpkg-query
printf 'root:x:0:0:root:/root:/bin/bash
' >etc/passwd
printf 'root:x:0:
' >etc/group
"#;

/// Makes a root that steps can run on: the host's bash and setcap with their libraries, busybox for the rest, and a
/// `dpkg` that has nothing to do.
pub(crate) fn fill(root: &Path) {
    fs_err::create_dir_all(root).unwrap();
    run(tool("sh")
        .args(["-euc", SHELL, "sh"])
        .arg(root)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"));
}

/// `repo` below the environment's folder. An image of it cannot be configured, since it has no shell.
pub(crate) struct Tiny<'e> {
    env: &'e Env,
    /// Of further packages, the name and what is in them.
    more: Vec<(&'static str, PathBuf)>,
}

impl<'e> Tiny<'e> {
    /// A key and an archive with these packages: name, version, content of `/usr/share/<name>`.
    pub(crate) fn new(env: &'e Env, packages: Packages<'_>) -> Self {
        Self::with(env, packages, Vec::new())
    }

    /// The same with a package `shell`, by which an image can be configured and steps can run: the host's
    /// bash and setcap with their libraries, busybox for the rest, and a `dpkg` that has nothing to do.
    pub(crate) fn with_shell(env: &'e Env, packages: Packages<'_>) -> Self {
        let root = env.path("build/shell-1.0");
        fill(&root);
        Self::with(env, packages, vec![("shell", root)])
    }

    fn with(env: &'e Env, packages: Packages<'_>, more: Vec<(&'static str, PathBuf)>) -> Self {
        let tiny = Self { env, more };
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
        let texts = packages.iter().map(|p| (p.0, p.1, Some(p.2)));
        let roots = self.more.iter().map(|(name, _)| (*name, "1.0", None));
        for (name, version, content) in texts.chain(roots) {
            // A test may have said what it is built from.
            let source = self.env.path(format!("build/{name}-{version}.source"));
            let source = fs_err::read_to_string(source).unwrap_or_default();
            let control = format!(
                "Package: {name}\n{source}Version: {version}\nArchitecture: all\nEssential: yes\n\
                 Maintainer: Nobody <nobody@example.org>\nDescription: tiny\n"
            );
            let root = self.env.path(format!("build/{name}-{version}"));
            fs_err::create_dir_all(root.join("DEBIAN")).unwrap();
            fs_err::create_dir_all(root.join("usr/share")).unwrap();
            fs_err::write(root.join("DEBIAN/control"), &control).unwrap();
            if let Some(content) = content {
                fs_err::write(root.join("usr/share").join(name), content).unwrap();
            }
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

    /// The container recipe `<name>.yaml` of this archive and of these documents; `settings` go on below `amiforge:`.
    pub(crate) fn container(&self, name: &str, documents: &[&str], settings: &str) -> PathBuf {
        let mirror = format!("file://{}", self.root().display());
        let components: String = documents
            .iter()
            .map(|document| format!("  - componentArn: ./{document}\n"))
            .collect();
        self.env.write(
            format!("{name}.yaml"),
            format!(
                "name: {name}\ncontainerType: DOCKER\nsemanticVersion: 1.0.0\nparentImage: debian:tiny\n\
                 components:\n{components}\
                 targetRepository: {{service: ECR, repositoryName: tiny}}\n\
                 dockerfileTemplateData: \"FROM {{{{{{ imagebuilder:parentImage }}}}}}\\n\
                 {{{{{{ imagebuilder:components }}}}}}\\n\"\n\
                 amiforge:\n  apt: {{mirror: \"{mirror}\", keyring: tiny.gpg, variant: essential}}\n{settings}"
            ),
        )
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

fn sum_and_size(path: &Path) -> (String, u64) {
    let sum = run(tool("sha256sum").arg(path)).text();
    (sum[..64].to_owned(), fs_err::metadata(path).unwrap().len())
}

/// The ids of the layers that a document is planned with.
pub(crate) fn planned_layers(env: &Env, document: &Path, more: &[&str]) -> Vec<String> {
    let mut command = env.amiforge();
    command.args(["plan", "--json"]).arg(document).args(more);
    let plan = env.run(&mut command).json();
    let layers = plan["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["id"].as_str().unwrap().to_owned())
        .collect()
}
