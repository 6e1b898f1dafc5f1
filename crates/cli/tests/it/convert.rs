//! `disk convert` between all formats, and clusters taken over from an earlier file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, check, finish, run, tool};

/// A sparse disk of 24 MiB without a partition table: some of it compresses, some does not, and some
/// zeros are written.
fn disk(env: &Env) -> PathBuf {
    let raw = env.path("disk.raw");
    let file = fs_err::File::create(&raw).unwrap();
    file.set_len(24 << 20).unwrap();
    let write = |at: u64, bytes: &[u8]| {
        std::os::unix::fs::FileExt::write_all_at(file.file(), bytes, at).unwrap();
    };
    write(0, &b"words and words ".repeat(30_000));
    let mut noise = 1u32;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_be_bytes()[0]
    })
    .take(700_001)
    .collect();
    write((9 << 20) + 4096, &random);
    write(15 << 20, &vec![0; 2 << 20]);
    write((24 << 20) - 3, b"end");
    raw
}

fn convert(env: &Env, from: &Path, to: &[&Path], more: &[&str]) -> Finished {
    finish(
        env.amiforge()
            .args(["disk", "convert"])
            .arg(from)
            .args(to)
            .args(more),
    )
}

/// Every format to every other, the content staying what it is.
#[test]
fn any_format_becomes_any_other() {
    let env = Env::new();
    let raw = disk(&env);
    let digest = |file: &Path| {
        let info = env
            .run(env.amiforge().args(["disk", "info", "--json"]).arg(file))
            .json();
        info["contentDigest"].as_str().unwrap().to_owned()
    };
    let wanted = digest(&raw);
    let first: Vec<PathBuf> = ["a.qcow2", "a.vmdk", "a.vhd"]
        .map(|name| env.path(name))
        .to_vec();
    let outs: Vec<&Path> = first.iter().map(PathBuf::as_path).collect();
    let json = convert(&env, &raw, &outs, &["--json", "--compress", "zstd"])
        .expect_code(0)
        .json();
    assert_eq!(json["contentDigest"], wanted.as_str());
    for (file, format) in first.iter().zip(["qcow2", "vmdk", "vpc"]) {
        check::qemu_img_compare(&raw, "raw", file, format);
        assert_eq!(digest(file), wanted);
        let ext = file.extension().unwrap().to_string_lossy();
        let next: Vec<PathBuf> = ["raw", "qcow2", "vmdk", "vhd"]
            .map(|to| env.path(format!("from-{ext}.{to}")))
            .to_vec();
        let outs: Vec<&Path> = next.iter().map(PathBuf::as_path).collect();
        let end = convert(
            &env,
            file,
            &outs,
            &["--checksums", "full", "--subformat", "fixed"],
        )
        .expect_code(0);
        let sums = env.write("sums", end.text());
        run(tool("sha256sum").args(["-c", "--strict"]).arg(&sums));
        for (out, format) in next.iter().zip(["raw", "qcow2", "vmdk", "vpc"]) {
            check::qemu_img_compare(&raw, "raw", out, format);
            assert_eq!(digest(out), wanted);
        }
        check::qemu_img_check(&next[1], "qcow2");
        // Zeros that were written are holes afterwards.
        let meta = fs_err::metadata(&next[0]).unwrap();
        assert_eq!(meta.len(), 24 << 20);
        assert!(meta.blocks() * 512 < 3 << 20, "{} blocks", meta.blocks());
    }
    // The way there leaves no trace.
    for name in ["qcow2", "vmdk", "vhd"] {
        let bytes = |from: &str| fs_err::read(env.path(format!("from-{from}.{name}"))).unwrap();
        assert!(bytes("qcow2") == bytes("vmdk") && bytes("vmdk") == bytes("vhd"));
    }
}

#[test]
fn a_raw_disk_is_copied_with_its_holes() {
    let env = Env::new();
    let raw = disk(&env);
    let copy = env.path("copy.img");
    convert(&env, &raw, &[&copy], &["--checksums", "none"]).expect_code(0);
    check::qemu_img_compare(&raw, "raw", &copy, "raw");
    let [a, b] = [&raw, &copy].map(|file| check::data_bytes(file));
    assert!(b <= a, "{b} of {a} bytes");
}

#[test]
fn taking_clusters_over_changes_no_byte() {
    let env = Env::new();
    let raw = disk(&env);
    let old = env.path("old.qcow2");
    convert(&env, &raw, &[&old], &["--compress", "zlib:4"]).expect_code(0);
    let changed = fs_err::OpenOptions::new().write(true).open(&raw).unwrap();
    std::os::unix::fs::FileExt::write_all_at(changed.file(), b"changed", 1000).unwrap();
    drop(changed);
    let (with, without) = (env.path("with.qcow2"), env.path("without.qcow2"));
    convert(&env, &raw, &[&without], &["--compress", "zlib:4"]).expect_code(0);
    let reuse = old.to_string_lossy().into_owned();
    let end = convert(
        &env,
        &raw,
        &[&with],
        &["--compress", "zlib:4", "--reuse", &reuse],
    )
    .expect_code(0);
    assert!(!end.stderr.contains("warning"), "{end}");
    assert!(fs_err::read(&with).unwrap() == fs_err::read(&without).unwrap());
    check::qemu_img_check(&with, "qcow2");
    check::qemu_img_compare(&raw, "raw", &with, "qcow2");
    // One of another kind is no help, and no harm.
    let end = convert(
        &env,
        &raw,
        &[&with],
        &["--compress", "zlib:9", "--reuse", &reuse],
    )
    .expect_code(0);
    assert!(end.stderr.contains("nothing is taken over"), "{end}");
}

#[test]
fn what_cannot_be_converted_leaves_nothing() {
    let env = Env::new();
    let raw = disk(&env);
    fs_err::create_dir(env.path("out")).unwrap();
    let out = |name: &str| env.path("out").join(name);
    let qcow2 = env.path("good.qcow2");
    convert(&env, &raw, &[&qcow2], &["--compress", "zstd:1"]).expect_code(0);
    let mut bytes = fs_err::read(&qcow2).unwrap();
    // The first compressed cluster.
    bytes[65_536..65_600].fill(0xFF);
    let damaged = env.write("damaged.qcow2", &bytes);
    let huge = env.path("huge.qcow2");
    let create = || {
        let mut command = tool("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]);
        command
    };
    run(create()
        .args(["-o", "cluster_size=2M"])
        .arg(&huge)
        .arg("65T"));
    let named = env.path("named.qcow2");
    run(create().args(["-F", "raw", "-b"]).arg(&raw).arg(&named));
    let misnamed = env.write("misnamed.vmdk", fs_err::read(&qcow2).unwrap());
    let folder = env.path("out");
    let cases: Vec<(&Path, &str, &[&str], i32, &str)> = vec![
        (&raw, "a.ova", &[], 2, "\"ova\" is not a disk format"),
        (
            &raw,
            "a.raw",
            &["--compress", "zstd"],
            2,
            "can be compressed so",
        ),
        (
            &raw,
            "a.qcow2",
            &["--compress", "zstd:30"],
            2,
            "is no compression",
        ),
        (
            &raw,
            "a.qcow2",
            &["--subformat", "fixed"],
            2,
            "none of the formats asked for has it",
        ),
        (
            &raw,
            "a.qcow2",
            &["--from", "vhd"],
            1,
            "this is not a vhd disk",
        ),
        (
            &raw,
            "a.qcow2",
            &["--reuse", "/dev/null"],
            2,
            "add --compress",
        ),
        (
            &folder,
            "a.raw",
            &[],
            2,
            "it is a folder: name a disk file in it",
        ),
        (&huge, "a.raw", &[], 2, "more than any volume has (64 TiB)"),
        (
            &named,
            "a.raw",
            &[],
            1,
            "`amiforge disk convert --allow-backing-file`",
        ),
        (&misnamed, "a.raw", &[], 1, "--from <FORMAT>"),
        (&damaged, "a.raw", &[], 1, "damaged.qcow2"),
        (&damaged, "a.vmdk", &[], 1, "does not decompress"),
    ];
    for (input, name, more, code, told) in cases {
        let end = convert(&env, input, &[&out(name)], more).expect_code(code);
        assert!(end.stderr.contains(told), "no `{told}` in\n{end}");
        assert!(end.stdout.is_empty(), "{end}");
        assert_eq!(
            fs_err::read_dir(env.path("out")).unwrap().count(),
            0,
            "{end}"
        );
    }
    let twice = out("a.raw");
    let end = convert(&env, &raw, &[&twice, &twice], &[]).expect_code(2);
    assert!(end.stderr.contains("named twice"), "{end}");
}

#[test]
fn a_disk_that_a_format_rounds_up_is_said_so() {
    let env = Env::new();
    let raw = env.write("odd.raw", vec![7; (1 << 20) + 5]);
    let vhd = env.path("odd.vhd");
    let end = convert(&env, &raw, &[&vhd], &["--json"]).expect_code(0);
    assert!(end.stderr.contains("longer than 1048581"), "{end}");
    assert_eq!(end.json()["files"][0]["virtualBytes"], 2 << 20);
    assert_eq!(check::qemu_img_info(&vhd, "vpc")["virtual-size"], 2 << 20);
}

#[test]
fn progress_is_told_as_events() {
    let env = Env::new();
    let raw = disk(&env);
    let events = env.path("events");
    let mut command = env.amiforge();
    command
        .arg("--events")
        .arg(&events)
        .args(["disk", "convert"])
        .arg(&raw)
        .arg(env.path("a.vmdk"));
    finish(&mut command).expect_code(0);
    let text = fs_err::read_to_string(&events).unwrap();
    let last = text
        .lines()
        .rfind(|line| line.contains("\"progress\""))
        .unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["done"], last["total"]);
    assert!(text.contains("\"artifact\""), "{text}");
}

/// An MBR disk: its partitions, and a digest of each.
#[test]
fn disk_info_tells_of_an_mbr_table() {
    let env = Env::new();
    let raw = env.path("mbr.raw");
    fs_err::write(&raw, vec![0; 16 << 20]).unwrap();
    let script = env.write(
        "script",
        "label: dos\nlabel-id: 0x0badcafe\nstart=2048, size=4096, type=c\nstart=8192, type=83\n",
    );
    let input = fs_err::File::open(&script).unwrap().into_parts().0;
    run(tool("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(&raw)
        .stdin(input));
    let info = |args: &[&str]| env.run(env.amiforge().args(["disk", "info"]).args(args).arg(&raw));
    let json = info(&["--json", "--digests"]).json();
    assert_eq!(json["table"]["kind"], "mbr");
    assert_eq!(json["table"]["diskId"], 0x0bad_cafe_u32);
    let parts = json["partitions"].as_array().unwrap();
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1]["mbrType"], 0x83);
    assert_eq!(parts[1]["firstLba"], 8192);
    assert!(parts.iter().all(|p| p["digest"].is_string()), "{json}");
    let text = info(&[]).text();
    assert!(text.contains("MBR, disk id 0x0badcafe"), "{text}");
}
