//! `validate` on ten thousand documents against PyYAML, which only loads them: a floor, since nobody else
//! checks these documents outside of AWS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Bench;
use super::measure::{median, peak_mib, seconds};
use super::report::{Row, Table};

const RUNS: usize = 3;
const DOCUMENTS: usize = 10_000;

/// Loads every file that it is given, in one process.
const LOAD: &str = "\
import sys, yaml
class Tags(yaml.CSafeLoader):
    pass
Tags.add_multi_constructor('!', lambda loader, suffix, node: None)
for path in sys.argv[1:]:
    with open(path) as file:
        yaml.load(file, Tags)
";

pub(super) fn run(bench: &Bench) -> Result<Table> {
    let log = bench.dir.join("log");
    let home = bench.fresh("home")?;
    let folder = bench.fresh("documents")?;
    let files = documents(&folder)?;
    let mut bytes = 0;
    for file in &files {
        bytes += fs_err::metadata(file)?.len();
    }
    let ours = |files: &[PathBuf]| {
        let mut command = Command::new(&bench.amiforge);
        command.env("AMIFORGE_HOME", &home);
        command.arg("validate").args(files);
        command
    };
    let one = |files: &[PathBuf]| {
        let mut command = ours(files);
        command.env("RAYON_NUM_THREADS", "1");
        command
    };
    let peer = || {
        let mut command = Command::new("python3");
        command.args(["-c", LOAD]).args(&files);
        command
    };
    let tenth = files.get(..DOCUMENTS / 10).unwrap_or(&files);
    let (mut all, mut alone, mut few) = (vec![], vec![], vec![]);
    let mut loads = vec![];
    for _ in 0..RUNS {
        all.push(seconds(&mut ours(&files), &log)?);
        loads.push(seconds(&mut peer(), &log)?);
        alone.push(seconds(&mut one(&files), &log)?);
        few.push(seconds(&mut ours(tenth), &log)?);
    }
    let row = |work: &str, ours: &[f64], peer: &str, theirs: f64, at_least| Row {
        work: work.to_owned(),
        ours: median(ours),
        peer: (peer.to_owned(), theirs),
        at_least,
    };
    Ok(Table {
        input: format!(
            "{DOCUMENTS} documents of {} MB: 7 components, 2 recipes and a template in every ten",
            bytes / 1_000_000
        ),
        runs: RUNS,
        memory_mib: peak_mib(&mut ours(&files), &log)?,
        rows: vec![
            row(
                "10,000 documents checked",
                &all,
                "PyYAML with libyaml, loading alone",
                median(&loads),
                Some(1.0),
            ),
            row(
                "the same",
                &all,
                "amiforge in one thread",
                median(&alone),
                None,
            ),
            row(
                "the same",
                &all,
                "amiforge, 10 × a thousand of them",
                10.0 * median(&few),
                Some(0.9),
            ),
        ],
    })
}

/// The same documents whenever it is called, no two alike.
fn documents(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::with_capacity(DOCUMENTS);
    for number in 0..DOCUMENTS {
        let text = match number % 10 {
            0..7 => component(number),
            7 | 8 => recipe(number),
            _ => template(number),
        };
        let path = folder.join(format!("{number:05}.yaml"));
        fs_err::write(&path, text)?;
        files.push(path);
    }
    Ok(files)
}

/// Eight steps: what components of public repositories have, give or take.
fn component(number: usize) -> String {
    let mut text = format!(
        "name: component-{number}\ndescription: Installs service {number} and its settings.\nschemaVersion: 1.0\n\
         parameters:\n  - Port:\n      type: string\n      default: '{}'\n      description: Where it listens.\n\
         phases:\n  - name: build\n    steps:\n",
        1024 + number
    );
    for step in 0..6 {
        text.push_str(&format!(
            "      - name: Write{step}\n        action: CreateFile\n        maxAttempts: 2\n        inputs:\n          \
             - path: /etc/service-{number}/part-{step}.conf\n            permissions: '0644'\n            owner: root\n            \
             content: |\n              [listen]\n              port = {{{{ Port }}}}\n              workers = {step}\n              \
             log = /var/log/service-{number}/{step}.log\n      - name: Run{step}\n        action: ExecuteBash\n        \
             timeoutSeconds: 600\n        onFailure: Abort\n        inputs:\n          commands:\n            - set -euo pipefail\n            \
             - test -s /etc/service-{number}/part-{step}.conf\n            - echo \"service {number} part {step} on {{{{ Port }}}}\"\n"
        ));
    }
    text.push_str(
        "  - name: validate\n    steps:\n      - name: There\n        action: Assert\n        inputs:\n          and:\n            \
         - fileExists: /etc/passwd\n            - stringEquals: root\n              value: '{{ build.Run5.outputs.stdout }}'\n",
    );
    text
}

fn recipe(number: usize) -> String {
    format!(
        "name: recipe-{number}\nsemanticVersion: 1.{}.0\nparentImage: debian:bookworm\ncomponents:\n  \
         - componentArn: update-linux/x.x.x\n  - componentArn: ./{:05}.yaml\n    parameters:\n      \
         - name: Port\n        value: ['{}']\nblockDeviceMappings:\n  - deviceName: /dev/xvda\n    ebs:\n      \
         volumeSize: 8\n      volumeType: gp3\n      deleteOnTermination: true\ntags:\n  number: '{number}'\n",
        number % 100,
        number - number % 10,
        2000 + number % 1000,
    )
}

fn template(number: usize) -> String {
    let document: String = component(number)
        .lines()
        .map(|line| format!("        {line}\n"))
        .collect();
    format!(
        "AWSTemplateFormatVersion: 2010-09-09\nParameters:\n  Stage:\n    Type: String\n    Default: test\nResources:\n  \
         Service:\n    Type: AWS::ImageBuilder::Component\n    Properties:\n      Name: service-{number}\n      \
         Version: 1.0.0\n      Platform: Linux\n      Data: |\n{document}  Recipe:\n    \
         Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Name: !Sub service-{number}-${{Stage}}\n      \
         Version: 1.0.0\n      ParentImage: debian:bookworm\n      Components:\n        - ComponentArn: !Ref Service\n"
    )
}
