//! Reading and changing the state.

use std::os::unix::fs::PermissionsExt as _;

use amiforge_ami::ec2::{AccountId, Region, RegionSettings, State};
use amiforge_store::ec2::Ec2Error;

use super::{Place, all_files, date, key, key_id, snapshot, snapshot_id, volume, volume_id};

fn info() -> amiforge_store::ec2::MapInfo {
    amiforge_store::ec2::MapInfo {
        map: amiforge_types::Digest::of(b"map"),
        bytes: 1,
        blocks: 1,
        changed: 1,
        stored: 1,
    }
}

fn full() -> State {
    let mut state = State::default();
    state
        .snapshots
        .insert(snapshot_id(1), snapshot(1, &info(), None));
    state.volumes.insert(volume_id(1), volume(1, None));
    state.keys.insert(key_id(1), key(1));
    let home = (AccountId::local(), Region::local());
    state.settings.insert(
        home,
        RegionSettings {
            encryption_by_default: true,
            ..Default::default()
        },
    );
    state
}

#[test]
fn what_is_written_is_read_by_all() {
    let place = Place::new();
    let other = place.again();
    assert_eq!(place.ec2.read().unwrap(), State::default());
    place
        .ec2
        .transact::<_, Ec2Error>(|state| {
            *state = full();
            Ok(())
        })
        .unwrap();
    assert_eq!(other.read().unwrap(), full());
    other
        .transact::<_, Ec2Error>(|state| {
            state.volumes.clear();
            state.snapshots.get_mut(&snapshot_id(1)).unwrap().start_time = date();
            state.keys.get_mut(&key_id(1)).unwrap().version = 2;
            Ok(())
        })
        .unwrap();
    let state = place.ec2.read().unwrap();
    assert_eq!(
        (state.volumes.len(), state.keys[&key_id(1)].version),
        (0, 2)
    );
    // Nobody else may read anything.
    for path in all_files(place.ec2.path()) {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{path:?} {mode:o}");
    }
    let mode = place.ec2.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn an_error_and_a_panic_change_nothing() {
    let place = Place::new();
    let ec2 = &place.ec2;
    ec2.transact::<_, Ec2Error>(|state| {
        *state = full();
        Ok(())
    })
    .unwrap();

    #[derive(Debug)]
    enum Mine {
        Refused,
        #[allow(dead_code)]
        Store(Ec2Error),
    }
    impl From<Ec2Error> for Mine {
        fn from(e: Ec2Error) -> Self {
            Self::Store(e)
        }
    }
    let refused = ec2.transact::<(), _>(|state| {
        state.volumes.clear();
        Err(Mine::Refused)
    });
    assert!(matches!(refused, Err(Mine::Refused)));
    let panicked = std::panic::catch_unwind(|| {
        ec2.transact::<(), Ec2Error>(|state| {
            state.keys.clear();
            panic!("on purpose")
        })
    });
    assert!(panicked.is_err());
    assert_eq!(ec2.read().unwrap(), full());
    // One inside of the other would wait for itself; reading shows what was before.
    let nested = ec2.transact::<_, Ec2Error>(|state| {
        state.volumes.clear();
        assert_eq!(ec2.read()?.volumes.len(), 1);
        let inner = ec2.transact::<_, Ec2Error>(|_| Ok(()));
        assert!(matches!(inner, Err(Ec2Error::Nested(_))));
        Ok(())
    });
    nested.unwrap();
    assert_eq!(ec2.read().unwrap().volumes.len(), 0);
}

#[test]
fn threads_and_openings_come_one_after_the_other() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let ec2 = if thread % 2 == 0 {
                place.ec2.clone()
            } else {
                place.again()
            };
            scope.spawn(move || {
                for n in 0..10 {
                    let id = thread * 100 + n;
                    ec2.transact::<_, Ec2Error>(|state| {
                        let count = state.volumes.len() as u32;
                        let mut new = volume(id, None);
                        new.size = count + 1;
                        state.volumes.insert(new.volume_id.clone(), new);
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    let state = place.ec2.read().unwrap();
    let mut sizes: Vec<u32> = state.volumes.values().map(|v| v.size).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, (1..=40).collect::<Vec<_>>());
}

#[test]
fn a_damaged_record_is_named() {
    let place = Place::new();
    place
        .ec2
        .transact::<_, Ec2Error>(|state| {
            *state = full();
            Ok(())
        })
        .unwrap();
    let path = place.ec2.path().join("state.sqlite");
    let run = |sql: &str| {
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(sql).unwrap();
    };
    let error = |sql: &str| {
        run(sql);
        let error = place.ec2.read().unwrap_err();
        let text = format!(
            "{error}: {}",
            std::error::Error::source(&error).map_or_else(String::new, ToString::to_string)
        );
        let tried = place.ec2.transact::<_, Ec2Error>(|_| Ok(()));
        assert!(tried.is_err());
        text.replace(path.to_str().unwrap(), "DB")
    };
    let id = volume_id(1);
    assert_eq!(
        error("UPDATE records SET json = '{' WHERE kind = 'volume'"),
        format!(
            "the record volume \"{id}\" of DB is damaged: EOF while parsing an object at line 1 column 1"
        )
    );
    run("DELETE FROM records WHERE kind = 'volume'");
    assert_eq!(
        error("UPDATE records SET id = 'x' WHERE kind = 'key'"),
        "the record key \"x\" of DB is damaged: a bad id"
    );
    assert_eq!(
        error(&format!(
            "UPDATE records SET id = '{}' WHERE kind = 'key'",
            key_id(7)
        )),
        format!(
            "the record key \"{}\" of DB is damaged: it has another id inside",
            key_id(7)
        )
    );
    run("DELETE FROM records WHERE kind = 'key'");
    assert_eq!(
        error("INSERT INTO records VALUES ('dragon', 'x', '{}')"),
        "the record dragon \"x\" of DB is damaged: an unknown kind"
    );
    run("DELETE FROM records WHERE kind = 'dragon'; PRAGMA user_version = 9");
    let store =
        amiforge_store::Store::open(&amiforge_store::Home::below(place.dir.path())).unwrap();
    let newer = store.ec2().unwrap_err();
    assert!(
        matches!(
            newer,
            Ec2Error::Version {
                found: 9,
                known: 1,
                ..
            }
        ),
        "{newer}"
    );
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let error = store.ec2().unwrap_err().to_string();
    assert!(error.contains("state.sqlite"), "{error}");
}

const COUNT: &str = "ec2::state::processes_come_one_after_the_other";

#[test]
fn processes_come_one_after_the_other() {
    let count = |ec2: &amiforge_store::ec2::Ec2, times: u32| {
        for _ in 0..times {
            ec2.transact::<_, Ec2Error>(|state| {
                state
                    .keys
                    .entry(key_id(1))
                    .or_insert_with(|| key(1))
                    .version += 1;
                Ok(())
            })
            .unwrap();
        }
    };
    if let Some(home) = std::env::var_os("EC2_COUNT_HOME") {
        return count(&super::open(std::path::Path::new(&home)), 40);
    }
    let place = Place::fast();
    let others = [0, 1].map(|_| {
        amiforge_testkit::Running::spawn(
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", COUNT, "--nocapture"])
                .env("EC2_COUNT_HOME", place.dir.path()),
        )
    });
    count(&place.ec2, 40);
    for other in others {
        other
            .wait(std::time::Duration::from_secs(60))
            .expect_code(0);
    }
    assert_eq!(place.ec2.read().unwrap().keys[&key_id(1)].version, 121);
}
