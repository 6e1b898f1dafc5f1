//! The JSON Schemas that the program brings along.

use amiforge_recipe::json_schema;

/// What the manifest's schema is called.
const MANIFEST: &str = "manifest";

/// What the schema of events is called.
const EVENT: &str = "event";

/// Every kind that has a schema: the word for it, and what people call it.
#[must_use]
pub fn schemas() -> Vec<(&'static str, &'static str)> {
    json_schema::kinds()
        .into_iter()
        .map(|kind| (kind.id(), kind.name()))
        .chain([
            (EVENT, "line of --events"),
            (MANIFEST, "manifest of a build"),
        ])
        .collect()
}

/// The schema of a kind, as JSON.
#[must_use]
pub fn schema(kind: &str) -> Option<String> {
    if kind == MANIFEST {
        return Some(amiforge_ami::MANIFEST_SCHEMA.to_owned());
    }
    if kind == EVENT {
        return Some(crate::event::event_schema());
    }
    let mut kinds = json_schema::kinds().into_iter();
    json_schema::schema(kinds.find(|one| one.id() == kind)?)
}
