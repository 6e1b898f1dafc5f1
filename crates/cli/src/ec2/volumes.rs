//! `volume`, and `snapshot create`.

use std::process::ExitCode;

use amiforge_engine::Engine;
use amiforge_engine::ec2::{self, api};
use serde_json::Value;

use super::args::{self, VolumeWhat};
use super::table::{self, cell};
use super::{done, filters, granted, tags_for};
use crate::commands::Outcome;
use crate::out::{as_json, print_json, print_line};

pub(crate) fn volume(engine: &Engine, args: args::Volume) -> Outcome {
    let (shown, place) = (&args.place, ec2::Place::from(&args.place));
    match args.what {
        VolumeWhat::List {
            ids,
            filters: texts,
        } => {
            let found = engine.volumes(&place, &ids, &filters(&texts)?)?;
            if as_json(shown.json) {
                print_json(&found)?;
                return Ok(ExitCode::SUCCESS);
            }
            list(&serde_json::to_value(&found).map_err(std::io::Error::from)?)
        }
        VolumeWhat::Create(create) => {
            let request = api::CreateVolumeRequest {
                availability_zone: create.availability_zone,
                snapshot_id: create.snapshot,
                size: create.size,
                volume_type: Some(create.volume_type),
                iops: create.iops,
                throughput: create.throughput,
                encrypted: create.encrypted.then_some(true),
                kms_key_id: create.kms_key_id,
                tag_specifications: tags_for(&["volume"], &create.tags)?,
                ..Default::default()
            };
            answer(engine.create_volume(&place, &request), shown, "VolumeId")
        }
        VolumeWhat::Delete { id } => done(engine.delete_volume(&place, &id), shown, &id),
        VolumeWhat::Attach {
            id,
            instance,
            device,
        } => {
            let request = api::AttachVolumeRequest {
                volume_id: id,
                instance_id: instance,
                device,
                ..Default::default()
            };
            answer(engine.attach_volume(&place, &request), shown, "Device")
        }
        VolumeWhat::Detach { id } => {
            let request = api::DetachVolumeRequest {
                volume_id: id,
                ..Default::default()
            };
            answer(engine.detach_volume(&place, &request), shown, "VolumeId")
        }
    }
}

/// Makes a snapshot of a volume.
pub(super) fn create_snapshot(
    engine: &Engine,
    place: &args::Place,
    create: args::CreateSnapshot,
) -> Outcome {
    let request = api::CreateSnapshotRequest {
        volume_id: create.volume,
        description: create.description,
        tag_specifications: tags_for(&["snapshot"], &create.tags)?,
        ..Default::default()
    };
    let made = engine.create_snapshot(&place.into(), &request);
    answer(made, place, "SnapshotId")
}

/// Prints an answer of the API, or of it one member.
fn answer(
    result: Result<Value, amiforge_engine::EngineError>,
    place: &args::Place,
    member: &str,
) -> Outcome {
    if let Some(answer) = granted(result, place)? {
        if as_json(place.json) {
            print_json(&answer)?;
        } else {
            print_line(&cell(answer[member].as_str().unwrap_or_default()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(answer: &Value) -> Outcome {
    let text = |v: &Value| cell(v.as_str().unwrap_or_default());
    let rows: Vec<Vec<String>> = answer["Volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| {
            let attachment = &v["Attachments"][0];
            let encrypted = if v["Encrypted"] == true {
                "encrypted"
            } else {
                "-"
            };
            vec![
                text(&v["VolumeId"]),
                text(&v["State"]),
                format!("{} GiB", v["Size"].as_u64().unwrap_or(0)),
                text(&v["VolumeType"]),
                encrypted.to_owned(),
                text(&v["SnapshotId"]),
                text(&attachment["InstanceId"]),
                text(&attachment["Device"]),
                text(&v["CreateTime"]),
            ]
        })
        .collect();
    table::print(
        &[
            "VOLUME",
            "STATE",
            "SIZE",
            "TYPE",
            "ENCRYPTION",
            "SNAPSHOT",
            "INSTANCE",
            "DEVICE",
            "CREATED",
        ],
        &rows,
    )?;
    Ok(ExitCode::SUCCESS)
}
