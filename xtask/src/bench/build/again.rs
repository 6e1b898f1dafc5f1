//! What it costs to build again when little changed, several at once, and a step.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::super::Bench;
use super::super::measure::{median, seconds};
use super::super::report::Row;
use super::{RUNS, forget};

/// Steps of the run that is compared with a run of one.
const STEPS: u32 = 101;

/// Rows for recipes that start from what `home` has in its cache.
pub(super) fn run(bench: &Bench, home: &Path) -> Result<Vec<Row>> {
    let recipes = bench.fresh("recipes")?;
    let out = bench.fresh("out")?;
    let log = bench.dir.join("log");
    let build = |names: &[PathBuf]| {
        let mut command = Command::new(&bench.amiforge);
        command
            .env("AMIFORGE_HOME", home)
            .arg("build")
            .args(names)
            .args(["--no-test", "--quiet", "--offline", "--out"])
            .arg(&out);
        command
    };

    let changed = recipe(
        &recipes,
        "changed",
        "raw, qcow2",
        &writes("/etc/changed", "0"),
    )?;
    seconds(&mut build(std::slice::from_ref(&changed)), &log)?;
    let mut files = vec![];
    for run in 0..RUNS {
        let text = writes("/etc/changed", &format!("{}", run + 1));
        recipe(&recipes, "changed", "raw, qcow2", &text)?;
        files.push(seconds(&mut build(std::slice::from_ref(&changed)), &log)?);
    }

    // The disk is the same work for both: what differs is the steps.
    let (mut one, mut many) = (vec![], vec![]);
    for run in 0..RUNS {
        for (count, times) in [(1, &mut one), (STEPS, &mut many)] {
            let steps = recipe(&recipes, "steps", "raw", &commands(count, run))?;
            times.push(seconds(&mut build(&[steps]), &log)?);
        }
    }
    let step = (median(&many) - median(&one)) / f64::from(STEPS - 1);

    let three: Vec<PathBuf> = (0..3)
        .map(|n| {
            let name = format!("one-of-three-{n}");
            recipe(
                &recipes,
                &name,
                "raw",
                &writes("/etc/number", &n.to_string()),
            )
        })
        .collect::<Result<_>>()?;
    let (mut together, mut alone) = (vec![], vec![]);
    for _ in 0..RUNS {
        forget(home)?;
        bench.fresh("out")?;
        together.push(seconds(&mut build(&three), &log)?);
        let mut sum = 0.0;
        for recipe in &three {
            forget(home)?;
            bench.fresh("out")?;
            sum += seconds(&mut build(std::slice::from_ref(recipe)), &log)?;
        }
        alone.push(sum);
        eprintln!(
            "-- changed {files:.2?} s, a step {step:.4} s, three {together:.2?} s, alone {alone:.2?} s"
        );
    }
    Ok(vec![
        Row {
            work: "one file changed in the last component → raw and qcow2".into(),
            ours: median(&files),
            peer: ("2 s".into(), 2.0),
            at_least: Some(1.0),
        },
        Row {
            work: "one step more, which does nothing".into(),
            ours: step,
            peer: ("50 ms".into(), 0.05),
            at_least: Some(1.0),
        },
        Row {
            work: "three recipes over one parent, empty store".into(),
            ours: median(&together),
            peer: ("amiforge, each alone".into(), median(&alone)),
            at_least: Some(2.0),
        },
    ])
}

/// A folder with a recipe over the parent of the minimal recipe and one component.
fn recipe(folder: &Path, name: &str, formats: &str, component: &str) -> Result<PathBuf> {
    let dir = folder.join(name);
    fs_err::create_dir_all(&dir)?;
    fs_err::write(
        dir.join("recipe.yaml"),
        format!(
            "name: {name}\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\ncomponents:\n  - componentArn: component.yaml\namiforge:\n  formats: [{formats}]\n"
        ),
    )?;
    fs_err::write(dir.join("component.yaml"), component)?;
    Ok(dir)
}

const HEAD: &str = "name: component\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n";

fn writes(path: &str, content: &str) -> String {
    format!(
        "{HEAD}      - name: Write\n        action: CreateFile\n        inputs:\n          - {{path: {path}, content: '{content}', overwrite: true}}\n"
    )
}

/// `count` steps that no run before had.
fn commands(count: u32, run: usize) -> String {
    let mut text = HEAD.to_owned();
    for number in 0..count {
        let _ = writeln!(
            text,
            "      - {{name: Step{number}, action: ExecuteBash, inputs: {{commands: ['true run {run} of {count}']}}}}"
        );
    }
    text
}
