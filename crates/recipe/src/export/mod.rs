//! Documents written back as AWS takes them: a CloudFormation template, files of the AWS command line, Terraform.
//!
//! An [`Export`] collects resources; names and ARNs by which one of them means another become references. What a
//! format does not know is a note, never silence.
//!
//! ```
//! use amiforge_recipe::{ComponentTarget, ComponentUse, Export, ExportParent, OwnComponent, parse_recipe};
//! use amiforge_types::Diagnostics;
//!
//! let recipe = "{name: web, semanticVersion: 1.0.0, parentImage: 'debian:bookworm', components: [{componentArn: ./hello.yaml}]}";
//! let recipe = parse_recipe(recipe).0.unwrap();
//! let (mut export, mut problems) = (Export::new(), Diagnostics::new());
//! let hello = export.component(
//!     &OwnComponent {
//!         name: "hello".to_owned(),
//!         version: "1.0.0".to_owned(),
//!         platform: "Linux",
//!         description: None,
//!         text: "schemaVersion: 1.0\nphases: []\n".to_owned(),
//!         uri: None,
//!     },
//!     &mut problems,
//! );
//! let uses = [ComponentUse { target: ComponentTarget::Own(hello), parameters: Default::default() }];
//! export.recipe(None, &recipe.document, &uses, ExportParent::Asked("debian:bookworm".to_owned()), &mut problems);
//! export.link();
//! let template = export.cloudformation();
//! assert!(template.text.contains("ComponentArn: !GetAtt HelloComponent.Arn"));
//! ```

mod cloudformation;
mod command_line;
mod naming;
mod read;
mod shapes;
mod terraform;
mod value;
mod yaml_text;

use std::collections::BTreeMap;

use amiforge_types::{Diagnostic, Diagnostics, Span};

use crate::node::{Key, Node, NodeKind};
use crate::reference::has_secret;
use crate::resources::{ResourceKind, parse_arn};
use crate::version::{Version, VersionPattern};
use shapes::{Field, Kind};
use value::{Group, Value, get, text_of};

pub use read::{
    check_active, component_platform, components_of, left_of_template, read_resource,
    resource_name_of, secrets_of,
};

/// Most characters of a document inside a resource (the API's model).
pub const MOST_INLINE: usize = 16_000;

/// Resources on their way to AWS.
#[derive(Default)]
pub struct Export {
    items: Vec<Item>,
    /// Parents that somebody must name, as they are called here.
    parents: Vec<String>,
    notes: Vec<String>,
}

/// The logical id that a resource has in its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateId {
    /// Which of the templates: each has ids of its own.
    pub template: usize,
    /// The logical id.
    pub id: String,
}

/// One resource.
struct Item {
    kind: ResourceKind,
    /// The logical id.
    id: String,
    /// What the template that it comes from calls it.
    origin: Option<TemplateId>,
    /// The label in Terraform and in file names; unique in its kind.
    label: String,
    /// What documents that are no templates, and ARNs, call it.
    names: Vec<String>,
    fields: Group,
    /// Our own settings.
    settings: Option<Node>,
}

impl Item {
    fn name(&self) -> &str {
        text_of(&self.fields, "name").unwrap_or(&self.id)
    }

    fn version(&self) -> Option<&str> {
        text_of(&self.fields, "semanticVersion")
    }

    /// How notes call it.
    fn shown(&self) -> String {
        format!("{} `{}`", self.kind.with_article(), self.name())
            .trim_start_matches("a ")
            .trim_start_matches("an ")
            .to_owned()
    }
}

/// A component document that becomes a component of the user's own.
#[derive(Clone, Debug)]
pub struct OwnComponent {
    /// Free text; the component's name is the nearest that AWS takes.
    pub name: String,
    /// Three numbers.
    pub version: String,
    /// `Linux`, `Windows` or `macOS`.
    pub platform: &'static str,
    /// Free text.
    pub description: Option<String>,
    /// The document.
    pub text: String,
    /// Where in S3 the document lies; it is then not written out.
    pub uri: Option<String>,
}

/// An entry of `components`.
#[derive(Clone, Debug)]
pub struct ComponentUse {
    /// Which component.
    pub target: ComponentTarget,
    /// Given values by parameter name.
    pub parameters: BTreeMap<String, String>,
}

/// Which component a recipe means.
#[derive(Clone, Debug)]
pub enum ComponentTarget {
    /// One of the export, by the place that [`Export::component`] gave it.
    Own(usize),
    /// The newest version of one that Amazon manages, by its name.
    Amazon(String),
    /// An ARN, as it is written.
    Arn(String),
    /// A resource of the same template, by its logical id.
    Resource(String),
}

/// What a recipe starts from on AWS.
#[derive(Clone, Debug)]
pub enum ExportParent {
    /// A name that AWS knows.
    Named(String),
    /// Nothing that AWS knows; whoever deploys names what stands for it.
    Asked(String),
}

/// A text of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedText {
    /// The text.
    pub text: String,
    /// What is not as it was, a line each.
    pub notes: Vec<String>,
}

/// A folder of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedFolder {
    /// The files, that which begins everything last.
    pub files: Vec<ExportedFile>,
    /// What is not as it was, a line each.
    pub notes: Vec<String>,
}

/// A file of an [`ExportedFolder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedFile {
    /// Where in the folder.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Whether it is a program.
    pub executable: bool,
}

impl Export {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// True when there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Something that its reader should know.
    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Adds a component; its place.
    pub fn component(&mut self, component: &OwnComponent, diags: &mut Diagnostics) -> usize {
        let wanted = naming::resource_name(&component.name);
        let name = naming::unique(wanted.clone(), |name| self.has_component(name), "-");
        if name != component.name {
            self.note(format!(
                "the component {:?} is called `{name}`: {}",
                component.name,
                if name == wanted {
                    "AWS takes letters, digits, -, _ and blanks"
                } else {
                    "another one has its name"
                }
            ));
        }
        let count = component.text.chars().count();
        if component.uri.is_none() && count > MOST_INLINE {
            let message = format!(
                "the document has {count} characters; AWS takes at most {MOST_INLINE} inside a component"
            );
            let help = format!(
                "upload it (aws s3 cp FILE s3://BUCKET/KEY) and say where it is: --uri {name}=s3://BUCKET/KEY"
            );
            let problem = Diagnostic::error("out-of-range", Span::default(), message);
            diags.push(Diagnostic {
                span: None,
                ..problem.with_help(help)
            });
        }
        let key = |text: &str| Key {
            text: text.to_owned(),
            span: Span::default(),
        };
        let text = |text: &str| Node::text(Span::default(), text);
        let mut fields = vec![
            (key("name"), text(&name)),
            (key("semanticVersion"), text(&component.version)),
            (key("platform"), text(component.platform)),
        ];
        if let Some(description) = &component.description {
            let cut: String = description.chars().take(1024).collect();
            if cut.len() < description.len() {
                self.note(format!(
                    "the description of component `{name}` is cut at 1,024 characters"
                ));
            }
            if !cut.is_empty() {
                fields.push((key("description"), text(&cut)));
            }
        }
        fields.push(match &component.uri {
            Some(uri) => (key("uri"), text(uri)),
            None => (key("data"), text(&component.text)),
        });
        let document = Node {
            span: Span::default(),
            kind: NodeKind::Map(fields),
            tag: None,
        };
        let kind = ResourceKind::Component;
        let fields = value::group(&document, shapes::of(kind), diags);
        self.push(kind, None, fields, None)
    }

    fn has_component(&self, name: &str) -> bool {
        self.items
            .iter()
            .any(|item| item.kind == ResourceKind::Component && item.name() == name)
    }

    /// Adds an image recipe; `uses` are its components in their order, `id` its logical id in its template.
    pub fn recipe(
        &mut self,
        id: Option<&TemplateId>,
        document: &Node,
        uses: &[ComponentUse],
        parent: ExportParent,
        diags: &mut Diagnostics,
    ) {
        let at = self.resource(ResourceKind::ImageRecipe, id, document, uses, diags);
        let parent = match parent {
            ExportParent::Named(text) => Value::Text(text),
            ExportParent::Asked(local) => {
                let place = self.parents.iter().position(|known| *known == local);
                Value::Parent(place.unwrap_or_else(|| {
                    self.parents.push(local);
                    self.parents.len() - 1
                }))
            }
        };
        if let Some(item) = self.items.get_mut(at)
            && let Some((_, value)) = item.fields.iter_mut().find(|(f, _)| f.api == "parentImage")
        {
            *value = parent;
        }
    }

    /// Adds any resource as it was read; `uses` are the components of a container recipe. `id` is its logical id in
    /// the template that it comes from. The place it has.
    pub fn resource(
        &mut self,
        kind: ResourceKind,
        id: Option<&TemplateId>,
        document: &Node,
        uses: &[ComponentUse],
        diags: &mut Diagnostics,
    ) -> usize {
        let mut fields = value::group(document, shapes::of(kind), diags);
        if let Some((_, value)) = fields.iter_mut().find(|(f, _)| f.api == "components") {
            *value = components(uses);
        }
        // Values that were handed in beside the document.
        let mut given = uses.iter().flat_map(|one| one.parameters.values());
        if !diags.has_errors() && given.any(|value| has_secret(value)) {
            let message =
                "a parameter with `NoEcho` has no place in an export, whose files show every value";
            diags.push(Diagnostic::error(
                "unresolved-value",
                document.span,
                message,
            ));
        }
        let is_named = ["name", "Name"]
            .iter()
            .any(|key| document.get(key).is_some());
        if kind != ResourceKind::Image && !is_named {
            let message = format!("{} needs the field `name` to be made", kind.with_article());
            diags.push(Diagnostic::error("missing-field", document.span, message));
        }
        if kind == ResourceKind::Component && get(&fields, "format").is_some() {
            let message =
                "a component with `format` is a script that is imported, which cannot be exported";
            let help = "write a document that runs the script with ExecuteBash";
            diags.push(
                Diagnostic::error("conflicting-fields", document.span, message).with_help(help),
            );
        }
        let settings = ["amiforge", "Amiforge"]
            .iter()
            .find_map(|key| document.get(key));
        if let Some(settings) = settings {
            value::settings(settings, diags);
        }
        if let Some(name) = text_of(&fields, "name")
            && let Some(twin) = self.items.iter().find(|item| {
                item.kind == kind
                    && naming::slug(item.name()) == naming::slug(name)
                    && item.version() == text_of(&fields, "semanticVersion")
            })
        {
            let message = format!(
                "{} is exported already: AWS tells resources of a kind by name and version",
                twin.shown()
            );
            let help =
                "name each document once, and give each a name of its own or another version";
            diags.push(Diagnostic::error("duplicate-name", document.span, message).with_help(help));
        }
        self.push(kind, id, fields, settings.cloned())
    }

    fn push(
        &mut self,
        kind: ResourceKind,
        origin: Option<&TemplateId>,
        fields: Group,
        settings: Option<Node>,
    ) -> usize {
        let name = text_of(&fields, "name").unwrap_or_default().to_owned();
        let base = naming::pascal(&name);
        let suffix = naming::suffix(kind);
        let made = if base.ends_with(suffix) {
            base
        } else {
            base + suffix
        };
        let wanted = origin.map_or(made, |origin| origin.id.clone());
        let id = naming::unique(wanted, |id| self.items.iter().any(|i| i.id == id), "");
        if let Some(origin) = origin.filter(|origin| origin.id != id) {
            self.note(format!(
                "the resource {} of a template is called {id}: another one has its id",
                origin.id
            ));
        }
        let label = naming::snake(if name.is_empty() { &id } else { &name });
        let label = naming::unique(
            label,
            |label| {
                self.items
                    .iter()
                    .any(|i| i.kind == kind && i.label == label)
            },
            "_",
        );
        let mut names = vec![naming::slug(&name), name];
        names.retain(|name| !name.is_empty());
        self.items.push(Item {
            kind,
            id,
            origin: origin.cloned(),
            label,
            names,
            fields,
            settings,
        });
        self.items.len() - 1
    }

    /// Puts references in the place of the names and ARNs by which resources of the export mean each other, and sorts
    /// them so that each comes after those it needs. Called once, when all are there.
    pub fn link(&mut self) {
        let known: Vec<Known> = self.items.iter().map(Known::of).collect();
        let mut notes = Vec::new();
        for item in &mut self.items {
            let shown = item.shown();
            let template = item.origin.as_ref().map(|origin| origin.template);
            link_group(&mut item.fields, &known, template, &shown, &mut notes);
        }
        notes.into_iter().for_each(|note| self.note(note));

        // In the order of the kinds, which is that of what needs what; the places change with it.
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by_key(|place| self.items.get(*place).map(|item| rank(item.kind)));
        let moved = |old: usize| order.iter().position(|place| *place == old).unwrap_or(old);
        for item in &mut self.items {
            renumber(&mut item.fields, &moved);
        }
        let mut items: Vec<(usize, Item)> = std::mem::take(&mut self.items)
            .into_iter()
            .enumerate()
            .map(|(old, item)| (moved(old), item))
            .collect();
        items.sort_by_key(|(place, _)| *place);
        self.items = items.into_iter().map(|(_, item)| item).collect();
    }

    /// The notes of a format: those of the export, and fields that it has no word for.
    fn notes_of(&self, format: &str, word: impl Fn(&Field) -> Option<String>) -> Vec<String> {
        let mut notes = self.notes.clone();
        for item in &self.items {
            let mut missing = Vec::new();
            without_word(&item.fields, "", &word, &mut missing);
            for field in missing {
                notes.push(format!(
                    "`{field}` of {} is left out: {format} has no such field",
                    item.shown()
                ));
            }
        }
        notes
    }

    /// Notes on settings that only amiforge has, for formats without a place for them.
    fn settings_left_out(&self, notes: &mut Vec<String>) {
        for item in self.items.iter().filter(|item| item.settings.is_some()) {
            notes.push(format!(
                "the `amiforge` settings of {} are left out: only amiforge has them",
                item.shown()
            ));
        }
    }

    /// Names for the parents that are asked for: `word`, or `word` with what makes each another.
    fn parent_names(
        &self,
        word: impl Fn(&str) -> String,
        taken: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for local in &self.parents {
            let tail = match self.parents.len() {
                1 => "",
                _ => local
                    .split_once(':')
                    .map_or(local.as_str(), |(_, rest)| rest),
            };
            let is_taken = |name: &str| taken(name) || names.iter().any(|n| n == name);
            let name = naming::unique(word(tail), is_taken, "");
            names.push(name);
        }
        names
    }

    /// What whoever deploys is told of a parent.
    fn parent_question(local: &str) -> String {
        format!(
            "What stands for {local} on AWS: the id of an AMI, the ARN of an image, or ssm: and the name of a parameter"
        )
    }

    /// Whether a component of Amazon is named.
    fn uses_amazon(&self) -> bool {
        fn any(group: &Group) -> bool {
            group.iter().any(|(_, value)| match value {
                Value::Amazon(_) => true,
                Value::One(group) => any(group),
                Value::Many(groups) => groups.iter().any(any),
                _ => false,
            })
        }
        self.items.iter().any(|item| any(&item.fields))
    }
}

/// The value of `components`.
fn components(uses: &[ComponentUse]) -> Value {
    let word = |shape: &'static shapes::Shape, api: &str| {
        shape.fields.iter().find(|field| field.api == api)
    };
    let Some(Kind::Many(of_use)) =
        word(shapes::of(ResourceKind::ImageRecipe), "components").map(|field| field.kind)
    else {
        return Value::Many(Vec::new());
    };
    let groups = uses.iter().map(|one| {
        let target = match &one.target {
            ComponentTarget::Own(place) => Value::Arn(*place),
            ComponentTarget::Amazon(name) => Value::Amazon(name.clone()),
            ComponentTarget::Arn(text) => Value::Text(text.clone()),
            ComponentTarget::Resource(id) => Value::Named(ResourceKind::Component, id.clone()),
        };
        let mut group = Group::new();
        group.extend(word(of_use, "componentArn").map(|field| (field, target)));
        if let Some(field) = word(of_use, "parameters")
            && let Kind::Many(shape) = field.kind
            && !one.parameters.is_empty()
        {
            let parameters = one.parameters.iter().map(|(name, value)| {
                let name = word(shape, "name").map(|f| (f, Value::Text(name.clone())));
                let value = word(shape, "value").map(|f| (f, Value::Texts(vec![value.clone()])));
                name.into_iter().chain(value).collect()
            });
            group.push((field, Value::Many(parameters.collect())));
        }
        group
    });
    Value::Many(groups.collect())
}

/// What is known of a resource when others look for it.
struct Known {
    kind: ResourceKind,
    origin: Option<TemplateId>,
    names: Vec<String>,
    version: Option<VersionPattern>,
}

impl Known {
    fn of(item: &Item) -> Self {
        Self {
            kind: item.kind,
            origin: item.origin.clone(),
            names: item.names.clone(),
            version: item.version().and_then(|text| text.parse().ok()),
        }
    }

    /// True when a version in an ARN means this resource.
    fn is_meant(&self, wanted: &str) -> bool {
        let Some(own) = &self.version else {
            return true;
        };
        match (wanted.parse::<Version>(), wanted.parse::<VersionPattern>()) {
            (Ok(version), _) => own.matches(&version),
            (Err(_), Ok(pattern)) => own.is_within(&pattern) || pattern.is_within(own),
            _ => false,
        }
    }
}

/// Links the fields of a resource. One of a template means others by the ids of this template.
fn link_group(
    group: &mut Group,
    known: &[Known],
    template: Option<usize>,
    owner: &str,
    notes: &mut Vec<String>,
) {
    for (field, value) in group {
        let found = match (&*value, field.kind) {
            (Value::Named(kind, name), _) => known.iter().position(|k| {
                let is_meant = match (template, &k.origin) {
                    (Some(template), Some(of)) => of.template == template && of.id == *name,
                    (Some(_), None) => false,
                    (None, _) => k.names.contains(name),
                };
                k.kind == *kind && is_meant
            }),
            (Value::Text(text), Kind::Arn(kind)) => by_arn(text, kind, known, owner, notes),
            _ => None,
        };
        if let Some(place) = found {
            *value = Value::Arn(place);
        }
        match value {
            Value::Named(_, name) => *value = Value::Text(name.clone()),
            Value::One(group) => link_group(group, known, template, owner, notes),
            Value::Many(groups) => groups
                .iter_mut()
                .for_each(|group| link_group(group, known, template, owner, notes)),
            _ => {}
        }
    }
}

/// The resource of the export that an ARN means: the same kind and name, and a version that fits.
fn by_arn(
    text: &str,
    kind: ResourceKind,
    known: &[Known],
    owner: &str,
    notes: &mut Vec<String>,
) -> Option<usize> {
    let arn = parse_arn(text).ok().filter(|arn| !arn.is_amazon())?;
    let rest = match (kind, arn.path.as_slice()) {
        (ResourceKind::Workflow, [_, _, rest @ ..]) | (_, [_, rest @ ..]) => rest,
        _ => return None,
    };
    let (name, version) = (*rest.first()?, rest.get(1));
    let of_kind = |k: &Known| k.kind == kind && k.names.iter().any(|own| own == name);
    let place = known
        .iter()
        .position(|k| of_kind(k) && version.is_none_or(|version| k.is_meant(version)));
    if place.is_none() && known.iter().any(of_kind) {
        notes.push(format!(
            "{owner} names {text}, which is another version than that of the export; it stays as it is"
        ));
    }
    place
}

fn renumber(group: &mut Group, moved: &impl Fn(usize) -> usize) {
    for (_, value) in group {
        match value {
            Value::Arn(place) => *place = moved(*place),
            Value::One(group) => renumber(group, moved),
            Value::Many(groups) => groups.iter_mut().for_each(|group| renumber(group, moved)),
            _ => {}
        }
    }
}

/// What comes first.
const fn rank(kind: ResourceKind) -> u8 {
    match kind {
        ResourceKind::Component => 0,
        ResourceKind::Workflow => 1,
        ResourceKind::InfrastructureConfiguration => 2,
        ResourceKind::DistributionConfiguration => 3,
        ResourceKind::ImageRecipe => 4,
        ResourceKind::ContainerRecipe => 5,
        ResourceKind::ImagePipeline => 6,
        ResourceKind::LifecyclePolicy => 7,
        ResourceKind::Image => 8,
    }
}

fn without_word(
    group: &Group,
    path: &str,
    word: &impl Fn(&Field) -> Option<String>,
    missing: &mut Vec<String>,
) {
    for (field, value) in group {
        let path = if path.is_empty() {
            field.api.to_owned()
        } else {
            format!("{path}.{}", field.api)
        };
        if word(field).is_none() {
            if !missing.contains(&path) {
                missing.push(path);
            }
            continue;
        }
        match value {
            Value::One(group) => without_word(group, &path, word, missing),
            Value::Many(groups) => groups
                .iter()
                .for_each(|group| without_word(group, &path, word, missing)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
