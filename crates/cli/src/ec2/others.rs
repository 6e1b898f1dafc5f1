//! `snapshot`, `key`, `policy`, `audit`, `account`, and bundles.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use amiforge_engine::Engine;
use amiforge_engine::ec2::api::policy::PolicyKind;
use amiforge_engine::ec2::{self, api};
use amiforge_types::ByteSize;
use serde_json::Value;

use super::args::{self, KeyWhat, PolicyWhat, SnapshotWhat};
use super::table::{self, cell};
use super::{done, filters, granted, json, said, tags};
use crate::CommandError;
use crate::commands::{Outcome, usage};
use crate::out::{as_json, print_json, print_line};

pub(crate) fn snapshot(engine: &Engine, args: args::Snapshot) -> Outcome {
    let (shown, place) = (&args.place, ec2::Place::from(&args.place));
    match args.what {
        SnapshotWhat::List {
            ids,
            recycle_bin,
            filters: texts,
        } => {
            let found = engine.snapshots(&place, &ids, &filters(&texts)?, recycle_bin)?;
            if as_json(shown.json) {
                print_json(&found)?;
                return Ok(ExitCode::SUCCESS);
            }
            let value = serde_json::to_value(&found).map_err(std::io::Error::from)?;
            let text = |v: &Value| cell(v.as_str().unwrap_or_default());
            let rows: Vec<Vec<String>> = value["Snapshots"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|s| {
                    let encrypted = if s["Encrypted"] == true {
                        "encrypted"
                    } else {
                        "-"
                    };
                    let full = s["FullSnapshotSizeInBytes"].as_u64().unwrap_or(0);
                    vec![
                        text(&s["SnapshotId"]),
                        text(&s["State"]),
                        format!("{} GiB", s["VolumeSize"].as_u64().unwrap_or(0)),
                        ByteSize(full).to_string(),
                        encrypted.to_owned(),
                        text(&s["OwnerId"]),
                        text(&s["StartTime"]),
                        text(&s["Description"]),
                    ]
                })
                .collect();
            table::print(
                &[
                    "SNAPSHOT",
                    "STATE",
                    "VOLUME",
                    "STORED",
                    "ENCRYPTION",
                    "OWNER",
                    "STARTED",
                    "DESCRIPTION",
                ],
                &rows,
            )?;
        }
        SnapshotWhat::Create(create) => {
            return super::volumes::create_snapshot(engine, shown, create);
        }
        SnapshotWhat::Diff { a, b } => {
            let diff = engine.snapshot_diff(&place, &a, &b)?;
            if as_json(shown.json) {
                print_json(&diff)?;
            } else {
                let count = diff.changed_blocks.len();
                print_line(&format!(
                    "{count} of the blocks of {} differ, {}",
                    ByteSize(diff.block_size),
                    ByteSize(count as u64 * diff.block_size)
                ))?;
                for (first, last) in diff.runs() {
                    let last = if first == last {
                        String::new()
                    } else {
                        format!("-{last}")
                    };
                    print_line(&format!("  {first}{last}"))?;
                }
            }
        }
        SnapshotWhat::Export { id, out } => {
            if granted(engine.snapshot_export(&place, &id, &out), shown)?.is_some() {
                let file = out.display().to_string();
                return said(shown, &serde_json::json!({ "file": file }), &file);
            }
        }
        SnapshotWhat::Copy {
            id,
            source_region,
            encrypted,
            kms_key_id,
        } => {
            let copied =
                engine.snapshot_copy(&place, &id, source_region, encrypted, kms_key_id.as_deref());
            if let Some(copy) = granted(copied, shown)? {
                if as_json(shown.json) {
                    print_json(&serde_json::json!({ "SnapshotId": copy }))?;
                } else {
                    print_line(copy.as_str())?;
                }
            }
        }
        SnapshotWhat::Share {
            id,
            accounts,
            public,
            remove,
        } => {
            let mut grantees: Vec<api::VolumePermissionRequest> = accounts
                .into_iter()
                .map(|a| api::VolumePermissionRequest {
                    user_id: Some(a),
                    group: None,
                })
                .collect();
            if public {
                grantees.push(api::VolumePermissionRequest {
                    user_id: None,
                    group: Some("all".to_owned()),
                });
            }
            if grantees.is_empty() {
                return Err(usage("say to whom: --to or --public".to_owned()));
            }
            return done(
                engine.share_snapshot(&place, &id, &grantees, remove),
                shown,
                &id,
            );
        }
        SnapshotWhat::Delete { id } => {
            return done(engine.snapshot_delete(&place, &id), shown, &id);
        }
        SnapshotWhat::Restore { id } => {
            return done(engine.snapshot_restore(&place, &id), shown, &id);
        }
        SnapshotWhat::Verify { ids } => {
            let checks = engine.snapshot_verify(&place, &ids)?;
            let bad = checks.iter().any(|c| !c.problems.is_empty());
            if as_json(shown.json) {
                print_json(&checks)?;
            } else {
                for check in &checks {
                    match check.problems.first() {
                        None => print_line(&format!(
                            "{} whole, {} blocks",
                            check.snapshot_id, check.blocks
                        ))?,
                        Some(problem) => {
                            print_line(&cell(&format!("{} DAMAGED: {problem}", check.snapshot_id)))?
                        }
                    }
                }
            }
            return Ok(ExitCode::from(u8::from(bad)));
        }
        SnapshotWhat::Gc => {
            let Some(given_back) = granted(engine.snapshot_gc(&place), shown)? else {
                return Ok(ExitCode::SUCCESS);
            };
            let line = match given_back {
                Some(bytes) => format!("{} given back", ByteSize(bytes)),
                None => "nothing: snapshots are being made just now".to_owned(),
            };
            return said(shown, &serde_json::json!({ "bytes": given_back }), &line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn key(engine: &Engine, args: args::Key) -> Outcome {
    let (shown, place) = (&args.place, ec2::Place::from(&args.place));
    let change = |key: &str, change: ec2::KeyChange| match granted(
        engine.change_key(&place, key, &change),
        shown,
    )? {
        Some(id) => said(shown, &serde_json::json!({ "KeyId": id }), id.as_str()),
        None => Ok(ExitCode::SUCCESS),
    };
    match args.what {
        KeyWhat::List => {
            let keys = engine.keys(&place)?;
            if as_json(shown.json) {
                print_json(&serde_json::json!({ "Keys": keys }))?;
                return Ok(ExitCode::SUCCESS);
            }
            let rows: Vec<Vec<String>> = keys
                .iter()
                .map(|k| {
                    let material = if k.material {
                        format!("version {}", k.key.version)
                    } else if let Some(problem) = &k.problem {
                        cell(&format!("DAMAGED: {problem}"))
                    } else {
                        "MISSING".to_owned()
                    };
                    let aliases: Vec<&str> = k.key.aliases.iter().map(String::as_str).collect();
                    let users: Vec<&str> =
                        k.key.grants.iter().map(|g| g.grantee.as_str()).collect();
                    vec![
                        k.key.key_id.to_string(),
                        cell(&aliases.join(",")),
                        format!("{:?}", k.key.state),
                        material,
                        k.key.owner.to_string(),
                        cell(&users.join(",")),
                    ]
                })
                .collect();
            table::print(
                &["KEY", "ALIASES", "STATE", "MATERIAL", "OWNER", "GRANTED TO"],
                &rows,
            )?;
        }
        KeyWhat::Create { alias, description } => {
            let created = engine.create_key(&place, alias.as_deref(), &description);
            if let Some(id) = granted(created, shown)? {
                return said(
                    shown,
                    &serde_json::json!({ "KeyMetadata": { "KeyId": id } }),
                    id.as_str(),
                );
            }
        }
        KeyWhat::Rotate { key } => return change(&key, ec2::KeyChange::Rotate),
        KeyWhat::Grant { key, to } => return change(&key, ec2::KeyChange::Grant(to)),
        KeyWhat::Revoke { key, from } => return change(&key, ec2::KeyChange::Revoke(from)),
        KeyWhat::Disable { key } => return change(&key, ec2::KeyChange::Disable),
        KeyWhat::Enable { key } => return change(&key, ec2::KeyChange::Enable),
        KeyWhat::Delete {
            key, cancel: true, ..
        } => return change(&key, ec2::KeyChange::CancelDeletion),
        KeyWhat::Delete { key, days, .. } => return change(&key, ec2::KeyChange::Delete(days)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The policies of a check with what each is attached to.
fn attached(args: &args::PolicyFiles) -> Result<Vec<(PolicyKind, PathBuf)>, CommandError> {
    let of = |kind: PolicyKind, paths: &[PathBuf]| -> Vec<(PolicyKind, PathBuf)> {
        paths.iter().map(|path| (kind, path.clone())).collect()
    };
    let mut found = of(PolicyKind::Identity, &args.policies);
    found.extend(of(PolicyKind::Boundary, &args.permissions_boundary));
    found.extend(of(PolicyKind::Session, &args.session_policy));
    for (level, files) in args.scp.iter().enumerate() {
        let level =
            u8::try_from(level).map_err(|_| usage("--scp: more than 256 levels".to_owned()))?;
        let files = files.split(',').filter(|file| !file.is_empty());
        let files: Vec<PathBuf> = files.map(PathBuf::from).collect();
        if files.is_empty() {
            return Err(usage(format!("--scp: level {level} names no file")));
        }
        found.extend(of(PolicyKind::ServiceControl(level), &files));
    }
    Ok(found)
}

pub(crate) fn policy(engine: &Engine, args: args::Policy) -> Outcome {
    let (shown, place) = (&args.place, ec2::Place::from(&args.place));
    let PolicyWhat::Check {
        files,
        action,
        image,
        instance_type,
        tags: texts,
    } = args.what;
    let request = ec2::PolicyRequest {
        policies: attached(&files)?,
        action: action
            .parse()
            .map_err(|e| usage(format!("--action: {e}")))?,
        image,
        instance_type,
        tags: tags(&texts),
    };
    let checks = engine.policy_check(&place, &request)?;
    let allowed = checks.iter().all(|c| c.decision.allowed());
    if as_json(shown.json) {
        print_json(&checks)?;
        return Ok(ExitCode::from(u8::from(!allowed)));
    }
    for check in &checks {
        let verdict = serde_json::to_value(check.decision.verdict).map_err(std::io::Error::from)?;
        let verdict = verdict.as_str().unwrap_or_default().to_owned();
        print_line(&cell(&format!(
            "{verdict}  {} on {}",
            check.action, check.resource
        )))?;
        for statement in &check.decision.deciding {
            print_line(&cell(&format!("    by {statement}")))?;
        }
        if let Some(kind) = check.decision.lacking {
            print_line(&format!(
                "    no statement allows it in any {}",
                kind.words()
            ))?;
        }
        for miss in &check.decision.misses {
            print_line(&cell(&format!(
                "    not by {}: {}",
                miss.statement, miss.why
            )))?;
        }
    }
    Ok(ExitCode::from(u8::from(!allowed)))
}

pub(crate) fn audit(engine: &Engine, args: args::Audit) -> Outcome {
    let place = ec2::Place::from(&args.place);
    let mut rules = Vec::new();
    if !args.approved_ids.is_empty() {
        let ids = args.approved_ids.join(",").parse();
        let ids = ids.map_err(|e| usage(format!("--approved-ids: {e}")))?;
        rules.push(ec2::AuditRule::Ids(ids));
    }
    if !args.approved_tags.is_empty() {
        let tags = args.approved_tags.join(",").parse();
        let tags = tags.map_err(|e| usage(format!("--approved-tags: {e}")))?;
        rules.push(ec2::AuditRule::Tags(tags));
    }
    if args.allowed_images {
        rules.push(ec2::AuditRule::AllowedImages);
    }
    if rules.is_empty() {
        return Err(usage(
            "say what is approved: --approved-ids, --approved-tags or --allowed-images".to_owned(),
        ));
    }
    let request = ec2::AuditRequest {
        rules,
        stopped: args.include_stopped,
    };
    let reports = engine.audit(&place, &request)?;
    let bad = reports.iter().any(|r| !r.compliant);
    if as_json(args.place.json) {
        print_json(&reports)?;
    } else {
        let mut rows = Vec::new();
        for report in &reports {
            for e in &report.evaluations {
                rows.push(vec![
                    e.instance_id.to_string(),
                    e.compliance.as_str().to_owned(),
                    e.image_id.to_string(),
                    report.config_rule_name.to_owned(),
                    cell(&e.reason),
                ]);
            }
        }
        table::print(
            &["INSTANCE", "COMPLIANCE", "IMAGE", "RULE", "REASON"],
            &rows,
        )?;
    }
    Ok(ExitCode::from(u8::from(bad)))
}

pub(crate) fn account(engine: &Engine, args: args::Account) -> Outcome {
    let place = ec2::Place::from(&args.place);
    let on = |switch: Option<args::Switch>| switch.map(args::Switch::is_on);
    let criteria = args.allowed_images_criteria.as_deref();
    let change = ec2::AccountChange {
        encryption_by_default: on(args.encryption_by_default),
        default_key: args.default_key,
        public_images: on(args.public_images),
        block_public_snapshots: on(args.block_public_snapshots),
        copy_shared_encrypted_images: on(args.copy_shared_encrypted_images),
        allowed_images: args.allowed_images.map(Into::into),
        image_criteria: criteria
            .map(|text| json("--allowed-images-criteria", text))
            .transpose()?,
        image_retention: args.image_retention,
        snapshot_retention: args.snapshot_retention,
        organization: args.organization,
        organizational_units: (!args.organizational_unit.is_empty())
            .then_some(args.organizational_unit),
        add_policies: args.policy,
        remove_policies: args.remove_policy,
        add_signers: args.signing_certificate,
        remove_signers: args.remove_signing_certificate,
    };
    // Showing asks for nothing that a dry run could be of.
    let settings = if change == ec2::AccountChange::default() {
        Some(engine.account_settings(&place)?)
    } else {
        granted(engine.change_account(&place, &change), &args.place)?
    };
    if let Some(file) = args.ec2_certificate
        && !args.place.dry_run
    {
        engine.write_ec2_certificate(&place, &file)?;
    }
    if let Some(settings) = settings {
        print_json(&settings)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn lifecycle(
    engine: &Engine,
    shown: &args::Place,
    policy: &Path,
    apply: bool,
) -> Outcome {
    let report = engine.image_lifecycle(&shown.into(), policy, apply)?;
    if as_json(shown.json) {
        print_json(&report)?;
    } else {
        // What failed is told below.
        let told = |image| !report.applied || report.done.contains(image);
        for step in report.plan.steps.iter().filter(|s| told(&s.image)) {
            let verb = step.action.as_str().to_lowercase();
            let verb = match report.applied {
                false => verb,
                true => format!("{verb}d"),
            };
            print_line(&cell(&format!(
                "{verb} {} {} ({})",
                step.image, step.name, step.reason
            )))?;
            for note in &step.notes {
                print_line(&cell(&format!("  {note}")))?;
            }
        }
        for kept in &report.plan.kept {
            print_line(&cell(&format!(
                "keep {} {} ({})",
                kept.image, kept.name, kept.reason
            )))?;
        }
        let steps = match report.plan.steps.len() {
            1 => "1 step".to_owned(),
            count => format!("{count} steps"),
        };
        print_line(&match (report.plan.steps.len(), report.applied) {
            (0, _) => "nothing to do".to_owned(),
            (_, false) => format!("planned: {steps}; --apply does it"),
            (_, true) => format!("done: {} of {steps}", report.done.len()),
        })?;
    }
    for warning in &report.warnings {
        crate::eprint_line(&format!("warning: {warning}"));
    }
    for failure in &report.failed {
        crate::eprint_line(&format!("error: {failure}"));
    }
    Ok(ExitCode::from(u8::from(!report.failed.is_empty())))
}

pub(super) fn bundle(engine: &Engine, shown: &args::Place, args: &args::Bundle) -> Outcome {
    let request = ec2::BundleRequest {
        image: args.image.clone(),
        certificate: args.certificate.clone(),
        private_key: args.private_key.clone(),
        ec2_certificate: args.ec2_certificate.clone(),
        prefix: args.prefix.clone(),
        out: args.out.clone(),
    };
    let made = engine.bundle_image(&ec2::Place::from(shown), &request);
    match granted(made, shown)? {
        Some(manifest) => {
            let file = manifest.display().to_string();
            said(shown, &serde_json::json!({ "file": file }), &file)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

pub(super) fn unbundle(
    engine: &Engine,
    manifest: &Path,
    key: &Path,
    certificate: Option<&Path>,
    out: &Path,
) -> Outcome {
    engine.unbundle_image(manifest, key, certificate, out)?;
    print_line(&out.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
