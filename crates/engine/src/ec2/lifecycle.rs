//! What a life cycle policy does to the images of an account.

use std::path::Path;

use amiforge_ami::ImageId;
use amiforge_ami::ec2::lifecycle::{
    ActionType, LifecyclePlan, LifecyclePolicy, LifecycleStep, MAX_POLICY_BYTES, PolicyError,
};
use amiforge_ami::ec2::{
    Caller, DeprecateImageRequest, Effects as _, ImageRequest, SnapshotRequest,
};
use amiforge_recipe::parse_node;
use amiforge_types::{Diagnostic, Diagnostics, Timestamp};
use serde::Serialize;

use super::desk::Place;
use super::spanned::{decode, place_of};
use crate::error::{DocumentReport, EngineError, ErrorKind};
use crate::settings::Engine;

/// What a life cycle policy does.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleReport {
    /// Whether it was done.
    pub applied: bool,
    /// What.
    #[serde(flatten)]
    pub plan: LifecyclePlan,
    /// What AWS does otherwise with this policy, sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Images whose step was done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<ImageId>,
    /// Steps that could not be done, and snapshots that stayed although they were to go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// Reads a policy, JSON or YAML.
fn read(path: &Path) -> Result<LifecyclePolicy, EngineError> {
    let text = crate::load::read(path)?.map_err(|report| EngineError::Documents(vec![report]))?;
    let bad = |text: String, diagnostics: Vec<Diagnostic>| {
        EngineError::Documents(vec![DocumentReport {
            path: path.to_owned(),
            kind: None,
            text,
            diagnostics,
        }])
    };
    if text.len() > MAX_POLICY_BYTES {
        return Err(EngineError::new(
            ErrorKind::Invalid,
            format!("{}: {}", path.display(), PolicyError::TooLarge(text.len())),
        ));
    }
    let mut problems = Diagnostics::new();
    let node = parse_node(&text, &mut problems);
    let Some(node) = node.filter(|_| !problems.has_errors()) else {
        return Err(bad(text, problems.into_sorted()));
    };
    let read = decode::<LifecyclePolicy>(&node, "lifecycle-shape").and_then(|policy| {
        let rule = |error: PolicyError| {
            let place = match &error {
                PolicyError::Rule { place, .. } => place_of(&node, place),
                _ => node.span,
            };
            Diagnostic::error("lifecycle-rule", place, error.to_string())
        };
        policy.check().map_err(rule).map(|()| policy)
    });
    read.map_err(|problem| bad(text, vec![problem]))
}

impl Engine {
    /// Says what a life cycle policy does to the images of the account, builds that nothing was done with yet among them, and does it.
    pub fn image_lifecycle(
        &self,
        place: &Place,
        path: &Path,
        apply: bool,
    ) -> Result<LifecycleReport, EngineError> {
        let policy = read(path)?;
        let desk = self.desk(place)?;
        let mut state = desk.read()?;
        let now = Self::wall_clock();
        state.expire(now);
        desk.add_builds(&mut state)?;
        let plan = policy.plan(&state, &desk.caller, now);
        let mut report = LifecycleReport {
            applied: apply && !place.dry_run,
            plan,
            warnings: policy.warnings(),
            done: Vec::new(),
            failed: Vec::new(),
        };
        if !report.applied {
            return Ok(report);
        }
        for step in &report.plan.steps {
            match self.lifecycle_step(&desk.caller, step) {
                Ok(failed) => {
                    report.done.push(step.image.clone());
                    report.failed.extend(failed);
                }
                Err(error) => {
                    report
                        .failed
                        .push(format!("{}: {}", step.image, error.with_causes()))
                }
            }
        }
        desk.collect();
        Ok(report)
    }

    /// Does one step, in the region of its image; gives the snapshots that stayed although they were to go.
    fn lifecycle_step(
        &self,
        caller: &Caller,
        step: &LifecycleStep,
    ) -> Result<Vec<String>, EngineError> {
        let desk = self.desk(&Place {
            account: Some(caller.account.to_string()),
            region: Some(step.region.to_string()),
            dry_run: false,
        })?;
        // A build becomes an image of the state with the first thing that is done with it.
        let image_id = desk.image_id(step.image.as_str())?;
        match step.action {
            ActionType::Deprecate => desk.transact(|state, fx| {
                // The rules want a time to come; the nearest minute is.
                let at = Timestamp::from_secs(fx.now().secs + 60).to_string();
                let request = DeprecateImageRequest {
                    image_id,
                    deprecate_at: at,
                    ..Default::default()
                };
                Ok(state
                    .deprecate_image(&desk.caller, &request, fx)
                    .map(drop)?)
            })?,
            ActionType::Disable => desk.transact(|state, fx| {
                let request = ImageRequest {
                    image_id,
                    ..Default::default()
                };
                Ok(state.disable_image(&desk.caller, &request, fx)?)
            })?,
            // Its snapshots one by one: those alone that the plan names.
            ActionType::Delete => desk.deregister(&image_id, false).map(drop)?,
        }
        let mut failed = Vec::new();
        for snapshot in &step.snapshots {
            let request = SnapshotRequest {
                snapshot_id: snapshot.to_string(),
                ..Default::default()
            };
            let gone =
                desk.transact(|state, fx| Ok(state.delete_snapshot(&desk.caller, &request, fx)?));
            if let Err(error) = gone {
                failed.push(format!(
                    "{snapshot} of {}: {}",
                    step.image,
                    error.with_causes()
                ));
            }
        }
        Ok(failed)
    }
}
