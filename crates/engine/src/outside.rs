//! What the transfer actions of a run are lent: the caller's proxies, and credentials for S3 when a
//! document has something to do there, and only then. See `docs/decisions/0038-lent-credentials.md`.

use amiforge_exec::{DocumentSpec, Outside};
use amiforge_recipe::actions::ActionKind;
use amiforge_recipe::{Component, parse_component};

use crate::settings::Engine;

/// Process ids that the steps of a perturbed build do not get: no multiple of what a shell uses for a command.
const SKIPPED_PIDS: u32 = 97;

impl Engine {
    /// For one phase of a component in the sandbox.
    pub(crate) fn outside(&self, component: &Component, phase: &str, offline: bool) -> Outside {
        let mut outside = Outside::default();
        outside.offline = offline;
        outside.proxies.clone_from(&self.settings.proxies);
        if self.settings.perturbed {
            outside.skipped_pids = SKIPPED_PIDS;
        }
        if uses_s3(component, phase) {
            outside.aws = Some(self.settings.aws.find(offline));
        }
        outside
    }

    /// For all phases of documents on the machine itself.
    pub(crate) fn outside_here<'c>(
        &self,
        mut components: impl Iterator<Item = &'c Component>,
    ) -> Outside {
        let mut outside = Outside::default();
        outside.proxies.clone_from(&self.settings.proxies);
        let any = |c: &Component| c.phases.iter().any(|phase| uses_s3(c, &phase.name));
        if components.any(any) {
            outside.aws = Some(self.settings.aws.find(false));
        }
        outside
    }

    /// For the test phases in a guest, which has a network of its own: the caller's proxies are not
    /// lent. `None` when there is nothing to say.
    pub(crate) fn outside_of_guest(
        &self,
        documents: &[DocumentSpec],
        offline: bool,
    ) -> Option<Outside> {
        let s3 = documents.iter().any(|document| {
            let (component, _) = parse_component(&document.text);
            component.is_some_and(|component| uses_s3(&component, "test"))
        });
        (s3 || offline).then(|| {
            let mut outside = Outside::default();
            outside.offline = offline;
            outside.aws = s3.then(|| self.settings.aws.find(offline));
            outside
        })
    }
}

/// Whether a phase has a step that reads from S3 or writes there, or runs a document that may.
fn uses_s3(component: &Component, phase: &str) -> bool {
    let steps = component
        .phase(phase)
        .into_iter()
        .flat_map(|phase| &phase.steps);
    steps.into_iter().any(|step| match step.action {
        ActionKind::S3Download | ActionKind::S3Upload => true,
        // Documents of the library have nothing to do there.
        ActionKind::ExecuteDocument => {
            let document = step
                .inputs
                .as_ref()
                .and_then(|inputs| inputs.get("document"));
            let named = document.and_then(|document| document.as_text());
            named.is_none_or(|name| !name.starts_with("arn:"))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_phase_with_an_s3_action_is_lent_credentials() {
        let text = "
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - {name: A, action: ExecuteBash, inputs: {commands: ['aws s3 ls']}}
      - {name: B, action: WebDownload, inputs: [{source: 'https://h.test/x', destination: /x}]}
  - name: validate
    steps:
      - {name: C, action: S3Download, inputs: [{source: 's3://bucket/x', destination: /x}]}
  - name: test
    steps:
      - {name: D, action: S3Upload, inputs: [{source: /x, destination: 's3://bucket/x'}]}
";
        let (component, _) = parse_component(text);
        let component = component.unwrap();
        let used = |phase: &str| uses_s3(&component, phase);
        assert!(!used("build") && used("validate") && used("test") && !used("other"));
    }
}
