//! Names: of resources in AWS, logical ids of templates, labels of Terraform, variables of a shell.

use crate::decode::capitalized;
use crate::resources::ResourceKind;

/// The words of a name: runs of ASCII letters and digits.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// `debian-web 2` → `DebianWeb2`; inner capitals stay.
pub(super) fn pascal(name: &str) -> String {
    words(name).map(capitalized).collect()
}

/// `Debian-Web 2` → `debian_web_2`, which begins with a letter or `_`.
pub(super) fn snake(name: &str) -> String {
    let joined = words(name)
        .map(str::to_ascii_lowercase)
        .collect::<Vec<_>>()
        .join("_");
    match joined.bytes().next() {
        Some(first) if first.is_ascii_lowercase() => joined,
        _ => format!("_{joined}"),
    }
}

/// The name of a resource as its ARN has it: in lower case, with hyphens for blanks.
pub(super) fn slug(name: &str) -> String {
    name.to_ascii_lowercase().replace(' ', "-")
}

/// What ends a logical id.
pub(super) const fn suffix(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Component => "Component",
        ResourceKind::ImageRecipe => "Recipe",
        ResourceKind::ContainerRecipe => "ContainerRecipe",
        ResourceKind::InfrastructureConfiguration => "Infrastructure",
        ResourceKind::DistributionConfiguration => "Distribution",
        ResourceKind::ImagePipeline => "Pipeline",
        ResourceKind::Image => "Image",
        ResourceKind::Workflow => "Workflow",
        ResourceKind::LifecyclePolicy => "Policy",
    }
}

/// A name that AWS takes for a resource, nearest to `text`: 3 to 128 letters, digits, `-`, `_` and blanks inside.
pub(super) fn resource_name(text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let plain: String = text
        .chars()
        .map(|c| if legal(c) { c } else { '-' })
        .take(128)
        .collect();
    let plain = plain.trim();
    if plain.len() < 3 {
        let tail = if plain.is_empty() { "1" } else { plain };
        return format!("component-{tail}");
    }
    plain.to_owned()
}

/// `name`, or with the first number that nobody has.
pub(super) fn unique(name: String, taken: impl Fn(&str) -> bool, separator: &str) -> String {
    if !taken(&name) {
        return name;
    }
    let mut number: u32 = 2;
    loop {
        // Names are cut for the number, so that a long one stays legal.
        let cut: String = name.chars().take(120).collect();
        let next = format!("{cut}{separator}{number}");
        if !taken(&next) {
            return next;
        }
        number = number.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ids_of_each_kind() {
        assert_eq!(pascal("debian-web 2"), "DebianWeb2");
        assert_eq!(pascal("installNginx"), "InstallNginx");
        assert_eq!(snake("Debian-Web 2"), "debian_web_2");
        assert_eq!(snake("2 webs"), "_2_webs");
        assert_eq!(snake("--"), "_");
        assert_eq!(slug("Web Server"), "web-server");
        let taken = ["a", "a2"];
        assert_eq!(unique("a".into(), |n| taken.contains(&n), ""), "a3");
        assert_eq!(unique("b".into(), |n| taken.contains(&n), ""), "b");
    }

    #[test]
    fn any_text_becomes_a_name_that_aws_takes() {
        assert_eq!(
            resource_name("Install nginx (fast)"),
            "Install nginx -fast-"
        );
        assert_eq!(resource_name("ab"), "component-ab");
        assert_eq!(resource_name(" "), "component-1");
        assert_eq!(resource_name("web"), "web");
        assert_eq!(resource_name(&"é".repeat(300)).len(), 128);
    }
}
