//! Where builds on several machines keep what they made for each other: a folder, or a repository of a registry.
//!
//! ```text
//! <folder>/v1/entries/<name>.json     small documents
//! <folder>/v1/blobs/<sha256>          what they tell of
//! ```
//!
//! This is transport alone: a blob is what its digest says or an error, a document is bytes that anybody may have written.
//! Who wrote it and what it means is the caller's to find out, before anything of it is used.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use amiforge_types::{Digest, Hasher};

use crate::SourceError;
use crate::oci::{OciContext, Reference, Repository};
use crate::transfer::{Patience, Transfer};

/// Largest document of an entry.
pub const MAX_ENTRY: u64 = 4 << 20;

/// A cache that does not answer is given up soon: whatever it has can be made here.
const PATIENCE: Patience = Patience {
    attempts: 3,
    answer: Duration::from_secs(10),
    ..Patience::NORMAL
};

/// Where a shared cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedPlace {
    /// A folder: a disk of the network, or what a bucket is mounted on.
    Folder(PathBuf),
    /// A repository of a registry.
    Registry(Reference),
}

impl FromStr for SharedPlace {
    type Err = String;

    /// `oci:<registry>/<repository>`, `dir:<path>`, or a path.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(name) = text.strip_prefix("oci:") else {
            let path = text.strip_prefix("dir:").unwrap_or(text);
            return match path {
                "" => Err("it names no folder".to_owned()),
                path => Ok(Self::Folder(PathBuf::from(path))),
            };
        };
        let last = name.rsplit('/').next().unwrap_or_default();
        if name.contains('@') || (name.contains('/') && last.contains(':')) {
            return Err("a cache is a repository, without a tag or digest".to_owned());
        }
        name.parse()
            .map(Self::Registry)
            .map_err(|e| format!("{name} is no repository: {e}"))
    }
}

impl fmt::Display for SharedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "dir:{}", path.display()),
            Self::Registry(reference) => write!(f, "oci:{}", reference.name()),
        }
    }
}

/// What a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBlob {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many.
    pub bytes: u64,
}

/// An entry to be put.
#[derive(Clone, Copy, Debug)]
pub struct SharedEntry<'e> {
    /// The names that it gets, the last after all else: letters, digits, `-`, `_` and `.`, at most 128.
    pub names: &'e [String],
    /// At most [`MAX_ENTRY`] bytes.
    pub document: &'e [u8],
    /// What the document tells of, and the file that has it.
    pub blob: Option<(SharedBlob, &'e Path)>,
    /// Write a blob of a folder although there is one: it may be damaged.
    pub again: bool,
}

/// A cache that can be asked, by several threads.
pub struct SharedCache<'a>(Way<'a>);

enum Way<'a> {
    Folder(&'a Path),
    Registry(Repository<'a>),
}

/// Opens caches, those to be written with `true`, for as long as `work` takes.
///
/// # Errors
/// When the proxy of the context has no address.
pub fn with_shared<R>(
    places: &[(SharedPlace, bool)],
    ctx: &OciContext<'_>,
    work: impl FnOnce(&[SharedCache<'_>]) -> R,
) -> Result<R, SourceError> {
    let transfer = Transfer::new(ctx.base, PATIENCE);
    let mut caches = Vec::new();
    for (place, write) in places {
        caches.push(SharedCache(match place {
            SharedPlace::Folder(path) => Way::Folder(path),
            SharedPlace::Registry(reference) => {
                Way::Registry(Repository::new(&transfer, ctx, reference, *write)?)
            }
        }));
    }
    Ok(work(&caches))
}

impl SharedCache<'_> {
    /// Whether there is a blob of this digest and size. Its bytes are not read: they may be others.
    ///
    /// # Errors
    /// When the cache cannot be asked.
    pub fn has_blob(&self, blob: SharedBlob) -> Result<bool, SourceError> {
        match &self.0 {
            Way::Folder(folder) => Ok(has_file(&blob_path(folder, blob.digest), blob.bytes)),
            Way::Registry(repository) => repository.has_blob(blob),
        }
    }

    /// The document of an entry, which is what its writer wrote or anything else.
    ///
    /// # Errors
    /// When the cache cannot be asked, or the document is larger than [`MAX_ENTRY`].
    pub fn entry(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        match &self.0 {
            Way::Folder(folder) => read_small(&entry_path(folder, name)),
            Way::Registry(repository) => repository.entry(name),
        }
    }

    /// Copies a blob into the new file `dest`; `progress` gets the bytes of each piece. Whatever has another digest or
    /// size is an error, and leaves nothing.
    ///
    /// # Errors
    /// When the blob is not there, not what its digest says, or cannot be copied.
    pub fn bring(
        &self,
        blob: SharedBlob,
        dest: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(), SourceError> {
        match &self.0 {
            Way::Folder(folder) => {
                let copied = copy(&blob_path(folder, blob.digest), blob, dest, progress);
                if copied.is_err() {
                    let _ = std::fs::remove_file(dest);
                }
                copied
            }
            Way::Registry(repository) => repository.bring(blob, dest, progress),
        }
    }

    /// Puts an entry: the blob first, so that no entry is there without what it tells of.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, entry: &SharedEntry<'_>) -> Result<(), SourceError> {
        match &self.0 {
            Way::Folder(folder) => put_into(folder, entry),
            Way::Registry(repository) => repository.put(entry),
        }
    }
}

fn entry_path(folder: &Path, name: &str) -> PathBuf {
    folder.join("v1/entries").join(format!("{name}.json"))
}

fn blob_path(folder: &Path, digest: Digest) -> PathBuf {
    folder.join("v1/blobs").join(digest.hex())
}

/// Whether there is a regular file of so many bytes.
fn has_file(path: &Path, bytes: u64) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == bytes)
}

/// Opens a regular file: neither through a symbolic link nor a pipe that would make us wait.
fn open(path: &Path) -> Result<Option<File>, SourceError> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => {
            let reason = "a symbolic link";
            return Err(SourceError::malformed(path.display().to_string(), reason));
        }
        Err(e) => return Err(SourceError::io(path, e.into())),
    };
    let meta = file.metadata().map_err(|e| SourceError::io(path, e))?;
    match meta.is_file() {
        true => Ok(Some(file)),
        false => Err(SourceError::malformed(
            path.display().to_string(),
            "not a regular file",
        )),
    }
}

fn read_small(path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(MAX_ENTRY + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| SourceError::io(path, e))?;
    match bytes.len() as u64 > MAX_ENTRY {
        true => Err(SourceError::malformed(
            path.display().to_string(),
            format!("larger than {MAX_ENTRY} bytes"),
        )),
        false => Ok(Some(bytes)),
    }
}

fn copy(
    from: &Path,
    blob: SharedBlob,
    dest: &Path,
    progress: &dyn Fn(u64),
) -> Result<(), SourceError> {
    let shown = from.display().to_string();
    let Some(mut file) = open(from)? else {
        return Err(SourceError::NoFile { uri: shown });
    };
    let size = file.metadata().map_err(|e| SourceError::io(from, e))?.len();
    let wrong_size = |size: u64| {
        let reason = format!("{size} bytes, the entry says {}", blob.bytes);
        SourceError::malformed(&shown, reason)
    };
    if size != blob.bytes {
        return Err(wrong_size(size));
    }
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dest)
        .map_err(|e| SourceError::io(dest, e))?;
    let mut hasher = Hasher::new();
    let (mut buf, mut have) = (vec![0; 256 << 10], 0);
    loop {
        let n = match file.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(SourceError::io(from, e)),
        };
        have += n as u64;
        if have > blob.bytes {
            return Err(wrong_size(have));
        }
        hasher.update(&buf[..n]);
        out.write_all(&buf[..n])
            .map_err(|e| SourceError::io(dest, e))?;
        progress(n as u64);
    }
    if have != blob.bytes {
        return Err(wrong_size(have));
    }
    let got = hasher.finish();
    match got == blob.digest {
        true => Ok(()),
        false => Err(SourceError::Digest {
            uri: shown,
            expected: blob.digest,
            got,
        }),
    }
}

fn put_into(folder: &Path, entry: &SharedEntry<'_>) -> Result<(), SourceError> {
    // Layers have password hashes in them: whoever shares a folder opens it to others.
    if !folder.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| SourceError::io(folder, e))?;
    }
    for below in ["v1/entries", "v1/blobs"] {
        let dir = folder.join(below);
        std::fs::create_dir_all(&dir).map_err(|e| SourceError::io(&dir, e))?;
    }
    if let Some((blob, from)) = &entry.blob {
        let path = blob_path(folder, blob.digest);
        if entry.again || !has_file(&path, blob.bytes) {
            let mut from_file = File::open(from).map_err(|e| SourceError::io(*from, e))?;
            put_file(&path, |out| std::io::copy(&mut from_file, out).map(drop))?;
        }
    }
    for name in entry.names {
        put_file(&entry_path(folder, name), |out| {
            out.write_all(entry.document)
        })?;
    }
    Ok(())
}

/// Writes a file beside its place and renames it: nobody sees half of one.
fn put_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), SourceError> {
    let io = |e| SourceError::io(path, e);
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(io)?;
    write(temp.as_file_mut()).map_err(io)?;
    temp.as_file().sync_data().map_err(io)?;
    temp.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_their_names() {
        for (text, shown) in [
            ("dir:/mnt/cache", Ok("dir:/mnt/cache")),
            ("cache", Ok("dir:cache")),
            (
                "oci:127.0.0.1:5000/team/cache",
                Ok("oci:127.0.0.1:5000/team/cache"),
            ),
            ("oci:ghcr.io/team/cache", Ok("oci:ghcr.io/team/cache")),
            ("oci:ghcr.io/team/cache:tag", Err(())),
            ("oci:ghcr.io/TEAM", Err(())),
            ("dir:", Err(())),
            ("", Err(())),
        ] {
            let place: Result<SharedPlace, ()> = text.parse().map_err(|_: String| ());
            assert_eq!(
                place.map(|p| p.to_string()),
                shown.map(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn a_folder_gives_what_was_put_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        let file = dir.path().join("data");
        std::fs::write(&file, b"content").unwrap();
        let blob = SharedBlob {
            digest: Digest::of(b"content"),
            bytes: 7,
        };
        let cache = SharedCache(Way::Folder(&root));
        let names = ["layer-a".to_owned()];
        let entry = SharedEntry {
            names: &names,
            document: b"document",
            blob: Some((blob, &file)),
            again: false,
        };
        assert_eq!(cache.entry("layer-a").unwrap(), None);
        cache.put(&entry).unwrap();
        cache.put(&entry).unwrap();
        assert!(cache.has_blob(blob).unwrap());
        assert_eq!(cache.entry("layer-a").unwrap().unwrap(), b"document");
        let mode = std::fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "made for its owner alone");
        let dest = dir.path().join("dest");
        let bring = || {
            let _ = std::fs::remove_file(&dest);
            cache.bring(blob, &dest, &|_| ())
        };
        bring().unwrap();
        assert_eq!(std::fs::read(&dest).unwrap(), b"content");

        // Other bytes, fewer, more, a link, a pipe, nothing: an error, and no file.
        let path = blob_path(&root, blob.digest);
        let refused = || {
            let error = bring().unwrap_err();
            assert!(!dest.exists(), "{error}");
            error.to_string()
        };
        std::fs::write(&path, b"c0ntent").unwrap();
        assert!(refused().contains("digest") || refused().contains("SHA-256"));
        for other in [&b"conten"[..], b"contents", b""] {
            std::fs::write(&path, other).unwrap();
            assert!(!cache.has_blob(blob).unwrap(), "{other:?}");
            assert!(refused().contains("7"), "{other:?}");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&file, &path).unwrap();
        assert!(!cache.has_blob(blob).unwrap(), "a link");
        refused();
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(refused().contains("regular"));
        std::fs::remove_file(&path).unwrap();
        refused();
        // What is damaged is mended by whoever has it anew.
        std::fs::write(&path, b"c0ntent").unwrap();
        cache
            .put(&SharedEntry {
                again: true,
                ..entry
            })
            .unwrap();
        bring().unwrap();
        // A document that is too large.
        std::fs::write(
            entry_path(&root, "big"),
            vec![b'x'; usize::try_from(MAX_ENTRY + 1).unwrap()],
        )
        .unwrap();
        assert!(cache.entry("big").is_err());
    }
}
