//! Who holds the layers that were to go, and what lets them go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use amiforge_store::CatalogImage;
use amiforge_types::ByteSize;
use serde::Serialize;

use super::CachedLayer;

/// Images that are told before they are only counted; `--json` has all.
const TOLD: usize = 10;

/// An image of the catalog that holds layers which were to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldingImage {
    /// `ami-` or, of a container, `oci-` and 17 hex digits.
    pub image_id: String,
    /// Name of its recipe.
    pub name: String,
    /// Version of its recipe.
    pub version: String,
    /// Its output folder.
    pub out: PathBuf,
    /// Layers of it that were to go.
    pub layers: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes of those among them that no other image holds: what goes when it alone is let go.
    pub alone_bytes: u64,
    /// A command after which they are no longer held.
    pub release: String,
}

/// The images that hold layers, who holds most for itself alone first.
pub(super) fn holders(images: &[CatalogImage], held: &[CachedLayer]) -> Vec<HoldingImage> {
    let mut found: BTreeMap<&str, HoldingImage> = BTreeMap::new();
    let by_id = |id: &str| images.iter().find(|image| image.image_id == id);
    for layer in held {
        for image in layer.images.iter().filter_map(|id| by_id(id)) {
            let holder = found
                .entry(&image.image_id)
                .or_insert_with(|| holder(image));
            holder.layers += 1;
            holder.bytes += layer.bytes;
            if layer.images.len() == 1 {
                holder.alone_bytes += layer.bytes;
            }
        }
    }
    let mut found: Vec<HoldingImage> = found.into_values().collect();
    found.sort_by_key(|holder| std::cmp::Reverse((holder.alone_bytes, holder.bytes)));
    found
}

fn holder(image: &CatalogImage) -> HoldingImage {
    // EC2's images are machines: of a container there is the folder alone.
    let is_container = image.image_id.starts_with("oci-");
    let release = match is_container {
        true => format!("rm -r {}", crate::shell::shown_argument(&image.path)),
        false => format!("amiforge image deregister {}", image.image_id),
    };
    HoldingImage {
        image_id: image.image_id.clone(),
        name: image.name.clone(),
        version: image.version.clone(),
        out: image.path.clone(),
        layers: 0,
        bytes: 0,
        alone_bytes: 0,
        release,
    }
}

/// Lines about the images that hold `layers` layers of `bytes` bytes together; none where none does.
pub(super) fn images_text(holders: &[HoldingImage], layers: usize, bytes: u64) -> Vec<String> {
    if layers == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "{layers} layers of {} stay: {} of the catalog {}. To let them go, take an image out of it (its folder stays where the \
         command is `image deregister`), then run this again:",
        ByteSize(bytes),
        counted(holders.len(), "image"),
        if holders.len() == 1 {
            "has them"
        } else {
            "have them"
        },
    )];
    for holder in holders.iter().take(TOLD) {
        lines.push(format!(
            "  {}  # {} {}: {} in {}, {}",
            holder.release,
            holder.name,
            holder.version,
            ByteSize(holder.bytes),
            counted(holder.layers, "layer"),
            match holder.alone_bytes {
                0 => "all of them in other images, too".to_owned(),
                bytes if bytes == holder.bytes => "in no other image".to_owned(),
                bytes => format!("{} of it in no other image", ByteSize(bytes)),
            },
        ));
    }
    if let Some(more) = holders.len().checked_sub(TOLD).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more, which --json lists"));
    }
    lines
}

/// The line about layers that a running build uses; none where none does.
pub(super) fn builds_text(in_use: &[CachedLayer]) -> Option<String> {
    if in_use.is_empty() {
        return None;
    }
    let bytes: u64 = in_use.iter().map(|layer| layer.bytes).sum();
    // While a recipe is built for the first time, nothing but ids is known of its layers.
    let names: Vec<String> = in_use
        .iter()
        .map(|layer| match &layer.title {
            Some(title) => title.clone(),
            None => layer.id.to_string()[..12].to_owned(),
        })
        .collect();
    Some(format!(
        "{} of {} stay: a build that runs uses them ({}). Run this again when it has ended",
        counted(in_use.len(), "layer"),
        ByteSize(bytes),
        names.join("; "),
    ))
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use amiforge_types::{Digest, LayerId};

    use super::*;

    fn image(id: &str) -> CatalogImage {
        CatalogImage {
            image_id: id.to_owned(),
            name: format!("name-{id}"),
            version: "1.0.0".to_owned(),
            path: format!("/out/{id}").into(),
            manifest: serde_json::json!({}),
        }
    }

    fn layer(name: &str, bytes: u64, images: &[&str]) -> CachedLayer {
        CachedLayer {
            id: LayerId(Digest::of(name.as_bytes())),
            title: Some(name.to_owned()),
            bytes,
            unpacked: false,
            idle_seconds: 0,
            recipes: Vec::new(),
            images: images.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn who_holds_most_alone_is_told_first_with_what_lets_it_go() {
        let images = [image("ami-a"), image("ami-b"), image("ami-c")];
        let held = [
            layer("shared", 1 << 30, &["ami-a", "ami-b"]),
            layer("of b", 2 << 20, &["ami-b"]),
        ];
        let holders = holders(&images, &held);
        let lines = images_text(&holders, held.len(), (1 << 30) + (2 << 20));
        assert_eq!(
            lines[1..],
            [
                "  amiforge image deregister ami-b  # name-ami-b 1.0.0: 1.0 GiB in 2 layers, 2 MiB of it in no other image",
                "  amiforge image deregister ami-a  # name-ami-a 1.0.0: 1 GiB in 1 layer, all of them in other images, too",
            ]
        );
        assert!(
            lines[0].starts_with("2 layers of 1.0 GiB stay: 2 images of the catalog have them"),
            "{lines:?}"
        );
        assert!(images_text(&[], 0, 0).is_empty());
    }

    #[test]
    fn many_images_are_cut_short() {
        let ids: Vec<String> = (0..12).map(|n| format!("ami-{n:02}")).collect();
        let images: Vec<CatalogImage> = ids.iter().map(|id| image(id)).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let lines = images_text(&holders(&images, &[layer("all", 1, &ids)]), 1, 1);
        assert_eq!(lines.len(), 1 + TOLD + 1);
        assert_eq!(lines.last().unwrap(), "  and 2 more, which --json lists");
    }

    #[test]
    fn layers_of_a_running_build_are_named() {
        let mut unknown = layer("x", 1 << 20, &[]);
        unknown.title = None;
        let text = builds_text(&[layer("web", 1 << 20, &[]), unknown.clone()]).unwrap();
        let id = &unknown.id.to_string()[..12];
        assert_eq!(
            text,
            format!(
                "2 layers of 2 MiB stay: a build that runs uses them (web; {id}). Run this again when it has ended"
            )
        );
        assert_eq!(builds_text(&[]), None);
    }
}
