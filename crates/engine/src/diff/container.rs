//! A container image as a side of a diff: the files that its layers come to, and how it is run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use amiforge_ami::ContainerManifest;
use amiforge_source::oci::{OciPlace, OciRequest};
use amiforge_tree::{Stat, Tree};
use amiforge_types::{Arch, BlobTable, Timestamp};
use serde_json::Value;

use crate::container::LAYOUT_DIR;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::{MAX_JSON, read_file};
use crate::look::threads;
use crate::parent::source_error;
use crate::settings::Engine;
use crate::shown::shown;

/// Most bytes of the layers of an image, and of the files in them.
const MOST_BYTES: u64 = 64 << 30;

/// The output folder of a container build.
pub(super) struct Folder {
    pub(super) asked: PathBuf,
    pub(super) manifest: ContainerManifest,
}

/// What is in it.
pub(super) struct Container {
    pub(super) folder: Folder,
    pub(super) layout: PathBuf,
    pub(super) tree: Tree,
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// Settings of its configuration, by name.
    pub(super) settings: BTreeMap<String, String>,
}

impl Folder {
    /// The folder, if a container was built into it.
    pub(super) fn find(image: &Path) -> Option<Self> {
        let bytes = image
            .is_dir()
            .then(|| read_file(&image.join("manifest.json"), MAX_JSON));
        let manifest = ContainerManifest::from_json(&bytes?.ok()?).ok()?;
        Some(Self {
            asked: image.to_owned(),
            manifest,
        })
    }
}

impl Engine {
    /// Applies the layers of an image; the data of its files go into a temporary file that becomes one of `blobs`.
    pub(super) fn read_container(
        &self,
        folder: Folder,
        blobs: &mut BlobTable,
    ) -> Result<Container, EngineError> {
        let layout = folder.asked.join(LAYOUT_DIR);
        let context = || format!("cannot look into {}", layout.display());
        let request = OciRequest {
            place: OciPlace::Layout {
                path: layout.clone(),
                asked: layout.display().to_string(),
                tag: None,
            },
            arch: Arch::X86_64,
        };
        let spool = tempfile::tempfile().or_fail(ErrorKind::Failed, context)?;
        let kept = spool.try_clone().or_fail(ErrorKind::Failed, context)?;
        let room = rustix::fs::fstatvfs(&spool)
            .map_err(std::io::Error::from)
            .or_fail(ErrorKind::Failed, context)?;
        let room = room.f_bavail.saturating_mul(room.f_frsize) / 10 * 9;
        let failed = |error| source_error(error, context());
        let (resolved, diff) = self.with_oci(true, threads(), MOST_BYTES.min(room), |ctx| {
            let resolved = amiforge_source::oci::resolve(&request, ctx).map_err(failed)?;
            if resolved.manifest != folder.manifest.digest {
                let message = format!(
                    "{}: it is not the image of {}",
                    context(),
                    folder.manifest.image_id
                );
                return Err(EngineError::new(ErrorKind::Invalid, message));
            }
            let fetched = amiforge_source::oci::fetch(&request, &resolved, ctx).map_err(failed)?;
            let diff = amiforge_source::oci::unpack(&resolved, &fetched, spool, blobs, ctx);
            Ok((resolved, diff.map_err(failed)?))
        })?;
        let mut tree = Tree::new(Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        });
        tree.apply(&diff).or_fail(ErrorKind::Failed, context)?;
        let bytes = kept.metadata().or_fail(ErrorKind::Failed, context)?.len();
        Ok(Container {
            folder,
            layout,
            tree,
            bytes,
            settings: settings(&resolved.run),
        })
    }
}

/// The members of `config` of an OCI configuration. Variables and labels are settings each.
fn settings(run: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |name: String, value: &str| {
        all.insert(shown(name.as_bytes()), shown(value.as_bytes()));
    };
    for (member, value) in run.as_object().into_iter().flatten() {
        match (member.as_str(), value) {
            (_, Value::Null) => {}
            ("Env", Value::Array(list)) => {
                for text in list.iter().filter_map(Value::as_str) {
                    let (name, value) = text.split_once('=').unwrap_or((text, ""));
                    add(format!("Env {name}"), value);
                }
            }
            ("Labels", Value::Object(labels)) => {
                for (name, value) in labels {
                    add(format!("Labels {name}"), &text_of(value));
                }
            }
            // Sets, in the form of JSON.
            ("ExposedPorts" | "Volumes", Value::Object(names)) => {
                let names: Vec<&str> = names.keys().map(String::as_str).collect();
                add(member.clone(), &names.join(" "));
            }
            (_, value) => add(member.clone(), &text_of(value)),
        }
    }
    all
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_names_of_their_own_and_drive_no_terminal() {
        let run = serde_json::json!({
            "Env": ["PATH=/bin", "A=b=c", "EMPTY"], "Labels": {"org.x": "1\u{1b}[2J"},
            "Cmd": ["sh", "-c"], "User": "12", "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
            "Volumes": null, "StopSignal": "INT",
        });
        let all = settings(&run);
        let rows: Vec<(&str, &str)> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            rows,
            [
                ("Cmd", "[\"sh\",\"-c\"]"),
                ("Env A", "b=c"),
                ("Env EMPTY", ""),
                ("Env PATH", "/bin"),
                ("ExposedPorts", "80/tcp 81/udp"),
                ("Labels org.x", "1\\u{1b}[2J"),
                ("StopSignal", "INT"),
                ("User", "12"),
            ]
        );
        assert!(settings(&Value::Null).is_empty());
    }
}
