//! The verbs: each lowers its arguments, calls one operation and prints its result.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use amiforge_engine as engine;
use amiforge_engine::{Engine, EngineError, ErrorKind};
use amiforge_types::ByteSize;
use clap::CommandFactory;

use crate::CommandError;
use crate::args::{self, BootArg, ChecksumsArg, FirmwareArg, InspectWhat, ProfileArg};
use crate::out::{as_json, is_json_lines, print_json, print_line, writer};
use crate::progress::{Progress, summary};
use crate::{json, render};

pub(crate) type Outcome = Result<ExitCode, CommandError>;

pub(crate) fn usage(message: String) -> CommandError {
    EngineError::new(ErrorKind::Invalid, message).into()
}

/// `NAME=VALUE`, each.
pub(crate) fn parameters(texts: &[String]) -> Result<Vec<(String, String)>, CommandError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(usage(format!("--param {text}: write NAME=VALUE"))),
    };
    texts.iter().map(pair).collect()
}

pub(crate) fn recipe_request(
    args: args::RecipeArgs,
) -> Result<engine::RecipeRequest, CommandError> {
    Ok(engine::RecipeRequest {
        parameters: parameters(&args.options.params)?,
        recipe: args.recipe,
        resource: args.options.resource,
        offline: args.options.offline,
        secrets: args.options.secrets,
        infrastructure: args.options.infrastructure,
    })
}

pub(crate) fn build(engine: &Engine, args: args::Build, progress: &Arc<Progress>) -> Outcome {
    if args.jobs == Some(0) {
        return Err(usage("--jobs 0: at least one thread is needed".to_owned()));
    }
    let shell_on_failure = match args.shell_on_failure {
        true if args.recipes.len() > 1 => {
            let what = "--shell-on-failure: one recipe at a time, since there is one terminal";
            return Err(usage(what.to_owned()));
        }
        true => Some(Arc::new(crate::shell::access()?)),
        false => None,
    };
    let request = |recipe: &PathBuf, out: Option<PathBuf>| -> Result<_, CommandError> {
        Ok(engine::BuildRequest {
            recipe: recipe_request(args::RecipeArgs {
                recipe: recipe.clone(),
                options: args.options.clone(),
            })?,
            out,
            test: !args.no_test,
            locked: args.locked,
            lock: None,
            rebuild: args.rebuild,
            jobs: args.jobs,
            boot_timeout_seconds: args.boot_timeout,
            shell_on_failure: shell_on_failure.clone(),
            caches: args.caches.request(),
        })
    };
    if args.check {
        let [recipe] = args.recipes.as_slice() else {
            return Err(usage("--check: one recipe at a time".to_owned()));
        };
        let request = request(recipe, args.out.clone())?;
        let ended = checked(engine, &request, as_json(args.json), progress);
        return failed_alone(engine, recipe, args.json, progress, ended);
    }
    if let [recipe] = args.recipes.as_slice() {
        let built = engine.build(&request(recipe, args.out.clone())?);
        let outcome = match built {
            Ok(outcome) => outcome,
            Err(error) => {
                return failed_alone(engine, recipe, args.json, progress, Err(error.into()));
            }
        };
        progress.summary(None, &outcome, None);
        progress.finish();
        if as_json(args.json) {
            print_json(&outcome)?;
        } else {
            print_line(&format!("{} {}", outcome.image_id, outcome.out.display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let requests: Vec<_> = args
        .recipes
        .iter()
        .map(|recipe| request(recipe, None))
        .collect::<Result<_, _>>()?;
    let names: Vec<String> = args
        .recipes
        .iter()
        .map(|r| r.display().to_string())
        .collect();
    let sink = |number: usize| progress.of(names[number].clone());
    let built = engine.build_all(&requests, args.out.clone(), args.jobs, &sink)?;
    progress.finish();
    let mut code = 0;
    let mut all = Vec::new();
    let mut total = Total::default();
    for (recipe, one) in names.into_iter().zip(built) {
        total.count(&recipe, &one);
        match &one.outcome {
            Ok(built) => {
                progress.summary(Some(&recipe), built, Some(one.took));
                if !as_json(args.json) {
                    print_line(&format!("{} {}", built.image_id, built.out.display()))?;
                }
            }
            Err(error) => {
                render::error_of(&recipe, error);
                code = code.max(error.exit_code());
            }
        }
        all.push(json::BuiltRecipe::of(recipe, one.outcome));
    }
    total.lines().iter().for_each(|line| progress.told(line));
    if as_json(args.json) {
        print_json(&all)?;
    }
    Ok(ExitCode::from(code))
}

/// With `--json`, what failed of a single recipe as an object on standard output, as each of several has its own. A stream
/// of events on standard output has its own last line.
fn failed_alone(
    engine: &Engine,
    recipe: &std::path::Path,
    json: bool,
    progress: &Progress,
    ended: Outcome,
) -> Outcome {
    match ended {
        Err(CommandError::Engine(error))
            if json && !is_json_lines() && !engine.interruption().is_requested() =>
        {
            progress.finish();
            render::error(&error);
            let code = error.exit_code();
            print_json(&json::BuiltRecipe::of(
                recipe.display().to_string(),
                Err(error),
            ))?;
            Ok(ExitCode::from(code))
        }
        ended => ended,
    }
}

/// What several builds came to together.
#[derive(Default)]
struct Total {
    built: usize,
    unchanged: usize,
    /// Recipes with the beginnings of their errors and how long they took.
    failed: Vec<(String, String, Duration)>,
}

impl Total {
    fn count(&mut self, recipe: &str, one: &engine::BuiltOne) {
        match &one.outcome {
            Ok(built) if built.unchanged => self.unchanged += 1,
            Ok(_) => self.built += 1,
            Err(error) => {
                let all = render::plain_lines(&error.with_causes());
                let first = all.lines().next().unwrap_or_default().to_owned();
                self.failed.push((render::plain(recipe), first, one.took));
            }
        }
    }

    /// Each failure in short, and the total.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .failed
            .iter()
            .map(|(recipe, error, took)| {
                format!("   failed {recipe} after {}: {error}", summary::time(*took))
            })
            .collect();
        let counts = [
            (self.built, "built"),
            (self.unchanged, "unchanged"),
            (self.failed.len(), "failed"),
        ];
        let told = counts.iter().filter(|(count, _)| *count > 0);
        let told: Vec<String> = told
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let failed: Vec<&str> = self.failed.iter().map(|f| f.0.as_str()).collect();
        let names = match failed.is_empty() {
            true => String::new(),
            false => format!(": {}", failed.join(", ")),
        };
        lines.push(format!("{}{names}", told.join(", ")));
        lines
    }
}

/// A build with a second one that it is compared with.
fn checked(
    engine: &Engine,
    request: &engine::BuildRequest,
    json: bool,
    progress: &Progress,
) -> Outcome {
    let (outcome, check) = engine.build_checked(request)?;
    progress.summary(None, &outcome, None);
    progress.finish();
    let same = check.reproducible;
    if !same {
        let error = EngineError::new(ErrorKind::Failed, check.text());
        render::error(&error);
    } else if !json {
        progress.told(&check.text());
    }
    match json {
        true => print_json(&json::Checked { outcome, check })?,
        false => print_line(&format!("{} {}", outcome.image_id, outcome.out.display()))?,
    }
    Ok(ExitCode::from(u8::from(!same)))
}

pub(crate) fn plan(engine: &Engine, args: &args::Plan) -> Outcome {
    let report = engine.plan(&engine::PlanQuery {
        recipe: recipe_request(args::RecipeArgs {
            recipe: args.recipe.recipe.clone(),
            options: args.recipe.options.clone(),
        })?,
        locked: args.locked,
        out: args.out.clone(),
    })?;
    if as_json(args.json) {
        print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    for layer in &report.layers {
        let state = if layer.cached { "cached" } else { "build " };
        print_line(&format!("{state} {} {}", &layer.id[..12], layer.title))?;
        if args.why {
            for reason in &layer.reasons {
                print_line(&format!("       {reason}"))?;
            }
        }
    }
    print_line(&format!("plan   {}", &report.plan_id[..12]))?;
    if args.why {
        for reason in &report.reasons {
            print_line(&format!("       {reason}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn validate(engine: &Engine, args: &args::Validate) -> Outcome {
    let reports = engine.validate(&args.files)?;
    let bad = reports.iter().any(engine::DocumentReport::has_errors);
    if as_json(args.json) {
        print_json(&json::Validation::of(&reports))?;
    } else {
        for report in &reports {
            render::document(report);
            if !report.has_errors() {
                print_line(&format!("{}: valid", report.path.display()))?;
            }
        }
    }
    Ok(ExitCode::from(if bad { 2 } else { 0 }))
}

/// What a code of a problem means; without one, all of them.
pub(crate) fn explain(code: Option<&str>) -> Outcome {
    let Some(code) = code else {
        for code in engine::codes() {
            print_line(code)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(text) = engine::explain(code) else {
        let help = match engine::nearest_code(code) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`amiforge explain` lists all codes".to_owned(),
        };
        let error = EngineError::new(ErrorKind::Invalid, format!("there is no code {code:?}"));
        return Err(error.with_hint(help).into());
    };
    print_line(text)?;
    Ok(ExitCode::SUCCESS)
}

/// The JSON Schema of a kind of document; without one, the kinds.
pub(crate) fn schema(kind: Option<&str>) -> Outcome {
    let Some(kind) = kind else {
        for (kind, name) in engine::schemas() {
            print_line(&format!("{kind:32}{name}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(text) = engine::schema(kind) else {
        let error = EngineError::new(
            ErrorKind::Invalid,
            format!("there is no schema of {kind:?}"),
        );
        let help = "`amiforge schema` lists the kinds that have one";
        return Err(error.with_hint(help).into());
    };
    print_line(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn test(engine: &Engine, args: &args::Test) -> Outcome {
    let firmware = match args.firmware {
        FirmwareArg::Bios => engine::FirmwareChoice::Bios,
        FirmwareArg::Uefi => engine::FirmwareChoice::Uefi,
        FirmwareArg::All => engine::FirmwareChoice::All,
    };
    let report = engine.test(&engine::TestRequest {
        image: args.image.clone(),
        firmware,
        timeout_seconds: args.timeout,
    })?;
    if as_json(args.json) {
        print_json(&report)?;
    } else {
        for (firmware, passed) in report.verdicts() {
            print_line(&format!(
                "{firmware}: {}",
                if passed { "passed" } else { "failed" }
            ))?;
        }
    }
    Ok(ExitCode::from(u8::from(!report.passed())))
}

pub(crate) fn assemble(engine: &Engine, args: args::Assemble) -> Outcome {
    let size = args
        .size
        .map(|text| {
            text.parse::<ByteSize>()
                .map_err(|error| usage(format!("--size: {error}")))
        })
        .transpose()?
        .map(|size| size.0);
    let report = engine.assemble(&engine::AssembleRequest {
        rootfs: args.rootfs,
        output: output_request(args.out, args.how),
        size,
        boot: match args.boot {
            BootArg::Bios => engine::BootChoice::Bios,
            BootArg::Uefi => engine::BootChoice::Uefi,
            BootArg::Hybrid => engine::BootChoice::Hybrid,
            BootArg::None => engine::BootChoice::None,
        },
        legacy_root: args.filesystem_profile == ProfileArg::Legacy,
        inodes: args.inodes,
    })?;
    print_files(&report, args.json)
}

pub(crate) fn convert(engine: &Engine, args: args::Convert) -> Outcome {
    let report = engine.convert(&engine::ConvertRequest {
        input: args.input,
        from: args.from,
        named_files: args.allow_backing_file,
        output: output_request(args.out, args.how),
    })?;
    print_files(&report, args.json)
}

fn output_request(files: Vec<PathBuf>, how: args::DiskOutput) -> engine::OutputRequest {
    engine::OutputRequest {
        files,
        compression: how.compress,
        subformat: how.subformat.unwrap_or_default(),
        reuse: how.reuse,
        checksums: match how.checksums {
            ChecksumsArg::Full => engine::Checksums::Full,
            ChecksumsArg::Fast => engine::Checksums::Fast,
            ChecksumsArg::None => engine::Checksums::None,
        },
    }
}

/// What `sha256sum -c` reads, or names alone where nothing was hashed.
fn print_files(report: &engine::DiskFilesReport, json: bool) -> Outcome {
    if as_json(json) {
        print_json(report)?;
    } else {
        for file in &report.files {
            match &file.sha256 {
                Some(sha256) => print_line(&format!("{sha256}  {}", file.path.display()))?,
                None => print_line(&file.path.display().to_string())?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn info(engine: &Engine, args: &args::Info) -> Outcome {
    let info = engine.disk_info(&args.file, args.digests, args.allow_backing_file)?;
    if as_json(args.json) {
        print_json(&info)?;
    } else {
        print_line(info.table().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn inspect(engine: &Engine, args: args::Inspect) -> Outcome {
    let partition = args.partition;
    let image: PathBuf = args.image;
    match args.what {
        InspectWhat::Ls { path, long, json } => {
            let entries = engine.inspect_ls(&image, partition, path.as_encoded_bytes())?;
            if as_json(json) {
                print_json(&entries)?;
            } else {
                for entry in entries {
                    print_line(&if long {
                        entry.long_line()
                    } else {
                        entry.line()
                    })?;
                }
            }
        }
        InspectWhat::Tree { path, depth, json } => {
            let path = path.as_encoded_bytes();
            if as_json(json) {
                let mut lines = Vec::new();
                engine.inspect_tree(&image, partition, path, depth, &mut |line| {
                    lines.push(line);
                    Ok(())
                })?;
                print_json(&lines)?;
            } else {
                let mut out = std::io::BufWriter::new(writer());
                engine.inspect_tree(&image, partition, path, depth, &mut |line| {
                    writeln!(out, "{}", line.line())
                })?;
                out.flush()?;
            }
        }
        InspectWhat::Cat { path } => {
            let mut out = writer();
            engine.inspect_cat(&image, partition, path.as_encoded_bytes(), &mut out)?;
            out.flush()?;
        }
        InspectWhat::Stat { path, json } => {
            let entry = engine.inspect_stat(&image, partition, path.as_encoded_bytes())?;
            if as_json(json) {
                print_json(&entry)?;
            } else {
                print_line(entry.details().trim_end())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn diff(engine: &Engine, args: args::Diff) -> Outcome {
    let report = engine.diff(&engine::DiffRequest {
        a: args.a,
        b: args.b,
        times: args.times,
    })?;
    if as_json(args.json) {
        print_json(&report)?;
    } else {
        print_line(report.text(args.limit).trim_end())?;
    }
    let told = args.exit_code && report.differs;
    Ok(ExitCode::from(u8::from(told)))
}

pub(crate) fn doctor(engine: &Engine, args: &args::Doctor) -> Outcome {
    let report = engine.doctor();
    if as_json(args.json) {
        print_json(&report)?;
    } else {
        print_line(report.table().trim_end())?;
    }
    Ok(ExitCode::from(if report.can_build() { 0 } else { 3 }))
}

pub(crate) fn cache(engine: &Engine, command: args::Cache) -> Outcome {
    match command {
        args::Cache::List { json } => {
            let report = engine.cache()?;
            match as_json(json) {
                true => print_json(&report)?,
                false => print_line(&report.text())?,
            }
        }
        args::Cache::Gc(gc) => {
            let mut keep = engine::Keep::default();
            for one in &gc.keep {
                match one {
                    args::KeepArg::Age(age) => keep.age = Some(*age),
                    args::KeepArg::Size(bytes) => keep.bytes = Some(*bytes),
                }
            }
            if gc.keep.is_empty() {
                keep.age = Some(DEFAULT_KEEP);
            }
            let collected = engine.collect(keep, gc.dry_run)?;
            match as_json(gc.json) {
                true => print_json(&collected)?,
                false => print_line(&collected.text(gc.dry_run))?,
            }
        }
        args::Cache::Key(command) => return crate::shared::key(engine, &command),
        args::Cache::Why { recipe, json } => {
            let why = true;
            let (locked, out) = (false, None);
            let args = args::Plan {
                recipe,
                json,
                why,
                locked,
                out,
            };
            return plan(engine, &args);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Layers and downloads that were used within this time stay, unless somebody says otherwise.
const DEFAULT_KEEP: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::Cli::command(), "amiforge", &mut script);
    writer().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
