//! Commands beside each other, and ports that others have.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use amiforge_store::{Home, Store};
use amiforge_testkit::finish;

use super::Cloud;

#[test]
fn lists_do_not_disturb_starts_and_stops() {
    let cloud = Cloud::new();
    let image = cloud.image("tiny");
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    let over = AtomicBool::new(false);
    let listed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let lists: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        let end = finish(&mut cloud.command("instance list")).expect_code(0);
                        assert!(!end.stderr.contains("unexpectedly"), "{end}");
                        listed.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..8 {
            // Not `ok`: a failure must end the lists first.
            for verb in ["stop --force", "start"] {
                let end = finish(&mut cloud.command(&format!("instance {verb} {id}")));
                if end.code() != 0 {
                    over.store(true, Ordering::SeqCst);
                    panic!("{verb}: {end}");
                }
            }
        }
        over.store(true, Ordering::SeqCst);
        for list in lists {
            list.join().unwrap();
        }
    });
    assert!(listed.load(Ordering::SeqCst) > 16);
    assert_eq!(cloud.state(&id), "running");
}

#[test]
fn ports_that_the_user_chose_stay_and_are_missed_before_the_machine_starts() {
    let cloud = Cloud::new();
    let image = cloud.image("tiny");
    let ports = |id: &str| {
        let store = Store::open(&Home::below(cloud.env().state())).unwrap();
        let state = store.ec2().unwrap().read().unwrap();
        state.instances[&id.parse().unwrap()].ports.clone()
    };
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let launch = format!("run {image} --instance-type t2.micro --port {port}:22");
    let end = cloud.refused(&launch, &format!("port {port}"));
    assert!(end.stderr.contains("in use"), "{end}");
    assert_eq!(cloud.ok("instance list"), "", "nothing was launched");
    drop(other);

    let chosen = cloud.ok(&launch);
    let ours = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    cloud.ok(&format!("instance stop --force {chosen} {ours}"));
    let first = ports(&ours);
    assert!(first.len() == 1 && first[0].any_host && first[0].guest == 22);
    let blockers = [port, first[0].host].map(|p| TcpListener::bind(("127.0.0.1", p)).unwrap());
    let end = cloud.refused(&format!("instance start {chosen}"), &format!("port {port}"));
    assert!(end.stderr.contains("in use"), "{end}");
    assert_eq!(cloud.state(&chosen), "stopped");
    // Nobody asked for this one, so it is another one now.
    cloud.ok(&format!("instance start {ours}"));
    assert_ne!(ports(&ours)[0].host, first[0].host);
    drop(blockers);
    cloud.ok(&format!("instance start {chosen}"));
    let now = ports(&chosen);
    assert!(
        now.len() == 1 && (now[0].host, now[0].guest) == (port, 22),
        "{now:?}"
    );
}
