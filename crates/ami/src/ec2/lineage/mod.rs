//! Where an image comes from, and what came of it.
//!
//! [`lineage`] walks both ways from one image: up through its source image, the instance that it was made of and the recipe that it was built
//! of, down through its copies, what was built on it, the instances launched from it and their images. A source that is not known any
//! more is a node of its own; a circle ends where it closes.
//!
//! Source: EC2 API reference, `GetImageAncestry`; EC2 user guide, `ami-ancestry`. Recipes and instances are more than EC2 tells.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use amiforge_types::Digest;
use serde::Serialize;

use super::{AccountId, Image, ImageState, Instance, Region, State};
use crate::{CreationDate, ImageId};

/// Most nodes of one answer; a tree that has more says that it is cut.
pub const MAX_NODES: usize = 10_000;
/// Most generations, either way.
pub const MAX_DEPTH: usize = 100;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// An image.
    Image,
    /// An instance.
    Instance,
    /// What a recipe names as its parent and is no image of the catalog, for example `debian:bookworm`.
    Parent,
}

/// What the child is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// A copy of the image.
    Copy,
    /// An image made of the instance.
    CreatedFrom,
    /// An instance launched from the image.
    LaunchedFrom,
    /// An image built by a recipe on this parent.
    BuiltOn,
}

impl Relation {
    const fn words(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::CreatedFrom => "created from the instance",
            Self::LaunchedFrom => "launched",
            Self::BuiltOn => "built on it",
        }
    }
}

/// The recipe that an image was built of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// Name of the recipe.
    pub recipe: String,
    /// Its version.
    pub version: String,
    /// The plan.
    pub plan_id: Digest,
    /// The parent as the recipe names it.
    pub parent: String,
}

/// An image, instance or parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Its id, or the parent's text.
    pub id: String,
    /// Name of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// The region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// The state, as the API writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When it was made, or launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<CreationDate>,
    /// What it was built of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built: Option<Built>,
    /// It is named, but not known here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// It stands further up on the same line: the records go round in a circle.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub circular: bool,
}

/// A generation upwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    /// The node.
    #[serde(flatten)]
    pub node: Node,
    /// What the one below it is to it.
    pub relation: Relation,
}

/// A node and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descendant {
    /// The node.
    #[serde(flatten)]
    pub node: Node,
    /// What it is to the one above it; absent of the image that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
    /// What came of it, by date.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Descendant>,
    /// There is more below it than is told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Both ways from one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// The generations upwards, the nearest first.
    pub ancestors: Vec<Ancestor>,
    /// The image, with what came of it.
    pub image: Descendant,
}

/// The lineage of an image; `None` when it is not known.
#[must_use]
pub fn lineage(state: &State, image: &ImageId) -> Option<Lineage> {
    let image = state.images.get(image)?;
    let mut left = MAX_NODES;
    let index = Index::of(state);
    let mut line = BTreeSet::new();
    Some(Lineage {
        ancestors: ancestors(state, image),
        image: index.descend(Item::Image(image), None, &mut line, &mut left),
    })
}

#[derive(Clone, Copy)]
enum Item<'a> {
    Image(&'a Image),
    Instance(&'a Instance),
}

impl<'a> Item<'a> {
    fn id(self) -> &'a str {
        match self {
            Self::Image(image) => image.image_id.as_str(),
            Self::Instance(instance) => instance.instance_id.as_str(),
        }
    }

    fn date(self) -> CreationDate {
        match self {
            Self::Image(image) => image.creation_date,
            Self::Instance(instance) => instance.launch_time,
        }
    }

    fn node(self) -> Node {
        match self {
            Self::Image(image) => Node {
                kind: NodeKind::Image,
                id: image.image_id.to_string(),
                name: Some(image.name.clone()),
                account: Some(image.owner.clone()),
                region: Some(image.region.clone()),
                state: Some(image_state(image).to_owned()),
                date: Some(image.creation_date),
                built: image.build.as_ref().map(|b| Built {
                    recipe: b.recipe.clone(),
                    version: b.version.clone(),
                    plan_id: b.plan_id,
                    parent: b.parent.clone(),
                }),
                missing: false,
                circular: false,
            },
            Self::Instance(instance) => Node {
                kind: NodeKind::Instance,
                id: instance.instance_id.to_string(),
                name: None,
                account: Some(instance.owner.clone()),
                region: Some(instance.region.clone()),
                state: Some(instance.state.as_str().to_owned()),
                date: Some(instance.launch_time),
                built: None,
                missing: false,
                circular: false,
            },
        }
    }
}

fn image_state(image: &Image) -> &'static str {
    match image.state {
        ImageState::Pending => "pending",
        ImageState::Available => "available",
        ImageState::Failed => "failed",
        ImageState::Disabled => "disabled",
        ImageState::Deregistered if image.bin.is_some() => "in the recycle bin",
        ImageState::Deregistered => "deregistered",
    }
}

fn unknown(kind: NodeKind, id: String, region: Option<Region>) -> Box<Node> {
    Box::new(Node {
        kind,
        id,
        name: None,
        account: None,
        region,
        state: None,
        date: None,
        built: None,
        missing: kind != NodeKind::Parent,
        circular: false,
    })
}

/// What an image or instance came of.
enum Source<'a> {
    Known(Item<'a>),
    Unknown(Box<Node>),
}

fn source<'a>(state: &'a State, item: Item<'a>) -> Option<(Source<'a>, Relation)> {
    let image = match item {
        Item::Instance(instance) => {
            let source = known_image(state, &instance.image_id, Some(instance.region.clone()));
            return Some((source, Relation::LaunchedFrom));
        }
        Item::Image(image) => image,
    };
    if let Some(id) = &image.source_instance_id {
        let source = match state.instances.get(id) {
            Some(instance) => Source::Known(Item::Instance(instance)),
            // The instance is gone, but its image is remembered.
            None => Source::Unknown(unknown(
                NodeKind::Instance,
                id.to_string(),
                Some(image.region.clone()),
            )),
        };
        return Some((source, Relation::CreatedFrom));
    }
    if let Some(id) = &image.source_image_id {
        return Some((
            known_image(state, id, image.source_image_region.clone()),
            Relation::Copy,
        ));
    }
    let build = image.build.as_ref()?;
    let source = match built_on(state, image, &build.parent) {
        Some(parent) => Source::Known(Item::Image(parent)),
        None => Source::Unknown(unknown(NodeKind::Parent, build.parent.clone(), None)),
    };
    Some((source, Relation::BuiltOn))
}

fn known_image<'a>(state: &'a State, id: &ImageId, region: Option<Region>) -> Source<'a> {
    match state.images.get(id) {
        Some(image) => Source::Known(Item::Image(image)),
        None => Source::Unknown(unknown(NodeKind::Image, id.to_string(), region)),
    }
}

/// The image that a recipe's parent names: by id, or `image:<recipe>/<version>`, then the latest before this one, of the same account and
/// region where there is one.
fn built_on<'a>(state: &'a State, image: &Image, parent: &str) -> Option<&'a Image> {
    if let Ok(id) = parent.parse::<ImageId>() {
        return state.images.get(&id);
    }
    let (name, version) = parent.strip_prefix("image:")?.split_once('/')?;
    state
        .images
        .values()
        .filter(|i| i.image_id != image.image_id && i.creation_date <= image.creation_date)
        .filter(|i| {
            i.build
                .as_ref()
                .is_some_and(|b| b.recipe == name && b.version == version)
        })
        .max_by_key(|i| {
            let near = (i.owner == image.owner, i.region == image.region);
            (near, i.creation_date, &i.image_id)
        })
}

fn ancestors(state: &State, image: &Image) -> Vec<Ancestor> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([image.image_id.as_str()]);
    let mut item = Item::Image(image);
    while found.len() < MAX_DEPTH {
        let Some((source, relation)) = source(state, item) else {
            break;
        };
        match source {
            Source::Known(next) => {
                let mut node = next.node();
                node.circular = !seen.insert(next.id());
                let circular = node.circular;
                found.push(Ancestor { node, relation });
                if circular {
                    break;
                }
                item = next;
            }
            Source::Unknown(node) => {
                let instance = node.kind == NodeKind::Instance;
                found.push(Ancestor {
                    node: *node,
                    relation,
                });
                // An image made of an instance that is gone still tells the image that that one was launched from.
                let Item::Image(image) = item else { break };
                let Some(id) = image.source_image_id.as_ref().filter(|_| instance) else {
                    break;
                };
                let relation = Relation::LaunchedFrom;
                match known_image(state, id, image.source_image_region.clone()) {
                    Source::Known(next) => {
                        let mut node = next.node();
                        node.circular = !seen.insert(next.id());
                        let circular = node.circular;
                        found.push(Ancestor { node, relation });
                        if circular {
                            break;
                        }
                        item = next;
                    }
                    Source::Unknown(node) => {
                        found.push(Ancestor {
                            node: *node,
                            relation,
                        });
                        break;
                    }
                }
            }
        }
    }
    found
}

/// What came of each image and instance.
struct Index<'a> {
    children: BTreeMap<String, Vec<(Relation, Item<'a>)>>,
}

impl<'a> Index<'a> {
    fn of(state: &'a State) -> Self {
        let mut children: BTreeMap<String, Vec<(Relation, Item<'a>)>> = BTreeMap::new();
        let images = state.images.values().map(Item::Image);
        let instances = state.instances.values().map(Item::Instance);
        for item in images.chain(instances) {
            let Some((source, relation)) = source(state, item) else {
                continue;
            };
            let (id, relation) = match (source, item) {
                (Source::Known(parent), _) => (parent.id().to_owned(), relation),
                // Through an instance that is gone: the image that it was launched from stands for it.
                (Source::Unknown(node), Item::Image(image)) if node.kind == NodeKind::Instance => {
                    match &image.source_image_id {
                        Some(id) => (id.to_string(), Relation::CreatedFrom),
                        None => continue,
                    }
                }
                (Source::Unknown(node), _) => (node.id, relation),
            };
            children.entry(id).or_default().push((relation, item));
        }
        for list in children.values_mut() {
            list.sort_by(|(_, a), (_, b)| (a.date(), a.id()).cmp(&(b.date(), b.id())));
        }
        Self { children }
    }

    fn descend(
        &self,
        item: Item<'a>,
        relation: Option<Relation>,
        line: &mut BTreeSet<&'a str>,
        left: &mut usize,
    ) -> Descendant {
        *left = left.saturating_sub(1);
        let mut node = item.node();
        let mut found = Descendant {
            node: node.clone(),
            relation,
            children: Vec::new(),
            cut: false,
        };
        if !line.insert(item.id()) {
            node.circular = true;
            return Descendant { node, ..found };
        }
        for (relation, child) in self.children.get(item.id()).into_iter().flatten() {
            if *left == 0 || line.len() > MAX_DEPTH {
                found.cut = true;
                break;
            }
            found
                .children
                .push(self.descend(*child, Some(*relation), line, left));
        }
        line.remove(item.id());
        found
    }
}

impl Lineage {
    /// A tree to be read: the ancestors from the oldest down to the image, marked with `*`, and below it what came of it. Names and
    /// parents are as recorded; who prints them escapes them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut depth = 0;
        let mut relation = None;
        for ancestor in self.ancestors.iter().rev() {
            line(&mut text, &indent(depth), &ancestor.node, relation, false);
            relation = Some(ancestor.relation);
            depth += 1;
        }
        line(&mut text, &indent(depth), &self.image.node, relation, true);
        let below = "   ".repeat(depth);
        branches(&mut text, &below, &self.image);
        text
    }
}

fn indent(depth: usize) -> String {
    match depth {
        0 => String::new(),
        depth => format!("{}└─ ", "   ".repeat(depth - 1)),
    }
}

fn branches(text: &mut String, prefix: &str, parent: &Descendant) {
    let count = parent.children.len();
    for (i, child) in parent.children.iter().enumerate() {
        let last = i + 1 == count && !parent.cut;
        let (branch, below) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        line(
            text,
            &format!("{prefix}{branch}"),
            &child.node,
            child.relation,
            false,
        );
        branches(text, &format!("{prefix}{below}"), child);
    }
    if parent.cut {
        let _ = writeln!(text, "{prefix}└─ …");
    }
}

fn line(text: &mut String, prefix: &str, node: &Node, relation: Option<Relation>, asked: bool) {
    let mut parts = vec![node.id.clone()];
    parts.extend(node.name.as_ref().map(|n| format!("{n:?}")));
    parts.extend(node.account.as_ref().map(ToString::to_string));
    parts.extend(node.region.as_ref().map(ToString::to_string));
    parts.extend(node.state.clone());
    parts.extend(node.date.map(|d| d.timestamp().to_string()));
    if let Some(built) = &node.built {
        parts.push(format!("recipe {}/{}", built.recipe, built.version));
    }
    if node.missing {
        parts.push("not known here".to_owned());
    }
    if node.circular {
        parts.push("again: a circle".to_owned());
    }
    let mark = if asked { "* " } else { "" };
    let how = relation
        .map(|r| format!("{}: ", r.words()))
        .unwrap_or_default();
    let _ = writeln!(text, "{prefix}{mark}{how}{}", parts.join(", "));
}
