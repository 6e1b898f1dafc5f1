//! The built-in components: local equivalents of those that Amazon manages, as documents in
//! `library/<name>/<version>.yaml`.

use std::collections::{BTreeMap, BTreeSet};

use amiforge_recipe::{
    ActionKind, Component, ComponentSource, Node, NodeKind, Scope, Version, VersionPattern,
    did_you_mean, parse_component,
};

use crate::error::{EngineError, ErrorKind};

/// A component of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibraryDocument {
    /// Name, as in `<name>/<version>` and in ARNs.
    pub name: &'static str,
    version: &'static str,
    /// The document.
    pub text: &'static str,
}

impl LibraryDocument {
    /// Its version.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version.parse().ok()
    }
}

impl LibraryDocument {
    /// The document, read.
    #[must_use]
    pub fn component(&self) -> Option<Component> {
        parse_component(self.text).0
    }
}

macro_rules! document {
    ($name:literal, $version:literal) => {
        LibraryDocument {
            name: $name,
            version: $version,
            text: include_str!(concat!("../library/", $name, "/", $version, ".yaml")),
        }
    };
}

macro_rules! documents {
    ($(($name:literal, $version:literal),)*) => {
        /// Every document, sorted by name, then by version.
        const LIBRARY: &[LibraryDocument] = &[$(document!($name, $version),)*];
    };
}

documents! {
    ("amazon-cloudwatch-agent-linux", "1.0.0"),
    ("amazon-corretto-17-headless", "1.0.0"),
    ("apt-repository-test-linux", "1.0.0"),
    ("aws-cli-version-2-linux", "1.0.0"),
    ("aws-codedeploy-agent-linux", "1.0.0"),
    ("chrony-time-configuration-test", "1.0.0"),
    ("docker-ce-linux", "1.0.0"),
    ("ebs-volume-usage-test-linux", "1.0.0"),
    ("eni-attachment-test-linux", "1.0.0"),
    ("hello-world-linux", "1.0.0"),
    ("inspector-test-linux", "1.0.0"),
    ("install-package-from-repository", "1.0.0"),
    ("python-3-linux", "1.0.0"),
    ("reboot-linux", "1.0.0"),
    ("reboot-test-linux", "1.0.0"),
    ("scap-compliance-checker-linux", "1.0.0"),
    ("simple-boot-test-linux", "1.0.0"),
    ("stig-build-linux-high", "1.0.0"),
    ("stig-build-linux-low", "1.0.0"),
    ("stig-build-linux-medium", "1.0.0"),
    ("update-linux", "1.0.0"),
    ("validate-single-ssh-public-key-test-linux", "1.0.0"),
    ("validate-ssh-host-key-generation-linux", "1.0.0"),
    ("validate-ssh-public-key-linux", "1.0.0"),
    ("yum-repository-test-linux", "1.0.0"),
}

/// Every component of the library, sorted by name.
#[must_use]
pub fn library() -> &'static [LibraryDocument] {
    LIBRARY
}

/// The component that `<name>`, `<name>/<version>` or its ARN means.
///
/// # Errors
/// When there is none.
pub fn library_document(reference: &str) -> Result<&'static LibraryDocument, EngineError> {
    let found = ComponentSource::of_library(reference);
    let found = found.and_then(|(name, version)| find(&name, &version));
    found.ok_or_else(|| {
        let message = format!("there is no component {reference} in the library");
        let name = reference.split('/').next().unwrap_or(reference);
        let hint = did_you_mean(name, LIBRARY.iter().map(|document| document.name));
        let all = "`amiforge component list` shows those that there are";
        let hint = hint.map_or_else(|| all.to_owned(), |hint| format!("{hint} {all}"));
        EngineError::new(ErrorKind::Invalid, message).with_hint(hint)
    })
}

/// The latest version of a component that fits.
pub(crate) fn find(name: &str, version: &VersionPattern) -> Option<&'static LibraryDocument> {
    let fits = |document: &&LibraryDocument| {
        document.name == name && document.version().is_some_and(|v| version.matches(&v))
    };
    LIBRARY.iter().filter(fits).max_by_key(|d| d.version())
}

/// The component that the ARN of one that Amazon manages means.
fn by_arn(arn: &str) -> Option<&'static LibraryDocument> {
    let (name, version) = ComponentSource::Arn(arn.to_owned()).managed()?;
    find(&name, &version)
}

/// The documents that a component with these parameters runs by their ARN, and those that they run, by that ARN.
pub(crate) fn needed_by(
    component: &Component,
    parameters: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut todo = runs_of(component, parameters);
    while let Some((arn, given)) = todo.pop() {
        if !seen.insert((arn.clone(), given.clone())) {
            continue;
        }
        if let Some(document) = by_arn(&arn) {
            found.insert(arn, document.text.to_owned());
            if let Some(component) = document.component() {
                let parameters = component.resolve_parameters(&given).unwrap_or_default();
                todo.extend(runs_of(&component, &parameters));
            }
        }
    }
    found
}

/// An ARN, and the parameters that its document is given.
type Run = (String, BTreeMap<String, String>);

/// The ARNs that its steps name, as far as parameters and constants say which.
fn runs_of(component: &Component, parameters: &BTreeMap<String, String>) -> Vec<Run> {
    let scope = Scope::new(component.variables(parameters));
    let steps = component.phases.iter().flat_map(|phase| &phase.steps);
    steps
        .filter(|step| step.action == ActionKind::ExecuteDocument)
        .filter_map(|step| {
            let inputs = step.inputs.as_ref()?;
            let text = |node: &Node| scope.resolve_text(node.as_text()?, node.span).ok();
            let arn = text(inputs.get("document")?).filter(|text| text.starts_with("arn:"))?;
            let given = match inputs.get("parameters").map(|node| &node.kind) {
                Some(NodeKind::Seq(given)) => given
                    .iter()
                    .filter_map(|one| Some((text(one.get("name")?)?, text(one.get("value")?)?)))
                    .collect(),
                _ => BTreeMap::new(),
            };
            Some((arn, given))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> VersionPattern {
        text.parse().unwrap()
    }

    #[test]
    fn every_document_of_the_folder_is_listed_and_sound() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("library");
        let mut files = BTreeSet::new();
        for name in fs_err::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            for file in fs_err::read_dir(&name).unwrap().map(|e| e.unwrap().path()) {
                let part =
                    |p: &std::path::Path| p.file_stem().unwrap().to_str().unwrap().to_owned();
                let version = file.file_name().unwrap().to_str().unwrap();
                files.insert((
                    part(&name),
                    version.strip_suffix(".yaml").unwrap().to_owned(),
                ));
            }
        }
        let listed: BTreeSet<(String, String)> = LIBRARY
            .iter()
            .map(|d| (d.name.to_owned(), d.version.to_owned()))
            .collect();
        assert_eq!(listed, files);
        for document in LIBRARY {
            let (component, problems) = parse_component(document.text);
            assert!(problems.is_empty(), "{}: {problems:?}", document.name);
            let component = component.unwrap();
            assert_eq!(component.name.as_deref(), Some(document.name));
            assert!(component.description.is_some_and(|d| d.len() > 20));
            let component = parse_component(document.text).0.unwrap();
            let named = runs_of(&component, &BTreeMap::new());
            assert!(
                named.iter().all(|(arn, _)| by_arn(arn).is_some()),
                "{named:?}"
            );
        }
    }

    #[test]
    fn names_wildcards_and_arns_find_a_document() {
        assert_eq!(
            find("update-linux", &pattern("x.x.x")).unwrap().name,
            "update-linux"
        );
        assert!(find("update-linux", &pattern("1.0.0")).is_some());
        assert!(find("update-linux", &pattern("2.x.x")).is_none());
        assert!(find("update", &pattern("x.x.x")).is_none());
        let arn = "arn:aws:imagebuilder:eu-west-1:aws:component/reboot-linux/x.x.x";
        assert_eq!(by_arn(arn).unwrap().name, "reboot-linux");
        assert!(
            by_arn("arn:aws:imagebuilder:eu-west-1:123456789012:component/reboot-linux/x.x.x")
                .is_none()
        );
    }

    #[test]
    fn documents_that_run_others_bring_them_along() {
        let high = find("stig-build-linux-high", &pattern("x.x.x")).unwrap();
        let needed = needed_by(&parse_component(high.text).0.unwrap(), &BTreeMap::new());
        let names: Vec<&str> = needed
            .keys()
            .filter_map(|arn| arn.rsplit('/').nth(2))
            .collect();
        assert_eq!(names, ["stig-build-linux-low", "stig-build-linux-medium"]);
    }

    #[test]
    fn an_arn_comes_by_parameters_and_constants_and_not_by_outputs() {
        let text = "schemaVersion: 1.0\nparameters:\n  - Name: {type: string, default: hello-world-linux}\n\
            constants:\n  - From: {type: string, value: 'arn:aws:imagebuilder:eu-west-1:aws:component'}\n\
            phases:\n  - name: build\n    steps:\n      \
            - {name: Zero, action: ExecuteBash, inputs: {commands: [echo arn]}}\n      \
            - {name: One, action: ExecuteDocument, inputs: {document: '{{ From }}/{{ Name }}/x.x.x'}}\n      \
            - {name: Two, action: ExecuteDocument, inputs: {document: '{{ build.Zero.outputs.stdout }}'}}\n";
        let component = parse_component(text).0.unwrap();
        let named = |given: &[(&str, &str)]| {
            let given = given
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            let parameters = component.resolve_parameters(&given).unwrap();
            needed_by(&component, &parameters)
                .into_keys()
                .collect::<Vec<_>>()
        };
        let arn = |name: &str| format!("arn:aws:imagebuilder:eu-west-1:aws:component/{name}/x.x.x");
        assert_eq!(named(&[]), [arn("hello-world-linux")]);
        assert_eq!(named(&[("Name", "reboot-linux")]), [arn("reboot-linux")]);
        assert_eq!(named(&[("Name", "no-such")]), Vec::<String>::new());
        // What the document is given decides what it runs in turn.
        let text = text.replace(
            "x.x.x'}",
            "x.x.x', parameters: [{name: Level, value: '{{ Name }}'}, {name: Empty, value: ''}]}",
        );
        let component = parse_component(&text).0.unwrap();
        let parameters = component.resolve_parameters(&BTreeMap::new()).unwrap();
        let runs = runs_of(&component, &parameters);
        let given = [("Empty", ""), ("Level", "hello-world-linux")];
        let given = given.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(runs, [(arn("hello-world-linux"), BTreeMap::from(given))]);
    }
}
