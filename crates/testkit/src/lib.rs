//! What the tests of all crates share: a hermetic environment, running programs with a time limit,
//! typed wrappers of the outside checkers, an expensive fixture built once, an HTTP server that can
//! misbehave, a proxy, foreign web, S3 and registry servers, a disk that is too small, the restrictions of a container.
//!
//! Dev only: nothing that ships depends on it, and it depends on no other crate of the workspace,
//! so that every one of them can use it in unit tests too.
//!
//! Everything here *panics* with the command line and its output when something is wrong, and when
//! a tool is missing: a check that did not run is a failure (`cargo xtask setup test` installs all
//! of them).
//!
//! ```no_run
//! use amiforge_testkit::{Env, check, disk};
//!
//! let env = Env::new();
//! env.run(env.amiforge().args(["build", "recipes/debian-minimal", "--out"]).arg(env.path("out")));
//! let raw = env.path("out/disk.raw");
//! check::sgdisk_verify(&raw);
//! let root = disk::partitions(&raw)[0].extract(&raw, &env.path("root.ext4"));
//! check::e2fsck(&root);
//! ```
#![forbid(unsafe_code)]

pub mod check;
mod container;
pub mod disk;
mod env;
mod http;
mod process;
mod proxy;
mod registry;
mod shared;
mod small_disk;
mod web;

pub use container::in_container;
pub use env::{Env, amiforge_binary, target_dir, workspace_root};
pub use http::{Fault, FileServer};
pub use process::{Finished, Running, finish, run, tool};
pub use proxy::ProxyServer;
pub use registry::{Answer, Asked, RegistryServer, RegistrySettings, ScriptServer, self_signed};
pub use shared::shared;
pub use small_disk::SmallDisk;
pub use web::{S3Server, WEB_CONTENT, WebServer, venv_program};
