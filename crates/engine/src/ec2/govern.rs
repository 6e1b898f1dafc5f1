//! Who may do what, and what is known of images: policies, audits, cost, lineage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use amiforge_ami::ec2::audit::{
    ApprovedIds, ApprovedTags, Compliance, Evaluation, Rule, Scope, allowed_amis, audit,
};
use amiforge_ami::ec2::cost::{CostQuery, CostReport, PriceTable, estimate};
use amiforge_ami::ec2::lineage::{Lineage, lineage};
use amiforge_ami::ec2::policy::{
    Decision, ImageCall, ImageOperation, LaunchTags, LaunchWishes, LocalNetwork, Policy,
    PolicyKind, Principal, Request, authorize, evaluate, image_requests, launch_requests,
};
use amiforge_ami::ec2::{
    ApiError, Caller, ErrorCode, Image, RunInstances, RunInstancesRequest, State, Tags,
};
use amiforge_ami::{BlockDeviceMapping, EbsVolume, ImageId};
use amiforge_types::Timestamp;
use serde::Serialize;

use super::account::read_policy;
use super::desk::{Now, Place, refusal};
use super::images::tags_for;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::{MAX_JSON, read_file};
use crate::settings::Engine;

/// What is asked of policies.
#[derive(Clone, Debug)]
pub struct PolicyRequest {
    /// The policies, files, and what each is attached to.
    pub policies: Vec<(PolicyKind, PathBuf)>,
    /// The action.
    pub action: ImageOperation,
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

/// A rule of an audit.
#[derive(Clone, Debug)]
pub enum AuditRule {
    /// `approved-amis-by-id`.
    Ids(ApprovedIds),
    /// `approved-amis-by-tag`.
    Tags(ApprovedTags),
    /// `ec2-instance-launched-with-allowed-ami`, by the settings of the account in the region.
    AllowedImages,
}

/// What is audited.
#[derive(Clone, Debug, Default)]
pub struct AuditRequest {
    /// By which rules.
    pub rules: Vec<AuditRule>,
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
            &requests_of(state, caller, &launch.instance_id, now)?,
        )?;
    }
    Ok(())
}

/// What a launch is to IAM. Never nothing: of no request, all would be allowed.
fn requests_of(
    state: &State,
    caller: &Caller,
    instance: &amiforge_ami::InstanceId,
    now: Timestamp,
) -> Result<Vec<Request>, ApiError> {
    let unknown = |what: &str| {
        ApiError::new(
            ErrorCode::UnauthorizedOperation,
            format!("what policies say of {instance} cannot be told: {what} is not there"),
        )
    };
    let record = state.instances.get(instance);
    let launched = record.ok_or_else(|| unknown("its record"))?;
    let image = state.images.get(&launched.image_id);
    let image = image.ok_or_else(|| unknown(launched.image_id.as_str()))?;
    let volumes = launched
        .volumes
        .iter()
        .map(|v| {
            let volume = state.volumes.get(&v.volume_id);
            Ok((v, volume.ok_or_else(|| unknown(v.volume_id.as_str()))?))
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let mappings: Vec<BlockDeviceMapping> = volumes
        .iter()
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
        instance_type: &launched.instance_type,
        availability_zone: &launched.availability_zone,
        key_name: launched.key_name.as_deref(),
        metadata_options: &launched.metadata_options,
        mappings: &mappings,
        encryption_by_default: state.settings_of(caller).encryption_by_default,
        public_address: true,
        network: &network,
    };
    let tags = LaunchTags {
        instance: launched.tags.clone(),
        volume: volumes
            .first()
            .map(|(_, v)| v.tags.clone())
            .unwrap_or_default(),
        ..LaunchTags::default()
    };
    let principal = Principal::user(&caller.account, "amiforge");
    Ok(launch_requests(
        &principal,
        &caller.region,
        image,
        &state.snapshots,
        &wishes,
        &tags,
        now,
    ))
}

/// What a call on an image, other than a launch, is to IAM.
fn requests_on(
    state: &State,
    caller: &Caller,
    operation: ImageOperation,
    image: &Image,
    tags: &Tags,
    now: Timestamp,
) -> Vec<Request> {
    let none = Tags::new();
    let call = match operation {
        ImageOperation::CreateTags | ImageOperation::DeleteTags => ImageCall::Tag {
            operation: operation.as_str(),
            image,
            tags,
        },
        ImageOperation::CopyImage => ImageCall::Copy {
            source: image,
            snapshots: state.snapshots_of(image).collect(),
            image_tags: tags,
            snapshot_tags: &none,
        },
        other => ImageCall::On {
            operation: other.as_str(),
            image,
            snapshots: Vec::new(),
        },
    };
    let principal = Principal::user(&caller.account, "amiforge");
    image_requests(&principal, &caller.region, &call, now)
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
            .map(|(kind, path)| read_policy(path, *kind).map(|(_, policy)| policy))
            .collect::<Result<_, _>>()?;
        let desk = self.desk(place)?;
        let image = desk.image(&request.image)?;
        let mut state = desk.read()?;
        let now = Self::wall_clock();
        let caller = &desk.caller;
        let requests = if request.action == ImageOperation::RunInstances {
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
            let mut requests = Vec::new();
            for launch in &run.launches {
                let asked = requests_of(&state, caller, &launch.instance_id, now);
                requests.extend(asked.map_err(refusal)?);
            }
            requests
        } else {
            let tags = request.tags.iter();
            let tags = tags.map(|t| (t.key.clone(), t.value.clone())).collect();
            requests_on(&state, caller, request.action, &image, &tags, now)
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
        let allowed = allowed_amis(&state, &desk.caller, Self::wall_clock());
        for rule in &request.rules {
            add(&match rule {
                AuditRule::Ids(ids) => Rule::ApprovedById(ids),
                AuditRule::Tags(tags) => Rule::ApprovedByTag(tags),
                AuditRule::AllowedImages => Rule::LaunchedWithAllowedAmi(
                    allowed.as_ref().map(|f| f as &dyn Fn(&Image) -> bool),
                ),
            });
        }
        Ok(reports)
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
                let text = std::str::from_utf8(&bytes).map_err(|error| {
                    let at = error.valid_up_to();
                    let byte = bytes.get(at).copied().unwrap_or_default();
                    let path = path.display();
                    EngineError::new(
                        ErrorKind::Invalid,
                        format!("{path}: byte 0x{byte:02x} at offset {at} is not UTF-8"),
                    )
                    .with_hint("save the file as UTF-8")
                })?;
                PriceTable::from_json(text).or_fail(ErrorKind::Invalid, context)?
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
}
