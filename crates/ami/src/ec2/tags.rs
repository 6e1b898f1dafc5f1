//! `CreateTags` and `DeleteTags`.
//!
//! Source: EC2 API reference, `CreateTags`, `DeleteTags`; EC2 user guide, `Using_Tags`.

use super::check::{
    Api, add_tags, dry_run, image_id, instance_id, missing, refuse, snapshot_id, tag_key, volume_id,
};
use super::request::request;
use super::{Caller, Effects, ErrorCode, ImageState, State, Tag, Tags};
use crate::{ImageId, InstanceId, SnapshotId, VolumeId};

/// Most resources of one request.
const MAX_RESOURCES: usize = 1_000;

request! {
    /// `CreateTags`.
    pub struct CreateTagsRequest {
        /// Images, snapshots, volumes, instances.
        pub resources: Vec<String>,
        /// The tags; a key that is there gets the new value.
        pub tags: Vec<Tag>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `DeleteTags`.
    pub struct DeleteTagsRequest {
        /// Images, snapshots, volumes, instances.
        pub resources: Vec<String>,
        /// The tags; none: all.
        pub tags: Vec<DeleteTag>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// A tag to delete.
    pub struct DeleteTag {
        /// Its key.
        pub key: String,
        /// Only when it has this value.
        pub value: Option<String>,
    }
}

/// A resource that can have tags.
#[derive(Clone, Debug)]
enum Resource {
    Image(ImageId),
    Snapshot(SnapshotId),
    Volume(VolumeId),
    Instance(InstanceId),
}

fn resource(text: &str) -> Api<Resource> {
    match text.split_once('-').map(|(prefix, _)| prefix) {
        Some("ami") => image_id(text).map(Resource::Image),
        Some("snap") => snapshot_id(text).map(Resource::Snapshot),
        Some("vol") => volume_id(text).map(Resource::Volume),
        Some("i") => instance_id(text).map(Resource::Instance),
        _ => {
            let shown: String = text.chars().take(60).collect();
            refuse(
                ErrorCode::InvalidId,
                format!("The ID '{shown}' is not valid"),
            )
        }
    }
}

impl State {
    fn tagged(
        &self,
        caller: &Caller,
        texts: &[String],
        dry: bool,
        fx: &dyn Effects,
    ) -> Api<Vec<Resource>> {
        if texts.is_empty() {
            return missing("Resources");
        }
        if texts.len() > MAX_RESOURCES {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!("A request has at most {MAX_RESOURCES} resources."),
            );
        }
        let resources: Vec<Resource> = texts.iter().map(|t| resource(t)).collect::<Api<_>>()?;
        dry_run(dry)?;
        for resource in &resources {
            match resource {
                Resource::Image(id) => {
                    let image = self.seen_image(caller, id, fx)?;
                    if image.state == ImageState::Deregistered && image.bin.is_none() {
                        return Err(super::check::gone(id));
                    }
                }
                Resource::Snapshot(id) => {
                    self.seen_snapshot(caller, id)?;
                }
                Resource::Volume(id) => {
                    self.own_volume(caller, id)?;
                }
                Resource::Instance(id) => {
                    self.own_instance(caller, id)?;
                }
            }
        }
        Ok(resources)
    }

    /// The tags of a resource that the caller sees, to change: of another's image or snapshot, its own ones on it.
    fn tags_mut(&mut self, caller: &Caller, resource: &Resource) -> Option<&mut Tags> {
        match resource {
            Resource::Image(id) => self.images.get_mut(id).map(|i| {
                if i.owner == caller.account {
                    &mut i.tags
                } else {
                    i.other_tags.entry(caller.account.clone()).or_default()
                }
            }),
            Resource::Snapshot(id) => self.snapshots.get_mut(id).map(|s| {
                if s.owner == caller.account {
                    &mut s.tags
                } else {
                    s.other_tags.entry(caller.account.clone()).or_default()
                }
            }),
            Resource::Volume(id) => self.volumes.get_mut(id).map(|v| &mut v.tags),
            Resource::Instance(id) => self.instances.get_mut(id).map(|i| &mut i.tags),
        }
    }

    /// Changes the tags of all resources, or of none when `change` refuses one.
    fn change_tags(
        &mut self,
        caller: &Caller,
        resources: &[Resource],
        change: impl Fn(&mut Tags) -> Api<()>,
    ) -> Api<()> {
        let mut new = Vec::new();
        for resource in resources {
            let mut tags = self.tags_mut(caller, resource).cloned().unwrap_or_default();
            change(&mut tags)?;
            new.push(tags);
        }
        for (resource, tags) in resources.iter().zip(new) {
            if let Some(place) = self.tags_mut(caller, resource) {
                *place = tags;
            }
        }
        for resource in resources {
            match resource {
                Resource::Image(id) => {
                    if let Some(image) = self.images.get_mut(id) {
                        image.other_tags.retain(|_, tags| !tags.is_empty());
                    }
                }
                Resource::Snapshot(id) => {
                    if let Some(snapshot) = self.snapshots.get_mut(id) {
                        snapshot.other_tags.retain(|_, tags| !tags.is_empty());
                    }
                }
                Resource::Volume(_) | Resource::Instance(_) => {}
            }
        }
        Ok(())
    }

    /// `CreateTags`. Whoever sees an image or snapshot of another account may tag it; such tags are seen by nobody else.
    pub fn create_tags(
        &mut self,
        caller: &Caller,
        request: &CreateTagsRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        if request.tags.is_empty() {
            return missing("Tags");
        }
        add_tags(&mut Tags::new(), &request.tags)?;
        let resources = self.tagged(caller, &request.resources, request.dry_run, fx)?;
        self.change_tags(caller, &resources, |tags| add_tags(tags, &request.tags))
    }

    /// `DeleteTags`: those of these keys, with a value only when it is that one; all of them when none are named. A tag that
    /// is not there is no error.
    pub fn delete_tags(
        &mut self,
        caller: &Caller,
        request: &DeleteTagsRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        for tag in &request.tags {
            tag_key(&tag.key)?;
        }
        let resources = self.tagged(caller, &request.resources, request.dry_run, fx)?;
        self.change_tags(caller, &resources, |tags| {
            tags.retain(|key, value| {
                let named = request
                    .tags
                    .iter()
                    .any(|t| t.key == *key && t.value.as_ref().is_none_or(|v| v == value));
                !(named || request.tags.is_empty())
            });
            Ok(())
        })
    }
}
