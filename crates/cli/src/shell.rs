//! `shell`, and the terminal that shells get.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use amiforge_engine::{Engine, ShellAccess, ShellRequest, ShellWhere};
use amiforge_exec::Console;

use crate::args;
use crate::commands::{Outcome, recipe_request};
use crate::{CommandError, eprint_line, out};

/// Our own standard input and outputs.
pub(crate) fn access() -> Result<ShellAccess, CommandError> {
    let copy = |of: &dyn AsFd| -> std::io::Result<OwnedFd> { of.as_fd().try_clone_to_owned() };
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let lines = out::is_json_lines();
    Ok(ShellAccess {
        console: Console {
            input: copy(&input)?,
            // Standard output holds JSON lines alone.
            output: copy(if lines { &errors } else { &output })?,
            errors: copy(&errors)?,
            terminal: input.is_terminal()
                && if lines {
                    errors.is_terminal()
                } else {
                    output.is_terminal()
                },
        },
        term: std::env::var("TERM").ok(),
    })
}

pub(crate) fn shell(engine: &Engine, args: args::Shell) -> Outcome {
    let place = match args.after {
        Some(after) => ShellWhere::After(after),
        None if args.failed => ShellWhere::Failed,
        None => ShellWhere::Finished,
    };
    let is_command = !args.command.is_empty();
    let access = access()?;
    let code = engine.shell(&ShellRequest {
        recipe: recipe_request(args.recipe)?,
        place,
        argv: args.command,
        access: &access,
    })?;
    // A person's shell ends with the status of whatever was typed last.
    if code == Some(0) || (!is_command && access.console.terminal) {
        return Ok(ExitCode::SUCCESS);
    }
    eprint_line(&match code {
        Some(code) => format!("the command ended with exit code {code}"),
        None => "the command was ended by a signal".to_owned(),
    });
    Ok(ExitCode::from(1))
}
