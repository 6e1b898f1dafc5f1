use super::*;

fn begin(target: &Path) -> Result<OutFolder, EngineError> {
    OutFolder::begin(target, &Interruption::default())
}

fn plan() -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "planId": Digest::of(b"plan") })).unwrap()
}

#[test]
fn a_folder_of_somebody_else_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for (case, files) in [
        &["manifest.json", "index.html"][..],
        &["manifest.json"],
        &["plan.json", "notes.txt"],
        &["plan.json", "logs"],
        &["plan.json", "disk-notes.txt"],
        &["disk.raw"],
    ]
    .iter()
    .enumerate()
    {
        let target = dir.path().join(case.to_string());
        fs::create_dir(&target).unwrap();
        for file in *files {
            fs::write(target.join(file), "{\"name\": \"a web page\"}").unwrap();
        }
        let error = begin(&target).err().expect("refused");
        assert_eq!(error.exit_code(), 2, "{files:?}");
        for file in *files {
            assert!(target.join(file).exists(), "{files:?}");
        }
    }
}

#[test]
fn an_empty_folder_and_a_folder_of_ours_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for files in [
        &[][..],
        &["plan.json", "logs", "disk.raw", "console-bios.log"],
    ] {
        let target = dir.path().join("out");
        fs::create_dir_all(&target).unwrap();
        for file in files {
            fs::write(target.join(file), plan()).unwrap();
        }
        let folder = begin(&target).unwrap();
        folder.write("SHA256SUMS", b"new").unwrap();
        folder.commit().unwrap();
        assert_eq!(fs::read(target.join("SHA256SUMS")).unwrap(), b"new");
        assert!(!target.join("logs").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn the_logs_of_a_failure_replace_only_those_of_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    let failed = dir.path().join("out.failed");
    for _ in 0..2 {
        let folder = begin(&target).unwrap();
        folder.write("plan.json", &plan()).unwrap();
        assert_eq!(folder.fail().unwrap(), failed);
    }
    fs::write(failed.join("thesis.tex"), "years of work").unwrap();
    let folder = begin(&target).unwrap();
    folder.write("plan.json", &plan()).unwrap();
    let kept = folder.fail().unwrap();
    assert_ne!(kept, failed);
    assert!(kept.join("plan.json").exists());
    assert!(failed.join("thesis.tex").exists());
}

#[test]
fn logs_are_kept_of_a_failure_that_has_some() {
    let dir = tempfile::tempdir().unwrap();
    for log in [None, Some("console.log")] {
        let folder = begin(&dir.path().join("out")).unwrap();
        folder.write("plan.json", &plan()).unwrap();
        fs::create_dir(folder.path("logs")).unwrap();
        if let Some(log) = log {
            folder.write(&format!("logs/{log}"), b"text").unwrap();
        }
        let failed = folder.fail().unwrap();
        assert_eq!(failed.join("logs").exists(), log.is_some());
    }
}

#[test]
fn a_pipe_named_like_an_unfinished_folder_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join(".out.tmp-1");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    drop(begin(&dir.path().join("out")).unwrap());
    assert!(pipe.exists());
}

#[test]
fn what_was_put_into_the_folder_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    fs::create_dir(&target).unwrap();
    let folder = begin(&target).unwrap();
    folder.write("plan.json", &plan()).unwrap();
    fs::write(target.join("notes.txt"), "mine").unwrap();
    assert!(folder.commit().is_err());
    assert_eq!(fs::read(target.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn only_unfinished_folders_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".out.tmp-backup", ".out.tmp-", ".out.tmp-12"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    drop(begin(&dir.path().join("out")).unwrap());
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, [".out.tmp-", ".out.tmp-backup"]);
}

#[test]
fn nothing_is_finished_once_the_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let interruption = Interruption::default();
    let target = dir.path().join("out");
    let folder = OutFolder::begin(&target, &interruption).unwrap();
    folder.write("plan.json", &plan()).unwrap();
    interruption.interrupt();
    assert!(interruption.is_requested());
    let (done, finished) = std::sync::mpsc::channel();
    // This thread waits for the end of the process.
    std::thread::spawn(move || done.send(folder.commit().is_ok()));
    let waited = finished.recv_timeout(std::time::Duration::from_millis(300));
    assert!(waited.is_err(), "{waited:?}");
    assert!(!target.exists());
}
