//! `run` and `instance`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use amiforge_engine::ec2::{self, api};
use amiforge_engine::{Engine, EngineError, ErrorKind};
use amiforge_types::{ByteSize, MIB};
use base64::Engine as _;
use serde_json::Value;

use super::args::{self, InstanceWhat, TokensArg};
use super::table::{self, cell};
use super::{filters, granted, json, read_bytes, tags_for};
use crate::CommandError;
use crate::commands::{Outcome, usage};
use crate::out::{as_json, print_json, print_line, writer};

pub(crate) fn run(engine: &Engine, args: args::Run) -> Outcome {
    let place = ec2::Place::from(&args.place);
    let request = request(&args)?;
    let image = args.image.clone();
    let Some(answer) = granted(
        engine.run(&place, &ec2::RunRequest { image, request }),
        &args.place,
    )?
    else {
        return Ok(ExitCode::SUCCESS);
    };
    if as_json(args.place.json) {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    for instance in instances_of(&answer) {
        print_line(instance["InstanceId"].as_str().unwrap_or_default())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &args::Run) -> Result<api::RunInstancesRequest, CommandError> {
    let memory_mib = match &args.memory {
        None => None,
        Some(text) => {
            let size: ByteSize = text
                .parse()
                .map_err(|e| usage(format!("--memory {text}: {e}")))?;
            Some(
                u32::try_from(size.0 / MIB)
                    .map_err(|_| usage(format!("--memory {text}: too much")))?,
            )
        }
    };
    let user_data = match &args.user_data {
        None => None,
        Some(path) => {
            let bytes = read(path, "--user-data")?;
            Some(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
    };
    let (key_name, public_key) = match &args.ssh_key {
        None => (None, None),
        Some(path) => {
            let stem = path.file_stem().map(|n| n.to_string_lossy().into_owned());
            (args.key_name.clone().or(stem), Some(public_key(path)?))
        }
    };
    let ports = args.ports.iter().map(|text| {
        let pair = text
            .split_once(':')
            .and_then(|(h, g)| Some((h.parse().ok()?, g.parse().ok()?)));
        let (host, guest) =
            pair.ok_or_else(|| usage(format!("--port {text}: write HOST:GUEST")))?;
        Ok(api::PortForward {
            host,
            guest,
            any_host: false,
        })
    });
    let word = |on: bool| if on { "enabled" } else { "disabled" }.to_owned();
    let mappings = match &args.block_device_mappings {
        None => Vec::new(),
        Some(text) => json("--block-device-mappings", text)?,
    };
    Ok(api::RunInstancesRequest {
        instance_type: Some(args.instance_type.clone()),
        min_count: Some(args.count),
        max_count: Some(args.count),
        key_name,
        public_key,
        block_device_mappings: mappings,
        user_data,
        metadata_options: Some(api::MetadataOptionsRequest {
            http_tokens: args.http_tokens.map(|t| match t {
                TokensArg::Optional => "optional".to_owned(),
                TokensArg::Required => "required".to_owned(),
            }),
            http_endpoint: Some(word(args.http_endpoint.is_on())),
            instance_metadata_tags: Some(word(args.metadata_tags.is_on())),
            http_put_response_hop_limit: None,
        }),
        tag_specifications: tags_for(&["instance", "volume"], &args.tags)?,
        client_token: args.client_token.clone(),
        cpus: args.cpus,
        memory_mib,
        ports: ports.collect::<Result<_, CommandError>>()?,
        no_outbound: args.isolated,
        ..Default::default()
    })
}

fn read(path: &Path, option: &str) -> Result<Vec<u8>, CommandError> {
    read_bytes(path).map_err(|e| usage(format!("{option} {}: {e}", path.display())))
}

/// The line of a public key: of the file, or of the one beside a private key.
fn public_key(path: &Path) -> Result<String, CommandError> {
    let beside = PathBuf::from(format!("{}.pub", path.display()));
    let from = if path.extension().is_some_and(|e| e == "pub") || !beside.is_file() {
        path.to_owned()
    } else {
        beside
    };
    let text = String::from_utf8_lossy(&read(&from, "--ssh-key")?).into_owned();
    let line = text.lines().find(|l| {
        let kind = l.split_whitespace().next().unwrap_or_default();
        kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-")
    });
    line.map(|l| l.trim().to_owned()).ok_or_else(|| {
        usage(format!(
            "--ssh-key {}: no public key, and none in {}.pub",
            from.display(),
            path.display()
        ))
    })
}

fn instances_of(answer: &Value) -> Vec<Value> {
    let none = Vec::new();
    let reservations = answer["Reservations"].as_array().unwrap_or(&none);
    let of = |r: &Value| r["Instances"].as_array().cloned().unwrap_or_default();
    reservations.iter().flat_map(of).collect()
}

pub(crate) fn instance(engine: &Engine, args: args::Instance) -> Outcome {
    let (shown, place) = (&args.place, ec2::Place::from(&args.place));
    let how = |e: &args::Ending| ec2::EndRequest {
        force: e.force,
        seconds: e.timeout,
    };
    match args.what {
        InstanceWhat::List {
            ids,
            filters: texts,
        } => {
            let answer = engine.instances(&place, &ids, &filters(&texts)?)?;
            if as_json(shown.json) {
                print_json(&answer)?;
            } else {
                list(&answer)?;
            }
        }
        InstanceWhat::Start { ids } => {
            return changed(
                engine.start_instances(&place, &ids),
                shown,
                "StartingInstances",
            );
        }
        InstanceWhat::Stop { ids, how: ending } => {
            return changed(
                engine.stop_instances(&place, &ids, how(&ending)),
                shown,
                "StoppingInstances",
            );
        }
        InstanceWhat::Reboot { ids, how: ending } => {
            return super::done(
                engine.reboot_instances(&place, &ids, how(&ending)),
                shown,
                &ids.join("\n"),
            );
        }
        InstanceWhat::Terminate { ids, how: ending } => {
            return changed(
                engine.terminate_instances(&place, &ids, how(&ending)),
                shown,
                "TerminatingInstances",
            );
        }
        InstanceWhat::Console { id, follow } => {
            engine.console(&place, &id, follow, &mut *writer())?
        }
        InstanceWhat::Screenshot { id, out } => {
            engine.screenshot(&place, &id, &out)?;
            print_line(&out.display().to_string())?;
        }
        InstanceWhat::Ssh {
            id,
            user,
            identity,
            command,
        } => {
            let access = engine.ssh_access(&place, &id)?;
            return ssh(&access, &user, identity.as_deref(), &command);
        }
        InstanceWhat::CreateImage(create) => {
            let mappings = match &create.block_device_mappings {
                None => Vec::new(),
                Some(text) => json("--block-device-mappings", text)?,
            };
            let request = api::CreateImageRequest {
                instance_id: create.id,
                name: create.name,
                description: create.description,
                no_reboot: create.no_reboot,
                block_device_mappings: mappings,
                tag_specifications: tags_for(&["image", "snapshot"], &create.tags)?,
                ..Default::default()
            };
            let Some(made) = granted(engine.create_image(&place, &request), shown)? else {
                return Ok(ExitCode::SUCCESS);
            };
            if as_json(shown.json) {
                print_json(&made)?;
            } else {
                if let Some(why) = &made.not_frozen {
                    crate::eprint_line(&format!(
                        "warning: the file systems were not frozen ({why}): the image is as after a power cut, and what had not been written yet is not in it"
                    ));
                }
                if made.shut_down == Some(false) {
                    crate::eprint_line(
                        "warning: the guest did not shut down in time and was switched off: the image is as after a power cut",
                    );
                }
                print_line(&made.image_id)?;
            }
        }
        InstanceWhat::Wait {
            ids,
            state,
            console,
            timeout,
        } => {
            let request = ec2::WaitRequest {
                ids,
                state,
                console,
                limit: Duration::from_secs(timeout),
            };
            engine.wait_for_instances(&place, &request)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn changed(result: Result<Value, EngineError>, place: &args::Place, member: &str) -> Outcome {
    let Some(answer) = granted(result, place)? else {
        return Ok(ExitCode::SUCCESS);
    };
    if as_json(place.json) {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    for change in answer[member].as_array().into_iter().flatten() {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        print_line(&format!(
            "{} {}",
            text(&change["InstanceId"]),
            text(&change["CurrentState"]["Name"])
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(answer: &Value) -> Result<(), CommandError> {
    let text = |v: &Value| cell(v.as_str().unwrap_or_default());
    let rows: Vec<Vec<String>> = instances_of(answer)
        .iter()
        .map(|i| {
            let tags = i["Tags"].as_array();
            let name = tags
                .into_iter()
                .flatten()
                .find(|t| t["Key"] == "Name")
                .map_or(String::new(), |t| text(&t["Value"]));
            vec![
                text(&i["InstanceId"]),
                text(&i["State"]["Name"]),
                text(&i["ImageId"]),
                text(&i["InstanceType"]),
                text(&i["PrivateIpAddress"]),
                text(&i["LaunchTime"]),
                cell(&name),
            ]
        })
        .collect();
    table::print(
        &[
            "INSTANCE", "STATE", "IMAGE", "TYPE", "ADDRESS", "LAUNCHED", "NAME",
        ],
        &rows,
    )
}

/// Becomes the SSH client.
fn ssh(
    access: &ec2::SshAccess,
    user: &str,
    identity: Option<&Path>,
    command: &[String],
) -> Outcome {
    use std::os::unix::process::CommandExt;
    let mut ssh = Command::new("ssh");
    ssh.args(["-p", &access.port.to_string(), "-l", user]);
    // The key of the host is that of the instance, the first time that one speaks with it.
    ssh.args(["-o", "StrictHostKeyChecking=accept-new", "-o"]);
    ssh.arg(format!(
        "UserKnownHostsFile=\"{}\"",
        access.known_hosts.display().to_string().replace('%', "%%")
    ));
    if let Some(identity) = identity {
        ssh.arg("-i")
            .arg(identity)
            .args(["-o", "IdentitiesOnly=yes"]);
    }
    ssh.arg("127.0.0.1").arg("--").args(command);
    let error = ssh.exec();
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let kind = if missing {
        ErrorKind::Environment
    } else {
        ErrorKind::Failed
    };
    let error = EngineError::new(kind, format!("ssh does not start: {error}"));
    Err(if missing {
        error.with_hint("install openssh-client")
    } else {
        error
    }
    .into())
}
