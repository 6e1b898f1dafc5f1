//! A diff for people: grouped, a line a difference, each group cut at a limit.

use std::fmt::Write as _;

use amiforge_types::ByteSize;

use super::report::{
    BootChange, ConfigChange, Counts, DiffReport, Field, FileChange, FileInfo, Happened,
    LayerChange, PackageChange,
};

impl DiffReport {
    /// The text. Groups of packages, boot files and files end after `limit` lines; 0 is without end.
    #[must_use]
    pub fn text(&self, limit: usize) -> String {
        let mut out = String::new();
        for (name, image) in [("a", &self.a), ("b", &self.b)] {
            let size = image.virtual_bytes.map(ByteSize);
            let size = size.map_or(String::new(), |size| format!(", {size}"));
            let path = image.path.display();
            let _ = writeln!(out, "{name}  {path} ({}{size})", image.format);
        }
        group(&mut out, "layers", self.layers.iter().map(layer_text), 0);
        let disk = self
            .disk
            .iter()
            .map(|field| format!("~ {}", field_text(field)));
        group(&mut out, "disk", disk, 0);
        let partitions = self.partitions.iter().map(|p| {
            let fields: Vec<String> = match p.change {
                Happened::Added | Happened::Removed => Vec::new(),
                _ => p.fields.iter().map(field_text).collect(),
            };
            format!("{} {} {}", sign(p.change), p.slot, fields.join(", "))
        });
        group(&mut out, "partitions", partitions, 0);
        let file_systems = self.file_systems.iter().map(|fs| {
            let fields: Vec<String> = fs.fields.iter().map(field_text).collect();
            let place = fs
                .slot
                .map_or("whole disk".to_owned(), |slot| slot.to_string());
            format!("~ {place} {}", fields.join(", "))
        });
        group(&mut out, "file systems", file_systems, 0);
        group(&mut out, "boot", self.boot.iter().map(boot_text), limit);
        let config = self.config.iter().map(config_text);
        group(&mut out, "configuration", config, 0);
        group(
            &mut out,
            "packages",
            self.packages.iter().map(package_text),
            limit,
        );
        group(&mut out, "files", self.files.iter().map(file_text), limit);
        let _ = writeln!(out, "\n{}", self.summary_line());
        out
    }

    /// One sentence.
    fn summary_line(&self) -> String {
        if !self.differs {
            return "no differences".to_owned();
        }
        let s = &self.summary;
        let counts = |name: &str, c: Counts| {
            format!(
                "{name} {} added, {} removed, {} changed",
                c.added, c.removed, c.changed
            )
        };
        let both = format!(
            "{}; {}",
            counts("packages:", s.packages),
            counts("files:", s.files)
        );
        if [&self.a, &self.b]
            .iter()
            .all(|image| image.virtual_bytes.is_none())
        {
            return format!("{both}; {} settings", s.config);
        }
        format!(
            "{both}; {} boot, {} partition, {} file system and {} disk differences",
            s.boot, s.partitions, s.file_systems, s.disk
        )
    }
}

/// A heading and its lines, when there are any.
fn group(out: &mut String, name: &str, lines: impl ExactSizeIterator<Item = String>, limit: usize) {
    let total = lines.len();
    if total == 0 {
        return;
    }
    let shown = if limit == 0 { total } else { limit };
    let _ = writeln!(out, "\n{name}");
    for line in lines.take(shown) {
        let _ = writeln!(out, "  {}", line.trim_end());
    }
    if total > shown {
        let _ = writeln!(out, "  … {} more (--limit 0 shows all)", total - shown);
    }
}

fn sign(change: Happened) -> char {
    match change {
        Happened::Added => '+',
        Happened::Removed => '-',
        Happened::Changed | Happened::Upgraded | Happened::Downgraded => '~',
    }
}

fn or_none(value: Option<&str>) -> &str {
    match value {
        None | Some("") => "none",
        Some(text) => text,
    }
}

fn field_text(field: &Field) -> String {
    let (a, b) = (or_none(field.a.as_deref()), or_none(field.b.as_deref()));
    format!("{} {a} → {b}", field.field)
}

fn config_text(change: &ConfigChange) -> String {
    let sign = match (&change.a, &change.b) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    };
    let both = [&change.a, &change.b].map(|value| value.as_deref());
    let values: Vec<&str> = both.into_iter().flatten().collect();
    format!("{sign} {} {}", change.field, values.join(" → "))
}

fn layer_text(layer: &LayerChange) -> String {
    let mut line = format!("{} {}", sign(layer.change), layer.title);
    let files = match layer.files {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    let steps: Vec<String> = layer
        .steps
        .iter()
        .map(|step| format!("{} {}", step.step, step.files))
        .collect();
    let _ = write!(line, ": {files}");
    if !steps.is_empty() {
        let _ = write!(line, " ({})", steps.join(", "));
    }
    for change in &layer.inputs {
        let (old, new) = (
            or_none(change.old.as_deref()),
            or_none(change.new.as_deref()),
        );
        let _ = write!(line, "\n      {} {old} → {new}", change.input);
    }
    if layer.below && layer.inputs.is_empty() {
        line.push_str("\n      a layer below it differs");
    }
    if layer.change == Happened::Changed && layer.a == layer.b {
        line.push_str("\n      the same inputs gave other bytes: see `amiforge build --check`");
    }
    line
}

fn boot_text(change: &BootChange) -> String {
    let size = |bytes: &Option<super::report::Bytes>| {
        bytes
            .as_ref()
            .map_or("none".to_owned(), |b| b.size.to_string())
    };
    let place = match change.place {
        "bootSector" => "boot sector",
        "biosBoot" => "BIOS boot partition",
        place => place,
    };
    let path = change.path.as_deref().unwrap_or("");
    let sizes = match (&change.a, &change.b) {
        (None, None) => String::new(),
        (Some(a), Some(b)) if a.size == b.size => format!("({} bytes)", a.size),
        (a, b) => format!("({} → {} bytes)", size(a), size(b)),
    };
    format!("{} {place} {path} {sizes}", sign(change.change))
}

fn package_text(package: &PackageChange) -> String {
    let name = format!("{}:{}", package.name, package.architecture);
    let sign = sign(package.change);
    match (&package.a, &package.b) {
        (Some(a), Some(b)) => {
            let down = match package.change {
                Happened::Downgraded => " (downgraded)",
                _ => "",
            };
            format!("{sign} {name} {a} → {b}{down}")
        }
        (a, b) => format!("{sign} {name} {}", or_none(a.as_deref().or(b.as_deref()))),
    }
}

fn file_text(file: &FileChange) -> String {
    let mut line = format!("{} {}", sign(file.change), file.path);
    match (&file.a, &file.b) {
        (Some(a), Some(b)) => {
            for aspect in &file.aspects {
                let _ = write!(line, "  {}", aspect_text(aspect, a, b));
            }
        }
        (Some(one), None) | (None, Some(one)) => {
            let _ = write!(line, "  {}", one.kind);
            if let Some(size) = one.size {
                let _ = write!(line, " of {size} bytes");
            }
            if let Some(target) = &one.target {
                let _ = write!(line, " → {target}");
            }
            if let Some(device) = &one.device {
                let _ = write!(line, " {device}");
            }
        }
        (None, None) => {}
    }
    if let Some(package) = &file.package {
        let mark = if file.conffile { ", configuration" } else { "" };
        let _ = write!(line, "  [{package}{mark}]");
    }
    match (&file.component, &file.layer) {
        (Some(component), _) => {
            let step = file.step.as_ref().map(|step| format!(" {step}"));
            let _ = write!(line, "  {{{component}{}}}", step.unwrap_or_default());
        }
        (None, Some(layer)) => {
            let _ = write!(line, "  {{layer {}}}", layer.get(..12).unwrap_or(layer));
        }
        (None, None) => {}
    }
    line
}

fn aspect_text(aspect: &str, a: &FileInfo, b: &FileInfo) -> String {
    let change = |a: &str, b: &str| format!("{aspect} {a} → {b}");
    match aspect {
        "type" => change(a.kind, b.kind),
        "mode" => change(&a.mode, &b.mode),
        "owner" => change(
            &format!("{}:{}", a.uid, a.gid),
            &format!("{}:{}", b.uid, b.gid),
        ),
        "content" if a.size == b.size => {
            format!("content ({} bytes)", a.size.unwrap_or(0))
        }
        "content" => {
            let (a, b) = (a.size.unwrap_or(0), b.size.unwrap_or(0));
            format!("content ({a} → {b} bytes)")
        }
        "target" => change(or_none(a.target.as_deref()), or_none(b.target.as_deref())),
        "device" => change(or_none(a.device.as_deref()), or_none(b.device.as_deref())),
        "flags" => change(or_none(a.flags.as_deref()), or_none(b.flags.as_deref())),
        "links" => {
            let links = |file: &FileInfo| file.links.unwrap_or(1).to_string();
            change(&links(a), &links(b))
        }
        "mtime" => change(&a.mtime, &b.mtime),
        "xattrs" => {
            let names: Vec<&str> = a
                .xattrs
                .keys()
                .chain(b.xattrs.keys())
                .filter(|name| a.xattrs.get(*name) != b.xattrs.get(*name))
                .map(String::as_str)
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            format!("xattrs {}", names.join(", "))
        }
        other => other.to_owned(),
    }
}
