//! Draws events: bars on a terminal, plain lines in a pipe, JSON lines where asked for.

mod boots;
mod fold;
mod rate;
pub(crate) mod summary;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use amiforge_engine::{BuildOutcome, Event, EventSink};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use self::boots::{Boots, clock};
use self::fold::Fold;
use self::rate::Rate;
use self::summary::Tally;
use crate::{out, render};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);
/// What [`Bar::stage`] holds while there is nothing to count.
const SPINNING: &str = "";
/// What it holds while machines boot, and nothing else is told.
const BOOTING: &str = "boot";

/// Where the events of one run go.
pub(crate) struct Progress {
    quiet: bool,
    json: Option<Mutex<Box<dyn Write + Send>>>,
    bar: Option<Mutex<Bar>>,
    started: Instant,
    /// By recipe, where there are several.
    of: Mutex<BTreeMap<Option<String>, Told>>,
    /// The machines that boot.
    boots: Arc<Mutex<Boots>>,
}

/// What is kept of the events of one recipe.
#[derive(Default)]
struct Told {
    tally: Tally,
    fold: Fold,
}

struct Bar {
    bar: ProgressBar,
    stage: &'static str,
    rate: Arc<Mutex<Rate>>,
}

/// How long a bar is shown, with its seconds however long that is.
fn elapsed(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let _ = out.write_str(&clock(state.elapsed()));
}

impl Progress {
    /// Events drawn on standard error, and written to `events` (`-` is standard output).
    /// `plain` draws lines as in a pipe, wherever they go.
    pub(crate) fn new(quiet: bool, plain: bool, events: Option<&Path>) -> std::io::Result<Self> {
        let json: Option<Box<dyn Write + Send>> = match events {
            None => None,
            Some(path) if path == Path::new("-") => Some(Box::new(std::io::stdout())),
            Some(path) => {
                let mut file = File::create(path)?;
                writeln!(file, "{}", out::first_line())?;
                Some(Box::new(file))
            }
        };
        let bar = (!quiet && !plain && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // The first stage says more; until then there is nothing to count.
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(TICK);
            Mutex::new(Bar {
                bar,
                stage: "-",
                rate: Arc::default(),
            })
        });
        Ok(Self {
            quiet,
            json: json.map(Mutex::new),
            bar,
            started: Instant::now(),
            of: Mutex::default(),
            boots: Arc::default(),
        })
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar
            && let Ok(bar) = bar.lock()
        {
            bar.bar.finish_and_clear();
        }
    }

    /// Leaves the terminal to somebody else.
    fn pause(&self) {
        if let Some(bar) = &self.bar
            && let Ok(bar) = bar.lock()
        {
            bar.bar.disable_steady_tick();
            bar.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    fn resume(&self) {
        if let Some(bar) = &self.bar
            && let Ok(bar) = bar.lock()
        {
            bar.bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.bar.enable_steady_tick(TICK);
        }
    }

    fn line(&self, recipe: Option<&str>, text: &str) {
        let text = &match recipe {
            Some(recipe) => format!("[{}] {text}", render::plain(recipe)),
            None => text.to_owned(),
        };
        match &self.bar {
            Some(bar) => {
                if let Ok(bar) = bar.lock() {
                    bar.bar.suspend(|| {
                        let _ = writeln!(std::io::stderr(), "{text}");
                    });
                }
            }
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    /// A line of the command itself, unless it is quiet.
    pub(crate) fn told(&self, text: &str) {
        if !self.quiet {
            self.line(None, text);
        }
    }

    /// Says what a build came to, and how long it took: the whole command where nothing else is given.
    pub(crate) fn summary(
        &self,
        recipe: Option<&str>,
        outcome: &BuildOutcome,
        took: Option<Duration>,
    ) {
        if self.quiet {
            return;
        }
        let lines = self.keep(recipe, |told| {
            let took = took.unwrap_or_else(|| self.started.elapsed());
            told.tally.lines(outcome, took)
        });
        lines.iter().for_each(|line| self.line(recipe, line));
    }

    /// Does something with what is kept of a recipe.
    fn keep<T>(&self, recipe: Option<&str>, step: impl FnOnce(&mut Told) -> T) -> T {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        step(of.entry(recipe.map(str::to_owned)).or_default())
    }

    fn spin(&self, recipe: Option<&str>, message: String) {
        let message = match recipe {
            Some(recipe) => format!("[{}] {message}", render::plain(recipe)),
            None => message,
        };
        if let Some(bar) = &self.bar
            && let Ok(mut bar) = bar.lock()
        {
            if bar.stage != SPINNING {
                bar.stage = SPINNING;
                bar.bar.set_style(
                    ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
                        .unwrap_or_else(|_| ProgressStyle::default_spinner())
                        .with_key("elapsed", elapsed),
                );
            }
            bar.bar.set_message(message);
        }
    }

    /// Changes what is known of machines that boot, and shows them while there are any.
    fn booting(&self, recipe: Option<&str>, change: impl FnOnce(&mut Boots)) {
        let shown = {
            let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut boots);
            (!boots.is_empty()).then(|| boots.shown())
        };
        let (Some(shown), Some(bar)) = (shown, &self.bar) else {
            return;
        };
        let shown = match recipe {
            Some(recipe) => format!("[{}] {shown}", render::plain(recipe)),
            None => shown,
        };
        if let Ok(mut bar) = bar.lock() {
            if bar.stage != BOOTING {
                bar.stage = BOOTING;
                let boots = Arc::clone(&self.boots);
                let time = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let boots = boots.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = out.write_str(&boots.clock(Instant::now()));
                };
                let style = ProgressStyle::with_template("{spinner} {msg} … {boots}");
                bar.bar.set_style(
                    style
                        .unwrap_or_else(|_| ProgressStyle::default_spinner())
                        .with_key("boots", time),
                );
            }
            bar.bar.set_message(shown);
        }
    }

    fn advance(
        &self,
        recipe: Option<&str>,
        name: &'static str,
        done: u64,
        total: u64,
        unit: &'static str,
    ) {
        // Bars of several recipes would take turns in one place.
        let Some(bar) = self.bar.as_ref().filter(|_| recipe.is_none()) else {
            return;
        };
        let Ok(mut bar) = bar.lock() else { return };
        if bar.stage != name {
            let template = if unit == "bytes" {
                "{spinner} {elapsed} {msg} {wide_bar} {bytes}/{total_bytes}{pace}{left}"
            } else {
                "{spinner} {elapsed} {msg} {wide_bar} {pos}/{len}{left}"
            };
            bar.stage = name;
            bar.rate = Arc::default();
            let (of_pace, of_left) = (Arc::clone(&bar.rate), Arc::clone(&bar.rate));
            let pace = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let rate = of_pace.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(rate) = rate.per_second(Instant::now(), state.pos()) {
                    let _ = write!(out, " {}/s", amiforge_types::ByteSize(rate));
                }
            };
            let left = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let rate = of_left.lock().unwrap_or_else(PoisonError::into_inner);
                let total = state.len().unwrap_or_default();
                let _ = out.write_str(&rate.left(Instant::now(), state.pos(), total));
            };
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let style = style.with_key("pace", pace).with_key("left", left);
            bar.bar.set_style(style.with_key("elapsed", elapsed));
            bar.bar.set_message(match unit {
                "bytes" => name.to_owned(),
                unit => format!("{name} {unit}"),
            });
            // Of this stage alone.
            bar.bar.reset_elapsed();
        }
        bar.rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(Instant::now(), done);
        bar.bar.set_length(total);
        bar.bar.set_position(done);
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// An event as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a Event,
    /// Which of several recipes it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<&'a str>,
}

/// The events of one of several recipes.
struct Labelled {
    progress: Arc<Progress>,
    recipe: String,
}

impl EventSink for Labelled {
    fn event(&self, event: Event) {
        self.progress.tell(Some(&self.recipe), event);
    }
}

impl EventSink for Progress {
    fn event(&self, event: Event) {
        self.tell(None, event);
    }
}

impl Progress {
    /// Takes the events of one of several recipes.
    pub(crate) fn of(self: &Arc<Self>, recipe: String) -> Arc<dyn EventSink> {
        Arc::new(Labelled {
            progress: self.clone(),
            recipe,
        })
    }

    /// On a terminal: a step is a line once it ended, and what it printed is shown when it failed. False: nothing of this
    /// was drawn.
    fn folded(&self, recipe: Option<&str>, event: &Event) -> bool {
        match event {
            Event::StepStarted {
                component,
                phase,
                step,
                ..
            } => {
                self.keep(recipe, |told| told.fold = Fold::default());
                self.reset_elapsed();
                self.spin(recipe, format!("{component} {phase}/{step}"));
                true
            }
            Event::Output { line, .. } => {
                let line = render::plain(line);
                self.spin(recipe, format!("| {line}"));
                self.keep(recipe, |told| told.fold.push(line));
                true
            }
            Event::StepFinished {
                component,
                phase,
                step,
                status,
                seconds,
                ..
            } => {
                if status != "success" {
                    self.unfold(recipe);
                    return false;
                }
                let lines = self.keep(recipe, |told| std::mem::take(&mut told.fold).told());
                self.line(
                    recipe,
                    &format!("     step {component} {phase}/{step} in {seconds:.1} s{lines}"),
                );
                // Of a test phase: its machine goes on.
                self.booting(recipe, |_| {});
                true
            }
            // Of a script that configures packages.
            Event::LayerStarted { .. } | Event::LayerFinished { .. } => {
                self.keep(recipe, |told| told.fold = Fold::default());
                false
            }
            _ => false,
        }
    }

    fn unfold(&self, recipe: Option<&str>) {
        for line in self.keep(recipe, |told| told.fold.unfold()) {
            self.line(recipe, &format!("          | {line}"));
        }
    }

    fn reset_elapsed(&self) {
        if let Some(bar) = &self.bar
            && let Ok(bar) = bar.lock()
        {
            bar.bar.reset_elapsed();
        }
    }

    fn tell(&self, recipe: Option<&str>, event: Event) {
        let line = Line {
            event: &event,
            recipe,
        };
        if let Some(json) = &self.json
            && let Ok(text) = serde_json::to_string(&line)
            && let Ok(mut json) = json.lock()
        {
            // A reader that went away is not a reason to stop a build.
            if out::is_json_lines()
                && let Some(first) = out::begin_lines()
            {
                let _ = writeln!(json, "{first}");
            }
            let _ = writeln!(json, "{text}").and_then(|()| json.flush());
        }
        if let Event::Warning { message } = &event {
            self.line(
                recipe,
                &format!("warning: {}", render::plain_lines(message)),
            );
        }
        if let Event::Problem {
            path,
            text,
            diagnostic,
            ..
        } = &event
        {
            self.line(recipe, &render::problem(path, text, diagnostic));
        }
        if let Event::ShellStarted {
            failure: Some(failure),
            ..
        } = &event
        {
            self.line(recipe, &format!("error: {}", render::plain_lines(failure)));
        }
        if self.quiet {
            return;
        }
        self.keep(recipe, |told| told.tally.count(&event));
        if self.bar.is_some() && self.folded(recipe, &event) {
            return;
        }
        match event {
            Event::Stage { name, detail } => {
                if self.bar.is_some() {
                    self.spin(recipe, format!("{name} {detail}"));
                } else {
                    self.line(recipe, &format!("{name:>9} {detail}"));
                }
            }
            Event::Progress {
                name,
                done,
                total,
                unit,
            } => self.advance(recipe, name, done, total, unit),
            Event::LayerCached { id, title } => {
                self.line(recipe, &format!("   cached {} {title}", short(&id)))
            }
            Event::LayerFetched {
                id, title, from, ..
            } => {
                self.line(
                    recipe,
                    &format!("  fetched {} {title} from cache {from}", short(&id)),
                );
            }
            Event::LayerShared {
                id,
                title,
                to,
                bytes,
                ..
            } => {
                let size = amiforge_types::ByteSize(bytes);
                let text = format!("   shared {} {title} to cache {to} ({size})", short(&id));
                self.line(recipe, &text);
            }
            Event::LayerStarted { id, title, reason } => {
                self.line(
                    recipe,
                    &format!("    layer {} {title} ({reason})", short(&id)),
                );
                self.spin(recipe, title);
            }
            Event::LayerFinished {
                id, title, seconds, ..
            } => {
                self.line(
                    recipe,
                    &format!("     done {} {title} in {seconds:.1} s", short(&id)),
                );
            }
            Event::StepStarted {
                component,
                phase,
                step,
                action,
            } => {
                self.line(
                    recipe,
                    &format!("     step {component} {phase}/{step} ({action})"),
                );
                self.spin(recipe, format!("{component} {phase}/{step}"));
            }
            Event::Output { line, .. } => {
                self.line(recipe, &format!("          | {}", render::plain(&line)));
            }
            Event::StepFinished {
                component,
                phase,
                step,
                status,
                seconds,
                failure,
            } if status != "success" => {
                let status = match status.as_str() {
                    "ignoredFailure" => "failed and ignored",
                    status => status,
                };
                let reason = failure.map(|reason| format!(": {}", render::plain_lines(&reason)));
                self.line(
                    recipe,
                    &format!(
                        "     step {component} {phase}/{step} {status} after {seconds:.1} s{}",
                        reason.unwrap_or_default()
                    ),
                );
            }
            Event::ShellStarted { place, .. } => {
                self.line(
                    recipe,
                    &format!("    shell {place}; what is changed there is thrown away"),
                );
                self.pause();
            }
            Event::ShellFinished {} => self.resume(),
            Event::Artifact { file, bytes, .. } => {
                self.line(
                    recipe,
                    &format!("    wrote {file} ({})", amiforge_types::ByteSize(bytes)),
                );
            }
            Event::BootStarted {
                firmware,
                acceleration,
                limit_seconds,
            } => {
                let limit = Duration::from_secs(limit_seconds);
                let most = clock(limit);
                self.line(
                    recipe,
                    &format!("     boot {firmware} ({acceleration}), at most {most}"),
                );
                self.booting(recipe, |boots| boots.start(recipe, &firmware, limit));
            }
            Event::Milestone {
                firmware,
                milestone,
                seconds,
            } => {
                self.line(
                    recipe,
                    &format!("     boot {firmware} {seconds:>6.1} s {milestone}"),
                );
                self.booting(recipe, |boots| boots.reached(recipe, &firmware, seconds));
            }
            Event::BootFinished {
                firmware,
                passed,
                seconds,
            } => {
                let verdict = if passed { "passed" } else { "FAILED" };
                self.line(
                    recipe,
                    &format!("     boot {firmware} {verdict} after {seconds:.1} s"),
                );
                self.booting(recipe, |boots| boots.end(recipe, &firmware));
            }
            Event::Unchanged { out, detail } => {
                self.line(recipe, &format!("unchanged {out}: {detail}"))
            }
            _ => {}
        }
    }
}
