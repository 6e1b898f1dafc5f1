//! Whatever is asked in whatever order, the state is a good one, and a refusal changes nothing.

use super::*;

/// A random walk over the operations.
struct Walk {
    w: World,
    dice: Fx,
}

impl Walk {
    fn dice(&mut self, sides: usize) -> usize {
        usize::try_from(self.dice.random() % sides as u128).unwrap()
    }

    fn pick<T: ToString>(&mut self, ids: Vec<T>) -> String {
        if ids.is_empty() {
            return String::new();
        }
        let i = self.dice(ids.len());
        ids[i].to_string()
    }

    fn caller(&mut self) -> Caller {
        match self.dice(3) {
            0 => self.w.a.clone(),
            1 => self.w.b.clone(),
            _ => self.w.far.clone(),
        }
    }

    /// One request; what it was, and whether it was refused.
    fn step(&mut self) -> (String, Result<(), ApiError>) {
        let who = self.caller();
        let image = {
            let ids = self.w.s.images.keys().cloned().collect();
            self.pick(ids)
        };
        let snapshot = {
            let ids = self.w.s.snapshots.keys().cloned().collect();
            self.pick(ids)
        };
        let instance = {
            let ids = self.w.s.instances.keys().cloned().collect();
            self.pick(ids)
        };
        let key = {
            let ids = self.w.s.keys.values().map(Key::arn).collect();
            self.pick(ids)
        };
        let name = format!("image {}", self.dice(6));
        let flag = self.dice(2) == 0;
        let named = flag.then(|| key.clone());
        let encrypted = match self.dice(3) {
            _ if flag => Some(true),
            0 => Some(true),
            1 => Some(false),
            _ => None,
        };
        let volume = {
            let ids = self.w.s.volumes.keys().cloned().collect();
            self.pick(ids)
        };
        let verb = self.dice(36);
        let w = &mut self.w;
        let request = super::image(&image);
        let result = match verb {
            0 | 1 => {
                let id = w.s.import_snapshot(&who, 1, None, Tags::new(), &mut w.fx);
                if flag && let Ok(id) = &id {
                    w.finish(id);
                }
                done(id)
            }
            2..=4 => done(w.s.register_image(&who, &register(&name, &snapshot), None, &mut w.fx)),
            5 | 6 => done(w.copy(&who, &image, if flag { HERE } else { FAR }, |r| {
                r.name = name;
                r.encrypted = encrypted;
                r.kms_key_id = named;
            })),
            7 => done(w.s.copy_snapshot(
                &who,
                &CopySnapshotRequest {
                    source_snapshot_id: snapshot.clone(),
                    source_region: HERE.into(),
                    encrypted,
                    kms_key_id: named,
                    ..Default::default()
                },
                &mut w.fx,
            )),
            8..=10 => done(w.run(&who, &image, |_| {})),
            11 | 12 => done(w.create(&who, &instance, |r| r.name = name)),
            13 | 14 => done(w.deregister(&who, &image, flag)),
            15 => done(w.s.delete_snapshot(
                &who,
                &SnapshotRequest {
                    snapshot_id: snapshot.clone(),
                    dry_run: false,
                },
                &w.fx,
            )),
            16 => w.s.restore_image(&who, &request),
            17 => w.s.restore_snapshot(
                &who,
                &SnapshotRequest {
                    snapshot_id: snapshot.clone(),
                    dry_run: false,
                },
            ),
            18 => w.s.disable_image(&who, &request, &w.fx),
            19 => w.s.enable_image(&who, &request, &w.fx),
            20 => {
                let who_else = if flag { everybody() } else { user(B) };
                w.s.modify_launch_permission(&who, &image, &[who_else], &[], false, &w.fx)
            }
            21 => w.share_snapshot(&who, &snapshot, B),
            22 => done(w.s.stop_instances(&who, &ids(&instance), &w.fx)),
            23 => done(w.s.terminate_instances(&who, &ids(&instance), &w.fx)),
            24 => done(w.s.start_instances(&who, &ids(&instance), &w.fx)),
            25 => match instance.parse() {
                Ok(id) => done(w.s.machine_lost(&id, "lost", &w.fx)),
                Err(_) => Ok(()),
            },
            26 => match instance.parse() {
                Ok(id) => {
                    let first = w.s.instance_running(&id);
                    let second = w.s.instance_stopped(&id);
                    let third = done(w.s.instance_terminated(&id, &w.fx));
                    first.or(second).or(third)
                }
                Err(_) => Ok(()),
            },
            27 => match image.parse() {
                Ok(id) => {
                    let pending: Vec<_> =
                        w.s.images
                            .get(&id)
                            .map(|i| {
                                w.s.snapshots_of(i)
                                    .filter(|s| s.state == SnapshotState::Pending)
                                    .map(|s| s.snapshot_id.clone())
                                    .collect()
                            })
                            .unwrap_or_default();
                    let contents: Vec<_> = pending.iter().map(|id| w.content(id)).collect();
                    if flag {
                        w.s.complete_image(&id, &contents, None, &w.fx)
                    } else {
                        w.s.fail_image(
                            &id,
                            StateReason {
                                code: "x".into(),
                                message: "y".into(),
                            },
                        )
                    }
                }
                Err(_) => Ok(()),
            },
            28 => {
                w.fx.now += if flag { 600 } else { 3 * DAY };
                let now = w.fx.now();
                w.s.expire(now);
                Ok(())
            }
            29 => {
                let settings = w.settings(&who);
                settings.image_retention_days = flag.then_some(5);
                settings.snapshot_retention_days = (!flag).then_some(9);
                settings.encryption_by_default = flag;
                settings.allow_public_images = !flag;
                settings.copy_shared_encrypted_images = flag;
                Ok(())
            }
            30 => {
                let request = CreateVolumeRequest {
                    availability_zone: Some(who.region.zone()),
                    snapshot_id: flag.then_some(snapshot.clone()),
                    size: Some(2),
                    encrypted,
                    kms_key_id: named,
                    ..Default::default()
                };
                done(w.s.create_volume(&who, &request, &mut w.fx))
            }
            31 => {
                for work in w.s.pending_works() {
                    match (&work, flag) {
                        (Pending::Volume(id), true) => w.s.volume_created(id).unwrap(),
                        _ => w.s.abandon(&work),
                    }
                }
                Ok(())
            }
            32 => {
                let device = if flag { "/dev/xvda" } else { "/dev/sdf" };
                let request = AttachVolumeRequest {
                    volume_id: volume.clone(),
                    instance_id: instance.clone(),
                    device: device.into(),
                    dry_run: false,
                };
                done(w.s.attach_volume(&who, &request, &w.fx))
            }
            33 => {
                let request = DetachVolumeRequest {
                    volume_id: volume.clone(),
                    ..Default::default()
                };
                done(w.s.detach_volume(&who, &request))
            }
            34 => done(w.s.delete_volume(&who, &volume)),
            _ => {
                if flag {
                    done(w.s.create_key(&who, "", &[], &mut w.fx))
                } else {
                    w.s.grant_key(&who, &key, &B.parse().unwrap())
                }
            }
        };
        (
            format!("verb {verb}, image {image:?}, snapshot {snapshot:?}, instance {instance:?}"),
            result,
        )
    }
}

#[test]
fn every_order_of_requests_leaves_a_good_state() {
    let (mut granted, mut refused) = (0, 0);
    for seed in 0..40 {
        let mut walk = Walk {
            w: World::new(),
            dice: Fx { now: 0, seed },
        };
        for step in 0..400 {
            let before = walk.w.s.clone();
            let (what, result) = walk.step();
            let bad = walk.w.s.check();
            assert!(
                bad.is_empty(),
                "seed {seed}, step {step}: {what}: {result:?}\n{}",
                bad.join("\n")
            );
            match result {
                Ok(()) => granted += 1,
                Err(error) => {
                    refused += 1;
                    // The default key may have been made, and nothing else.
                    let mut after = walk.w.s.clone();
                    after.keys.clone_from(&before.keys);
                    assert!(
                        after == before,
                        "seed {seed}, step {step}: {what}: {error} has changed the state"
                    );
                }
            }
        }
    }
    // The walk goes somewhere.
    assert!(
        granted > 3000 && refused > 1000,
        "{granted} granted, {refused} refused"
    );
}
