//! Shared caches of which something is damaged or gone: whoever writes puts it again, and nothing that is whole.

use std::path::Path;

use amiforge_testkit::{Finished, RegistryServer, RegistrySettings, run, tool};

use crate::shared_cache::Machines;
use crate::web::{names, steps};

fn shared(end: &Finished) -> usize {
    end.stderr.matches("   shared ").count()
}

/// Every file of a folder that is a cache, with another content.
fn each(folder: &Path, wanted: &dyn Fn(&str) -> bool, change: &dyn Fn(&mut Vec<u8>)) {
    for name in names(folder).iter().filter(|name| wanted(name)) {
        let path = folder.join(name);
        let mut bytes = fs_err::read(&path).unwrap();
        change(&mut bytes);
        fs_err::write(&path, bytes).unwrap();
    }
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let names = names(folder).into_iter();
    names
        .map(|name| {
            let bytes = fs_err::read(folder.join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

/// Somebody with an empty store takes both layers, and is warned of nothing.
#[track_caller]
fn all_is_whole(machines: &Machines, reader: &str, cache: &str, writer: &str) {
    let args = ["--cache-from", cache, "--cache-trust", writer];
    let _ = fs_err::remove_dir_all(machines.home(reader));
    let taken = machines.build(reader, &args).expect_code(0);
    assert_eq!(steps(&taken), Vec::<String>::new(), "{taken}");
    assert!(!taken.stderr.contains("warning"), "{taken}");
    fs_err::remove_dir_all(machines.env.path(format!("out-{reader}"))).unwrap();
}

#[test]
fn a_writer_puts_again_what_nobody_can_use() {
    let machines = Machines::small();
    let folder = machines.env.path("cache");
    let cache = folder.to_str().unwrap();
    let writer = machines.new_key("a");
    machines.build("a", &["--cache-to", cache]).expect_code(0);
    let (entries, blobs) = (folder.join("v1/entries"), folder.join("v1/blobs"));
    let stranger = machines.new_key("stranger");
    let other = machines.env.path("other");
    let end = machines.build("stranger", &["--cache-to", other.to_str().unwrap()]);
    end.expect_code(0);

    // The last writer's names are `layer-<64 digits>.json`, those of one writer longer.
    let last = |name: &str| name.len() == "layer-".len() + 64 + ".json".len();
    let layers = |name: &str| name.starts_with("layer-");
    type Damage<'d> = (&'d str, Box<dyn Fn() + 'd>);
    let damages: Vec<Damage<'_>> = vec![
        (
            "no blobs",
            Box::new(|| fs_err::remove_dir_all(&blobs).unwrap()),
        ),
        (
            "blobs cut short",
            Box::new(|| each(&blobs, &|_| true, &|bytes| bytes.truncate(bytes.len() - 1))),
        ),
        (
            "entries cut short",
            Box::new(|| each(&entries, &layers, &|bytes| bytes.truncate(100))),
        ),
        (
            "the writer's entries cut short",
            Box::new(|| {
                let own = |name: &str| layers(name) && !last(name);
                each(&entries, &own, &|bytes| bytes.truncate(100));
            }),
        ),
        (
            "entries of the last writer cut short",
            Box::new(|| each(&entries, &last, &|bytes| bytes.truncate(100))),
        ),
        (
            "no entries of the last writer",
            Box::new(|| {
                for name in names(&entries).iter().filter(|name| last(name)) {
                    fs_err::remove_file(entries.join(name)).unwrap();
                }
            }),
        ),
        (
            "another signature",
            Box::new(|| {
                each(&entries, &layers, &|bytes| {
                    let text = String::from_utf8(std::mem::take(bytes)).unwrap();
                    *bytes = text
                        .replace("\"signature\": \"", "\"signature\": \"0")
                        .into();
                });
            }),
        ),
        (
            "entries that are links",
            Box::new(|| {
                for name in names(&entries).iter().filter(|name| layers(name)) {
                    fs_err::remove_file(entries.join(name)).unwrap();
                    std::os::unix::fs::symlink("/etc/passwd", entries.join(name)).unwrap();
                }
            }),
        ),
        (
            "a stranger's entries under the writer's own names",
            Box::new(|| {
                for name in names(&entries).iter().filter(|n| layers(n) && !last(n)) {
                    let theirs = format!("{}.json", &name[.."layer-".len() + 64]);
                    let theirs = other.join("v1/entries").join(theirs);
                    fs_err::copy(theirs, entries.join(name)).unwrap();
                }
            }),
        ),
    ];
    for (what, damage) in damages {
        damage();
        let end = machines.build("a", &["--cache-to", cache]).expect_code(0);
        assert_eq!(shared(&end), 2, "{what}: {end}");
        assert!(!end.stderr.contains("warning"), "{what}: {end}");
        all_is_whole(&machines, "b", cache, &writer);
        let before = (contents(&entries), contents(&blobs));
        // Neither a build that has nothing to do nor one that takes its layers from the store writes what is whole.
        for _ in 0..2 {
            let end = machines.build("a", &["--cache-to", cache]).expect_code(0);
            assert_eq!(shared(&end), 0, "{what}: {end}");
            fs_err::remove_dir_all(machines.env.path("out-a")).unwrap();
        }
        assert!(
            before == (contents(&entries), contents(&blobs)),
            "{what}: whole, and written"
        );
    }

    // What another writer put last stays, be the writer trusted or not; it is mended when it is of no use.
    let end = machines.build("stranger", &["--cache-to", cache]);
    assert_eq!(shared(&end.expect_code(0)), 2);
    let theirs = contents(&entries);
    let trusting = ["--cache-to", cache, "--cache-trust", &stranger];
    for args in [&trusting[..2], &trusting[..]] {
        let end = machines.build("a", args).expect_code(0);
        assert_eq!(shared(&end), 0, "{end}");
    }
    assert!(
        theirs == contents(&entries),
        "another writer's were replaced"
    );
    each(&entries, &|name| layers(name) && last(name), &|bytes| {
        bytes.truncate(100);
    });
    let end = machines.build("a", &trusting).expect_code(0);
    assert_eq!(shared(&end), 2, "{end}");
    all_is_whole(&machines, "b", cache, &writer);
    all_is_whole(&machines, "b", cache, &stranger);
}

/// A byte that is another is found by who reads: who reads and writes one cache mends it, also where the layer came from
/// somewhere else in the end.
#[test]
fn who_reads_a_damaged_blob_and_writes_puts_it_again() {
    let machines = Machines::small();
    let (folder, copy) = (machines.env.path("cache"), machines.env.path("copy"));
    let cache = folder.to_str().unwrap();
    let writer = machines.new_key("a");
    machines.build("a", &["--cache-to", cache]).expect_code(0);
    run(tool("cp").arg("-a").arg(&folder).arg(&copy));
    let blobs = folder.join("v1/blobs");
    each(&blobs, &|_| true, &|bytes| *bytes.last_mut().unwrap() ^= 1);

    // The same folder by another name.
    let same = format!("dir:{cache}/../cache");
    let key = machines.home("a").join("cache-key");
    let args = [
        "--cache-from",
        &same,
        "--cache-from",
        copy.to_str().unwrap(),
    ];
    let args = [&args[..], &["--cache-to", cache, "--cache-key"]].concat();
    let args = [&args[..], &[key.to_str().unwrap()]].concat();
    let end = machines.build("c", &args).expect_code(0);
    assert_eq!(steps(&end), Vec::<String>::new(), "{end}");
    assert!(end.stderr.contains("digest is"), "{end}");
    assert_eq!(shared(&end), 2, "{end}");
    all_is_whole(&machines, "b", cache, &writer);

    // What was read whole is not put.
    fs_err::remove_dir_all(machines.home("c")).unwrap();
    fs_err::remove_dir_all(machines.env.path("out-c")).unwrap();
    let end = machines.build("c", &args).expect_code(0);
    assert_eq!(shared(&end), 0, "{end}");
}

#[test]
fn a_registry_that_lost_something_gets_it_again() {
    let machines = Machines::small();
    let server = RegistryServer::start(&RegistrySettings::default());
    let cache = format!("oci:{}/team/cache", server.host());
    let writer = machines.new_key("a");
    let put = || shared(&machines.build("a", &["--cache-to", &cache]).expect_code(0));
    assert_eq!(put(), 2);
    assert_eq!(put(), 0);
    // What its storage has: first the layers, then what entries say, then the manifests.
    let found = run(tool("find")
        .arg(server.data().join("docker/registry/v2/blobs"))
        .args(["-name", "data"]));
    let data = found.text();
    let is = |path: &str, what: &[u8]| {
        let bytes = fs_err::read(path).unwrap();
        bytes.windows(what.len()).any(|part| part == what)
    };
    let zstd = [0x28, 0xB5, 0x2F, 0xFD];
    let layers = |path: &str| fs_err::read(path).unwrap().starts_with(&zstd);
    let documents = |path: &str| !layers(path) && is(path, b"\"signature\"");
    let manifests = |path: &str| !layers(path) && is(path, b"\"artifactType\"");
    type Kind<'k> = (&'k str, &'k dyn Fn(&str) -> bool);
    let kinds: [Kind<'_>; 3] = [
        ("layers", &layers),
        ("documents", &documents),
        ("manifests", &manifests),
    ];
    for (what, lost) in kinds {
        let gone: Vec<&str> = data.lines().filter(|path| lost(path)).collect();
        assert_eq!(gone.len(), 2, "{what}: {data}");
        for path in gone {
            fs_err::remove_file(path).unwrap();
        }
        assert_eq!(put(), 2, "{what}");
        all_is_whole(&machines, "b", &cache, &writer);
        assert_eq!(put(), 0, "{what}");
    }
}
