//! The content store on disk: layers, their materialised directories, build records, the catalog
//! of images, and the locks that let several processes share them. Also the file implementations
//! of [`ReadAt`](amiforge_types::ReadAt) and [`WriteAt`](amiforge_types::WriteAt).
//!
//! What is *not* here: the meaning of a layer's id (`plan`), the bytes of a layer file
//! ([`amiforge_tree::layer`]), namespaces (`exec`), and the environment: [`Home::resolve`] takes the
//! values it needs.
//!
//! ```text
//! <home>/store/version                   "amiforge-store 1"
//! <home>/store/v1/layers/<id>.layer      one file each, complete or absent
//! <home>/store/v1/roots/<id>/            the same layer as an overlay directory; may be removed when nobody has a lock on it
//! <home>/store/v1/records/<kind>/<key>.json
//! <home>/store/v1/catalog/images/<image id>.json
//! <home>/store/v1/locks/                 flock(2) files, never removed
//! <home>/store/v1/tmp/<session>/         one for each open store, removed with it
//! <cache>/v1/                            downloads
//! ```
//!
//! Everything is written in `tmp` and renamed: a crash leaves old or new, and
//! whatever a dead process left in `tmp` goes when the next one opens the store. See
//! `docs/formats/store.md`.
//!
//! Entry types: [`Store`], [`FileBlob`], [`FileTarget`]; and the functions [`harvest`],
//! [`materialise`] and [`remove_tree`], which work on directory handles and are called inside a
//! user namespace. [`put_over`] and [`take_off`] stand in for overlayfs where it cannot be mounted. [`read_folder`] and [`apply_changes`] are their counterparts for a folder of the
//! user's, called outside of any.
#![forbid(unsafe_code)]

mod apply;
mod atomic;
mod blob;
mod catalog;
mod dirfd;
#[cfg(feature = "ec2")]
pub mod ec2;
mod error;
mod harvest;
mod home;
mod layers;
mod lock;
mod materialise;
mod records;
mod remove;
mod room;
mod roots;
mod session;
mod stack;
mod store;
mod target;
mod uses;

pub use apply::{FolderError, FolderReport, HostTrees, Owners, apply_changes, remove_below};
pub use atomic::write_atomic;
pub use blob::FileBlob;
pub use catalog::CatalogImage;
pub use error::StoreError;
pub use harvest::{HarvestError, HarvestOptions, harvest, read_folder};
pub use home::{Home, HomeEnv};
pub use layers::{LayerWriter, PutLayerError, RootWriter, StoredLayer};
pub use lock::{FolderLock, LayerLock, Sign};
pub use materialise::{MaterialiseError, MaterialiseReport, UNSAID, lower_tree, materialise};
pub use remove::{RemoveError, remove_tree, remove_tree_at};
pub use room::free_bytes;
pub use roots::{GoneRoot, RootUse};
pub use stack::{Seen, StackError, put_over, take_off};
pub use store::Store;
pub use target::FileTarget;
pub use uses::{LayerUse, Unused};
