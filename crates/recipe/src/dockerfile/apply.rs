//! Instructions, one after the other, to the configuration that they make.

use std::collections::BTreeMap;

use amiforge_types::{Diagnostic, Diagnostics, Span};

use super::lines::{self, Line};
use super::words::{Form, Problem, Variables, Word, expand, form, words};
use super::{ContainerConfig, Dockerfile, health};
use crate::suggest;

/// Most problems that are told.
const MOST_PROBLEMS: usize = 50;
/// Most ports, since a range can name all there are.
const MOST_PORTS: usize = 1 << 16;
/// Most bytes of all values together.
const MOST_BYTES: usize = 1 << 20;

const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const VARIABLES: [&str; 3] = [
    "imagebuilder:parentImage",
    "imagebuilder:environments",
    "imagebuilder:components",
];

/// `ARG`s that have values without being given any.
const PLATFORM: [(&str, &str); 8] = [
    ("BUILDARCH", "amd64"),
    ("BUILDOS", "linux"),
    ("BUILDPLATFORM", "linux/amd64"),
    ("TARGETARCH", "amd64"),
    ("TARGETOS", "linux"),
    ("TARGETPLATFORM", "linux/amd64"),
    ("BUILDVARIANT", ""),
    ("TARGETVARIANT", ""),
];

/// Reads a whole template; `config` is that of the parent.
pub(super) fn apply(text: &str, config: ContainerConfig, diags: &mut Diagnostics) -> Dockerfile {
    let cut = lines::lines(text);
    let mut state = State {
        source: text,
        escape: cut.escape,
        diags,
        told: 0,
        stages: 0,
        has_cmd: false,
        early_args: Variables::new(),
        args: Variables::new(),
        env_places: BTreeMap::new(),
        bytes: 0,
        user_before: None,
        file: Dockerfile {
            author: None,
            config,
            step_env: Variables::new(),
            instructions: [Vec::new(), Vec::new()],
            has_components: false,
            unsupported: Vec::new(),
            // Read again, it says the same without them; and so do two files that differ in nothing else.
            text: text
                .strip_prefix('\u{feff}')
                .unwrap_or(text)
                .replace("\r\n", "\n"),
        },
    };
    if let Some((span, message)) = cut.bad_directive {
        state.tell(Diagnostic::error("invalid-instruction", span, message));
    }
    for (place, (name, _)) in state.file.config.env.iter().enumerate() {
        state.env_places.insert(name.clone(), place);
    }
    for line in &cut.lines {
        state.line(line);
    }
    let end = |at: usize| {
        let line = cut.lines.get(at);
        line.map_or_else(super::beginning, |line| line.span(text, 0, line.text.len()))
    };
    if cut.too_many {
        let message = "the template has more instructions than are read";
        state.tell(Diagnostic::error(
            "out-of-range",
            end(cut.lines.len().saturating_sub(1)),
            message,
        ));
    }
    if state.stages == 0 {
        let message = "a Dockerfile begins with FROM";
        let problem = Diagnostic::error("invalid-instruction", end(0), message);
        state.tell(problem.with_help("write `FROM {{{ imagebuilder:parentImage }}}`"));
    }
    if let Some(span) = state.user_before.filter(|_| state.file.has_components) {
        let message = "components run as root here, whatever user is set before them";
        let help = "set the user after `{{{ imagebuilder:components }}}`";
        state
            .diags
            .push(Diagnostic::warning("ignored-instruction", span, message).with_help(help));
    }
    state.file
}

struct State<'a> {
    source: &'a str,
    escape: char,
    diags: &'a mut Diagnostics,
    told: usize,
    stages: usize,
    /// `CMD` of this Dockerfile; that of the parent goes with a new `ENTRYPOINT`.
    has_cmd: bool,
    /// `ARG`s before `FROM`.
    early_args: Variables,
    args: Variables,
    /// Where in `file.config.env` a name is: there can be many.
    env_places: BTreeMap<String, usize>,
    /// Bytes of values that were kept.
    bytes: usize,
    /// A `USER` other than root before the components.
    user_before: Option<Span>,
    file: Dockerfile,
}

impl State<'_> {
    fn tell(&mut self, problem: Diagnostic) {
        self.told += 1;
        if self.told <= MOST_PROBLEMS {
            self.diags.push(problem);
        }
    }

    /// What is right in a Dockerfile and that no build here follows.
    fn unsupported(&mut self, span: Span, message: String, help: &str) {
        if self.file.unsupported.len() < MOST_PROBLEMS {
            let problem = Diagnostic::error("unsupported-instruction", span, message);
            self.file.unsupported.push(problem.with_help(help));
        }
    }

    fn line(&mut self, line: &Line) {
        let text = line.text.as_str();
        if text.starts_with("{{{") {
            return self.variable(line);
        }
        let len = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(len);
        let rest = rest.trim_start();
        let base = text.len() - rest.len();
        let name = word.to_ascii_uppercase();
        let word_span = line.span(self.source, 0, word.len());
        if !INSTRUCTIONS.contains(&name.as_str()) {
            let help = suggest::did_you_mean(word, INSTRUCTIONS)
                .unwrap_or_else(|| format!("instructions are {}", INSTRUCTIONS.join(", ")));
            let message = format!("there is no instruction {}", crate::decode::shown(word));
            self.tell(Diagnostic::error("unknown-instruction", word_span, message).with_help(help));
            return;
        }
        if rest.is_empty() {
            let message = format!("{name} needs a value");
            self.tell(Diagnostic::error("invalid-instruction", word_span, message));
            return;
        }
        if self.stages == 0 && !matches!(name.as_str(), "FROM" | "ARG") {
            // Told once, of the whole, unless a FROM follows.
            let message = format!("{name} stands before FROM");
            self.tell(Diagnostic::error("invalid-instruction", word_span, message));
            return;
        }
        if let Err(problem) = self.instruction(&name, rest, base, line) {
            let end = text.len().max(problem.at + 1);
            let span = line.span(self.source, problem.at.min(text.len()), end);
            if problem.unsupported {
                self.unsupported(span, problem.what, "write the value out");
            } else {
                self.tell(Diagnostic::error("invalid-instruction", span, problem.what));
            }
        }
        if !matches!(
            name.as_str(),
            "FROM" | "ARG" | "RUN" | "COPY" | "ADD" | "ONBUILD"
        ) {
            let part = usize::from(self.file.has_components);
            self.file.instructions[part].push(text.to_owned());
        }
    }

    /// A line that begins with `{{{`.
    fn variable(&mut self, line: &Line) {
        let span = line.span(self.source, 0, line.text.len());
        let mut text = line.text.as_str();
        let mut several = false;
        while !text.is_empty() {
            let inner = text.strip_prefix("{{{");
            let message = match inner.and_then(|t| t.split_once("}}}")) {
                Some((name, after)) => {
                    self.variable_named(name.trim(), span);
                    text = after.trim();
                    several |= !text.is_empty();
                    continue;
                }
                None if inner.is_some() => "`{{{` is not closed",
                None => "nothing but variables can follow a variable on its line",
            };
            return self.tell(Diagnostic::error("invalid-instruction", span, message));
        }
        if several {
            let message = "several variables stand on one line".to_owned();
            self.unsupported(span, message, "write each on a line of its own");
        }
    }

    fn variable_named(&mut self, name: &str, span: Span) {
        match name {
            "imagebuilder:environments" => {}
            "imagebuilder:components" if self.stages == 0 => {
                let message = "components stand before FROM";
                self.tell(Diagnostic::error("invalid-instruction", span, message));
            }
            "imagebuilder:components" => {
                self.file.has_components = true;
                let known = self.file.config.env.iter();
                self.file.step_env = known
                    .filter(|(name, value)| name != "PATH" || value != super::PATH)
                    .cloned()
                    .collect();
            }
            "imagebuilder:parentImage" => {
                let message = "the parent image is no instruction";
                let problem = Diagnostic::error("invalid-instruction", span, message);
                self.tell(problem.with_help("write `FROM {{{ imagebuilder:parentImage }}}`"));
            }
            other => {
                let help = suggest::did_you_mean(other, VARIABLES)
                    .unwrap_or_else(|| format!("known are {}", VARIABLES.join(", ")));
                let message = format!("there is no variable {}", crate::decode::shown(other));
                self.tell(Diagnostic::error("unknown-variable", span, message).with_help(help));
            }
        }
    }

    /// The value of a variable: `ENV` goes over `ARG`. Before `FROM` there is no image that could have variables.
    fn value_of(&self, name: &str) -> Option<&str> {
        if self.stages == 0 {
            let early = self.early_args.get(name).map(String::as_str);
            return early.or_else(|| of_platform(name));
        }
        let env = self.env_places.get(name);
        let env = env.and_then(|place| self.file.config.env.get(*place));
        let arg = || self.args.get(name);
        env.map(|(_, value)| value).or_else(arg).map(String::as_str)
    }

    fn set_env(&mut self, name: String, value: String) {
        let env = &mut self.file.config.env;
        let place = *self.env_places.entry(name.clone()).or_insert(env.len());
        match env.get_mut(place) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }

    fn expanded(&mut self, word: Word<'_>) -> Result<String, Problem> {
        let value = expand(word, self.escape, &|name| self.value_of(name))?;
        self.bytes = self.bytes.saturating_add(value.len());
        if self.bytes > MOST_BYTES {
            return Err(Problem::new(
                word.at,
                "the values of this Dockerfile have more than 1 MiB once variables are replaced",
            ));
        }
        if value.contains('\0') {
            return Err(Problem::new(word.at, "a value cannot hold a NUL character"));
        }
        Ok(value)
    }

    fn instruction(
        &mut self,
        name: &str,
        rest: &str,
        base: usize,
        line: &Line,
    ) -> Result<(), Problem> {
        let whole = Word {
            at: base,
            text: rest,
        };
        if name != "FROM"
            && let Some(at) = rest.find("{{{")
            && rest[at..].contains("imagebuilder:")
        {
            return Err(Problem {
                unsupported: true,
                ..Problem::new(
                    base + at,
                    "variables of Image Builder stand in FROM or on lines of their own",
                )
            });
        }
        match name {
            "FROM" => self.from(rest, base, line)?,
            "ARG" => self.arg(rest, base)?,
            "ENV" => {
                for (name, value) in self.pairs(rest, base)? {
                    if name.contains('=') {
                        let what = format!("{} cannot be a name", crate::decode::shown(&name));
                        return Err(Problem::new(base, what));
                    }
                    self.set_env(name, value);
                }
            }
            "LABEL" => {
                let pairs = self.pairs(rest, base)?;
                self.file.config.labels.extend(pairs);
            }
            "CMD" => {
                let command = self.command(rest, base, line)?;
                self.file.config.cmd = Some(command);
                self.has_cmd = true;
            }
            "ENTRYPOINT" => {
                let command = self.command(rest, base, line)?;
                self.file.config.entrypoint = Some(command);
                if !self.has_cmd {
                    self.file.config.cmd = None;
                }
            }
            "SHELL" => match form(rest, base)? {
                Form::Exec(list) if !list.is_empty() => self.file.config.shell = Some(list),
                _ => {
                    return Err(Problem::new(
                        base,
                        "SHELL takes a list of texts in double quotes, such as [\"/bin/bash\", \"-c\"]",
                    ));
                }
            },
            "EXPOSE" => self.expose(rest, base)?,
            "USER" => {
                let user = self.one(whole)?;
                if !self.file.has_components && !matches!(user.as_str(), "root" | "0") {
                    self.user_before = Some(line.span(self.source, 0, line.text.len()));
                } else if !self.file.has_components {
                    self.user_before = None;
                }
                self.file.config.user = Some(user);
            }
            "WORKDIR" => {
                let path = self.one(whole)?;
                let old = self.file.config.working_directory.as_deref();
                self.file.config.working_directory = Some(joined(old.unwrap_or("/"), &path));
            }
            "VOLUME" => {
                let list = match form(rest, base)? {
                    Form::Exec(list) => list,
                    Form::Shell(_) => words(rest, base, self.escape)?
                        .into_iter()
                        .map(|word| word.text.to_owned())
                        .collect(),
                };
                for text in list {
                    let path = self.expanded(Word {
                        at: base,
                        text: &text,
                    })?;
                    if path.trim().is_empty() {
                        return Err(Problem::new(base, "a volume needs a path"));
                    }
                    self.file.config.volumes.insert(path);
                }
            }
            "STOPSIGNAL" => {
                let signal = self.one(whole)?;
                let fits = !signal.is_empty()
                    && signal
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'-');
                if !fits {
                    return Err(Problem::new(
                        base,
                        format!(
                            "{} is neither the name nor the number of a signal",
                            crate::decode::shown(&signal)
                        ),
                    ));
                }
                self.file.config.stop_signal = Some(signal);
            }
            "HEALTHCHECK" => {
                self.file.config.healthcheck = Some(health::healthcheck(rest, base)?);
            }
            "MAINTAINER" => self.file.author = Some(rest.to_owned()),
            _ => {
                let span = line.span(self.source, 0, name.len());
                let (what, help) = match name {
                    "RUN" => (
                        "runs a command",
                        "put the command into a component: `action: ExecuteBash`",
                    ),
                    "ONBUILD" => (
                        "is for builds from this image, which are not made here",
                        "leave it out",
                    ),
                    _ => (
                        "brings files",
                        "put them into a component: `action: CreateFile`, `CopyFile`, `WebDownload` or `S3Download`",
                    ),
                };
                self.unsupported(span, format!("{name} {what}"), help);
            }
        }
        Ok(())
    }

    fn from(&mut self, rest: &str, base: usize, line: &Line) -> Result<(), Problem> {
        self.stages += 1;
        if self.stages > 1 {
            let span = line.span(self.source, 0, line.text.len());
            if self.stages == 2 {
                self.unsupported(
                    span,
                    "a second FROM begins another stage, of which there is one here".to_owned(),
                    "bring what the other stage makes with a component",
                );
            }
            return Ok(());
        }
        let mut text = rest;
        while text.starts_with("--") {
            let len = text.find(char::is_whitespace).unwrap_or(text.len());
            text = text[len..].trim_start();
        }
        let at = base + (rest.len() - text.len());
        let (is_parent, after) = match text.strip_prefix("{{{").and_then(|t| t.split_once("}}}")) {
            Some((name, after)) => {
                let name = name.trim();
                if name != VARIABLES[0] {
                    let help = suggest::did_you_mean(name, VARIABLES)
                        .unwrap_or_else(|| format!("write {}", VARIABLES[0]));
                    let message = format!(
                        "there is no variable {} of an image",
                        crate::decode::shown(name)
                    );
                    let span = line.span(self.source, at, line.text.len());
                    let problem = Diagnostic::error("unknown-variable", span, message);
                    self.tell(problem.with_help(help));
                }
                (true, after)
            }
            None => {
                let len = text.find(char::is_whitespace).unwrap_or(text.len());
                (false, &text[len..])
            }
        };
        let after: Vec<&str> = after.split_whitespace().collect();
        let named = matches!(after.as_slice(), [] | [_, _])
            && after.first().is_none_or(|w| w.eq_ignore_ascii_case("as"));
        if !named {
            return Err(Problem::new(
                at,
                "FROM takes an image, and AS with a name for the stage",
            ));
        }
        if !is_parent {
            let span = line.span(self.source, at, line.text.len());
            self.unsupported(
                span,
                "the image starts from the recipe's `parentImage`, and from nothing else"
                    .to_owned(),
                "write `FROM {{{ imagebuilder:parentImage }}}`",
            );
        }
        Ok(())
    }

    fn arg(&mut self, rest: &str, base: usize) -> Result<(), Problem> {
        for word in words(rest, base, self.escape)? {
            let (name, default) = match word.text.split_once('=') {
                Some((name, value)) => (name, Some((name.len() + 1, value))),
                None => (word.text, None),
            };
            let at = word.at;
            let name = self.expanded(Word { at, text: name })?;
            if !is_name(&name) {
                let shown = crate::decode::shown(&name);
                let what = format!("{shown} is not the name of a variable");
                return Err(Problem::new(at, what));
            }
            let value = match default {
                Some((offset, text)) => {
                    let at = at + offset;
                    Some(self.expanded(Word { at, text })?)
                }
                None => {
                    let early = self.early_args.get(&name).map(String::as_str);
                    early.or_else(|| of_platform(&name)).map(str::to_owned)
                }
            };
            let args = if self.stages == 0 {
                &mut self.early_args
            } else {
                &mut self.args
            };
            if let Some(value) = value {
                args.insert(name, value);
            }
        }
        Ok(())
    }

    /// `name=value name="value"`, or the old form `name value`.
    /// Variables have the values of before the instruction, also in its later pairs.
    fn pairs(&mut self, rest: &str, base: usize) -> Result<Vec<(String, String)>, Problem> {
        let all = words(rest, base, self.escape)?;
        let mut out = Vec::new();
        let Some(first) = all.first() else {
            return Ok(out);
        };
        if !first.text.contains('=') {
            let tail = rest[first.text.len()..].trim_start();
            if tail.is_empty() {
                return Err(Problem::new(first.at, "a name and its value are needed"));
            }
            let at = base + (rest.len() - tail.len());
            let name = self.one(*first)?;
            out.push((name, self.expanded(Word { at, text: tail })?));
            return Ok(out);
        }
        for word in all {
            let Some((name, value)) = word.text.split_once('=') else {
                return Err(Problem::new(
                    word.at,
                    format!(
                        "{} has no `=`; a value with blanks stands in quotes",
                        crate::decode::shown(word.text)
                    ),
                ));
            };
            let at = word.at + name.len() + 1;
            if name.is_empty() {
                return Err(Problem::new(word.at, "there is no name before `=`"));
            }
            let name = self.one(Word {
                at: word.at,
                text: name,
            })?;
            out.push((name, self.expanded(Word { at, text: value })?));
        }
        Ok(out)
    }

    /// `CMD` and `ENTRYPOINT`: no variables, they are for the shell that runs later.
    fn command(&mut self, rest: &str, base: usize, line: &Line) -> Result<Vec<String>, Problem> {
        match form(rest, base)? {
            Form::Exec(list) => Ok(list),
            Form::Shell(text) => {
                // `[ -e /run/x ] && exec y` is the shell's test.
                let like_list = text.starts_with('[')
                    && (text.trim_end().ends_with(']')
                        || text.contains("[\"")
                        || text.contains("['"));
                if like_list {
                    let help = "a list holds texts in double quotes, and nothing follows it";
                    let message = "this is no list, so a shell gets it as it is";
                    let at = line.span(self.source, base, base + text.len());
                    let problem = Diagnostic::warning("suspicious-command", at, message);
                    self.tell(problem.with_help(help));
                }
                let shell = self.file.config.shell.clone();
                let mut command =
                    shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                command.push(text);
                Ok(command)
            }
        }
    }

    fn expose(&mut self, rest: &str, base: usize) -> Result<(), Problem> {
        for word in words(rest, base, self.escape)? {
            let text = self.expanded(word)?;
            for text in text.split_whitespace() {
                self.port(text, word.at)?;
            }
        }
        Ok(())
    }

    /// `80`, `80/udp`, `8000-8010/tcp`.
    fn port(&mut self, text: &str, at: usize) -> Result<(), Problem> {
        let wrong = || {
            let shown = crate::decode::shown(text);
            Problem {
                // With an address and a port of the host, which have no effect.
                unsupported: text.contains(':'),
                ..Problem::new(at, format!("{shown} is not a port, such as 80 or 53/udp"))
            }
        };
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(wrong());
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|n| digits && *n > 0)
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(wrong());
        };
        if first > last {
            return Err(wrong());
        }
        for port in first..=last {
            if self.file.config.exposed_ports.len() >= MOST_PORTS {
                return Err(Problem::new(at, "too many ports"));
            }
            let port = format!("{port}/{protocol}");
            self.file.config.exposed_ports.insert(port);
        }
        Ok(())
    }

    /// The whole rest as one value.
    fn one(&mut self, word: Word<'_>) -> Result<String, Problem> {
        let value = self.expanded(word)?;
        if value.trim().is_empty() {
            // The parent may set the variable.
            return Err(Problem {
                unsupported: true,
                ..Problem::new(word.at, "the value is empty once variables are replaced")
            });
        }
        Ok(value)
    }
}

fn of_platform(name: &str) -> Option<&'static str> {
    let known = PLATFORM.iter().find(|(known, _)| *known == name);
    known.map(|(_, value)| *value)
}

fn is_name(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A path seen from a folder, without `.`, `..` and double slashes.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let folder = if path.starts_with('/') { "" } else { folder };
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
