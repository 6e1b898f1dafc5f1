//! ARNs of Image Builder's resources and of what they name elsewhere.
//!
//! ```text
//! arn:<partition>:imagebuilder:<region>:<account | aws | aws-…>:<type>/<name>[/<version>[/<build>]]
//! ```

use super::ResourceKind;
use super::forms::is_account;
use super::schema::Form;
use crate::decode::{self, Cx, shown};
use crate::node::Node;
use crate::version::{Version, VersionPattern};

/// The parts of an ARN of Image Builder.
pub(crate) struct Arn<'t> {
    pub(crate) owner: &'t str,
    /// What follows the owner, cut at slashes.
    pub(crate) path: Vec<&'t str>,
}

impl Arn<'_> {
    /// True for what Amazon itself owns.
    pub(crate) fn is_amazon(&self) -> bool {
        self.owner.starts_with("aws")
    }
}

/// The parts of an ARN, or why the text is none of Image Builder.
pub(crate) fn parse(text: &str) -> Result<Arn<'_>, &'static str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, service, region, owner, path] = parts.as_slice() else {
        return Err("an ARN has six parts with colons between them");
    };
    if !partition.starts_with("aws") {
        return Err("its partition does not start with `aws`");
    }
    if *service != "imagebuilder" {
        return Err("its service is not `imagebuilder`");
    }
    if region.is_empty() {
        return Err("it names no Region");
    }
    let amazon = owner.strip_prefix("aws").is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('-').is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
            })
    });
    if !amazon && !is_account(owner) {
        return Err("its account is neither 12 digits nor `aws`");
    }
    Ok(Arn {
        owner,
        path: path.split('/').collect(),
    })
}

/// Letters in lower case, digits, `-` and `_`.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

fn is_pattern(text: &str) -> bool {
    text.parse::<VersionPattern>().is_ok()
}

fn is_build(version: &str, build: &str) -> bool {
    version.parse::<Version>().is_ok()
        && !build.is_empty()
        && build.bytes().all(|b| b.is_ascii_digit())
}

/// Why the path of an ARN is not that of a `kind`.
fn path_problem(kind: ResourceKind, path: &[&str]) -> Option<&'static str> {
    let word = kind.arn_word();
    if path.first() != Some(&word) {
        return Some("it is of another type");
    }
    let fits = match (kind, &path[1..]) {
        (ResourceKind::Component | ResourceKind::Image, [name, version]) => {
            is_name(name) && is_pattern(version)
        }
        (ResourceKind::Image, [name]) => is_name(name),
        (ResourceKind::Component | ResourceKind::Image, [name, version, build]) => {
            is_name(name) && is_build(version, build)
        }
        (ResourceKind::ImageRecipe | ResourceKind::ContainerRecipe, [name, version]) => {
            is_name(name) && is_pattern(version)
        }
        (ResourceKind::Workflow, [stage, name, version]) => {
            is_stage(stage) && is_name(name) && is_pattern(version)
        }
        (ResourceKind::Workflow, [stage, name, version, build]) => {
            is_stage(stage) && is_name(name) && is_build(version, build)
        }
        (
            ResourceKind::InfrastructureConfiguration
            | ResourceKind::DistributionConfiguration
            | ResourceKind::ImagePipeline
            | ResourceKind::LifecyclePolicy,
            [name],
        ) => is_name(name),
        _ => false,
    };
    (!fits).then_some(match kind {
        ResourceKind::Component | ResourceKind::Image => {
            "what follows its type is not <name>/<version> or <name>/<version>/<build>, the name in lower case"
        }
        ResourceKind::ImageRecipe | ResourceKind::ContainerRecipe => {
            "what follows its type is not <name>/<version>, the name in lower case"
        }
        ResourceKind::Workflow => {
            "what follows its type is not <build|test|distribution>/<name>/<version>, the name in lower case"
        }
        _ => "what follows its type is not a name in lower case",
    })
}

fn is_stage(text: &str) -> bool {
    matches!(text, "build" | "test" | "distribution")
}

/// Checks a field that names a resource of `kind`.
fn of(kind: ResourceKind, node: &Node, cx: &mut Cx<'_>) -> Option<()> {
    let text = decode::filled(node, cx)?;
    if let Some((found, id)) = node.resource() {
        if found != kind {
            let message = format!(
                "`{id}` is {}, not {}",
                found.with_article(),
                kind.with_article()
            );
            cx.error("wrong-resource", node.span, message);
        }
        return Some(());
    }
    if node.is_opaque() {
        return Some(());
    }
    let problem = match parse(&text) {
        Err(why) => Some(why),
        Ok(arn) => path_problem(kind, &arn.path),
    };
    if let Some(why) = problem {
        let message = format!(
            "{} is not the ARN of {}: {why}",
            shown(&text),
            kind.with_article()
        );
        let help = format!(
            "write arn:aws:imagebuilder:<region>:<account>:{}",
            kind.arn_form()
        );
        cx.error_help("invalid-arn", node.span, message, Some(help));
        return None;
    }
    Some(())
}

/// Checks the ARN of a component.
pub(crate) fn component(node: &Node, cx: &mut Cx<'_>) -> Option<()> {
    of(ResourceKind::Component, node, cx)
}

macro_rules! checks {
    ($($name:ident = $kind:ident;)*) => {
        $(pub(crate) fn $name(node: &Node, cx: &mut Cx<'_>) {
            of(ResourceKind::$kind, node, cx);
        })*
    };
}

checks! {
    image_recipe = ImageRecipe;
    container_recipe = ContainerRecipe;
    infrastructure = InfrastructureConfiguration;
    distribution = DistributionConfiguration;
    pipeline = ImagePipeline;
    lifecycle_policy = LifecyclePolicy;
    workflow = Workflow;
}

/// `arn:<partition>:<service>:…` with the given account and a resource that `fits`.
fn is_arn(text: &str, service: &str, regional: bool, fits: fn(&str) -> bool) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", partition, found, region, account, resource] => {
            partition.starts_with("aws")
                && *found == service
                && region.is_empty() != regional
                && is_account(account)
                && fits(resource)
        }
        _ => false,
    }
}

pub(crate) static SNS_TOPIC: Form = Form {
    code: "invalid-arn",
    what: "the ARN of an SNS topic",
    help: "write arn:aws:sns:<region>:<account>:<topic>",
    fits: |text| {
        is_arn(text, "sns", true, |name| {
            (1..=256).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        })
    },
};

fn is_organization_id(text: &str) -> bool {
    text.strip_prefix("o-").is_some_and(|id| {
        (10..=32).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

pub(crate) static ORGANIZATION: Form = Form {
    code: "invalid-arn",
    what: "the ARN of an organization",
    help: "write arn:aws:organizations::<account>:organization/o-<id>",
    fits: |text| {
        is_arn(text, "organizations", false, |path| {
            path.strip_prefix("organization/")
                .is_some_and(is_organization_id)
        })
    },
};

pub(crate) static ORGANIZATIONAL_UNIT: Form = Form {
    code: "invalid-arn",
    what: "the ARN of an organizational unit",
    help: "write arn:aws:organizations::<account>:ou/o-<id>/ou-<id>-<id>",
    fits: |text| {
        is_arn(text, "organizations", false, |path| {
            let parts: Vec<&str> = path.split('/').collect();
            match parts.as_slice() {
                ["ou", organization, unit] => {
                    let ids: Vec<&str> = unit.split('-').collect();
                    is_organization_id(organization)
                        && matches!(ids.as_slice(), ["ou", root, id] if (4..=32).contains(&root.len()) && (8..=32).contains(&id.len()))
                }
                _ => false,
            }
        })
    },
};

pub(crate) static LICENSE_CONFIGURATION: Form = Form {
    code: "invalid-arn",
    what: "the ARN of a license configuration",
    help: "write arn:aws:license-manager:<region>:<account>:license-configuration:lic-<32 characters>",
    fits: |text| {
        is_arn(text, "license-manager", true, |path| {
            path.strip_prefix("license-configuration:lic-")
                .is_some_and(|id| {
                    id.len() == 32
                        && id.bytes().all(|b| {
                            b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)
                        })
                })
        })
    },
};
