//! `docs/benchmarks.md`: one section per benchmark; a section that was not run stays as it was.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use anyhow::Result;

use crate::util::{output, root, stdout};

const HEAD: &str = "\
# Benchmarks

`cargo xtask bench [disk|build|validate|ec2|all]` writes this file. Every row compares two programs that ran one after the other, several
times in the same run, on the same input, with inputs and outputs in a memory-backed folder; the numbers are medians of
wall-clock seconds. Only the ratios mean anything on another machine. Memory is the largest sum of proportional set
sizes over the program and all its children, from a run of its own.
";

/// A part of the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Disk,
    Build,
    Validate,
    Ec2,
}

impl Section {
    const ALL: [Self; 4] = [Self::Disk, Self::Build, Self::Validate, Self::Ec2];

    const fn title(self) -> &'static str {
        match self {
            Self::Disk => "disk assemble",
            Self::Build => "build",
            Self::Validate => "validate",
            Self::Ec2 => "instances",
        }
    }
}

/// One comparison.
pub(super) struct Row {
    pub(super) work: String,
    pub(super) ours: f64,
    /// What it is compared with, and its seconds.
    pub(super) peer: (String, f64),
    /// The ratio that is aimed for.
    pub(super) at_least: Option<f64>,
}

/// The result of one benchmark.
pub(super) struct Table {
    pub(super) input: String,
    pub(super) runs: usize,
    pub(super) rows: Vec<Row>,
    pub(super) memory_mib: f64,
}

/// What starts the part of a section that people write, which stays when the results change.
const NOTES: &str = "\n### ";

/// A section as text, or as results that become text and what was written below the last ones.
pub(super) enum Content {
    Old(String),
    New(Table, String),
}

/// Sections by place in the file.
pub(super) struct Sections(BTreeMap<Section, Content>);

impl Sections {
    pub(super) fn insert(&mut self, section: Section, table: Table) {
        let notes = match self.0.remove(&section) {
            Some(Content::Old(body)) => {
                let at = body.find(NOTES).unwrap_or(body.len());
                body[at..].to_owned()
            }
            Some(Content::New(_, notes)) => notes,
            None => String::new(),
        };
        self.0.insert(section, Content::New(table, notes));
    }
}

/// The sections there are.
pub(super) fn read() -> Result<Sections> {
    let path = root().join("docs/benchmarks.md");
    let text = if path.exists() {
        fs_err::read_to_string(path)?
    } else {
        String::new()
    };
    Ok(Sections(split(&text)))
}

fn split(text: &str) -> BTreeMap<Section, Content> {
    let parts = text.split("\n## ").skip(1);
    let known = parts.filter_map(|part| {
        let (title, body) = part.split_once('\n')?;
        let section = Section::ALL.into_iter().find(|s| s.title() == title)?;
        Some((section, Content::Old(body.trim().to_owned())))
    });
    known.collect()
}

/// Writes the file, and shows it.
pub(super) fn write(sections: &Sections) -> Result<()> {
    let machine = machine()?;
    let mut text = HEAD.to_owned();
    for (section, content) in &sections.0 {
        let body = match content {
            Content::Old(body) => body.clone(),
            Content::New(table, notes) => {
                let text = render(table, &machine);
                format!("{}\n{notes}", text.trim_end())
            }
        };
        write!(text, "\n## {}\n\n{}\n", section.title(), body.trim_end())?;
    }
    fs_err::write(root().join("docs/benchmarks.md"), &text)?;
    print!("{text}");
    Ok(())
}

fn render(table: &Table, machine: &str) -> String {
    let mut text = format!("{} runs of each; {}.\n\n", table.runs, table.input);
    text.push_str(
        "| Work | amiforge | compared with | | ratio | at least |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for row in &table.rows {
        let (peer, seconds) = &row.peer;
        let ratio = seconds / row.ours;
        let aim = row.at_least.map_or_else(String::new, |least| {
            let missed = if ratio < least { ", missed" } else { "" };
            format!("{least:.1}×{missed}")
        });
        let _ = writeln!(
            text,
            "| {} | {:.2} s | {peer} | {seconds:.2} s | {ratio:.2}× | {aim} |",
            row.work, row.ours
        );
    }
    let _ = writeln!(
        text,
        "\nPeak memory of amiforge: {:.0} MiB.\n\n{machine}",
        table.memory_mib
    );
    text
}

/// What a reader needs to know of the machine, without its name.
fn machine() -> Result<String> {
    let cpu = fs_err::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
        .map_or("?", |(_, m)| m.trim());
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let memory = fs_err::read_to_string("/proc/meminfo")?;
    let total_kib: u64 = memory
        .lines()
        .find_map(|l| {
            l.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_default();
    let kernel = stdout(Command::new("uname").arg("-r"))?;
    let first = |program: &str, args: &[&str]| {
        let out = output(Command::new(program).args(args)).ok()?;
        let all = [out.stdout, out.stderr].concat();
        String::from_utf8_lossy(&all)
            .lines()
            .next()
            .map(|l| l.trim().to_owned())
    };
    let tools = [
        first("tar", &["--version"]),
        first("/usr/sbin/mke2fs", &["-V"]),
        first("sfdisk", &["--version"]).or_else(|| first("/usr/sbin/sfdisk", &["--version"])),
        first("mtools", &["--version"]),
        first("qemu-img", &["--version"]),
        first("mmdebstrap", &["--version"]),
        first(
            "python3",
            &["-c", "import yaml; print('PyYAML', yaml.__version__)"],
        ),
    ];
    let tools: Vec<_> = tools.into_iter().flatten().collect();
    let gib = total_kib.div_ceil(1 << 20);
    // Kernel builds of clouds carry names; the version is what matters.
    let kernel = kernel
        .trim()
        .split('-')
        .next()
        .unwrap_or_default()
        .to_owned();
    Ok(format!(
        "Machine: {cores} × {model}, {gib} GiB, Linux {kernel}. Peers: {}.",
        tools.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_survive_a_round_of_reading() {
        let text =
            format!("{HEAD}\n## disk assemble\n\nbody | x\n\n## build\n\nother\n\n## gone\n\nz\n");
        let found = split(&text);
        let old = |s: Section| match &found[&s] {
            Content::Old(body) => body.as_str(),
            Content::New(..) => "",
        };
        assert_eq!(
            (found.len(), old(Section::Disk), old(Section::Build)),
            (2, "body | x", "other")
        );
    }

    #[test]
    fn what_people_wrote_stays_below_new_results() {
        let text = format!("{HEAD}\n## build\n\nold\n\n### Why\n\nbecause\n");
        let mut sections = Sections(split(&text));
        let table = Table {
            input: "i".into(),
            runs: 5,
            rows: Vec::new(),
            memory_mib: 1.0,
        };
        sections.insert(Section::Build, table);
        match &sections.0[&Section::Build] {
            Content::New(_, notes) => assert_eq!(notes, "\n### Why\n\nbecause"),
            Content::Old(_) => panic!("not replaced"),
        }
    }

    #[test]
    fn ratios_say_how_many_times_faster() {
        let row = Row {
            work: "w".into(),
            ours: 0.5,
            peer: ("p".into(), 2.0),
            at_least: Some(5.0),
        };
        let table = Table {
            input: "i".into(),
            runs: 5,
            rows: vec![row],
            memory_mib: 12.4,
        };
        let text = render(&table, "m");
        assert!(
            text.contains("| w | 0.50 s | p | 2.00 s | 4.00× | 5.0×, missed |"),
            "{text}"
        );
        assert!(text.contains("Peak memory of amiforge: 12 MiB."));
    }
}
