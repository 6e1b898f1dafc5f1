//! `shell`: a shell in the files of a recipe, after any of its components or steps, or where its last build failed.

use std::path::Path;
use std::time::SystemTime;

use amiforge_exec::ShellSpec;
use amiforge_plan::Plan;
use amiforge_store::Store;
use amiforge_types::LayerId;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::{FailedState, ShellAccess, Work, store_context};
use crate::load::{LoadedRecipe, RecipeRequest};
use crate::plans::record_key;
use crate::settings::Engine;

/// Which files a shell is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShellWhere {
    /// Those of the finished image.
    Finished,
    /// Those after the build phase of a component (`NAME`), or after a step of it (`NAME/STEP`).
    After(String),
    /// Those that the last failure left.
    Failed,
}

/// A shell.
#[derive(Debug)]
pub struct ShellRequest<'a> {
    /// The recipe.
    pub recipe: RecipeRequest,
    /// Which of its files.
    pub place: ShellWhere,
    /// What runs there; empty for the image's shell.
    pub argv: Vec<String>,
    /// What it talks to.
    pub access: &'a ShellAccess,
}

impl Engine {
    /// Opens the shell and waits for its end. What it changes is thrown away. Returns its exit code; `None` when a
    /// signal ended it.
    ///
    /// # Errors
    /// When there is no such place, its layers cannot be made, or the command not started.
    pub fn shell(&self, request: &ShellRequest<'_>) -> Result<Option<i32>, EngineError> {
        if request.place == ShellWhere::Failed {
            let recipe = self.load_known(&request.recipe)?;
            let store = self.open_store()?;
            self.clear_leftovers(&store);
            let name = &recipe.recipe.name;
            let state = self
                .last_failed(&store, name)?
                .ok_or_else(|| no_failure(name))?;
            let secrets = &recipe.recipe.amiforge.secrets;
            if !secrets.is_empty() {
                let names: Vec<&str> = secrets.iter().map(|s| s.name.as_str()).collect();
                self.warn(format!(
                    "the secrets of the recipe ({}) are not in this shell: /run/secrets is there for the steps of a build alone",
                    names.join(", ")
                ));
            }
            return self.shell_of_failure((&store, name), &state, request);
        }
        let recipe = self.load(&request.recipe)?;
        let store = self.open_store()?;
        self.clear_leftovers(&store);
        let _downloads = store
            .use_downloads()
            .or_fail(ErrorKind::Failed, store_context)?;
        let parent = self.resolve_parent(&recipe, &store, request.recipe.offline, None)?;
        let recipe = self.over_parent(recipe, &parent)?;
        let plan = self.compile(&recipe, &parent)?;
        let place = Place::find(&plan, &request.place)?;
        let ids: Vec<LayerId> = plan.layers.iter().map(|layer| layer.id).collect();
        let _used = store
            .use_layers(&ids, SystemTime::now())
            .or_fail(ErrorKind::Failed, store_context)?;
        let work = Work::passing(
            self,
            &store,
            &recipe,
            (&parent, &plan),
            request.recipe.offline,
        )?;
        let made = self.make_layers_below(&work, place.layers)?;
        let sandbox = self.chosen_sandbox(&store)?;
        let (_scratch, root) = self.steps_overlay(&work, &sandbox, place.layers)?;
        let mut shell = ShellSpec {
            argv: request.argv.clone(),
            env: std::collections::BTreeMap::new(),
            dir: "/".to_owned(),
            terminal: None,
        };
        if let Some(index) = place.component {
            shell.env = self.steps_environment(&work, index, made.clock)?;
        }
        if let (Some(index), Some(step)) = (place.component, &place.step) {
            self.run_to(&work, &sandbox, &root, (index, step), made.clock)?;
        }
        let place = (place.title, None);
        self.shell_on(&sandbox, &root, &shell, request.access, place)
    }

    /// The command that enters what a failed build of a recipe left, from any folder. Of a parameter whose value nobody may
    /// see, something else stands there: the files are found without it.
    pub(crate) fn failed_shell(&self, request: &RecipeRequest, recipe: &LoadedRecipe) -> String {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut command = String::new();
        if let Some(home) = &self.settings.home_variable {
            command = format!("AMIFORGE_HOME={} ", shown_argument(home));
        }
        let path = shown_argument(&absolute(&request.recipe));
        command.push_str(&format!("amiforge shell {path} --failed"));
        if let Some(name) = &request.resource {
            command.push_str(&format!(" --resource {}", shown_word(name)));
        }
        for (name, value) in &request.parameters {
            let is_secret = recipe.secrets.values().any(|secret| secret == value);
            let value = if is_secret { "***" } else { value };
            let parameter = format!("{name}={value}");
            command.push_str(&format!(" --param {}", shown_word(&parameter)));
        }
        command
    }

    fn shell_of_failure(
        &self,
        (store, recipe): (&Store, &str),
        state: &FailedState,
        request: &ShellRequest<'_>,
    ) -> Result<Option<i32>, EngineError> {
        let ids: Vec<LayerId> = state.below.iter().map(|(id, _)| *id).collect();
        let _used = store
            .use_layers(&ids, SystemTime::now())
            .or_fail(ErrorKind::Failed, store_context)?;
        let kept = store
            .failed_path(&record_key(recipe))
            .or_fail(ErrorKind::Failed, store_context)?;
        if !kept.is_file() || !ids.iter().all(|id| store.has_layer(*id)) {
            return Err(EngineError::new(
                ErrorKind::Failed,
                format!(
                    "the files that {} left are not in the store any more",
                    state.place()
                ),
            )
            .with_hint("build again, with --shell-on-failure"));
        }
        let sandbox = self.chosen_sandbox(store)?;
        self.enter(
            (store, recipe),
            &sandbox,
            (state, None),
            request.argv.clone(),
            request.access,
        )
    }
}

fn no_failure(recipe: &str) -> EngineError {
    EngineError::new(
        ErrorKind::Failed,
        format!("no failed build of the recipe {recipe} is known"),
    )
    .with_hint("without --failed, the shell is in the finished image; with --after NAME, behind a component")
}

/// A place in a plan.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// How many layers lie below.
    layers: usize,
    /// The component whose variables are set, or whose steps run.
    component: Option<usize>,
    /// The last step that runs on top of the layers.
    step: Option<String>,
    title: String,
}

impl Place {
    fn find(plan: &Plan, at: &ShellWhere) -> Result<Self, EngineError> {
        let ShellWhere::After(text) = at else {
            return Ok(Self {
                layers: plan.layers.len(),
                component: None,
                step: None,
                title: format!("{} {}", plan.recipe.name, plan.recipe.version),
            });
        };
        let called = |name: &str| {
            let all = plan.components.iter().enumerate();
            let found: Vec<usize> = all
                .filter(|(_, c)| c.name == name)
                .map(|(at, _)| at)
                .collect();
            found
        };
        let mut step = None;
        let mut found = called(text);
        if found.is_empty()
            && let Some((name, last)) = text.rsplit_once('/')
        {
            found = called(name);
            step = Some(last.to_owned());
        }
        let [index] = found[..] else {
            let names: Vec<&str> = plan.components.iter().map(|c| c.name.as_str()).collect();
            let what = if found.is_empty() {
                "no component is called so"
            } else {
                "several components are called so"
            };
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!("--after {text}: {what}; the recipe has {}", names.join(", ")),
            )
            .with_hint("NAME is the state after a component, NAME/STEP that after a step of its build phase"));
        };
        let component = &plan.components[index];
        let own = component
            .layer
            .and_then(|id| plan.layers.iter().position(|layer| layer.id == id));
        let Some(own) = own else {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!("--after {text}: {} has no build phase", component.name),
            ));
        };
        Ok(Self {
            layers: if step.is_some() { own } else { own + 1 },
            component: Some(index),
            step,
            title: format!("{}, after {text}", plan.recipe.name),
        })
    }
}

/// A path as one word of a command line.
pub(crate) fn shown_argument(path: &Path) -> String {
    shown_word(&path.display().to_string())
}

/// A text as one word of a command line.
fn shown_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word() {
        for (path, word) in [
            ("recipes/web", "recipes/web"),
            ("my recipe.yaml", "'my recipe.yaml'"),
            ("it's", "'it'\\''s'"),
        ] {
            assert_eq!(shown_argument(Path::new(path)), word);
        }
    }
}
