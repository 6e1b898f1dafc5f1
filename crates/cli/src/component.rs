//! `amiforge component`: the library, and documents without an image.

use std::path::PathBuf;
use std::process::ExitCode;

use amiforge_engine::{self as engine, Engine};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::{Outcome, parameters, usage};
use crate::out::{as_json, print_json, print_line};
use crate::render;

#[derive(Debug, Subcommand)]
pub(crate) enum Component {
    /// Show the built-in components.
    List {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the document of a built-in component.
    Show {
        /// Its name, or `NAME/VERSION` with `x` for any number.
        name: String,
    },
    /// Write a commented document to start from: NAME.yaml.
    New {
        /// Letters, digits, `-` and `_`.
        name: String,
    },
    /// Run documents on the machine that you are on, or on a folder that holds a root file system.
    Run(Run),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Documents, or built-in components as NAME/VERSION.
    #[arg(required = true, value_name = "DOC")]
    documents: Vec<PathBuf>,
    /// The root of the file system that is changed. A folder is worked on in a sandbox; `/` wants --live.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Yes, change this machine.
    #[arg(long)]
    live: bool,
    /// Phases to run, with commas between them [default: all, in the order of the document]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    phases: Vec<String>,
    /// Set a parameter of every document that declares it.
    #[arg(long = "param", value_name = "K=V")]
    params: Vec<String>,
    /// Where the folder with the logs is made.
    #[arg(long, value_name = "DIR", default_value = ".")]
    log_dir: PathBuf,
}

pub(crate) fn component(engine: &Engine, command: Component) -> Outcome {
    match command {
        Component::List { json } => list(json),
        Component::Show { name } => show(&name),
        Component::New { name } => {
            let path = engine.new_component(&name)?;
            print_line(&path.display().to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        Component::Run(args) => run(engine, args),
    }
}

fn list(json: bool) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        name: &'static str,
        version: String,
        description: String,
        phases: Vec<String>,
        parameters: Vec<String>,
    }
    let rows: Vec<Row> = engine::library()
        .iter()
        .filter_map(|document| {
            let component = document.component()?;
            Some(Row {
                name: document.name,
                version: document.version()?.to_string(),
                description: component.description.unwrap_or_default(),
                phases: component.phases.into_iter().map(|p| p.name).collect(),
                parameters: component.parameters.into_iter().map(|p| p.name).collect(),
            })
        })
        .collect();
    if as_json(json) {
        print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    for row in rows {
        print_line(&format!(
            "{:width$}  {}  {}",
            row.name, row.version, row.description
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(name: &str) -> Outcome {
    let document = engine::library_document(name)?;
    print_line(document.text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn run(engine: &Engine, args: Run) -> Outcome {
    if args.phases.iter().any(String::is_empty) {
        return Err(usage("--phases: a name is empty".to_owned()));
    }
    let (result, logs) = engine.run_components(&engine::ComponentRequest {
        documents: args.documents,
        root: args.root,
        live: args.live,
        phases: args.phases,
        parameters: parameters(&args.params)?,
        log_dir: args.log_dir,
    })?;
    print_json(&result.summary(logs.display().to_string()))?;
    if let Some(error) = engine.failure_of(&result) {
        render::error(&error);
    }
    Ok(ExitCode::from(u8::from(!result.status.is_ok())))
}
