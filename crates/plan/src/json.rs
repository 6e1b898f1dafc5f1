//! Canonical JSON, and `plan.json` in both directions.

use std::fmt::Write as _;

use amiforge_types::Digest;
use serde_json::Value;

use crate::plan::{Plan, SCHEMA_VERSION};

/// The longest `plan.json` that is read, in bytes.
const MOST_BYTES: usize = 64 << 20;

/// A `plan.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More bytes than any plan has.
    #[error("the plan has {bytes} bytes, at most {MOST_BYTES} are read")]
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// Not JSON, or not of this shape.
    #[error("the plan cannot be read")]
    Json(#[source] serde_json::Error),
    /// Written by another version of amiforge.
    #[error("the plan has schema version {found}, this program reads {SCHEMA_VERSION}")]
    Version {
        /// What it says.
        found: String,
    },
    /// An id is not the digest of what it names.
    #[error("the id of {what} does not fit its inputs: the plan was changed by hand or damaged")]
    WrongId {
        /// The layer's title, or `the plan`.
        what: String,
    },
    /// A layer does not stand on the one below it.
    #[error("layer {title:?} does not stand on the layer before it")]
    BrokenChain {
        /// The layer's title.
        title: String,
    },
    /// A layer or component points at something that is not in the plan.
    #[error("{what} points at something that the plan does not have")]
    Dangling {
        /// The layer's title or the component's name.
        what: String,
    },
}

impl Plan {
    /// `plan.json`: indented, fields sorted, a final line break. The same plan gives the same bytes.
    ///
    /// # Errors
    /// None in practice: a plan has only text keys.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let value = sorted(serde_json::to_value(self)?);
        let mut text = serde_json::to_string_pretty(&value)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads `plan.json` and checks every id in it.
    ///
    /// # Errors
    /// [`ReadError`] says what is wrong.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        if text.len() > MOST_BYTES {
            return Err(ReadError::TooLarge { bytes: text.len() });
        }
        let value: Value = serde_json::from_str(text).map_err(ReadError::Json)?;
        let version = value.get("schemaVersion").unwrap_or(&Value::Null);
        if *version != SCHEMA_VERSION {
            let found = version.to_string().chars().take(40).collect();
            return Err(ReadError::Version { found });
        }
        // From the text again: errors of `from_str` have a line and column.
        let plan: Self = serde_json::from_str(text).map_err(ReadError::Json)?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), ReadError> {
        let mut below = None;
        for layer in &self.layers {
            if layer.parent != below {
                return Err(ReadError::BrokenChain {
                    title: layer.title.clone(),
                });
            }
            if !layer.id_fits() {
                return Err(ReadError::WrongId {
                    what: format!("layer {:?}", layer.title),
                });
            }
            below = Some(layer.id);
            if let crate::LayerKind::Component { index } = layer.kind
                && self
                    .components
                    .get(index)
                    .is_none_or(|c| c.layer != Some(layer.id))
            {
                return Err(ReadError::Dangling {
                    what: format!("layer {:?}", layer.title),
                });
            }
        }
        for component in &self.components {
            if component.layer.is_some_and(|id| self.layer(id).is_none()) {
                return Err(ReadError::Dangling {
                    what: format!("component {:?}", component.name),
                });
            }
        }
        if self.plan_id != self.computed_id() {
            return Err(ReadError::WrongId {
                what: "the plan".to_owned(),
            });
        }
        Ok(())
    }
}

/// The digest's text with its algorithm, as inputs hold it.
pub(crate) fn digest_text(digest: Digest) -> String {
    format!("sha256:{digest}")
}

/// Compact JSON with fields sorted by their UTF-8 bytes; what ids are digests of.
///
/// Numbers are written as `serde_json` does; ids hold only text and `null`.
#[must_use]
pub fn canonical_json(value: &Value) -> Vec<u8> {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out.into_bytes()
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut names: Vec<_> = fields.iter().collect();
            names.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (name, field)) in names.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(&Value::String(name.clone()), out);
                out.push(':');
                write_canonical(field, out);
            }
            out.push('}');
        }
        scalar => {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "{scalar}");
        }
    }
}

/// The value with the fields of every object sorted.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .into_iter()
                .map(|(name, field)| (name, sorted(field)))
                .collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        scalar => scalar,
    }
}
