//! What an entry of a shared cache says, and who says it. See `docs/shared-cache.md`.

use std::collections::BTreeMap;

use amiforge_source::{MAX_ENTRY, SharedBlob};
use amiforge_types::{Digest, LayerId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::{CacheWriter, WriterKey};

/// Version of entries: of the envelope, of what is signed, and of how a blob is packed.
const FORMAT: u32 = 1;
/// What stands before everything that is signed, so that no signature of this key means anything else.
const SIGNED_AS: &str = "amiforge-cache-entry";

/// What an entry is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "key")]
pub(super) enum Subject {
    /// A layer, by its id.
    Layer(Digest),
    /// A validate phase that passed, by the second half of the key of its record.
    Validated(Digest),
}

impl Subject {
    pub(super) fn layer(id: LayerId) -> Self {
        Self::Layer(id.0)
    }

    /// Of a record's key; `None` of one that has another form.
    pub(super) fn validated(key: &str) -> Option<Self> {
        let (_, digest) = key.split_once('.')?;
        digest.parse().ok().map(Self::Validated)
    }

    /// The name under which the last writer's entry is.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Layer(id) => format!("layer-{id}"),
            Self::Validated(key) => format!("validated-{key}"),
        }
    }

    /// The name of the entry of one writer, whoever else writes.
    pub(super) fn name_by(&self, writer: &CacheWriter) -> String {
        format!("{}.{}", self.name(), writer.short())
    }
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(rename = "of")]
    pub(super) subject: Subject,
    /// For people.
    #[serde(default)]
    pub(super) title: String,
    /// Of a layer, its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) layer: Option<PackedLayer>,
    /// Records that go with it, by their kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) records: BTreeMap<String, Value>,
}

/// A layer file, packed with zstd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PackedLayer {
    /// The digest that the layer file has of itself.
    pub(super) digest: Digest,
    /// Bytes of the layer file.
    pub(super) bytes: u64,
    /// SHA-256 of the packed file.
    pub(super) packed_digest: Digest,
    /// Bytes of the packed file.
    pub(super) packed_bytes: u64,
}

impl PackedLayer {
    pub(super) fn blob(&self) -> SharedBlob {
        SharedBlob {
            digest: self.packed_digest,
            bytes: self.packed_bytes,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    format: u32,
    writer: String,
    signature: String,
    /// JSON text; signed as it stands here.
    payload: String,
}

/// Why a document is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody told us to trust who signed it.
    Unknown(Box<CacheWriter>),
    /// It is of another version.
    Version(u64),
    /// It is not what it should be.
    Bad(String),
}

fn message(payload: &str) -> Vec<u8> {
    format!("{SIGNED_AS}\n{FORMAT}\n{payload}").into_bytes()
}

impl Entry {
    /// The signed document; `None` when it is larger than any that is read.
    pub(super) fn sign(&self, key: &WriterKey) -> Option<Vec<u8>> {
        let payload = serde_json::to_string(self).ok()?;
        let signature = key.sign(&message(&payload));
        let envelope = Envelope {
            format: FORMAT,
            writer: key.writer().to_string(),
            signature: hex(&signature),
            payload,
        };
        let mut bytes = serde_json::to_vec_pretty(&envelope).ok()?;
        bytes.push(b'\n');
        (bytes.len() as u64 <= MAX_ENTRY).then_some(bytes)
    }

    /// Reads a document about `subject`. Nothing of it is looked at before its signature is one of a trusted writer.
    pub(super) fn open(
        document: &[u8],
        subject: &Subject,
        trusted: &[CacheWriter],
    ) -> Result<Self, Refusal> {
        let bad = |reason: String| Refusal::Bad(reason);
        let value: Value = serde_json::from_slice(document)
            .map_err(|e| bad(format!("not an entry of a cache: {e}")))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(Refusal::Version(format)),
            None => return Err(bad("not an entry of a cache".to_owned())),
        }
        let envelope: Envelope = serde_json::from_value(value)
            .map_err(|e| bad(format!("not an entry of a cache: {e}")))?;
        let writer: CacheWriter = envelope
            .writer
            .parse()
            .map_err(|why| bad(format!("its writer: {why}")))?;
        if !trusted.contains(&writer) {
            return Err(Refusal::Unknown(Box::new(writer)));
        }
        let signature = unhex(&envelope.signature);
        let message = message(&envelope.payload);
        if !signature.is_some_and(|signature| writer.signed(&message, &signature)) {
            return Err(bad(format!("its signature is not of {writer}")));
        }
        let entry: Self = serde_json::from_str(&envelope.payload)
            .map_err(|e| bad(format!("what is signed cannot be read: {e}")))?;
        match entry.subject == *subject {
            true => Ok(entry),
            false => Err(bad(format!("it is the entry {}", entry.subject.name()))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 64]> {
    if text.len() != 128 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 64];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            subject: Subject::Layer(Digest::of(b"layer")),
            title: "web".to_owned(),
            layer: Some(PackedLayer {
                digest: Digest::of(b"index"),
                bytes: 5000,
                packed_digest: Digest::of(b"packed"),
                packed_bytes: 400,
            }),
            records: BTreeMap::from([(
                "build-results".to_owned(),
                serde_json::json!({"version": 1}),
            )]),
        }
    }

    #[test]
    fn the_form_is_pinned() {
        let key = WriterKey::of(7);
        let document = entry().sign(&key).unwrap();
        // Ed25519 is deterministic: a change here is a change of the format, which then needs another number.
        assert_eq!(
            Digest::of(&document).hex(),
            "79603a21d60479fd1d38896c97f93e56f9ca5067f501dfada256f0b44a267d29",
            "{}",
            String::from_utf8_lossy(&document)
        );
        let read = Entry::open(&document, &entry().subject, &[key.writer()]).unwrap();
        assert_eq!(read, entry());
    }

    #[test]
    fn nothing_but_what_a_trusted_writer_signed() {
        let (ours, theirs) = (WriterKey::of(1), WriterKey::of(2));
        let trusted = [ours.writer()];
        let subject = entry().subject;
        let good = entry().sign(&ours).unwrap();
        let open = |document: &[u8], subject: &Subject| Entry::open(document, subject, &trusted);
        assert!(open(&good, &subject).is_ok());
        let foreign = entry().sign(&theirs).unwrap();
        assert_eq!(
            open(&foreign, &subject),
            Err(Refusal::Unknown(Box::new(theirs.writer())))
        );
        // The entry of another layer, or of another kind with the same key.
        let Subject::Layer(id) = subject else {
            unreachable!()
        };
        for other in [Subject::Layer(Digest::of(b"x")), Subject::Validated(id)] {
            let refused = open(&good, &other);
            assert!(
                matches!(&refused, Err(Refusal::Bad(why)) if why.contains("layer-")),
                "{refused:?}"
            );
        }
        // Every change of what is signed, of the signature, and a foreign one under our name.
        let text = String::from_utf8(good).unwrap();
        let name = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}: {text}");
            text.replace(from, to)
        };
        let forged = String::from_utf8(foreign).unwrap();
        let forged = forged.replace(&theirs.writer().to_string(), &ours.writer().to_string());
        let packed = Digest::of(b"packed").hex();
        for changed in [
            name("5000", "5001"),
            name(&packed, &Digest::of(b"other").hex()),
            name("web", "wab"),
            name("\"signature\": \"", "\"signature\": \"00"),
            forged,
        ] {
            let refused = open(changed.as_bytes(), &subject);
            assert!(
                matches!(&refused, Err(Refusal::Bad(why)) if why.contains("signature")),
                "{refused:?}"
            );
        }
        assert_eq!(
            open(name("\"format\": 1", "\"format\": 2").as_bytes(), &subject),
            Err(Refusal::Version(2))
        );
        for junk in [
            "",
            "{}",
            "[]",
            "{\"format\": 1}",
            "\u{0}",
            &"[".repeat(100_000),
        ] {
            assert!(matches!(
                open(junk.as_bytes(), &subject),
                Err(Refusal::Bad(_))
            ));
        }
        // One byte less anywhere near the end, or any prefix.
        for cut in [1, 2, 10, 100, text.len() - 1] {
            assert!(open(&text.as_bytes()[..text.len() - cut - 1], &subject).is_err());
        }
    }
}
