//! A machine that is a thread.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::event::{ChildEvent, ScriptResult};
use crate::kept::KeptName;
use crate::outside::Outside;
use crate::spec::{Limits, ScriptSpec};
use amiforge_types::Digest;

/// How one of [`Threads`] answers a script.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    Good,
    /// Ends in the middle of a line.
    Dies,
    /// Says nothing.
    Sleeps,
    /// Says only that it is at the job, for a while.
    Works,
    /// Takes nothing after the first message.
    Deaf,
    /// Sends a layer that nobody asked for.
    Babbles,
}

#[derive(Debug)]
struct Threads {
    habit: Habit,
    started: AtomicUsize,
    /// Those that run, by what each was lent.
    running: Arc<Mutex<Vec<Vec<LentDownload>>>>,
}

#[derive(Debug)]
struct Thread {
    lines: [UnixStream; 5],
    lent: Vec<LentDownload>,
    running: Arc<Mutex<Vec<Vec<LentDownload>>>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap();
        let at = running.iter().position(|lent| *lent == self.lent);
        running.remove(at.unwrap());
    }
}

impl Machines for Threads {
    fn materialise(&self, _: &Path, _: &Path, _: &Path) -> Result<(), SandboxError> {
        Ok(())
    }

    fn start(
        &self,
        disks: &MachineDisks,
        _: &AtomicBool,
    ) -> Result<Box<dyn Machine>, SandboxError> {
        self.running.lock().unwrap().push(disks.lent.clone());
        self.started.fetch_add(1, Ordering::Relaxed);
        let pairs = std::array::from_fn::<_, 5, _>(|_| UnixStream::pair().unwrap());
        let theirs = [&pairs[0].1, &pairs[1].1].map(|line| line.try_clone().unwrap());
        let habit = self.habit;
        std::thread::spawn(move || serve(theirs, habit));
        let lines = pairs.map(|(ours, _)| ours);
        Ok(Box::new(Thread {
            lines,
            lent: disks.lent.clone(),
            running: self.running.clone(),
        }))
    }

    fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, 1)
    }
}

impl Machine for Thread {
    fn link(&self) -> &UnixStream {
        &self.lines[0]
    }

    fn layers(&self) -> &UnixStream {
        &self.lines[1]
    }

    fn shell(&self) -> [&UnixStream; 3] {
        [&self.lines[2], &self.lines[3], &self.lines[4]]
    }

    fn last_words(&self) -> String {
        "its last words".to_owned()
    }
}

fn serve([mut link, mut layers]: [UnixStream; 2], habit: Habit) {
    let mut lines = BufReader::new(link.try_clone().unwrap()).lines();
    let mut say = |message: &FromMachine| {
        let line = serde_json::to_string(message).unwrap() + "\n";
        // In two pieces, the second later than anybody waits for in one go.
        let (first, second) = line.split_at(line.len() / 2);
        let _gone = link.write_all(first.as_bytes());
        std::thread::sleep(CANCEL_POLL + CANCEL_POLL / 2);
        let _gone = link.write_all(second.as_bytes());
    };
    say(&FromMachine::Ready);
    if habit == Habit::Deaf {
        // As long as the other end is there.
        let _gone = layers.read(&mut [0]);
        return;
    }
    while let Some(Ok(line)) = lines.next() {
        let ToMachine { job, .. } = serde_json::from_str(&line).unwrap();
        let child = FromMachine::Child;
        match job {
            Job::Harvest { upper, layer, .. } => {
                assert_eq!((upper.to_str(), layer.to_str()), (Some(UPPER), Some(LAYER)));
                say(&FromMachine::Layer(5));
                layers.write_all(b"layer").unwrap();
                say(&child(FromChild::Done(JobResult::Unit)));
            }
            Job::Prepare { lent, .. } => {
                assert_eq!(lent, [], "it is on the disk already");
                say(&child(FromChild::Done(JobResult::Unit)));
            }
            Job::Component { outside, .. } => {
                let line = format!("{:?} {:?}", outside.proxies, outside.lent);
                say(&child(FromChild::Event(ChildEvent::Stdout { line })));
                say(&child(FromChild::Done(JobResult::Unit)));
            }
            Job::Script { root, .. } => match habit {
                Habit::Good => {
                    let line = format!("{:?} {:?}", root.lowers, root.work);
                    say(&child(FromChild::Event(ChildEvent::Stdout { line })));
                    say(&child(FromChild::Done(JobResult::Script(ScriptResult {
                        exit_code: Some(3),
                        signal: None,
                        timed_out: false,
                        tail: Vec::new(),
                        start: Timestamp::default(),
                        end: Timestamp::default(),
                    }))));
                }
                Habit::Dies => {
                    let _gone = link.write_all(b"{\"Child\":");
                    return;
                }
                Habit::Sleeps | Habit::Deaf => {}
                Habit::Works => {
                    for _ in 0..4 {
                        say(&FromMachine::Busy);
                    }
                    say(&child(FromChild::Done(JobResult::Unit)));
                }
                Habit::Babbles => say(&FromMachine::Layer(1 << 50)),
            },
            _ => say(&child(FromChild::Done(JobResult::Unit))),
        }
    }
}

fn fleet(habit: Habit) -> (Fleet, Arc<Threads>) {
    let threads = Arc::new(Threads {
        habit,
        started: AtomicUsize::new(0),
        running: Arc::default(),
    });
    (Fleet::new(threads.clone()), threads)
}

fn root(dir: &Path, lowers: &[&str]) -> RootSpec {
    RootSpec {
        lowers: lowers.iter().map(|name| dir.join(name)).collect(),
        upper: dir.join("upper"),
        work: dir.join("work"),
        shims: Vec::new(),
        resolv_conf: None,
        network: false,
        limits: Limits::default(),
    }
}

fn script(dir: &Path, lowers: &[&str]) -> Job {
    Job::Script {
        root: root(dir, lowers),
        script: ScriptSpec {
            interpreter: Vec::new(),
            text: String::new(),
            env: BTreeMap::new(),
            timeout_seconds: None,
        },
    }
}

fn run(fleet: &Fleet, job: Job) -> Result<(JobResult, Vec<String>), SandboxError> {
    let mut told = Vec::new();
    let mut tell = |event| {
        if let ChildEvent::Stdout { line } = event {
            told.push(line);
        }
    };
    let result = fleet.run(job, &AtomicBool::new(false), &mut tell, None)?;
    Ok((result, told))
}

#[test]
fn a_run_and_its_harvest_share_a_machine_and_other_disks_take_another() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (fleet, threads) = fleet(Habit::Good);
    let (result, told) = run(&fleet, script(dir, &["b", "a"])).unwrap();
    assert!(matches!(
        result,
        JobResult::Script(ScriptResult {
            exit_code: Some(3),
            ..
        })
    ));
    assert_eq!(told, [r#"["/lower0/fs", "/lower1/fs"] "/upper/work""#]);
    let layer = dir.join("layer");
    std::fs::write(&layer, "more than there will be").unwrap();
    let harvest = |layer: &Path| Job::Harvest {
        upper: dir.join("upper"),
        layer: layer.to_owned(),
        clock: Timestamp::default(),
        since: None,
        exclude: Vec::new(),
    };
    run(&fleet, harvest(&layer)).unwrap();
    assert_eq!(std::fs::read(&layer).unwrap(), b"layer");
    assert_eq!(threads.started.load(Ordering::Relaxed), 1);

    run(&fleet, script(dir, &["c", "b", "a"])).unwrap();
    assert_eq!(threads.started.load(Ordering::Relaxed), 2);
    // What is removed may be on its disks.
    let dirs = vec![dir.join("upper")];
    run(&fleet, Job::RemoveTrees { dirs }).unwrap();
    run(&fleet, script(dir, &["c", "b", "a"])).unwrap();
    assert_eq!(threads.started.load(Ordering::Relaxed), 3);
}

#[test]
fn a_machine_is_started_with_what_its_jobs_are_lent() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (fleet, threads) = fleet(Habit::Good);
    let lent = |text: &str| LentDownload {
        name: KeptName::of_digest(Digest::of(text.as_bytes())),
        path: dir.join(text),
    };
    let go = |lent: &[LentDownload]| {
        let root = root(dir, &["a"]);
        let prepare = Job::Prepare {
            root: root.clone(),
            keep_tmp: false,
            lent: lent.to_vec(),
        };
        run(&fleet, prepare).unwrap();
        let proxy = ("http_proxy".to_owned(), "http://127.0.0.1:3128".to_owned());
        let outside = Outside {
            lent: lent.to_vec(),
            proxies: [proxy].into(),
            ..Outside::default()
        };
        let job = Job::Component {
            root,
            run: Box::default(),
            journal: crate::executor::Journal::default(),
            outside: Box::new(outside),
            pause_after: None,
        };
        let (_, told) = run(&fleet, job).unwrap();
        let started = threads.started.load(Ordering::Relaxed);
        (started, threads.running.lock().unwrap().clone(), told)
    };
    let (one, two) = (lent("one"), lent("two"));
    let (started, running, told) = go(&[one.clone(), two.clone()]);
    assert_eq!(started, 1, "for both jobs");
    assert_eq!(running, [[one.clone(), two.clone()]]);
    let there = [&one, &two].map(|file| LentDownload {
        path: Path::new("/lent").join(file.name.as_str()),
        ..file.clone()
    });
    let expected = format!(r#"{{"http_proxy": "http://192.0.2.1:3128"}} {there:?}"#);
    assert_eq!(told, [expected]);
    // What is there serves also who wants less of it, as a shell does; else another takes its place, on the same disk.
    assert_eq!(go(std::slice::from_ref(&two)).0, 1);
    assert_eq!(go(&[]).0, 1);
    let three = lent("three");
    let (started, running, _) = go(&[two.clone(), three.clone()]);
    assert_eq!((started, running), (2, vec![vec![two, three]]));
}

#[test]
fn a_machine_that_ends_or_babbles_is_told_and_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    for (habit, said) in [
        (Habit::Dies, "its last words"),
        (Habit::Babbles, "nobody wants"),
    ] {
        let (fleet, threads) = fleet(habit);
        for started in 1..3 {
            let error = run(&fleet, script(dir.path(), &["a"])).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(threads.started.load(Ordering::Relaxed), started);
        }
    }
}

/// Longer than it takes to say something, and shorter than to work.
const SHORT: Duration = Duration::from_millis(400);

#[test]
fn a_machine_that_hangs_is_given_up_and_one_that_works_is_not() {
    let dir = tempfile::tempdir().unwrap();
    for (habit, hangs) in [
        (Habit::Sleeps, true),
        (Habit::Deaf, true),
        (Habit::Works, false),
    ] {
        let (mut fleet, _) = fleet(habit);
        fleet.silence = SHORT;
        let mut job = script(dir.path(), &["a"]);
        if let Job::Script { script, .. } = &mut job {
            // More than fits on the way.
            script.text = "x".repeat(4 << 20);
        }
        let began = Instant::now();
        let result = run(&fleet, job);
        match result {
            Err(error) if hangs => assert!(error.to_string().contains("hangs"), "{error}"),
            other => assert!(other.is_ok() && !hangs, "{habit:?}: {other:?}"),
        }
        assert!(began.elapsed() > SHORT, "{habit:?}");
    }
}

#[test]
fn a_job_is_cancelled_while_the_machine_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, _) = fleet(Habit::Sleeps);
    let cancel = AtomicBool::new(false);
    let job = script(dir.path(), &["a"]);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(CANCEL_POLL * 4);
            cancel.store(true, Ordering::Relaxed);
        });
        fleet.run(job, &cancel, &mut |_| (), None)
    });
    assert!(matches!(result, Err(SandboxError::Cancelled)), "{result:?}");
}
