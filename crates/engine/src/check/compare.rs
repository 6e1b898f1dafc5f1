//! Two builds of one plan, layer by layer and file by file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use amiforge_plan::Plan;
use amiforge_store::Store;
use amiforge_tree::{Inode, Kind, LayerDiff, LayerEntry};
use amiforge_types::BlobTable;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::{MAX_JSON, read_file};
use crate::layers::Touched;
use crate::shown::{hex, path as shown_path, shown};

/// Bytes of each side that are shown where two files part.
const WINDOW: usize = 16;

/// A layer of both builds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedLayer {
    /// Its id, which is the same in both.
    pub id: String,
    /// For people.
    pub title: String,
    /// The component that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Whether its bytes are the same.
    pub same: bool,
    /// What is not, by path.
    pub differences: Vec<Difference>,
}

/// A file of a layer that is not the same.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// In the image.
    pub path: String,
    /// What differs: `added`, `removed`, `type`, `mode`, `owner`, `mtime`, `content`, `target`, `device`, `xattrs`, `flags`, `link`.
    pub aspect: &'static str,
    /// The step of the component that changed it last, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Of `content`, where the first byte is that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// In the first build; of `content`, some bytes from `offset` in hexadecimal.
    pub first: Option<String>,
    /// In the second.
    pub second: Option<String>,
}

impl Difference {
    pub(super) fn text(&self) -> String {
        let none = || "nothing".to_owned();
        let first = self.first.clone().unwrap_or_else(none);
        let second = self.second.clone().unwrap_or_else(none);
        let at = self.offset.map(|at| format!(" from byte {at}"));
        let step = self.step.as_ref().map(|step| format!(" (step {step})"));
        format!(
            "{}{}: {}{}: first {first}, then {second}",
            self.path,
            step.unwrap_or_default(),
            self.aspect,
            at.unwrap_or_default()
        )
    }
}

/// A file of both output folders.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedFile {
    /// Its name in the folder.
    pub file: String,
    /// Whether its bytes are the same; of the manifest, all but what was proven of the first image.
    pub same: bool,
    /// How it differs, in a few words; empty where it does not.
    pub what: String,
}

pub(super) fn compare_layers(
    first: &Store,
    second: &Store,
    plan: &Plan,
) -> Result<Vec<CheckedLayer>, EngineError> {
    let mut checked = Vec::new();
    for planned in &plan.layers {
        let context = || format!("cannot compare the layer {}", planned.title);
        let mut blobs = BlobTable::new();
        let mut read = |store: &Store| {
            let layer = store
                .layer(planned.id, &mut blobs)
                .or_fail(ErrorKind::Failed, context)?;
            layer.ok_or_else(|| {
                let message = format!("the layer {} is in one store only", planned.title);
                EngineError::new(ErrorKind::Failed, message)
            })
        };
        let (a, b) = (read(first)?, read(second)?);
        let mut differences = Vec::new();
        if a.info.digest != b.info.digest {
            differences =
                compare_diffs(&a.diff, &b.diff, &blobs).or_fail(ErrorKind::Failed, context)?;
            // The first may be of a program that took no note of it.
            let touched = [second, first].map(|store| Touched::read(store, planned.id));
            for difference in &mut differences {
                let found = touched.iter().find_map(|t| t.step(&difference.path));
                difference.step = found.map(str::to_owned);
            }
        }
        let component = plan.component_of(planned).map(|c| shown(c.name.as_bytes()));
        checked.push(CheckedLayer {
            id: planned.id.to_string(),
            title: planned.title.clone(),
            component,
            same: a.info.digest == b.info.digest,
            differences,
        });
    }
    Ok(checked)
}

fn compare_diffs(
    first: &LayerDiff,
    second: &LayerDiff,
    blobs: &BlobTable,
) -> io::Result<Vec<Difference>> {
    let paths: BTreeSet<&Vec<u8>> = first.entries.keys().chain(second.entries.keys()).collect();
    let mut all = Vec::new();
    for path in paths {
        let (a, b) = (first.entries.get(path), second.entries.get(path));
        compare_entries(&shown_path(path), a, b, blobs, &mut all)?;
    }
    Ok(all)
}

fn compare_entries(
    path: &str,
    a: Option<&LayerEntry>,
    b: Option<&LayerEntry>,
    blobs: &BlobTable,
    all: &mut Vec<Difference>,
) -> io::Result<()> {
    let mut add = |aspect, offset, first, second| {
        all.push(Difference {
            path: path.to_owned(),
            aspect,
            step: None,
            offset,
            first,
            second,
        });
    };
    let (x, y) = match (a, b) {
        (Some(a), None) => {
            add("removed", None, Some(entry_word(a)), None);
            return Ok(());
        }
        (None, Some(b)) => {
            add("added", None, None, Some(entry_word(b)));
            return Ok(());
        }
        (Some(LayerEntry::Put(x)), Some(LayerEntry::Put(y)))
        | (Some(LayerEntry::PutOpaque(x)), Some(LayerEntry::PutOpaque(y))) => (x, y),
        (Some(LayerEntry::Link(x)), Some(LayerEntry::Link(y))) => {
            if x != y {
                add("link", None, Some(shown_path(x)), Some(shown_path(y)));
            }
            return Ok(());
        }
        (Some(LayerEntry::Whiteout), Some(LayerEntry::Whiteout)) | (None, None) => return Ok(()),
        (Some(a), Some(b)) => {
            add("type", None, Some(entry_word(a)), Some(entry_word(b)));
            return Ok(());
        }
    };
    let mut rows: Vec<(&'static str, String, String)> = vec![
        (
            "mode",
            format!("{:04o}", x.stat.mode),
            format!("{:04o}", y.stat.mode),
        ),
        (
            "owner",
            format!("{}:{}", x.stat.uid, x.stat.gid),
            format!("{}:{}", y.stat.uid, y.stat.gid),
        ),
        ("mtime", x.stat.mtime.to_string(), y.stat.mtime.to_string()),
        ("xattrs", xattrs(x), xattrs(y)),
        ("flags", x.flags.to_string(), y.flags.to_string()),
        (
            "type",
            kind_word(&x.kind).to_owned(),
            kind_word(&y.kind).to_owned(),
        ),
    ];
    match (&x.kind, &y.kind) {
        (Kind::Symlink(a), Kind::Symlink(b)) => rows.push(("target", shown(a), shown(b))),
        (
            Kind::CharDev { .. } | Kind::BlockDev { .. },
            Kind::CharDev { .. } | Kind::BlockDev { .. },
        ) => rows.push(("device", format!("{:?}", x.kind), format!("{:?}", y.kind))),
        (Kind::File(a), Kind::File(b)) => {
            let parted = part(a.reader(blobs), b.reader(blobs))?;
            if let Some((offset, a, b)) = parted {
                add("content", Some(offset), Some(bytes(&a)), Some(bytes(&b)));
            }
        }
        _ => {}
    }
    for (aspect, a, b) in rows {
        if a != b {
            add(aspect, None, Some(a), Some(b));
        }
    }
    Ok(())
}

fn bytes(bytes: &[u8]) -> String {
    match bytes.is_empty() {
        true => "the end".to_owned(),
        false => hex(bytes),
    }
}

fn xattrs(inode: &Inode) -> String {
    let all = inode.xattrs.iter();
    let all: Vec<String> = all
        .map(|(name, value)| format!("{}={}", shown(name), hex(value)))
        .collect();
    all.join(" ")
}

fn entry_word(entry: &LayerEntry) -> String {
    match entry {
        LayerEntry::Put(inode) => kind_word(&inode.kind).to_owned(),
        LayerEntry::PutOpaque(_) => "a new directory".to_owned(),
        LayerEntry::Link(path) => format!("a name of {}", shown_path(path)),
        LayerEntry::Whiteout => "its removal".to_owned(),
    }
}

const fn kind_word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Dir => "directory",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symlink",
        Kind::CharDev { .. } => "char",
        Kind::BlockDev { .. } => "block",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// Where two texts part, with the bytes from there on.
type Parted = Option<(u64, Vec<u8>, Vec<u8>)>;

fn part(mut a: impl Read, mut b: impl Read) -> io::Result<Parted> {
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at: u64 = 0;
    loop {
        let (n, m) = (fill(&mut a, &mut x)?, fill(&mut b, &mut y)?);
        let (left, right) = (&x[..n], &y[..m]);
        if left != right {
            let same = left.iter().zip(right).take_while(|(a, b)| a == b).count();
            let window = |side: &[u8]| side[same..side.len().min(same + WINDOW)].to_vec();
            return Ok(Some((at + same as u64, window(left), window(right))));
        }
        if n == 0 {
            return Ok(None);
        }
        at += n as u64;
    }
}

/// As much as there is, up to the length of the buffer.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Files of an output folder that have times in them, or follow from the others.
fn is_decided(name: &str) -> bool {
    !(name.starts_with("logs/")
        || name == "SHA256SUMS"
        || name == "boot-report.json"
        || (name.starts_with("console-") && name.ends_with(".log")))
}

pub(super) fn compare_files(first: &Path, second: &Path) -> Result<Vec<CheckedFile>, EngineError> {
    let context = || format!("cannot compare {}", first.display());
    let mut names = BTreeMap::new();
    for (side, folder) in [first, second].into_iter().enumerate() {
        let mut found = Vec::new();
        list(folder, "", &mut found).or_fail(ErrorKind::Failed, context)?;
        for name in found.into_iter().filter(|name| is_decided(name)) {
            names.entry(name).or_insert([false; 2])[side] = true;
        }
    }
    let mut checked = Vec::new();
    for (name, there) in names {
        let what = match there {
            [true, false] => "only the first build has it".to_owned(),
            [false, _] => "only the second build has it".to_owned(),
            [true, true] => {
                compare_file(first, second, &name).or_fail(ErrorKind::Failed, context)?
            }
        };
        checked.push(CheckedFile {
            same: what.is_empty(),
            file: shown(name.as_bytes()),
            what,
        });
    }
    Ok(checked)
}

fn compare_file(first: &Path, second: &Path, name: &str) -> io::Result<String> {
    let parted = if name == "manifest.json" {
        let read = |folder: &Path| -> io::Result<Vec<u8>> {
            let bytes = read_file(&folder.join(name), MAX_JSON).map_err(io::Error::other)?;
            let mut manifest: Value = serde_json::from_slice(&bytes)?;
            // Proofs and tests are of the first alone.
            if let Some(members) = manifest.as_object_mut() {
                members.remove("bootProof");
                members.remove("tests");
                // How layers were made that may come from the store says nothing about their bytes.
                let layers = members.get_mut("layers").and_then(Value::as_array_mut);
                for layer in layers.into_iter().flatten() {
                    layer.as_object_mut().map(|layer| layer.remove("ran"));
                }
            }
            Ok(serde_json::to_vec_pretty(&manifest)?)
        };
        part(read(first)?.as_slice(), read(second)?.as_slice())?
    } else {
        let open = |folder: &Path| File::open(folder.join(name)).map(BufReader::new);
        part(open(first)?, open(second)?)?
    };
    Ok(parted.map_or_else(String::new, |(at, a, b)| {
        format!(
            "differs from byte {at}: first {}, then {}",
            bytes(&a),
            bytes(&b)
        )
    }))
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type()?.is_dir() {
            true => list(&entry.path(), &format!("{name}/"), names)?,
            false => names.push(name),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_part_at_the_first_byte_that_differs_or_at_an_end() {
        let parted = |a: &[u8], b: &[u8]| part(a, b).unwrap();
        assert_eq!(parted(b"same", b"same"), None);
        assert_eq!(
            parted(b"one two", b"one TWO"),
            Some((4, b"two".to_vec(), b"TWO".to_vec()))
        );
        assert_eq!(parted(b"ab", b"abc"), Some((2, Vec::new(), b"c".to_vec())));
        let long = vec![7; (1 << 20) + 3];
        let mut other = long.clone();
        other[(1 << 20) + 1] = 8;
        let (at, a, b) = part(&*long, &*other).unwrap().unwrap();
        assert_eq!((at, a.len(), b), ((1 << 20) + 1, 2, vec![8, 7]));
    }

    #[test]
    fn what_follows_from_times_is_not_compared() {
        for name in [
            "logs/TOE_x/console.log",
            "SHA256SUMS",
            "console-uefi.log",
            "boot-report.json",
        ] {
            assert!(!is_decided(name), "{name}");
        }
        for name in [
            "disk.raw",
            "manifest.json",
            "lock.json",
            "oci/index.json",
            "packages.json",
        ] {
            assert!(is_decided(name), "{name}");
        }
    }
}
