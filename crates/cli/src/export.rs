//! `amiforge export`.

use std::io::Write;
use std::process::ExitCode;

use amiforge_engine::{self as engine, Engine};

use crate::args::{self, ExportFormatArg};
use crate::commands::{Outcome, parameters, usage};
use crate::out::{print_line, writer};

pub(crate) fn export(engine: &Engine, args: args::Export) -> Outcome {
    let mut uris = Vec::new();
    for text in &args.uris {
        match text.split_once('=') {
            Some((name, uri)) if !name.is_empty() && uri.starts_with("s3://") => {
                uris.push((name.to_owned(), uri.to_owned()));
            }
            _ => {
                return Err(usage(format!(
                    "--uri {text}: write COMPONENT=s3://BUCKET/KEY"
                )));
            }
        }
    }
    let exported = engine.export(&engine::ExportRequest {
        format: match args.format {
            ExportFormatArg::CloudFormation => engine::ExportFormat::CloudFormation,
            ExportFormatArg::Terraform => engine::ExportFormat::Terraform,
            ExportFormatArg::Cli => engine::ExportFormat::CommandLine,
        },
        files: args.files,
        parameters: parameters(&args.params)?,
        parent: args.parent,
        own_library: args.own_library,
        uris,
        out: args.out,
        force: args.force,
    })?;
    match exported {
        engine::Exported::Text(text) => {
            let mut out = writer();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        engine::Exported::Files(paths) => {
            for path in paths {
                print_line(&path.display().to_string())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
