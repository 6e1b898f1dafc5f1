//! Who may do what, and what is to be done about images: policies, audits, life cycles, cost, lineage, settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use amiforge_ami::ec2::audit::{
    ApprovedIds, ApprovedTags, Compliance, Evaluation, Rule, Scope, audit,
};
use amiforge_ami::ec2::cost::{CostQuery, CostReport, PriceTable, estimate};
use amiforge_ami::ec2::lifecycle::{ActionType, LifecyclePlan, LifecyclePolicy};
use amiforge_ami::ec2::lineage::{Lineage, lineage};
use amiforge_ami::ec2::policy::{
    Decision, ImageCall, LaunchTags, LaunchWishes, LocalNetwork, Policy, PolicyKind, Principal,
    Request, authorize, evaluate, image_requests, launch_requests,
};
use amiforge_ami::ec2::{
    ApiError, Caller, DeprecateImageRequest, DeregisterImageRequest, Effects as _, ErrorCode,
    ImageRequest, RegionSettings, RunInstances, RunInstancesRequest, State, Tags,
};
use amiforge_ami::{BlockDeviceMapping, EbsVolume, ImageId};
use amiforge_bundle::certificate_pem;
use amiforge_types::{Diagnostics, Timestamp};
use serde::Serialize;

use super::bundle::{add_signer, read};
use super::desk::{Now, Place, refusal};
use super::images::tags_for;
use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};
use crate::files::{MAX_JSON, read_file};
use crate::settings::Engine;

/// What is asked of policies.
#[derive(Clone, Debug)]
pub struct PolicyRequest {
    /// The policies, files.
    pub policies: Vec<PathBuf>,
    /// The action, for example `ec2:RunInstances`.
    pub action: String,
    /// The image.
    pub image: String,
    /// The type of instance of a launch.
    pub instance_type: String,
    /// Tags of the request.
    pub tags: Vec<amiforge_ami::ec2::Tag>,
}

/// What they say of one resource.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCheck {
    /// The action.
    pub action: String,
    /// The resource.
    pub resource: String,
    /// What was decided, and by which statement.
    #[serde(flatten)]
    pub decision: Decision,
}

/// What is approved.
#[derive(Clone, Debug, Default)]
pub struct AuditRequest {
    /// Images.
    pub ids: Vec<String>,
    /// Tags of images, `KEY` or `KEY:VALUE`.
    pub tags: Vec<String>,
    /// Stopped instances, too.
    pub stopped: bool,
}

/// What an audit found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// The rule of AWS Config.
    pub config_rule_name: &'static str,
    /// Whether nothing is wrong.
    pub compliant: bool,
    /// Each instance.
    pub evaluations: Vec<Evaluation>,
}

/// What a life cycle policy does.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleReport {
    /// Whether it was done.
    pub applied: bool,
    /// What.
    #[serde(flatten)]
    pub plan: LifecyclePlan,
    /// Steps that could not be done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// Changes of the settings of an account in a region; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// Encrypt new volumes and copies.
    pub encryption_by_default: Option<bool>,
    /// The key for that; empty: `aws/ebs`.
    pub default_key: Option<String>,
    /// Whether images can be made public.
    pub public_images: Option<bool>,
    /// Days in the recycle bin; 0: none.
    pub image_retention: Option<u16>,
    /// Days in the recycle bin; 0: none.
    pub snapshot_retention: Option<u16>,
    /// The organization; empty: none.
    pub organization: Option<String>,
    /// Its units, all of them.
    pub organizational_units: Vec<String>,
    /// Policies for launches: files, kept under their names.
    pub add_policies: Vec<PathBuf>,
    /// Names of policies that go.
    pub remove_policies: Vec<String>,
    /// Certificates that bundles are signed with.
    pub add_signers: Vec<PathBuf>,
    /// Ids of such certificates that go.
    pub remove_signers: Vec<String>,
}

fn policy(path: &Path) -> Result<(String, Policy), EngineError> {
    let bytes = read_file(path, MAX_JSON).or_fail(ErrorKind::Invalid, || {
        format!("cannot read {}", path.display())
    })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match Policy::parse(&path.display().to_string(), PolicyKind::Identity, &text) {
        Ok(policy) => Ok((text, policy)),
        Err(diagnostics) => Err(EngineError::Documents(vec![DocumentReport {
            path: path.to_owned(),
            kind: None,
            text,
            diagnostics,
        }])),
    }
}

/// Whether the policies of the account allow a launch that was just begun in `state`.
pub(super) fn enforce(
    state: &State,
    caller: &Caller,
    run: &RunInstances,
    now: Timestamp,
) -> Result<(), ApiError> {
    let settings = state.settings_of(caller);
    if settings.policies.is_empty() {
        return Ok(());
    }
    let policies: Vec<Policy> = settings
        .policies
        .iter()
        .map(|(name, text)| Policy::parse(name, PolicyKind::Identity, text))
        .collect::<Result<_, _>>()
        .map_err(|_| {
            ApiError::new(
                ErrorCode::UnauthorizedOperation,
                "a policy of the account cannot be read",
            )
        })?;
    for launch in &run.launches {
        authorize(
            &policies,
            &requests_of(state, caller, &launch.instance_id, now),
        )?;
    }
    Ok(())
}

/// What a launch is to IAM.
fn requests_of(
    state: &State,
    caller: &Caller,
    instance: &amiforge_ami::InstanceId,
    now: Timestamp,
) -> Vec<Request> {
    let Some(instance) = state.instances.get(instance) else {
        return Vec::new();
    };
    let Some(image) = state.images.get(&instance.image_id) else {
        return Vec::new();
    };
    let volumes = instance
        .volumes
        .iter()
        .filter_map(|v| Some((v, state.volumes.get(&v.volume_id)?)));
    let mappings: Vec<BlockDeviceMapping> = volumes
        .clone()
        .map(|(attached, volume)| {
            let ebs = EbsVolume {
                snapshot_id: volume.snapshot_id.clone(),
                volume_size: volume.size,
                volume_type: volume.volume_type,
                delete_on_termination: volume
                    .attachment
                    .as_ref()
                    .is_some_and(|a| a.delete_on_termination),
                iops: volume.iops,
                throughput: volume.throughput,
                encrypted: Some(volume.encryption.is_some()),
                kms_key_id: volume.encryption.as_ref().map(|e| e.key_id.to_string()),
            };
            BlockDeviceMapping::ebs(attached.device.clone(), ebs)
        })
        .collect();
    let network = LocalNetwork::of(&caller.account, &caller.region);
    let wishes = LaunchWishes {
        instance_type: &instance.instance_type,
        availability_zone: &instance.availability_zone,
        key_name: instance.key_name.as_deref(),
        metadata_options: &instance.metadata_options,
        mappings: &mappings,
        encryption_by_default: state.settings_of(caller).encryption_by_default,
        public_address: true,
        network: &network,
    };
    let tags = LaunchTags {
        instance: instance.tags.clone(),
        volume: volumes
            .clone()
            .next()
            .map(|(_, v)| v.tags.clone())
            .unwrap_or_default(),
        ..LaunchTags::default()
    };
    let principal = Principal::user(&caller.account, "amiforge");
    launch_requests(
        &principal,
        &caller.region,
        image,
        &state.snapshots,
        &wishes,
        &tags,
        now,
    )
}

impl Engine {
    /// Says whether policies allow an action on an image, resource by resource.
    pub fn policy_check(
        &self,
        place: &Place,
        request: &PolicyRequest,
    ) -> Result<Vec<PolicyCheck>, EngineError> {
        let policies: Vec<Policy> = request
            .policies
            .iter()
            .map(|p| policy(p).map(|(_, p)| p))
            .collect::<Result<_, _>>()?;
        let desk = self.desk(place)?;
        let image = desk.image(&request.image)?;
        let mut state = desk.read()?;
        let now = Self::wall_clock();
        let caller = &desk.caller;
        let requests = if request.action.eq_ignore_ascii_case("ec2:RunInstances") {
            // What a launch would be, by the same rules, in a state that is thrown away.
            let run = RunInstancesRequest {
                image_id: image.image_id.to_string(),
                instance_type: Some(request.instance_type.clone()),
                tag_specifications: tags_for("instance", &request.tags),
                ..Default::default()
            };
            let run = state
                .run_instances(caller, &run, &mut Now::new())
                .map_err(refusal)?;
            run.launches
                .iter()
                .flat_map(|l| requests_of(&state, caller, &l.instance_id, now))
                .collect()
        } else {
            let principal = Principal::user(&caller.account, "amiforge");
            let tags = request
                .tags
                .iter()
                .map(|t| (t.key.clone(), t.value.clone()))
                .collect();
            let operation = request
                .action
                .split_once(':')
                .map_or(request.action.as_str(), |(_, o)| o);
            let snapshots: Vec<_> = state.snapshots_of(&image).collect();
            let none = Tags::new();
            let call = match operation {
                "CreateTags" | "DeleteTags" => ImageCall::Tag {
                    operation,
                    image: &image,
                    tags: &tags,
                },
                "CopyImage" => ImageCall::Copy {
                    source: &image,
                    snapshots,
                    image_tags: &tags,
                    snapshot_tags: &none,
                },
                _ => ImageCall::On {
                    operation,
                    image: &image,
                    snapshots: Vec::new(),
                },
            };
            image_requests(&principal, &caller.region, &call, now)
        };
        let check = |r: Request| PolicyCheck {
            decision: evaluate(&policies, &r),
            action: r.action,
            resource: r.resource,
        };
        Ok(requests.into_iter().map(check).collect())
    }

    /// Finds instances that were launched from images that are not approved.
    pub fn audit(
        &self,
        place: &Place,
        request: &AuditRequest,
    ) -> Result<Vec<AuditReport>, EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        let state = desk.read()?;
        let scope = Scope {
            stopped: request.stopped,
        };
        let mut reports = Vec::new();
        let mut add = |rule: &Rule<'_>| {
            let evaluations = audit(&state, &desk.caller, rule, scope);
            reports.push(AuditReport {
                config_rule_name: rule.name(),
                compliant: evaluations
                    .iter()
                    .all(|e| e.compliance != Compliance::NonCompliant),
                evaluations,
            });
        };
        let bad = || "the rule".to_owned();
        if !request.ids.is_empty() {
            let ids: ApprovedIds = request
                .ids
                .join(",")
                .parse()
                .or_fail(ErrorKind::Invalid, bad)?;
            add(&Rule::ApprovedById(&ids));
        }
        if !request.tags.is_empty() {
            let tags: ApprovedTags = request
                .tags
                .join(",")
                .parse()
                .or_fail(ErrorKind::Invalid, bad)?;
            add(&Rule::ApprovedByTag(&tags));
        }
        if reports.is_empty() {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                "say what is approved: --approved-ids or --approved-tags",
            ));
        }
        Ok(reports)
    }

    /// Says what a life cycle policy does to the images of the account, and does it.
    pub fn image_lifecycle(
        &self,
        place: &Place,
        path: &Path,
        apply: bool,
    ) -> Result<LifecycleReport, EngineError> {
        let context = || format!("{} cannot be used", path.display());
        let bytes = read_file(path, MAX_JSON).or_fail(ErrorKind::Invalid, context)?;
        let text = String::from_utf8_lossy(&bytes);
        // YAML is read by the documents' own parser; its problems have a line, as JSON's have.
        let json = match path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            true => {
                let mut problems = Diagnostics::new();
                let node = amiforge_recipe::parse_node(&text, &mut problems);
                match node.filter(|_| !problems.has_errors()) {
                    Some(node) => node.to_json().to_string(),
                    None => {
                        return Err(EngineError::Documents(vec![DocumentReport {
                            path: path.to_owned(),
                            kind: None,
                            text: text.into_owned(),
                            diagnostics: problems.into_sorted(),
                        }]));
                    }
                }
            }
            false => text.into_owned(),
        };
        let policy = LifecyclePolicy::from_json(&json).or_fail(ErrorKind::Invalid, context)?;
        let desk = self.desk(place)?;
        let state = desk.read()?;
        let now = Self::wall_clock();
        let plan = policy.plan(&state, &desk.caller, now);
        let apply = apply && !place.dry_run;
        let mut failed = Vec::new();
        if apply {
            for step in &plan.steps {
                // Of another region than the caller's, too.
                let caller = Caller {
                    account: desk.caller.account.clone(),
                    region: step.region.clone(),
                };
                let image_id = step.image.to_string();
                let done = desk.transact(|state, fx| {
                    match step.action {
                        ActionType::Deprecate => {
                            // The rules want a time to come; the nearest minute is.
                            let at = Timestamp::from_secs(fx.now().secs + 60).to_string();
                            let request = DeprecateImageRequest {
                                image_id,
                                deprecate_at: at,
                                ..Default::default()
                            };
                            state.deprecate_image(&caller, &request, fx).map(drop)?;
                        }
                        ActionType::Disable => {
                            state.disable_image(
                                &caller,
                                &ImageRequest {
                                    image_id,
                                    ..Default::default()
                                },
                                fx,
                            )?;
                        }
                        ActionType::Delete => {
                            let request = DeregisterImageRequest {
                                image_id,
                                delete_associated_snapshots: !step.snapshots.is_empty(),
                                ..Default::default()
                            };
                            state.deregister_image(&caller, &request, fx).map(drop)?;
                        }
                    }
                    Ok(())
                });
                if let Err(error) = done {
                    failed.push(format!("{}: {}", step.image, error.with_causes()));
                }
            }
            desk.collect();
        }
        Ok(LifecycleReport {
            applied: apply,
            plan,
            failed,
        })
    }

    /// Estimates what storing images costs: all of the account in the region when none is named.
    pub fn image_cost(
        &self,
        place: &Place,
        images: &[String],
        prices: Option<&Path>,
    ) -> Result<CostReport, EngineError> {
        let desk = self.desk(place)?;
        let table = match prices {
            None => PriceTable::builtin(),
            Some(path) => {
                let context = || format!("{} cannot be used", path.display());
                let bytes = read_file(path, MAX_JSON).or_fail(ErrorKind::Invalid, context)?;
                PriceTable::from_json(&String::from_utf8_lossy(&bytes))
                    .or_fail(ErrorKind::Invalid, context)?
            }
        };
        let mut wanted = BTreeSet::new();
        for image in images {
            wanted.insert(desk.image(image)?.image_id);
        }
        let state = desk.read()?;
        let bundles: BTreeMap<ImageId, u64> = state
            .images
            .values()
            .filter_map(|i| Some((i.image_id.clone(), i.bundle_stored_bytes?)))
            .collect();
        let query = CostQuery {
            images: (!images.is_empty()).then_some(&wanted),
            all_regions: false,
            bundles: &bundles,
        };
        Ok(estimate(&state, &desk.caller, &query, &table, &desk.ec2))
    }

    /// Where an image came from, and what came from it.
    pub fn image_lineage(&self, place: &Place, image: &str) -> Result<Lineage, EngineError> {
        let desk = self.desk(place)?;
        let image = desk.image(image)?;
        let mut state = desk.read()?;
        // Others' images and instances are nothing to the caller, unless they are shared.
        let seen = state.clone();
        let mine = &desk.caller.account;
        state.instances.retain(|_, i| i.owner == *mine);
        state.images.retain(|_, i| {
            i.owner == *mine || seen.may_launch(&desk.caller, i, Self::wall_clock())
        });
        lineage(&state, &image.image_id).ok_or_else(|| {
            EngineError::new(
                ErrorKind::Failed,
                format!("{} is not there", image.image_id),
            )
        })
    }

    /// The settings of the account in the region, after changes.
    pub fn account_settings(
        &self,
        place: &Place,
        change: &AccountChange,
    ) -> Result<RegionSettings, EngineError> {
        let mut policies = Vec::new();
        for path in &change.add_policies {
            let name = path
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            policies.push((name, policy(path)?.0));
        }
        let mut signers = Vec::new();
        for path in &change.add_signers {
            let pem = certificate_pem(&read(path)?);
            signers.push(pem.or_fail(ErrorKind::Invalid, || {
                format!("{} cannot be used", path.display())
            })?);
        }
        let desk = self.desk(place)?;
        let caller = &desk.caller;
        desk.transact(|state, _| {
            if let Some(key) = &change.default_key {
                state.set_default_key(caller, Some(key.as_str()).filter(|k| !k.is_empty()))?;
            }
            let at = (caller.account.clone(), caller.region.clone());
            let mut settings = state.settings_of(caller);
            if let Some(on) = change.encryption_by_default {
                settings.encryption_by_default = on;
            }
            if let Some(on) = change.public_images {
                settings.allow_public_images = on;
            }
            for (days, kept) in [
                (change.image_retention, &mut settings.image_retention_days),
                (
                    change.snapshot_retention,
                    &mut settings.snapshot_retention_days,
                ),
            ] {
                match days {
                    None => {}
                    Some(0) => *kept = None,
                    Some(days @ 1..=365) => *kept = Some(days),
                    Some(days) => {
                        let text = format!("{days} days: the recycle bin keeps 1 to 365");
                        return Err(ApiError::new(ErrorCode::InvalidParameterValue, text).into());
                    }
                }
            }
            if let Some(organization) = &change.organization {
                settings.organization = Some(organization.clone()).filter(|o| !o.is_empty());
            }
            if !change.organizational_units.is_empty() {
                settings
                    .organizational_units
                    .clone_from(&change.organizational_units);
            }
            settings.policies.extend(policies.iter().cloned());
            for name in &change.remove_policies {
                settings.policies.remove(name);
            }
            for pem in signers {
                add_signer(&mut settings, pem);
            }
            for id in &change.remove_signers {
                settings.signing_certificates.remove(id);
            }
            if settings == RegionSettings::default() {
                state.settings.remove(&at);
            } else {
                state.settings.insert(at, settings.clone());
            }
            Ok(settings)
        })
    }

    /// Writes the certificate of EC2 here, PEM: bundles that are to be launched here are made for it.
    pub fn write_ec2_certificate(&self, place: &Place, out: &Path) -> Result<(), EngineError> {
        let pair = self.desk(place)?.ec2_pair()?;
        amiforge_store::write_atomic(out, pair.certificate_pem().as_bytes())
            .or_fail(ErrorKind::Failed, || {
                format!("cannot write {}", out.display())
            })
    }
}
