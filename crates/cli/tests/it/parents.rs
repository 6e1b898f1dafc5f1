//! Recipes that start from an archive, a disk, an image of the catalog, or nothing.

use std::path::{Path, PathBuf};

use amiforge_testkit::check::debugfs;
use amiforge_testkit::{Env, Fault, FileServer, Finished, finish, run, tool};
use serde_json::Value;

use crate::tiny::{Tiny, planned_layers};

const COMPONENT: &str = "\
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Write
        action: CreateFile
        inputs: [{path: /etc/hello, content: \"hello\\n\"}]
";

/// Writes an archive with everything that a file system can have, by a program that is not ours. The argument after
/// the path cuts it off, or makes it leave its folder.
const ARCHIVE: &str = r#"
import io, sys, tarfile
t = tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT)
def add(name, content=None, **more):
    i = tarfile.TarInfo(name)
    i.mtime = 1700000000
    i.mode = 0o644
    for key, value in more.items():
        setattr(i, key, value)
    if content is not None:
        i.size = len(content)
    t.addfile(i, io.BytesIO(content or b""))
add("etc", type=tarfile.DIRTYPE, mode=0o755)
add("etc/os-release", b'ID=other\nPRETTY_NAME="Other 1"\n')
add("usr", type=tarfile.DIRTYPE, mode=0o711, uid=7, gid=8)
add("usr/tool", b"x" * 9000, mode=0o4755, uid=1000, gid=1001, mtime=1600000000,
    pax_headers={"SCHILY.xattr.user.origin": "here"})
add("usr/again", type=tarfile.LNKTYPE, linkname="usr/tool")
add("usr/link", type=tarfile.SYMTYPE, linkname="../etc/os-release", mode=0o777)
add("usr/zero", type=tarfile.CHRTYPE, devmajor=1, devminor=5, mode=0o666)
add("usr/disk", type=tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660, gid=6)
add("usr/pipe", type=tarfile.FIFOTYPE)
add("usr/große datei", "inhalt".encode())
if "escape" in sys.argv[2:]:
    add("usr/../../outside", b"out")
t.close()
"#;

fn archive(env: &Env, name: &str, more: &[&str]) -> PathBuf {
    let path = env.path(name);
    run(tool("python3").args(["-c", ARCHIVE]).arg(&path).args(more));
    path
}

/// A recipe of a container, or of a machine image.
fn recipe(env: &Env, name: &str, parent: &str, container: bool) -> PathBuf {
    env.write("hello.yaml", COMPONENT);
    let kind = if container {
        "containerType: DOCKER\ntargetRepository: {service: ECR, repositoryName: team/x}\n\
         dockerfileTemplateData: |\n  FROM {{{ imagebuilder:parentImage }}}\n  \
         {{{ imagebuilder:environments }}}\n  {{{ imagebuilder:components }}}\n"
    } else {
        "blockDeviceMappings: [{deviceName: /dev/xvda, ebs: {volumeSize: 1, volumeType: gp3}}]\n\
         amiforge: {formats: [raw]}\n"
    };
    env.write(
        format!("{name}.yaml"),
        format!(
            "name: {name}\nsemanticVersion: 1.0.0\nparentImage: '{parent}'\n\
             components: [{{componentArn: ./hello.yaml}}]\n{kind}"
        ),
    )
}

fn build(env: &Env, recipe: &Path, args: &[&str]) -> Finished {
    let out = recipe.with_extension("out");
    let mut command = env.amiforge();
    command.args(["build", "--no-test", "--out"]).arg(out);
    finish(command.arg(recipe).args(args))
}

/// The error of a build that ends with this code.
fn fails(env: &Env, recipe: &Path, args: &[&str], code: i32, told: &[&str]) {
    let end = build(env, recipe, args).expect_code(code);
    let error = end
        .stderr
        .split_once("error")
        .map_or("", |(_, error)| error);
    for text in told {
        assert!(error.contains(text), "no `{text}` in\n{end}");
    }
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

/// A line for each file that a container has, from Python's reader.
fn files(recipe: &Path) -> String {
    let layout = recipe.with_extension("out").join("oci");
    let mut command = tool("python3");
    run(command.args(["-c", include_str!("oci.py")]).arg(layout)).text()
}

#[test]
fn an_archive_is_taken_over_whatever_compresses_it() {
    let env = Env::new();
    archive(&env, "root.tar", &[]);
    let shell = "cd \"$1\"; gzip -k root.tar; xz -k root.tar; zstd -q -k root.tar";
    run(tool("sh").args(["-euc", shell, "sh"]).arg(env.path("")));
    let mut first: Option<String> = None;
    for (at, end) in ["tar", "tar.gz", "tar.xz", "tar.zst"].iter().enumerate() {
        let recipe = recipe(&env, &format!("of-{at}"), &format!("tar:root.{end}"), true);
        build(&env, &recipe, &[]).expect_code(0);
        let files = files(&recipe);
        assert_eq!(&files, first.get_or_insert_with(|| files.clone()), "{end}");
    }
    let files = first.unwrap();
    for text in ["usr/again", "usr/zero", "etc/hello", "gro"] {
        assert!(files.contains(text), "no {text} in\n{files}");
    }
    let manifest = json(env.path("of-0.out/manifest.json"));
    let sum = run(tool("sha256sum").arg(env.path("root.tar"))).text();
    assert_eq!(manifest["parentImage"]["asked"], "tar:root.tar");
    assert_eq!(
        manifest["parentImage"]["resolved"],
        format!("tar@sha256:{}", &sum[..64])
    );
    let lock = json(env.path("of-0.out/lock.json"));
    assert_eq!(lock["format"], 3);
    assert_eq!(lock["resolved"]["sha256"], sum[..64]);
}

#[test]
fn archives_that_are_not_what_they_should_be_are_refused() {
    let env = Env::new();
    archive(&env, "good.tar", &[]);
    let cut = fs_err::read(env.path("good.tar")).unwrap();
    env.write("cut.tar", &cut[..5000]);
    archive(&env, "escape.tar", &["escape"]);
    env.write("text.tar", "no archive".repeat(200));
    let of = |name: &str, parent: &str| recipe(&env, name, parent, true);
    fails(
        &env,
        &of("cut", "tar:cut.tar"),
        &[],
        1,
        &["cut short", "entry "],
    );
    let escape = of("escape", "tar:escape.tar");
    fails(&env, &escape, &[], 1, &["usr/../../outside", "not allowed"]);
    fails(
        &env,
        &of("text", "tar:text.tar"),
        &[],
        1,
        &["not a tar archive"],
    );
    fails(
        &env,
        &of("gone", "tar:gone.tar"),
        &[],
        2,
        &["gone.tar", "hint"],
    );
    fails(&env, &of("folder", "tar:."), &[], 2, &["is a folder"]);
    run(tool("mkfifo").arg(env.path("pipe")));
    for parent in ["tar:pipe", "disk:pipe#format=raw"] {
        fails(&env, &of("pipe", parent), &[], 2, &["is no regular file"]);
    }
    let wrong = format!("tar:good.tar#sha256={}", "0".repeat(64));
    let told = ["the recipe says 0000", "its SHA-256 is "];
    fails(&env, &of("wrong", &wrong), &[], 1, &told);
    // In the plan, too, before anything is made.
    let end = finish(env.amiforge().arg("plan").arg(env.path("wrong.yaml")));
    end.expect_code(1);
    assert!(!env.path("outside").exists());
}

#[test]
fn an_archive_of_a_server_is_fetched_once() {
    let env = Env::new();
    let served = env.path("served");
    fs_err::create_dir_all(&served).unwrap();
    archive(&env, "served/root.tar", &[]);
    let sum = run(tool("sha256sum").arg(env.path("served/root.tar"))).text();
    let server = FileServer::start(&served);
    let parent = |name: &str, sum: &str| format!("tar:{}/{name}#sha256={sum}", server.url());
    let of = |name: &str, parent: &str| recipe(&env, name, parent, true);
    let offline = of("offline", &parent("root.tar", &sum[..64]));
    fails(
        &env,
        &offline,
        &["--offline"],
        1,
        &["downloads are off", "hint"],
    );
    let plain = of("plain", &parent("root.tar", &sum[..64]));
    server.fault("root.tar", Fault::CloseAfter(3000), 1);
    build(&env, &plain, &[]).expect_code(0);
    let requests = server.requests().len();
    assert!(requests >= 2, "the rest was asked for");
    build(&env, &plain, &["--offline", "--rebuild"]).expect_code(0);
    assert_eq!(server.requests().len(), requests);

    let wrong = of("wrong", &parent("root.tar", &"0".repeat(64)));
    fails(&env, &wrong, &[], 1, &["the recipe says 0000"]);
    let gone = of("gone", &parent("gone.tar", &"0".repeat(64)));
    fails(&env, &gone, &[], 1, &["the server has no such file"]);
    // What the cache has is looked at again.
    let cached = env.state().join("cache/v1/files").join(&sum[..64]);
    fs_err::write(&cached, "damaged").unwrap();
    fails(
        &env,
        &plain,
        &["--offline", "--rebuild"],
        1,
        &["downloads are off"],
    );
    build(&env, &plain, &["--rebuild"]).expect_code(0);
}

/// A bare file system with the files of the archive, and the same in a partition of each table.
fn disks(env: &Env) {
    archive(env, "root.tar", &[]);
    let mut assemble = env.amiforge();
    assemble.args(["disk", "assemble", "--boot", "none", "--rootfs"]);
    assemble.arg(env.path("root.tar")).arg("--out");
    env.run(assemble.arg(env.path("gpt.raw")));
    let shell = "cd \"$1\"
        set -- $(sgdisk -i 1 gpt.raw | sed -n 's/^\\(First\\|Last\\) sector: \\([0-9]*\\).*/\\2/p')
        dd if=gpt.raw of=bare.img bs=512 skip=\"$1\" count=$(($2 - $1 + 1)) status=none
        truncate -s $(($(stat -c %s bare.img) + 1048576)) mbr.raw
        echo 'start=2048, type=83' | sfdisk -q mbr.raw
        dd if=bare.img of=mbr.raw bs=512 seek=2048 conv=notrunc status=none
        for format in qcow2 vmdk vpc; do qemu-img convert -O $format gpt.raw gpt.$format; done
        cp gpt.qcow2 unnamed";
    run(tool("sh").args(["-euc", shell, "sh"]).arg(env.path("")));
}

#[test]
fn a_disk_is_taken_over_whatever_its_format_and_table() {
    let env = Env::new();
    disks(&env);
    let of_tar = recipe(&env, "of-tar", "tar:root.tar", true);
    build(&env, &of_tar, &[]).expect_code(0);
    let expected = files(&of_tar);
    // What the disk has, by debugfs.
    let listed = debugfs(&env.path("bare.img"), "ls -l /usr");
    assert!(String::from_utf8_lossy(&listed).contains("104755"));
    let mut layers: Vec<String> = Vec::new();
    for (at, disk) in [
        "gpt.raw",
        "gpt.qcow2",
        "gpt.vmdk",
        "gpt.vpc",
        "unnamed#format=qcow2",
        "gpt.raw#partition=1",
        "mbr.raw",
        "bare.img",
    ]
    .iter()
    .enumerate()
    {
        let recipe = recipe(&env, &format!("of-{at}"), &format!("disk:{disk}"), true);
        build(&env, &recipe, &[]).expect_code(0);
        assert_eq!(files(&recipe), expected, "{disk}");
        layers.push(planned_layers(&env, &recipe, &[])[0].clone());
    }
    // The same disk in another format is the same parent; vpc rounds its size up.
    for same in [1, 2, 4, 5] {
        assert_eq!(layers[same], layers[0]);
    }
    let lock = json(env.path("of-0.out/lock.json"));
    assert_eq!(lock["resolved"]["partition"], 1);
}

#[test]
fn disks_that_cannot_be_taken_over_are_named() {
    let env = Env::new();
    disks(&env);
    let shell = "cd \"$1\"
        truncate -s 64M two.raw; printf 'size=40960\\nsize=40960\\n' | sfdisk -q -X gpt two.raw
        for seek in 2048 43008; do truncate -s 20M part; mke2fs -q -F -t ext4 part
            dd if=part of=two.raw bs=512 seek=$seek conv=notrunc status=none; done
        truncate -s 64M lvm.raw; echo 'type=8e' | sfdisk -q lvm.raw
        printf LABELONE | dd of=lvm.raw bs=512 seek=2049 conv=notrunc status=none
        truncate -s 64M xfs.raw
        printf XFSB | dd of=xfs.raw conv=notrunc status=none
        mkdir root root/etc
        printf 'LABEL=root / ext4\\nLABEL=boot /boot ext4\\n' >root/etc/fstab
        truncate -s 64M boot.raw; printf 'size=40960\\nsize=40960\\n' | sfdisk -q -X gpt boot.raw
        truncate -s 20M part; mke2fs -q -F -t ext4 -L root -d root part
        dd if=part of=boot.raw bs=512 seek=2048 conv=notrunc status=none
        mke2fs -q -F -t ext4 -L boot part
        dd if=part of=boot.raw bs=512 seek=43008 conv=notrunc status=none
        head -c $(($(stat -c %s gpt.qcow2) / 2)) gpt.qcow2 >cut.qcow2
        qemu-img create -q -f qcow2 -b gpt.raw -F raw over.qcow2
        cp gpt.raw wrong.qcow2; truncate -s 1M empty.raw";
    run(tool("sh").args(["-euc", shell, "sh"]).arg(env.path("")));
    for (at, (disk, code, told)) in [
        (
            "two.raw",
            2,
            &["several partitions", "partition 2 (ext4", "#partition="][..],
        ),
        (
            "two.raw#partition=7",
            2,
            &["no partition 7", "partition 1 (ext4"],
        ),
        ("lvm.raw", 2, &["no ext4 file system", "LVM", "hint"]),
        ("xfs.raw", 2, &["its file system is xfs"]),
        (
            "boot.raw#partition=1",
            2,
            &["/boot is a file system of its own, in partition 2"],
        ),
        ("cut.qcow2", 1, &["cut.qcow2"]),
        ("over.qcow2", 1, &["over.qcow2", "hint"]),
        ("wrong.qcow2", 1, &["not a qcow2 disk", "disk:PATH#format="]),
        ("empty.raw", 2, &["neither partitions nor a file system"]),
        ("gone.raw", 2, &["gone.raw"]),
    ]
    .iter()
    .enumerate()
    {
        let recipe = recipe(&env, &format!("of-{at}"), &format!("disk:{disk}"), true);
        fails(&env, &recipe, &[], *code, told);
    }
    let wrong = format!("disk:gpt.raw#sha256={}", "0".repeat(64));
    fails(
        &env,
        &recipe(&env, "digest", &wrong, true),
        &[],
        1,
        &["the recipe says 0000"],
    );
}

#[test]
fn an_image_of_the_catalog_is_continued_by_its_layers() {
    let env = Env::new();
    archive(&env, "root.tar", &[]);
    let base = recipe(&env, "base", "tar:root.tar", true);
    build(&env, &base, &[]).expect_code(0);
    let next = recipe(&env, "next", "image:base/1.x.x", true);
    let end = build(&env, &next, &[]).expect_code(0);
    let (below, all) = (
        planned_layers(&env, &base, &[]),
        planned_layers(&env, &next, &[]),
    );
    assert_eq!(all[..below.len()], below);
    assert_eq!(all.len(), below.len() + 1, "{end}");
    let third = recipe(&env, "third", "image:next/1.0.0", true);
    build(&env, &third, &["--rebuild"]).expect_code(0);
    assert_eq!(planned_layers(&env, &third, &[])[..all.len()], all);

    let of = |name: &str, parent: &str| recipe(&env, name, parent, true);
    let none = of("none", "image:base/2.x.x");
    fails(
        &env,
        &none,
        &[],
        2,
        &["the catalog has no image:base/2.x.x", "there is 1.0.0"],
    );
    fails(
        &env,
        &of("near", "image:bse/1.x.x"),
        &[],
        2,
        &["did you mean `base`?"],
    );

    // A container has no disk to fall back on.
    let layer = env
        .state()
        .join("store/v1/layers")
        .join(format!("{}.layer", below[0]));
    let kept = fs_err::read(&layer).unwrap();
    fs_err::remove_file(&layer).unwrap();
    fails(
        &env,
        &of("gone", "image:base/1.0.0"),
        &[],
        1,
        &["no longer has all layers", "build base 1.0.0 again"],
    );
    let mut damaged = kept.clone();
    // In the data of `usr/tool`, which the index of the layer does not show.
    let at = damaged.windows(64).position(|w| w == [b'x'; 64]).unwrap();
    damaged[at] = b'y';
    fs_err::write(&layer, damaged).unwrap();
    fails(
        &env,
        &of("bad", "image:base/1.0.0"),
        &["--rebuild"],
        1,
        &["no longer in the store", "hint"],
    );

    // The lock names the image, and a changed recipe does not fit it.
    fs_err::write(&layer, kept).unwrap();
    build(&env, &next, &["--locked", "--rebuild"]).expect_code(0);
    let lock = json(env.path("next.out/lock.json"));
    let images = env.state().join("store/v1/catalog/images");
    let entry = images.join(format!(
        "{}.json",
        lock["resolved"]["imageId"].as_str().unwrap()
    ));
    fs_err::remove_file(entry).unwrap();
    fails(
        &env,
        &next,
        &["--locked"],
        2,
        &["which the catalog no longer has"],
    );
    recipe(&env, "next", "scratch", true);
    fails(
        &env,
        &next,
        &["--locked"],
        2,
        &["the lock is of image:base/1.x.x, the recipe says scratch"],
    );
}

/// As with Image Builder, several builds of one version are no question: the newest of them is taken.
#[test]
fn of_several_builds_of_a_version_the_newest_that_is_whole_is_the_parent() {
    let env = Env::new();
    archive(&env, "root.tar", &[]);
    let content = |text: &str| {
        env.write("hello.yaml", COMPONENT.replace("hello\\n", text));
    };
    let built = |name: &str, text: &str| -> String {
        let file = recipe(&env, "base", "tar:root.tar", true);
        let named = env.path(format!("{name}.yaml"));
        if named != file {
            fs_err::copy(&file, &named).unwrap();
        }
        content(text);
        let end = build(&env, &named, &[]).expect_code(0).text();
        end.split_whitespace().next().unwrap().to_owned()
    };
    let child = |text: &str| {
        let file = recipe(&env, "child", "image:base/x.x.x", true);
        content(text);
        build(&env, &file, &[])
    };
    let parent = || json(env.path("child.out/lock.json"))["resolved"]["imageId"].clone();
    let newest = |end: &Finished, id: &str, told: &str| {
        assert!(
            end.stderr.contains(id) && end.stderr.contains(told),
            "{end}"
        );
        assert_eq!(parent(), id, "{end}");
    };

    // Into one folder: of the first, only the entry is left.
    let first = built("base", "one");
    let second = built("base", "two");
    assert_ne!(first, second);
    let end = child("a").expect_code(0);
    newest(&end, &second, "the newest of 2 builds of that version");

    // Its age decides, not its id: the first again, in a folder of its own.
    let again = built("other", "one");
    assert_eq!(again, first);
    let end = child("b").expect_code(0);
    newest(&end, &first, "the newest of 2 builds of that version");

    // One that is not as it was built any more leaves the one before it.
    let config = json(env.path("other.out/manifest.json"))["configDigest"].clone();
    let blobs = |folder: &str| env.path(folder).join("oci/blobs/sha256");
    fs_err::remove_file(blobs("other.out").join(config.as_str().unwrap())).unwrap();
    let end = child("c").expect_code(0);
    newest(
        &end,
        &second,
        &format!("that can be used (not {first}, which is newer)"),
    );
    let fixed = recipe(&env, "fixed", "image:base/1.0.0", true);
    build(&env, &fixed, &[]).expect_code(0);

    // With none left there is a way on.
    fs_err::remove_dir_all(blobs("base.out")).unwrap();
    let file = recipe(&env, "child", "image:base/x.x.x", true);
    let told = [
        "none of its 2 builds is as it was built",
        first.as_str(),
        second.as_str(),
        "hint: build base 1.0.0 again",
    ];
    fails(&env, &file, &[], 1, &told);
    let third = built("base", "three");
    let end = child("d").expect_code(0);
    newest(&end, &third, "the newest of 3 builds of that version");
}

#[test]
fn a_parent_of_the_catalog_is_left_as_it_is_by_rebuild_which_says_so() {
    let env = Env::new();
    archive(&env, "root.tar", &[]);
    let base = recipe(&env, "base", "tar:root.tar", true);
    let end = build(&env, &base, &["--rebuild"]).expect_code(0);
    assert!(!end.stderr.contains("--rebuild: "), "{end}");
    let next = recipe(&env, "next", "image:base/1.0.0", true);
    let told = "--rebuild: the 2 layers of the parent image:base/1.0.0@oci-";
    let how =
        "stay as they are; to make them again, build base with --rebuild first, then this one";
    let end = build(&env, &next, &[]).expect_code(0);
    assert!(!end.stderr.contains(told), "{end}");
    let end = build(&env, &next, &["--rebuild"]).expect_code(0);
    assert!(
        end.stderr.contains(told) && end.stderr.contains(how),
        "{end}"
    );
    // Its own layer is made again, and no other.
    assert_eq!(end.stderr.matches(" cached ").count(), 2, "{end}");
    assert_eq!(end.stderr.matches(" (--rebuild)").count(), 1, "{end}");
}

#[test]
fn drift_of_a_locked_parent_is_told_with_old_and_new() {
    let env = Env::new();
    archive(&env, "root.tar", &[]);
    let recipe = recipe(&env, "drift", "tar:root.tar", true);
    build(&env, &recipe, &[]).expect_code(0);
    build(&env, &recipe, &["--locked", "--rebuild"]).expect_code(0);
    let old = run(tool("sha256sum").arg(env.path("root.tar"))).text();
    let mut more = fs_err::read(env.path("root.tar")).unwrap();
    more.extend([0; 512]);
    env.write("root.tar", more);
    let new = run(tool("sha256sum").arg(env.path("root.tar"))).text();
    let told = format!(
        "sha256: the lock has {}, the parent is now {}",
        &old[..64],
        &new[..64]
    );
    fails(&env, &recipe, &["--locked"], 2, &[&told, "hint"]);
    env.write("lock.json", "{\"format\": 4}");
    fails(&env, &recipe, &["--locked"], 2, &["format 4"]);
}

#[test]
fn a_parent_that_cannot_be_had_is_shown_in_the_recipe() {
    let env = Env::new();
    let tiny = Tiny::new(&env, &[("tiny-a", "1.0", "a")]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    let server = FileServer::start(&web);
    // With the same key, whose folder is that of the recipe.
    let of_suite = |suite: &str, mirror: &str| {
        let recipe = tiny.recipe(mirror, "[tiny-a]");
        let text = fs_err::read_to_string(&recipe).unwrap();
        fs_err::write(&recipe, text.replace("debian:tiny", suite)).unwrap();
        recipe
    };
    let folder = format!("file://{}", tiny.root().display());
    let url = server.url();
    let cases: [(PathBuf, i32, &[&str]); 6] = [
        (
            of_suite("debian:nosuch", &folder),
            1,
            &["has no suite nosuch", "hint: it has tiny"],
        ),
        (
            of_suite("debian:nosuch", &url),
            1,
            &[
                "has no suite nosuch",
                "/dists/ shows the suites that it has",
            ],
        ),
        (
            recipe(&env, "catalog", "image:none/1.0.0", true),
            2,
            &["the catalog has no image:none/1.0.0"],
        ),
        (
            recipe(&env, "tar", "tar:missing.tar", true),
            2,
            &["missing.tar"],
        ),
        (
            recipe(&env, "disk", "disk:missing.raw", true),
            2,
            &["missing.raw"],
        ),
        (
            recipe(&env, "layout", "oci-layout:nowhere", true),
            1,
            &["cannot resolve oci-layout:nowhere"],
        ),
    ];
    for (recipe, code, told) in cases {
        // The first two are one file.
        if told.contains(&"hint: it has tiny") {
            of_suite("debian:nosuch", &folder);
        } else if told[0].contains("nosuch") {
            of_suite("debian:nosuch", &url);
        }
        let events = env.path("events");
        let args = ["--events", events.to_str().unwrap()];
        let end = build(&env, &recipe, &args).expect_code(code);
        let place = format!("{}:3:14", recipe.display());
        let text = fs_err::read_to_string(&recipe).unwrap();
        let line = text.lines().nth(2).unwrap();
        let drawn = format!("--> {place}\n");
        for text in [&drawn, &format!("3 | {line}\n"), "^^^^^^"]
            .into_iter()
            .chain(told.iter().copied())
        {
            assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
        }
        let events = fs_err::read_to_string(events).unwrap();
        let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "failed");
        let error = last["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("{place}: ")), "{error}");
    }
}

#[test]
fn nothing_is_a_parent_of_files_alone() {
    let env = Env::new();
    let recipe = recipe(&env, "empty", "scratch", true);
    build(&env, &recipe, &[]).expect_code(0);
    assert_eq!(planned_layers(&env, &recipe, &[]).len(), 1);
    assert_eq!(
        json(env.path("empty.out/lock.json"))["resolved"]["type"],
        "scratch"
    );
    // A machine needs a kernel, and the command of the hint is one.
    let machine = self::recipe(&env, "machine", "scratch", false);
    let told = ["`amiforge disk assemble --boot none`"];
    fails(&env, &machine, &[], 1, &told);
    finish(env.amiforge().args(["disk", "assemble", "--help"])).expect_code(0);
    env.write(
        "hello.yaml",
        COMPONENT.replace("CreateFile", "ExecuteBash").replace(
            "[{path: /etc/hello, content: \"hello\\n\"}]",
            "{commands: ['true']}",
        ),
    );
    let end = build(&env, &env.path("empty.yaml"), &[]).expect_code(1);
    assert!(end.stderr.contains("scratch has none"), "{end}");
}

#[test]
fn what_a_machine_lacks_is_named_where_it_cannot_be_added() {
    let env = Env::new();
    archive(&env, "root.tar", &[]);
    let machine = recipe(&env, "machine", "tar:root.tar", false);
    let told = [
        "Other 1",
        "no kernel, init, boot loader",
        "container recipe",
    ];
    fails(&env, &machine, &[], 1, &told);
    assert_eq!(planned_layers(&env, &machine, &[]).len(), 3);
    // Of a family that it can be added to, the network is needed.
    let text = ARCHIVE.replace("ID=other", "ID=other\\nID_LIKE=debian");
    run(tool("python3")
        .args(["-c", &text])
        .arg(env.path("root.tar")));
    fails(
        &env,
        &machine,
        &["--offline"],
        3,
        &["cannot be installed offline", "hint"],
    );
    let oci = recipe(&env, "registry", "oci:debian:bookworm", false);
    let told = "docker.io/library/debian:bookworm is not in the cache";
    fails(&env, &oci, &["--offline"], 1, &[told]);
}
