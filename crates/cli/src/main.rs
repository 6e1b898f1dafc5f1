//! The `amiforge` command: parse, call one operation of the engine, draw its events, map errors to
//! exit codes.
#![forbid(unsafe_code)]

mod agent_blob;
mod args;
mod commands;
mod component;
mod ec2;
mod export;
mod json;
mod lock;
mod out;
mod progress;
mod render;
mod shared;
mod shell;

use std::process::ExitCode;
use std::sync::Arc;

use amiforge_engine::{Engine, EngineError, Settings, Way};
use clap::Parser;

use crate::args::{Cli, Command, Disk};
use crate::progress::Progress;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == amiforge_exec::CHILD_ARG)
    {
        return amiforge_exec::child_main();
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == amiforge_engine::AGAIN_ARG)
    {
        return amiforge_engine::again_main(agent_blob::AGENT);
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == amiforge_engine::ec2::IMDS_RELAY_ARG)
    {
        let socket = std::env::args_os().nth(2).unwrap_or_default();
        // What goes wrong is the guest's to see: the connection ends.
        let _ = amiforge_engine::ec2::imds_relay(socket.as_ref());
        return ExitCode::SUCCESS;
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == amiforge_engine::ec2::INSTANCE_ARG)
    {
        return instance_process();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let progress = match Progress::new(cli.quiet, cli.plain, cli.events.as_deref()) {
        Ok(progress) => Arc::new(progress),
        Err(error) => {
            let path = cli.events.unwrap_or_default();
            eprint_line(&format!(
                "error: {}: cannot write events: {error}",
                path.display()
            ));
            return ExitCode::from(2);
        }
    };
    if cli.events.as_deref() == Some("-".as_ref()) {
        out::json_lines();
    }
    let result = run(cli.command, cli.sandbox, &progress);
    progress.finish();
    match result {
        Ok(code) => code,
        Err(CommandError::Engine(error)) => {
            render::error(&error);
            ExitCode::from(error.exit_code())
        }
        // Whoever read our output has seen enough.
        Err(CommandError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(CommandError::Output(error)) => {
            eprint_line(&format!("error: cannot write to standard output: {error}"));
            ExitCode::from(1)
        }
    }
}

/// Exit code after ctrl-C or another signal that asks to end (DESIGN, command line).
const INTERRUPTED: u8 = 130;

/// Why a command ended.
pub(crate) enum CommandError {
    Engine(EngineError),
    Output(std::io::Error),
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

fn run(
    command: Command,
    sandbox: Option<Way>,
    progress: &Arc<Progress>,
) -> Result<ExitCode, CommandError> {
    match command {
        Command::Completions { shell } => return commands::completions(shell),
        Command::Explain { code } => return commands::explain(code.as_deref()),
        Command::Schema { kind } => return commands::schema(kind.as_deref()),
        _ => {}
    }
    let mut settings = Settings::from_environment(
        progress.clone(),
        amiforge_exec::Helper::new("/proc/self/exe"),
        agent_blob::AGENT,
    )?;
    settings.sandbox = sandbox.or(settings.sandbox);
    let engine = Engine::new(settings);
    let interrupted = engine.interruption();
    let handler = interrupted.clone();
    if let Err(error) = ctrlc::set_handler(move || {
        eprint_line("interrupted");
        handler.interrupt();
        // The sandbox and QEMU are told by the kernel when this process ends.
        #[allow(clippy::exit, reason = "the only way out of a blocked operation")]
        std::process::exit(INTERRUPTED.into());
    }) {
        eprint_line(&format!("warning: ctrl-C cannot be caught: {error}"));
    }
    let result = match command {
        Command::Build(args) => commands::build(&engine, args, progress),
        Command::Plan(args) => commands::plan(&engine, &args),
        Command::Lock(command) => lock::lock(&engine, command),
        Command::Shell(args) => shell::shell(&engine, args),
        Command::Validate(args) => commands::validate(&engine, &args),
        Command::Explain { code } => commands::explain(code.as_deref()),
        Command::Schema { kind } => commands::schema(kind.as_deref()),
        Command::Component(command) => component::component(&engine, command),
        Command::Test(args) => commands::test(&engine, &args),
        Command::Export(args) => export::export(&engine, args),
        Command::Disk(Disk::Assemble(args)) => commands::assemble(&engine, args),
        Command::Disk(Disk::Convert(args)) => commands::convert(&engine, args),
        Command::Disk(Disk::Info(args)) => commands::info(&engine, &args),
        Command::Inspect(args) => commands::inspect(&engine, args),
        Command::Diff(args) => commands::diff(&engine, args),
        Command::Run(args) => ec2::run(&engine, *args),
        Command::Instance(args) => ec2::instance(&engine, *args),
        Command::Image(args) => ec2::image(&engine, *args),
        Command::Snapshot(args) => ec2::snapshot(&engine, *args),
        Command::Volume(args) => ec2::volume(&engine, *args),
        Command::Key(args) => ec2::key(&engine, *args),
        Command::Policy(args) => ec2::policy(&engine, *args),
        Command::Audit(args) => ec2::audit(&engine, *args),
        Command::Account(args) => ec2::account(&engine, *args),
        Command::Doctor(args) => commands::doctor(&engine, &args),
        Command::Cache(command) => commands::cache(&engine, command),
        Command::Completions { shell } => commands::completions(shell),
    };
    match result {
        // What an operation says that was ended from outside helps nobody.
        Err(CommandError::Engine(_)) if interrupted.is_requested() => {
            Ok(ExitCode::from(INTERRUPTED))
        }
        result => result,
    }
}

/// The background process of an instance: it goes on when the terminal is gone, and shuts the guest down when it is asked to end.
fn instance_process() -> ExitCode {
    let id = std::env::args().nth(2).unwrap_or_default();
    let progress = match Progress::new(false, true, None) {
        Ok(progress) => Arc::new(progress),
        Err(_) => return ExitCode::from(1),
    };
    let settings = Settings::from_environment(
        progress,
        amiforge_exec::Helper::new("/proc/self/exe"),
        agent_blob::AGENT,
    );
    let engine = match settings {
        Ok(settings) => Engine::new(settings),
        Err(error) => {
            render::error(&error);
            return ExitCode::from(error.exit_code());
        }
    };
    let asked_to_end = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = asked_to_end.clone();
    let _ = ctrlc::set_handler(move || asked.store(true, std::sync::atomic::Ordering::SeqCst));
    ec2::instance_main(&engine, &id, asked_to_end)
}

pub(crate) fn eprint_line(text: &str) {
    use std::io::Write;
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
