//! What the service gives to steps as environment variables, and the id of an execution.
//! Source: EC2 Image Builder user guide, component documents.
//!
//! A variable that a document does not mention is not set: so that the version of a recipe is an
//! input of those layers only whose steps may look at it.

use std::collections::BTreeMap;

use amiforge_types::{Digest, Seed};

/// Account and region of what has none.
const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";

/// The stage of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Build and validate phases.
    Building,
    /// Test phases.
    Testing,
}

/// Variables that the documents mention. `name` and `version` are the recipe's.
pub(crate) fn environment<'t>(
    documents: impl IntoIterator<Item = &'t str>,
    name: &str,
    version: &str,
    stage: Stage,
) -> BTreeMap<String, String> {
    let slug = name.to_lowercase().replace(' ', "-");
    let stage = match stage {
        Stage::Building => "BUILDING",
        Stage::Testing => "TESTING",
    };
    let execution = |what: &str| {
        let seed = Seed::new(Digest::of(format!("{name}/{version}").as_bytes()));
        seed.uuid(&format!("{stage}.{what}"))
    };
    let arn = format!("arn:aws:imagebuilder:{REGION}:{ACCOUNT}:image/{slug}/{version}/1");
    let all = [
        ("IMAGE_BUILD_VERSION", "1".to_owned()),
        ("IMAGE_BUILD_VERSION_ARN", arn),
        ("IMAGE_PHASE", stage.to_owned()),
        ("IMAGE_PIPELINE_ARN", String::new()),
        (
            "IMAGE_STEP_EXECUTION_ID",
            format!("step-{}", execution("step")),
        ),
        ("IMAGE_VERSION", version.to_owned()),
        (
            "IMAGE_WORKFLOW_EXECUTION_ID",
            format!("wf-{}", execution("workflow")),
        ),
    ];
    let documents: Vec<&str> = documents.into_iter().collect();
    all.into_iter()
        .filter(|(name, _)| documents.iter().any(|text| text.contains(name)))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// `context:executionId` of what a digest stands for: the same inputs give the same one, whatever else the
/// build has.
pub(crate) fn execution_id(of: Digest) -> BTreeMap<String, String> {
    let id = Seed::new(of).uuid("execution").to_string();
    BTreeMap::from([("executionId".to_owned(), id)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_document_mentions_is_set() {
        let set = |text| environment([text], "My Image", "1.2.3", Stage::Building);
        assert_eq!(set("echo hello"), BTreeMap::new());
        let text = "echo $IMAGE_VERSION {{ env:IMAGE_PHASE }}";
        let values: Vec<String> = set(text).into_values().collect();
        assert_eq!(values, ["BUILDING", "1.2.3"]);
        let arn = "arn:aws:imagebuilder:us-east-1:000000000000:image/my-image/1.2.3/1";
        assert_eq!(
            set("IMAGE_BUILD_VERSION_ARN")["IMAGE_BUILD_VERSION_ARN"],
            arn
        );
    }

    #[test]
    fn an_execution_has_the_form_of_a_uuid() {
        let id = execution_id(Digest::of(b"x"))
            .remove("executionId")
            .unwrap();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }
}
