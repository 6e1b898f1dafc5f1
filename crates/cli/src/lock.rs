//! `amiforge lock`: what builds are pinned to.

use std::path::PathBuf;
use std::process::ExitCode;

use amiforge_engine::{self as engine, Engine};
use clap::{Args, Subcommand};

use crate::args::RecipeArgs;
use crate::commands::{Outcome, recipe_request};
use crate::out::{as_json, print_json, print_line};

#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Resolve a recipe anew, write `lock.json` beside it for `build --locked`, and say what changed: packages with their
    /// versions, archives, digests, downloads.
    Update(Update),
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The output folder whose lock is compared with where none is beside the recipe [default: ./out/NAME-VERSION]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write nothing, and end with 1 when the lock is not what there is now.
    #[arg(long)]
    check: bool,
    /// Tell of each upgraded package the entries of its Debian changelog since the version before. Brings these packages into
    /// the cache, as the next build would.
    #[arg(long)]
    changelog: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn lock(engine: &Engine, command: Lock) -> Outcome {
    let Lock::Update(args) = command;
    let report = engine.lock_update(&engine::LockRequest {
        recipe: recipe_request(args.recipe)?,
        out: args.out,
        dry_run: args.dry_run || args.check,
        changelog: args.changelog,
    })?;
    match as_json(args.json) {
        true => print_json(&report)?,
        false => print_line(&report.text())?,
    }
    Ok(ExitCode::from(u8::from(args.check && report.differs)))
}
