//! The configuration of an image (image-spec 1.1, config.md), with the members that Docker adds to it
//! (docker image spec 1.3: `Healthcheck`, `Shell`). Readers pass over members that they do not know.

use std::collections::{BTreeMap, BTreeSet};

use amiforge_types::{Arch, Digest, Timestamp};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// How a container of the image is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// User or user id, with or without a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `80/tcp`, each.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", serialize_with = "as_keys")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, or the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Folders that get a volume.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", serialize_with = "as_keys")]
    pub volumes: BTreeSet<String>,
    /// The folder that the program starts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Free data.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that ends the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to see whether it works; Docker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What later builds run the shell form of instructions with; Docker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

impl RunConfig {
    /// Reads the member `config` of a configuration; null is that of an image that says nothing. Lists and maps may be
    /// null, as Go writes empty ones, and members that are not known are passed over.
    ///
    /// # Errors
    /// Says which member is not of its type.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        use serde_json::Value;
        let get = |name: &'static str| value.get(name).filter(|v| !v.is_null());
        let bad =
            |name: &str| format!("{name} of the image's configuration is not what it should be");
        let text = |name| match get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|t| !t.is_empty())),
            Some(_) => Err(bad(name)),
        };
        let texts = |name, value: Option<&Value>| -> Result<Option<Vec<String>>, String> {
            let Some(value) = value else { return Ok(None) };
            let list = value.as_array().ok_or_else(|| bad(name))?;
            let texts = list.iter().map(|v| v.as_str().map(str::to_owned));
            texts
                .collect::<Option<_>>()
                .map(Some)
                .ok_or_else(|| bad(name))
        };
        let keys = |name| -> Result<BTreeSet<String>, String> {
            let Some(value) = get(name) else {
                return Ok(BTreeSet::new());
            };
            let map = value.as_object().ok_or_else(|| bad(name))?;
            Ok(map.keys().cloned().collect())
        };
        let mut labels = BTreeMap::new();
        if let Some(value) = get("Labels") {
            for (name, value) in value.as_object().ok_or_else(|| bad("Labels"))? {
                let value = value.as_str().ok_or_else(|| bad("Labels"))?;
                labels.insert(name.clone(), value.to_owned());
            }
        }
        let healthcheck = match get("Healthcheck") {
            None => None,
            Some(value) => {
                let time = |name| value.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
                Some(Healthcheck {
                    test: texts("Healthcheck", value.get("Test").filter(|v| !v.is_null()))?
                        .unwrap_or_default(),
                    interval: time("Interval"),
                    timeout: time("Timeout"),
                    start_period: time("StartPeriod"),
                    start_interval: time("StartInterval"),
                    retries: time("Retries").and_then(|n| n.try_into().ok()),
                })
            }
        };
        Ok(Self {
            user: text("User")?,
            exposed_ports: keys("ExposedPorts")?,
            env: texts("Env", get("Env"))?.unwrap_or_default(),
            entrypoint: texts("Entrypoint", get("Entrypoint"))?,
            cmd: texts("Cmd", get("Cmd"))?,
            volumes: keys("Volumes")?,
            working_dir: text("WorkingDir")?,
            labels,
            stop_signal: text("StopSignal")?,
            healthcheck,
            shell: texts("Shell", get("Shell"))?,
        })
    }
}

/// Docker's check of a running container. Times are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, or `CMD` or `CMD-SHELL` and the command.
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
    /// For one check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// For the program to get ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<u64>,
    /// Between two checks while it gets ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<u64>,
    /// So many failures in a row make it unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// A step of the image's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct History {
    /// The build clock.
    #[serde(serialize_with = "as_text")]
    pub created: Timestamp,
    /// What made it.
    pub created_by: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It changed the configuration alone, and made no layer.
    #[serde(skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// The configuration. Its digest is what Docker calls the id of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// The build clock.
    pub created: Timestamp,
    /// Who keeps it.
    pub author: Option<String>,
    /// The processor that it is for.
    pub architecture: Arch,
    /// How to start it.
    pub run: RunConfig,
    /// In order; as many without `empty_layer` as there are layers.
    pub history: Vec<History>,
}

impl ImageConfig {
    /// The bytes of the document, for layers whose uncompressed archives have these digests.
    pub(crate) fn to_json(&self, diff_ids: &[Digest]) -> Vec<u8> {
        #[derive(Serialize)]
        struct RootFs {
            r#type: &'static str,
            diff_ids: Vec<String>,
        }
        #[derive(Serialize)]
        struct Document<'a> {
            created: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            author: Option<&'a str>,
            architecture: &'static str,
            os: &'static str,
            config: &'a RunConfig,
            rootfs: RootFs,
            history: &'a [History],
        }
        let document = Document {
            created: self.created.to_string(),
            author: self.author.as_deref(),
            // GOARCH, which Debian's names are for these two.
            architecture: self.architecture.debian(),
            os: "linux",
            config: &self.run,
            rootfs: RootFs {
                r#type: "layers",
                diff_ids: diff_ids.iter().map(crate::manifest::sha256).collect(),
            },
            history: &self.history,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn as_text<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

/// Go's way to write a set: every element with an empty object.
fn as_keys<S: Serializer>(set: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(set.len()))?;
    for key in set {
        map.serialize_entry(key, &serde_json::Map::new())?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let run = RunConfig {
            user: Some("app".to_owned()),
            exposed_ports: BTreeSet::from(["80/tcp".to_owned()]),
            env: vec!["A=b=c".to_owned()],
            entrypoint: Some(vec!["/init".to_owned()]),
            cmd: Some(Vec::new()),
            volumes: BTreeSet::from(["/data".to_owned()]),
            working_dir: Some("/srv".to_owned()),
            labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            stop_signal: Some("SIGINT".to_owned()),
            healthcheck: Some(Healthcheck {
                test: vec!["CMD".to_owned(), "true".to_owned()],
                interval: Some(1_000_000_000),
                retries: Some(3),
                ..Healthcheck::default()
            }),
            shell: None,
        };
        let json = serde_json::to_value(&run).unwrap();
        assert_eq!(RunConfig::from_json(&json), Ok(run));
        // As Docker writes what is not set.
        let empty = serde_json::json!({"User": "", "Env": null, "Cmd": null, "Labels": null, "OnBuild": null, "Image": ""});
        assert_eq!(RunConfig::from_json(&empty), Ok(RunConfig::default()));
        assert_eq!(
            RunConfig::from_json(&serde_json::Value::Null),
            Ok(RunConfig::default())
        );
        for bad in [
            serde_json::json!({"Env": "A=b"}),
            serde_json::json!({"Env": [1]}),
            serde_json::json!({"User": 0}),
            serde_json::json!({"Labels": {"a": 1}}),
            serde_json::json!({"Volumes": ["/data"]}),
        ] {
            assert!(RunConfig::from_json(&bad).is_err(), "{bad}");
        }
    }
}
