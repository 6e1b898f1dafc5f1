//! Dockerfile templates of container recipes, as far as they set the configuration of an image.
//!
//! An image here is made of packages and components; its Dockerfile says where the components stand
//! (`{{{ imagebuilder:components }}}`) and how a container is started. Instructions that only do the latter
//! are read; those that change files (`RUN`, `COPY`, `ADD`) or build in stages are named as what they are,
//! and a build refuses them: that is work for a component.
//!
//! Reference: Dockerfile reference; EC2 Image Builder user guide, "Create a container recipe".

mod apply;
mod health;
mod lines;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use amiforge_types::{Diagnostic, Diagnostics, Position, Span};

/// Longest template that is read, in bytes: a template of 16,000 characters has at most four times as many.
pub const MAX_DOCKERFILE_BYTES: usize = 64_000;

/// What programs are looked for in, in an image of Debian.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a Dockerfile says of its image. What decides the image is serialized, and is an input of its plan.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dockerfile {
    /// Who keeps the image (`MAINTAINER`).
    pub author: Option<String>,
    /// How a container is started.
    pub config: ContainerConfig,
    /// Variables that are set where the components stand.
    pub step_env: BTreeMap<String, String>,
    /// The instructions before and after the place of the components, each on one line.
    pub instructions: [Vec<String>; 2],
    /// Whether the components have a place.
    pub has_components: bool,
    /// Instructions that are right and that no build here follows, each as an error.
    #[serde(skip)]
    pub unsupported: Vec<Diagnostic>,
    /// The template.
    #[serde(skip)]
    text: String,
}

impl Dockerfile {
    /// The same instructions over what the parent's own configuration says, in the place of that of an image of Debian.
    ///
    /// # Errors
    /// What an instruction cannot do with it: values that grow too long, for example.
    pub fn over(&self, parent: ContainerConfig) -> Result<Self, Diagnostics> {
        let mut diags = Diagnostics::new();
        let file = apply::apply(&self.text, parent, &mut diags);
        match diags.has_errors() {
            true => Err(diags),
            false => Ok(file),
        }
    }
}

/// How a container of an image is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ContainerConfig {
    /// `USER`.
    pub user: Option<String>,
    /// `EXPOSE`: `80/tcp`, each.
    pub exposed_ports: BTreeSet<String>,
    /// `ENV`, in the order in which the names were first set.
    pub env: Vec<(String, String)>,
    /// `ENTRYPOINT`.
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`.
    pub cmd: Option<Vec<String>>,
    /// `VOLUME`.
    pub volumes: BTreeSet<String>,
    /// `WORKDIR`.
    pub working_directory: Option<String>,
    /// `LABEL`.
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`.
    pub stop_signal: Option<String>,
    /// `HEALTHCHECK`.
    pub healthcheck: Option<HealthCheck>,
    /// `SHELL`.
    pub shell: Option<Vec<String>>,
}

impl ContainerConfig {
    /// That of an image of Debian.
    fn of_debian() -> Self {
        Self {
            env: vec![("PATH".to_owned(), PATH.to_owned())],
            cmd: Some(vec!["bash".to_owned()]),
            ..Self::default()
        }
    }
}

/// `HEALTHCHECK`; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HealthCheck {
    /// `NONE`, or `CMD` or `CMD-SHELL` and the command.
    pub test: Vec<String>,
    /// `--interval`
    pub interval: Option<u64>,
    /// `--timeout`
    pub timeout: Option<u64>,
    /// `--start-period`
    pub start_period: Option<u64>,
    /// `--start-interval`
    pub start_interval: Option<u64>,
    /// `--retries`
    pub retries: Option<u32>,
}

/// Reads a Dockerfile template. It is there exactly when no problem is an error; what is right and not
/// supported is no problem, but stands in [`Dockerfile::unsupported`].
#[must_use]
pub fn parse_dockerfile(text: &str) -> (Option<Dockerfile>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let file = dockerfile(text, &mut diags);
    (file.filter(|_| !diags.has_errors()), diags)
}

/// The place of what has none of its own.
fn beginning() -> Span {
    let start = Position {
        line: 1,
        column: 1,
        offset: 0,
    };
    Span { start, end: start }
}

/// Reads a Dockerfile template whatever is wrong with it.
pub(crate) fn dockerfile(text: &str, diags: &mut Diagnostics) -> Option<Dockerfile> {
    if text.len() > MAX_DOCKERFILE_BYTES {
        diags.push(Diagnostic::error(
            "out-of-range",
            beginning(),
            format!("a Dockerfile template has at most {MAX_DOCKERFILE_BYTES} bytes"),
        ));
        return None;
    }
    Some(apply::apply(text, ContainerConfig::of_debian(), diags))
}
