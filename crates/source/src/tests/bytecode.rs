//! Bytecode that is compiled before a script asks for it, with a py3compile that leaves notes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = include_str!("../configure/py3compile.py");

/// Compiles the files of a package that end in `.py`, in a Python of its own as the real one does. A file that
/// says so fails.
const COMPILER: &str = r#"
import os, subprocess, sys, debpython.files
with open(os.environ["NOTES"], "a") as notes:
    notes.write(" ".join(sys.argv[1:]) + "\n")
for name in debpython.files.from_package(sys.argv[2]):
    folder = os.path.join(os.path.dirname(name), "__pycache__")
    if not os.path.exists(folder):
        os.mkdir(folder)
    sys.exit("no") if "fails" in open(name).read() else None
    subprocess.run([sys.executable, "-m", "py_compile", name], check=True)
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for folder in ["share/debpython", "later", "dpkg/info", "lib"] {
            fs::create_dir_all(place.path(folder)).unwrap();
        }
        for module in ["__init__", "interpreter", "option", "version"] {
            place.write(&format!("share/debpython/{module}.py"), "");
        }
        let list = place.path("dpkg/info");
        place.write(
            "share/debpython/files.py",
            &format!(
                "def from_package(name):\n    return open('{}/' + name.partition(':')[0] + '.list').read().split()\n",
                list.display()
            ),
        );
        place.write("py3compile", COMPILER);
        let program = PROGRAM
            .replace("/usr/share/python3", &place.text("share"))
            .replace("/usr/bin/py3compile", &place.text("py3compile"));
        place.write("program.py", &program);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A package with one module and this script.
    fn package(&self, name: &str, module: &str, script: &str) {
        let plain = name.replace(":native", "");
        self.write(&format!("lib/{plain}.py"), module);
        let source = self.text(&format!("lib/{plain}.py"));
        self.write(&format!("dpkg/info/{plain}.list"), &format!("{source}\n"));
        let script = format!("#!/bin/sh\nset -e\n{script}\n");
        self.write(&format!("dpkg/info/{name}.postinst"), &script);
    }

    fn run(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new("python3");
        command.arg(self.path("program.py")).arg(words[0]);
        command.args([self.text("later"), self.text("dpkg")]);
        command.args(&words[1..]).env("NOTES", self.path("notes"));
        match words[0] {
            "ahead" => command.env("PYTHONPYCACHEPREFIX", self.path("later/bytecode")),
            _ => command.env("PYTHONDONTWRITEBYTECODE", "yes"),
        };
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), stderr)
    }

    /// What py3compile was called with since the last time, sorted.
    fn called(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        let _ = fs::remove_file(self.path("notes"));
        let mut calls: Vec<_> = notes.lines().map(str::to_owned).collect();
        calls.sort();
        calls
    }

    /// Modules with bytecode in its place.
    fn compiled(&self) -> Vec<String> {
        let Ok(folder) = fs::read_dir(self.path("lib/__pycache__")) else {
            return Vec::new();
        };
        let mut names: Vec<_> = folder
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.split(".cpython").next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }
}

fn bytecode(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// `asked`: as the program that stands for py3compile writes it.
fn ask(place: &Place, calls: &[&str]) {
    let lines: String = calls
        .iter()
        .map(|call| call.replace(' ', "\u{1f}") + "\u{1f}\n")
        .collect();
    place.write("later/py3compile", &lines);
}

const SNIPPET: &str = "if command -v py3compile >/dev/null 2>&1; then\n\tpy3compile -p NAME \nfi";

fn fill(place: &Place) {
    for name in ["asked", "never"] {
        place.package(name, "x = 1\n", &SNIPPET.replace("NAME", name));
    }
    place.package(
        "libs:native",
        "y = 'libs'\n",
        &SNIPPET.replace("NAME", "libs:native"),
    );
    place.package("edited", "z = 1\n", &SNIPPET.replace("NAME", "edited"));
    place.package("hidden", "h = 1\n", "name=hidden\npy3compile -p $name");
    place.package("options", "o = 1\n", "py3compile -p options -V 3.2-");
    place.package(
        "twice",
        "t = 1\n",
        "py3compile -p twice\npy3compile -p twice /usr/share/twice",
    );
    place.package(
        "broken",
        "b = 'fails'\n",
        &SNIPPET.replace("NAME", "broken"),
    );
}

const PACKAGES: [&str; 8] = [
    "asked", "broken", "edited", "hidden", "libs", "never", "options", "twice",
];

#[test]
fn what_is_asked_for_was_compiled_before_or_is_compiled_now() {
    let place = Place::new();
    fill(&place);
    let mut ahead = vec!["ahead", "native"];
    ahead.extend(PACKAGES);
    let (ok, said) = place.run(&ahead);
    assert!(ok, "{said}");
    let begun = [
        "-p asked",
        "-p broken",
        "-p edited",
        "-p libs:native",
        "-p never",
    ];
    assert_eq!(place.called(), begun);
    assert!(place.compiled().is_empty(), "nothing was asked for");
    assert!(!place.path("lib/__pycache__").exists());

    // What changed since, what could not be foreseen and what failed is compiled when it is asked for.
    std::thread::sleep(std::time::Duration::from_millis(20));
    place.write("lib/edited.py", "z = 2\n");
    place.write("lib/broken.py", "b = 'whole'\n");
    ask(
        &place,
        &[
            "-p asked",
            "-p libs:native",
            "-p edited",
            "-p hidden",
            "-p options -V 3.2-",
            "-p broken",
        ],
    );
    let (ok, said) = place.run(&["asked"]);
    assert!(ok, "{said}");
    let now = ["-p broken", "-p edited", "-p hidden", "-p options -V 3.2-"];
    assert_eq!(place.called(), now);
    let all = ["asked", "broken", "edited", "hidden", "libs", "options"];
    assert_eq!(place.compiled(), all);

    // The same bytes as when nothing had been done before.
    let made = bytecode(&place.path("lib/__pycache__"));
    fs::remove_dir_all(place.path("lib/__pycache__")).unwrap();
    fs::remove_file(place.path("later/py3compile.ready")).unwrap();
    assert!(place.run(&["asked"]).0);
    assert_eq!(place.called().len(), all.len());
    assert_eq!(bytecode(&place.path("lib/__pycache__")), made);
}

#[test]
fn what_cannot_be_compiled_is_told_when_it_was_asked_for() {
    let place = Place::new();
    fill(&place);
    assert!(place.run(&["ahead", "native", "broken"]).0);
    ask(&place, &["-p broken"]);
    let (ok, said) = place.run(&["asked"]);
    assert!(
        !ok && said.contains("failed: py3compile -p broken"),
        "{said}"
    );
}

#[test]
fn nothing_more_is_begun_once_there_is_enough() {
    let place = Place::new();
    fill(&place);
    place.write("later/enough", "");
    assert!(place.run(&["ahead", "native", "asked"]).0);
    assert!(place.called().is_empty());
}
