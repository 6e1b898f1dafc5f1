//! Parent images: from what a recipe names to files of an image, verified on the way.
//!
//! Of `debian:<suite>`:
//!
//! 1. [`resolve`] reads the host's apt configuration, the signed Release files and the package
//!    indices, and picks the packages that apt would pick. The result is the lock, which
//!    [`ResolvedDebian::from_lock`] reads back to repeat a build.
//! 2. [`fetch`] brings the `.deb` files into the cache, each checked against the signed digest.
//! 3. [`unpack`] turns them into a layer, without privileges: a pure function of the packages.
//! 4. [`configure_script`] is the text that, run by a sandbox on top of that layer, configures the
//!    packages with the image's own dpkg, makes the one initrd and cleans up. The sandbox puts
//!    [`SHIMS`] in place while it runs.
//!
//! Of an archive at an address, [`fetch_file`] brings the file. [`boot_scripts`] are the texts that give a tree of
//! Debian's family from elsewhere what a machine needs to boot.
//!
//! [`SharedCache`] is how builds on several machines hand each other what they made; who may be believed is the caller's
//! business.
//!
//! What is *not* here: running anything, the store, and the default clock.
#![forbid(unsafe_code)]

mod apt;
mod boot;
mod changelog;
mod configure;
mod deb;
mod defaults;
mod error;
mod event;
mod fetch;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod kernel;
mod lock;
mod model;
pub mod oci;
mod proxy;
mod resolve;
mod shared;
mod solver;
#[cfg(test)]
mod tests;
mod transfer;

pub use apt::version::compare as compare_versions;
pub use boot::{BOOT_LIST, BOOT_PACKAGES, BootArchive, BootPackages, BootScripts, boot_scripts};
pub use changelog::{Changelog, ChangelogEntry, ChangelogError, PackageFile, PackageSource};
pub use configure::{SHIMS, Shim, configure_script};
pub use deb::{DebError, unpack};
pub use error::SourceError;
pub use event::SourceEvent;
pub use fetch::fetch;
pub use file::{fetch_file, fetch_sized_file, keep_file};
pub use kernel::{KERNEL_SUITE, Kernel, fetch_kernel, read_kernel};
pub use lock::{Asked, LockError, MAX_LOCK_BYTES};
pub use model::{
    AptSettings, Context, DebianRequest, FetchedDebian, GeneratedFile, ResolvedArchive,
    ResolvedDebian, ResolvedIndex, ResolvedPackage, Variant,
};
pub use proxy::Proxies;
pub use resolve::resolve;
pub use shared::{MAX_ENTRY, SharedBlob, SharedCache, SharedEntry, SharedPlace, with_shared};
pub use solver::Unresolvable;
