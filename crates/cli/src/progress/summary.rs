//! What a build came to, in three lines: time, layers, files.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use amiforge_engine::{BuildOutcome, Event};
use amiforge_types::ByteSize;

/// Counted while events pass.
#[derive(Default)]
pub(crate) struct Tally {
    made_bytes: u64,
    layer_seconds: f64,
    steps: usize,
    files: Vec<(String, u64)>,
}

impl Tally {
    pub(crate) fn count(&mut self, event: &Event) {
        match event {
            Event::LayerFinished { bytes, seconds, .. } => {
                self.made_bytes += bytes;
                self.layer_seconds += seconds;
            }
            Event::StepFinished { status, .. } if status != "skipped" => self.steps += 1,
            Event::Artifact { file, bytes, .. } => self.files.push((file.clone(), *bytes)),
            _ => {}
        }
    }

    /// The lines, after `elapsed`.
    pub(crate) fn lines(&self, outcome: &BuildOutcome, elapsed: Duration) -> Vec<String> {
        let made = outcome.layers_built;
        let fetched = outcome.layers_fetched;
        let reused = outcome.layers.saturating_sub(made + fetched);
        let mut layers = format!("   layers {reused} of {} from the store", outcome.layers);
        if fetched > 0 {
            layers.push_str(&format!(", {fetched} from shared caches"));
        }
        if made > 0 {
            layers.push_str(&format!(
                ", {made} made ({}, {} steps) in {}",
                ByteSize(self.made_bytes),
                self.steps,
                time(Duration::from_secs_f64(self.layer_seconds.max(0.0)))
            ));
        }
        let proof = match (outcome.unchanged, outcome.proven) {
            (true, _) => "unchanged",
            (false, _) if outcome.untestable => "built; no test phases",
            (false, true) => "built and proven",
            (false, false) => "built, nothing proven",
        };
        let mut lines = vec![layers];
        if let Some(files) = self.files_of(&outcome.out) {
            lines.push(format!("    files {files}"));
        }
        lines.push(format!(
            " finished {} {proof} in {}",
            outcome.image_id,
            time(elapsed)
        ));
        lines
    }

    fn files_of(&self, out: &Path) -> Option<String> {
        let (blobs, files): (Vec<_>, Vec<_>) = self
            .files
            .iter()
            .partition(|(file, _)| file.contains("/blobs/"));
        let on_disk = |file: &str, bytes: u64| {
            let used = std::fs::metadata(out.join(file)).map_or(bytes, |m| m.blocks() * 512);
            match used < bytes {
                true => format!(" ({} on disk)", ByteSize(used)),
                false => String::new(),
            }
        };
        let mut told: Vec<String> = files
            .iter()
            .map(|(file, bytes)| format!("{file} {}{}", ByteSize(*bytes), on_disk(file, *bytes)))
            .collect();
        if !blobs.is_empty() {
            let bytes = blobs.iter().map(|(_, bytes)| bytes).sum();
            told.push(format!("oci {} in {} layers", ByteSize(bytes), blobs.len()));
        }
        (!told.is_empty()).then(|| told.join(", "))
    }
}

pub(crate) fn time(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match seconds < 60.0 {
        true => format!("{seconds:.1} s"),
        false => format!(
            "{} min {} s",
            (seconds / 60.0).floor(),
            (seconds % 60.0).floor()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(made: usize, unchanged: bool) -> BuildOutcome {
        BuildOutcome {
            image_id: "ami-1".to_owned(),
            out: "/no/such/folder".into(),
            layers_built: made,
            layers_fetched: 0,
            layers: 3,
            unchanged,
            proven: true,
            untestable: false,
        }
    }

    #[test]
    fn a_build_is_summed_up() {
        let mut tally = Tally::default();
        tally.count(&Event::LayerFinished {
            id: "1".to_owned(),
            title: "one".to_owned(),
            seconds: 1.5,
            bytes: 4 << 20,
        });
        tally.count(&Event::Artifact {
            file: "disk.raw".to_owned(),
            bytes: 1 << 30,
            sha256: None,
        });
        for (file, bytes) in [
            ("oci/blobs/sha256/1", 1 << 20),
            ("oci/blobs/sha256/2", 1 << 20),
        ] {
            tally.count(&Event::Artifact {
                file: file.to_owned(),
                bytes,
                sha256: None,
            });
        }
        let lines = tally.lines(&outcome(1, false), Duration::from_secs(75));
        assert_eq!(
            lines,
            [
                "   layers 2 of 3 from the store, 1 made (4 MiB, 0 steps) in 1.5 s",
                "    files disk.raw 1 GiB, oci 2 MiB in 2 layers",
                " finished ami-1 built and proven in 1 min 15 s",
            ]
        );
        let untestable = BuildOutcome {
            untestable: true,
            ..outcome(3, false)
        };
        let lines = Tally::default().lines(&untestable, Duration::from_secs(1));
        assert_eq!(
            lines.last().unwrap(),
            " finished ami-1 built; no test phases in 1.0 s"
        );
        let lines = Tally::default().lines(&outcome(0, true), Duration::from_millis(120));
        assert_eq!(
            lines,
            [
                "   layers 3 of 3 from the store",
                " finished ami-1 unchanged in 0.1 s"
            ]
        );
    }
}
