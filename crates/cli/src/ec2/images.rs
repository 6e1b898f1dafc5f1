//! `image`.

use std::process::ExitCode;

use amiforge_engine::Engine;
use amiforge_engine::ec2::{self, api};
use serde_json::Value;

use super::args::{self, ImageWhat};
use super::table::{self, cell};
use super::{done, filters, granted, json, said, tags, tags_for};
use crate::CommandError;
use crate::commands::{Outcome, usage};
use crate::out::{as_json, print_json, print_line};

pub(crate) fn image(engine: &Engine, args: args::Image) -> Outcome {
    let (shown, place) = (&args.place, ec2::Place::from(&args.place));
    let change = |image: &str, change: ec2::ImageChange| -> Outcome {
        let Some(changed) = granted(engine.change_image(&place, image, &change), shown)? else {
            return Ok(ExitCode::SUCCESS);
        };
        if let Some(until) = &changed.protected_until {
            crate::eprint_line(&format!(
                "warning: {} stays protected until {until}, a day after its protection was taken off",
                changed.image_id
            ));
        }
        said(
            shown,
            &serde_json::json!({ "Return": true }),
            &changed.image_id,
        )
    };
    let share = |request: &ec2::ShareRequest| -> Outcome {
        match granted(engine.share_image(&place, request), shown)? {
            Some(id) => said(shown, &serde_json::json!({ "Return": true }), id.as_str()),
            None => Ok(ExitCode::SUCCESS),
        }
    };
    match args.what {
        ImageWhat::List {
            ids,
            owners,
            executable_by,
            filters: texts,
            include_deprecated,
            include_disabled,
            recycle_bin,
        } => {
            let request = ec2::ImagesRequest {
                describe: api::DescribeImagesRequest {
                    image_ids: ids,
                    owners,
                    executable_users: executable_by,
                    filters: filters(&texts)?,
                    include_deprecated,
                    include_disabled,
                    ..Default::default()
                },
                recycle_bin,
            };
            let found = engine.images(&place, &request)?;
            if as_json(shown.json) {
                print_json(&found)?;
            } else {
                let value = serde_json::to_value(&found).map_err(std::io::Error::from)?;
                list(&value)?;
            }
        }
        ImageWhat::Show { image } => print_json(&engine.image(&place, &image)?)?,
        ImageWhat::Register {
            cli_input_json,
            disk,
            manifest,
            name,
            boot_mode,
            tags: texts,
        } => {
            let id = match (cli_input_json, disk, manifest) {
                (Some(path), _, _) => {
                    let mut request: api::RegisterImageRequest =
                        json("--cli-input-json", &path.display().to_string())?;
                    if let Some(name) = name {
                        request.name = name;
                    }
                    request
                        .tag_specifications
                        .extend(tags_for(&["image"], &texts));
                    granted(engine.register_image(&place, &request), shown)?
                }
                (None, None, Some(manifest)) => {
                    let location = manifest.into_os_string().into_string();
                    let request = api::RegisterImageRequest {
                        name: name.unwrap_or_default(),
                        virtualization_type: Some("hvm".to_owned()),
                        boot_mode,
                        image_location: Some(
                            location.map_err(|_| usage("--manifest: no text".to_owned()))?,
                        ),
                        tag_specifications: tags_for(&["image"], &texts),
                        ..Default::default()
                    };
                    granted(engine.register_image(&place, &request), shown)?
                }
                (None, Some(disk), _) => {
                    let request = ec2::RegisterDisk {
                        disk,
                        name: name.unwrap_or_default(),
                        boot_mode: boot_mode.unwrap_or_else(|| "uefi-preferred".to_owned()),
                        tags: tags(&texts),
                    };
                    granted(engine.register_disk(&place, &request), shown)?
                }
                (None, None, None) => {
                    return Err(usage(
                        "say what to register: --disk, --manifest or --cli-input-json".to_owned(),
                    ));
                }
            };
            return created(id.map(|id| id.to_string()), shown);
        }
        ImageWhat::Deregister {
            image,
            delete_associated_snapshots,
        } => {
            let Some(gone) = granted(
                engine.deregister_image(&place, &image, delete_associated_snapshots),
                shown,
            )?
            else {
                return Ok(ExitCode::SUCCESS);
            };
            if as_json(shown.json) {
                print_json(&gone)?;
            } else {
                print_line(gone.image_id.as_str())?;
                for result in &gone.delete_snapshot_results {
                    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
                    print_line(&format!("{} {}", text("SnapshotId"), text("ReturnCode")))?;
                }
            }
        }
        ImageWhat::Restore { image } => return change(&image, ec2::ImageChange::Restore),
        ImageWhat::Copy {
            image,
            source_region,
            name,
            description,
            encrypted,
            kms_key_id,
            copy_image_tags,
            client_token,
        } => {
            let request = api::CopyImageRequest {
                source_image_id: image,
                source_region: source_region.unwrap_or_default(),
                name: name.unwrap_or_default(),
                description,
                encrypted: encrypted.then_some(true),
                kms_key_id,
                copy_image_tags: copy_image_tags.then_some(true),
                client_token,
                ..Default::default()
            };
            let id = granted(engine.copy_image(&place, &request), shown)?;
            return created(id.map(|id| id.to_string()), shown);
        }
        ImageWhat::Share {
            image,
            to,
            with_snapshots,
        } => {
            return share(&ec2::ShareRequest {
                image,
                grantees: grantees(&to)?,
                remove: false,
                snapshots: with_snapshots,
            });
        }
        ImageWhat::Unshare {
            image,
            to,
            with_snapshots,
        } => {
            return share(&ec2::ShareRequest {
                image,
                grantees: grantees(&to)?,
                remove: true,
                snapshots: with_snapshots,
            });
        }
        ImageWhat::Tag { id, tags: texts } => {
            return done(engine.tag(&place, &id, &tags(&texts), &[]), shown, &id);
        }
        ImageWhat::Untag { id, keys } => {
            return done(engine.tag(&place, &id, &[], &keys), shown, &id);
        }
        ImageWhat::Deprecate { image, at, cancel } => {
            let what = match (cancel, at) {
                (false, Some(at)) => ec2::ImageChange::Deprecate(at),
                _ => ec2::ImageChange::Undeprecate,
            };
            return change(&image, what);
        }
        ImageWhat::Disable { image } => return change(&image, ec2::ImageChange::Disable),
        ImageWhat::Enable { image } => return change(&image, ec2::ImageChange::Enable),
        ImageWhat::Protect {
            image,
            with_cooldown,
            off,
        } => {
            let what = if off {
                ec2::ImageChange::Unprotect
            } else {
                ec2::ImageChange::Protect(with_cooldown)
            };
            return change(&image, what);
        }
        ImageWhat::Export { image, out } => {
            let Some(files) = granted(engine.export_image(&place, &image, &out), shown)? else {
                return Ok(ExitCode::SUCCESS);
            };
            let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
            return said(
                shown,
                &serde_json::json!({ "files": files }),
                &files.join("\n"),
            );
        }
        ImageWhat::Cost { images, prices } => {
            let report = engine.image_cost(&place, &images, prices.as_deref())?;
            if as_json(shown.json) {
                print_json(&report)?;
            } else {
                let rows: Vec<Vec<String>> = report
                    .rows()
                    .into_iter()
                    .map(|r| r.iter().map(|c| cell(c)).collect())
                    .collect();
                table::print(
                    &["ID", "NAME", "REGION", "GIB", "GIB BILLED", "A MONTH"],
                    &rows,
                )?;
                print_line(&format!(
                    "in {}, prices of {} ({})",
                    report.currency, report.price_date, report.price_source
                ))?;
            }
        }
        ImageWhat::Lineage { image } => {
            let found = engine.image_lineage(&place, &image)?;
            if as_json(shown.json) {
                print_json(&found)?;
            } else {
                for line in found.to_text().lines() {
                    print_line(&cell(line))?;
                }
            }
        }
        ImageWhat::Lifecycle { policy, apply } => {
            return super::others::lifecycle(engine, shown, &policy, apply);
        }
        ImageWhat::Bundle(bundle) => return super::others::bundle(engine, shown, &bundle),
        ImageWhat::Unbundle {
            manifest,
            private_key,
            certificate,
            out,
        } => {
            return super::others::unbundle(
                engine,
                &manifest,
                &private_key,
                certificate.as_deref(),
                &out,
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn created(id: Option<String>, place: &args::Place) -> Outcome {
    if let Some(id) = id {
        if as_json(place.json) {
            print_json(&serde_json::json!({ "ImageId": id }))?;
        } else {
            print_line(&id)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn grantees(to: &args::Grantees) -> Result<Vec<api::LaunchPermissionRequest>, CommandError> {
    let mut list = Vec::new();
    let one = api::LaunchPermissionRequest::default;
    for account in &to.accounts {
        list.push(api::LaunchPermissionRequest {
            user_id: Some(account.clone()),
            ..one()
        });
    }
    if to.public {
        list.push(api::LaunchPermissionRequest {
            group: Some("all".to_owned()),
            ..one()
        });
    }
    for arn in &to.organization {
        list.push(api::LaunchPermissionRequest {
            organization_arn: Some(arn.clone()),
            ..one()
        });
    }
    for arn in &to.organizational_unit {
        list.push(api::LaunchPermissionRequest {
            organizational_unit_arn: Some(arn.clone()),
            ..one()
        });
    }
    if list.is_empty() {
        return Err(usage(
            "say to whom: --to, --public, --organization or --organizational-unit".to_owned(),
        ));
    }
    Ok(list)
}

fn list(value: &Value) -> Result<(), CommandError> {
    let text = |v: &Value| cell(v.as_str().unwrap_or_default());
    let rows: Vec<Vec<String>> = value["Images"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|i| {
            vec![
                text(&i["ImageId"]),
                text(&i["Name"]),
                text(&i["State"]),
                text(&i["OwnerId"]),
                text(&i["BootMode"]),
                text(&i["CreationDate"]),
            ]
        })
        .collect();
    table::print(
        &["IMAGE", "NAME", "STATE", "OWNER", "BOOT MODE", "CREATED"],
        &rows,
    )
}
