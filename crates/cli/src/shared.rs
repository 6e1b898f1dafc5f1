//! Shared caches: their options of `build`, and `cache key`.

use std::path::PathBuf;
use std::process::ExitCode;

use amiforge_engine as engine;
use amiforge_engine::Engine;
use clap::{Args, Subcommand};

use crate::commands::Outcome;
use crate::out::print_line;

/// Shared caches of layers.
#[derive(Clone, Debug, Args)]
pub(crate) struct CacheOptions {
    /// Ask this cache before a layer is made: `oci:REGISTRY/REPOSITORY`, or a folder (`dir:PATH` or a path). May be repeated; the first
    /// that has a layer gives it.
    #[arg(long, value_name = "REF")]
    cache_from: Vec<engine::SharedPlace>,
    /// Put layers that this cache lacks into it, signed with this user's key.
    #[arg(long, value_name = "REF")]
    cache_to: Option<engine::SharedPlace>,
    /// Use layers of this writer, by the key that `cache key show` prints there. May be repeated; the configuration has others
    /// under `cacheTrust`, and this user is always trusted.
    #[arg(long, value_name = "KEY")]
    cache_trust: Vec<engine::CacheWriter>,
    /// Sign with the key in this file, in the place of this user's.
    #[arg(long, value_name = "FILE")]
    cache_key: Option<PathBuf>,
    /// Put also those layers into the cache whose steps were lent secrets, and those above them.
    #[arg(long, requires = "cache_to")]
    cache_secrets: bool,
}

impl CacheOptions {
    pub(crate) fn request(&self) -> engine::CacheRequest {
        engine::CacheRequest {
            from: self.cache_from.clone(),
            to: self.cache_to.clone(),
            trust: self.cache_trust.clone(),
            key: self.cache_key.clone(),
            secrets: self.cache_secrets,
        }
    }
}

/// The key by which others know the layers that this user puts into shared caches
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make it; prints the public half, which others name with `--cache-trust`.
    New,
    /// Print the public half.
    Show,
}

pub(crate) fn key(engine: &Engine, command: &Key) -> Outcome {
    let writer = match command {
        Key::New => engine.new_cache_key()?,
        Key::Show => engine.cache_key()?,
    };
    print_line(&writer.to_string())?;
    Ok(ExitCode::SUCCESS)
}
