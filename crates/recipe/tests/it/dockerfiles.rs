//! Every folder in `fixtures/dockerfiles/{ok,err}/` holds a `Dockerfile` template and what it gives:
//! `diagnostics.txt` (with what is right and not supported after a line `unsupported:`), and for good ones
//! `config.txt`. With `AMIFORGE_BLESS=1` the expectations are written instead of compared.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use amiforge_recipe::parse_dockerfile;
use amiforge_types::Diagnostic;

fn print(out: &mut String, problem: &Diagnostic) {
    let at = problem.span.unwrap_or_default().start;
    let severity = format!("{:?}", problem.severity).to_lowercase();
    let _ = writeln!(
        out,
        "{}:{}: {severity}[{}]: {}",
        at.line, at.column, problem.code, problem.message
    );
    if let Some(help) = &problem.help {
        let _ = writeln!(out, "    help: {help}");
    }
}

fn expect(path: &Path, found: &str) {
    if std::env::var_os("AMIFORGE_BLESS").is_some() {
        fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "{}", path.display());
}

#[test]
fn dockerfile_fixtures_give_what_they_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/dockerfiles");
    for folder in ["ok", "err"] {
        let mut cases = 0;
        for case in fs::read_dir(root.join(folder)).unwrap() {
            let case = case.unwrap().path();
            cases += 1;
            let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
            let (file, problems) = parse_dockerfile(&text);
            assert_eq!(file.is_some(), folder == "ok", "{}", case.display());
            let mut told = String::new();
            problems
                .into_sorted()
                .iter()
                .for_each(|p| print(&mut told, p));
            if let Some(file) = &file
                && !file.unsupported.is_empty()
            {
                told.push_str("unsupported:\n");
                file.unsupported.iter().for_each(|p| print(&mut told, p));
            }
            expect(&case.join("diagnostics.txt"), &told);
            if let Some(file) = file {
                let text = format!(
                    "author {:?}\nsteps {:?}\ninstructions {:#?}\n{:#?}\n",
                    file.author, file.step_env, file.instructions, file.config
                );
                expect(&case.join("config.txt"), &text);
            }
        }
        assert!(cases > 3, "{folder}");
    }
}
