//! `cargo xtask tidy`: the house rules that a compiler does not check.

mod arrows;
mod files;
mod hosts;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::util::root;

/// What a rule found: where, and what is wrong there.
type Findings = Vec<String>;

/// Runs all rules and reports everything they find.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let repo = Repo::read(&root)?;
    let mut findings = Findings::new();
    arrows::check(&repo, &mut findings)?;
    sources::check(&repo, &mut findings);
    files::check(&repo, &mut findings);
    hosts::check(&repo, &mut findings);
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    eprintln!("tidy: {} files are in order", repo.files.len());
    Ok(())
}

/// The files of the repository, by path from its root.
struct Repo {
    root: PathBuf,
    files: Vec<File>,
}

/// One file.
struct File {
    /// Path from the root, with slashes.
    path: String,
    /// Content when it is text.
    text: Option<String>,
    bytes: u64,
}

impl Repo {
    fn read(root: &Path) -> Result<Self> {
        let mut repo = Self {
            root: root.to_path_buf(),
            files: Vec::new(),
        };
        repo.walk(root, "")?;
        repo.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(repo)
    }

    /// Walks the tree itself rather than asking git: a source archive is checked like a clone.
    fn walk(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        for entry in fs_err::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                // What .gitignore leaves out.
                if !matches!(
                    path.as_str(),
                    ".git" | "target" | "out" | "fuzz/target" | "fuzz/corpus" | "fuzz/artifacts"
                ) {
                    self.walk(&entry.path(), &path)?;
                }
            } else if kind.is_file() && !name.ends_with(".raw") && !name.ends_with(".qcow2") {
                let bytes = entry.metadata()?.len();
                let text = if bytes <= MAX_BYTES {
                    String::from_utf8(fs_err::read(entry.path())?).ok()
                } else {
                    None
                };
                self.files.push(File { path, text, bytes });
            }
        }
        Ok(())
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|f| f.path == path)?.text.as_deref()
    }

    /// Text files whose path ends in `suffix`.
    fn texts<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |f| f.path.ends_with(suffix))
            .filter_map(|f| Some((f.path.as_str(), f.text.as_deref()?)))
    }
}

/// No file of a source repository needs to be larger.
const MAX_BYTES: u64 = 1_000_000;

#[cfg(test)]
impl Repo {
    fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: Some((*text).to_owned()),
            bytes: text.len() as u64,
        };
        Self {
            root: PathBuf::from("/somewhere/amiforge"),
            files: files.iter().map(file).collect(),
        }
    }
}
