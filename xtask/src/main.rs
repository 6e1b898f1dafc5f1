//! Development tasks, run as `cargo xtask <task>`. One file per task.
//!
//! Exit codes are those of `amiforge`: 0 ok, 1 a check or test failed, 2 usage, 3 the environment
//! lacks something and the message says what to install.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool for a terminal"
)]

mod bench;
mod demo;
mod fuzz;
mod schema;
mod setup;
mod test;
mod tidy;
mod util;

use std::process::ExitCode;

use util::Missing;

const USAGE: &str = "\
Development tasks of amiforge.

  cargo xtask demo                install what is missing, build, make an image and boot it
  cargo xtask test                install what the tests need, then every check and test (what CI runs)
  cargo xtask setup [demo|test]   only the installing part
  cargo xtask tidy                only the house rules
  cargo xtask schema              write the JSON Schemas of docs/schema from the decoders
  cargo xtask fuzz [TARGET] [SECONDS]  run the fuzz targets on their seeds, and on for that long each
  cargo xtask bench [disk|build|validate|ec2]  compare with the peers; writes docs/benchmarks.md
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["setup"] | ["setup", "demo"] => setup::run(setup::Purpose::Demo),
        ["setup", "test"] => setup::run(setup::Purpose::Test),
        ["demo"] => demo::run(),
        ["test"] => test::run(),
        ["tidy"] => tidy::run(),
        ["schema"] => schema::run_task(),
        ["bench"] | ["bench", "all"] => bench::run(bench::What::All),
        ["bench", "disk"] => bench::run(bench::What::Disk),
        ["bench", "build"] => bench::run(bench::What::Build),
        ["bench", "validate"] => bench::run(bench::What::Validate),
        ["bench", "ec2"] => bench::run(bench::What::Ec2),
        ["fuzz"] => fuzz::run(None, 0, fuzz::Speed::Run),
        ["fuzz", word] => match word.parse() {
            Ok(seconds) => fuzz::run(None, seconds, fuzz::Speed::Run),
            Err(_) => fuzz::run(Some(word), 0, fuzz::Speed::Run),
        },
        ["fuzz", name, seconds] if seconds.parse::<u32>().is_ok() => {
            fuzz::run(Some(name), seconds.parse().unwrap_or(0), fuzz::Speed::Run)
        }
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let missing = error.chain().any(|cause| cause.is::<Missing>());
            ExitCode::from(if missing { 3 } else { 1 })
        }
    }
}
