//! Output folders, disks and a store that somebody or something has mangled: one clear error with its
//! place, or as if it were not there; never a hang, never a file outside the folder.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, finish, run, tool};

use crate::web::{Web, build, names, verify_sums};

/// A copy of the shared output. Its files are links: what is changed is replaced, see [`replace`].
fn copy(web: &Web, env: &Env) -> PathBuf {
    let out = env.path("copy");
    let _ = std::fs::remove_dir_all(&out);
    run(tool("cp").arg("-al").arg(web.out()).arg(&out));
    out
}

fn replace(path: &Path, bytes: &[u8]) {
    fs_err::remove_file(path).unwrap();
    fs_err::write(path, bytes).unwrap();
}

fn edit_manifest(out: &Path, edit: impl Fn(&mut serde_json::Value)) {
    let path = out.join("manifest.json");
    let mut manifest = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    replace(&path, &serde_json::to_vec(&manifest).unwrap());
}

fn test(env: &Env, out: &Path) -> Finished {
    finish(
        env.amiforge()
            .env_remove("TMPDIR")
            .args(["test", "--firmware", "bios"])
            .arg(out),
    )
}

fn ls(env: &Env, image: &Path) -> Finished {
    finish(env.amiforge().arg("inspect").arg(image).arg("ls"))
}

#[track_caller]
fn refused(end: &Finished, code: i32, told: &[&str]) {
    assert_eq!(end.code(), code, "{end}");
    assert!(end.stdout.is_empty(), "{end}");
    for text in told {
        assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
    }
}

/// Not a success and not a crash, and the file is named.
#[track_caller]
fn cannot(end: &Finished, file: &str) {
    assert!(matches!(end.code(), 1 | 2), "{end}");
    assert!(end.stderr.contains(file), "{end}");
}

#[test]
fn image_a_mangled_output_folder_is_refused_with_its_place() {
    let web = Web::get();
    let env = web.env();

    // A manifest that names a file elsewhere.
    for file in ["../disk.raw", "/etc/passwd", "..", "a/b"] {
        let out = copy(&web, &env);
        edit_manifest(&out, |m| m["artifacts"][0]["file"] = file.into());
        for end in [test(&env, &out), ls(&env, &out)] {
            refused(&end, 2, &["manifest.json", "is not a plain file name"]);
        }
    }
    // A name that is plain, and a link that leads out.
    let out = copy(&web, &env);
    fs_err::rename(out.join("disk.raw"), env.path("elsewhere.raw")).unwrap();
    std::os::unix::fs::symlink(env.path("elsewhere.raw"), out.join("disk.raw")).unwrap();
    refused(&test(&env, &out), 1, &["disk.raw is not a regular file"]);
    refused(&ls(&env, &out), 2, &["disk.raw: a symbolic link"]);
    // A pipe, which would be waited for.
    fs_err::remove_file(out.join("disk.raw")).unwrap();
    run(tool("mkfifo").arg(out.join("disk.raw")));
    refused(&test(&env, &out), 1, &["disk.raw is not a regular file"]);
    refused(&ls(&env, &out), 2, &["disk.raw: not a regular file"]);
    fs_err::remove_file(out.join("disk.raw")).unwrap();
    refused(&test(&env, &out), 1, &["disk.raw, is missing"]);

    // Bytes that are not those of the manifest.
    let raw = web.out().join("disk.raw");
    let flipped = out.join("disk.raw");
    run(tool("cp").arg("--sparse=always").arg(raw).arg(&flipped));
    run(tool("sh")
        .args([
            "-c",
            "printf X | dd of=\"$1\" bs=1 seek=1500000000 conv=notrunc status=none",
            "sh",
        ])
        .arg(&flipped));
    refused(&test(&env, &out), 1, &["/dev/xvda", "content digest"]);
    run(tool("truncate").args(["-s", "1M"]).arg(&flipped));
    refused(
        &test(&env, &out),
        1,
        &["disk.raw has 1048576 bytes, the manifest says"],
    );
    cannot(&ls(&env, &out), "disk.raw");

    // A qcow2 that is cut off where the manifest says so, too.
    let out = copy(&web, &env);
    let qcow2 = out.join("disk.qcow2");
    let head = run(tool("head").args(["-c", "10485760"]).arg(&qcow2)).stdout;
    replace(&qcow2, &head);
    edit_manifest(&out, |m| {
        let list = m["artifacts"].as_array_mut().unwrap();
        list.retain(|a| a["format"] == "qcow2");
        list[0]["bytes"] = (10 << 20).into();
    });
    refused(&test(&env, &out), 1, &["/dev/xvda"]);
    cannot(&ls(&env, &out), "disk.qcow2");

    // The JSON files themselves.
    let out = copy(&web, &env);
    for (name, codes) in [
        ("manifest.json", [2, 2]),
        ("components.json", [2, 0]),
        ("packages.json", [2, 0]),
    ] {
        let path = out.join(name);
        let whole = fs_err::read(&path).unwrap();
        replace(&path, &whole[..whole.len() / 2]);
        refused(&test(&env, &out), codes[0], &[name, " at line "]);
        if codes[1] == 2 {
            refused(&ls(&env, &out), 2, &[name, " at line "]);
        }
        fs_err::remove_file(&path).unwrap();
        run(tool("mkfifo").arg(&path));
        refused(&test(&env, &out), codes[0], &[name, "not a regular file"]);
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, whole).unwrap();
    }
    assert_eq!(env.processes(), Vec::<String>::new());
    verify_sums(&web.out());
}

#[test]
fn images_that_are_none_are_refused_by_inspect_and_info() {
    let env = Env::new();
    let noise: Vec<u8> = (0..1u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let garbage = env.write("garbage.raw", &noise);
    refused(
        &ls(&env, &garbage),
        2,
        &["garbage.raw", "there is no partition"],
    );
    let not_qcow2 = env.write("garbage.qcow2", &noise);
    refused(
        &ls(&env, &not_qcow2),
        1,
        &["garbage.qcow2", "not a qcow2 disk"],
    );
    for len in [0, 1, 511, 4096] {
        let short = env.write("short.raw", &noise[..len]);
        cannot(&ls(&env, &short), "short.raw");
        let short = env.write("short.qcow2", &noise[..len]);
        cannot(&ls(&env, &short), "short.qcow2");
    }
    let qcow2 = env.path("whole.qcow2");
    run(tool("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&qcow2)
        .arg("64M"));
    let whole = fs_err::read(&qcow2).unwrap();
    for len in [4, 72, 104, 65_536, whole.len() - 1] {
        let cut = env.write("cut.qcow2", &whole[..len]);
        cannot(&ls(&env, &cut), "cut.qcow2");
    }
}

#[test]
fn image_a_damaged_store_is_as_if_it_had_no_records_and_names_its_catalog_entry() {
    let web = Web::get();
    let env = web.env();
    let store = env.state().join("store/v1");
    let records = || {
        let list = run(tool("find").arg(store.join("records")).args(["-type", "f"])).text();
        list.lines().map(PathBuf::from).collect::<Vec<_>>()
    };
    let recipe = amiforge_testkit::workspace_root().join("recipes/debian-web");
    let out = env.path("out");
    // How a component's layer was made is a part of it: without that it is made again (docs/decisions/0074).
    let is_part = |path: &Path| path.parent().unwrap().ends_with("build-results");
    for bytes in [&b"{\"version\": 1"[..], b"", b"[]", b"{\"version\": 99}"] {
        for path in records().iter().filter(|path| !is_part(path)) {
            replace(path, bytes);
        }
        let end = env.run(&mut build(&env, &recipe, &out));
        assert!(
            !end.stderr.contains("build/"),
            "no build phase runs again\n{end}"
        );
        verify_sums(&out);
    }
    for path in records() {
        replace(&path, b"{\"version\": 1");
    }
    let end = env.run(&mut build(&env, &recipe, &out));
    assert!(
        end.stderr.contains("how it was made is not known") && end.stderr.contains("build/"),
        "{end}"
    );
    verify_sums(&out);
    for name in names(&env.state().join("cache/v1/resolved")) {
        replace(
            &env.state().join("cache/v1/resolved").join(name),
            b"{\"format\"",
        );
    }
    env.run(&mut build(&env, &recipe, &out));

    // The data of the parent's layer changed on the disk: found, made again, and the image is the same.
    let disks = || {
        let sums = fs_err::read_to_string(out.join("SHA256SUMS")).unwrap();
        let lines = sums.lines().filter(|line| line.contains("  disk."));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let good = disks();
    assert_eq!(good.len(), 2);
    let plan = fs_err::read(out.join("plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan).unwrap();
    let configured = plan["layers"][1]["id"].as_str().unwrap();
    let layer = store.join("layers").join(format!("{configured}.layer"));
    let mut bytes = fs_err::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8]
        .iter_mut()
        .for_each(|b| *b ^= 0xFF);
    replace(&layer, &bytes);
    fs_err::remove_dir_all(&out).unwrap();
    let end = env.run(&mut build(&env, &recipe, &out));
    for text in [
        &format!("{configured}.layer cannot be used"),
        "it is made again",
    ] {
        assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
    }
    assert_eq!(disks(), good, "{end}");

    let catalog = store.join("catalog/images");
    let entries = names(&catalog);
    let entry = catalog.join(&entries[0]);
    let id = entries[0].trim_end_matches(".json").to_owned();
    let whole = fs_err::read(&entry).unwrap();
    replace(&entry, &whole[..whole.len() / 3]);
    for name in [id.as_str(), "debian-web/1.0.0"] {
        let end = test(&env, Path::new(name));
        refused(&end, 2, &[&entries[0], " at line "]);
    }
    // An entry whose folder holds another image by now is not taken for it.
    let mut other: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    other["imageId"] = "ami-0123456789abcdef0".into();
    fs_err::write(
        catalog.join("ami-0123456789abcdef0.json"),
        serde_json::to_vec(&other).unwrap(),
    )
    .unwrap();
    let end = test(&env, Path::new("ami-0123456789abcdef0"));
    refused(&end, 2, &["ami-0123456789abcdef0", &id]);
}
