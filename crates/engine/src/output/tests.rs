use super::*;

fn begin(target: &Path) -> Result<OutFolder, EngineError> {
    OutFolder::begin(target, &Interruption::default())
}

#[test]
fn a_folder_of_somebody_else_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for (case, files) in [
        &["manifest.json", "index.html"][..],
        &["manifest.json"],
        &["plan.json", "notes.txt"],
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
            fs::write(target.join(file), "{}").unwrap();
        }
        let folder = begin(&target).unwrap();
        folder.write("plan.json", b"new").unwrap();
        folder.commit().unwrap();
        assert_eq!(fs::read(target.join("plan.json")).unwrap(), b"new");
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
        folder.write("plan.json", b"plan").unwrap();
        assert_eq!(folder.fail().unwrap(), failed);
    }
    fs::write(failed.join("thesis.tex"), "years of work").unwrap();
    let folder = begin(&target).unwrap();
    folder.write("plan.json", b"plan").unwrap();
    let kept = folder.fail().unwrap();
    assert_ne!(kept, failed);
    assert!(kept.join("plan.json").exists());
    assert!(failed.join("thesis.tex").exists());
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
