//! What resolving, fetching and unpacking report while they run.

/// Progress or a warning, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceEvent {
    /// Something the user should know; the work goes on.
    Warning(String),
    /// A Release file or index was looked up.
    Index {
        /// Its address.
        uri: String,
        /// It was unchanged, or not asked for again.
        cached: bool,
    },
    /// Packages are known; fetching starts.
    FetchStarted {
        /// Packages to download.
        packages: usize,
        /// Their size.
        bytes: u64,
    },
    /// Layers of an OCI image are known; fetching starts.
    LayersStarted {
        /// Layers to download.
        layers: usize,
        /// Their size.
        bytes: u64,
    },
    /// Bytes arrived.
    FetchProgress {
        /// So far in this fetch.
        bytes: u64,
        /// In all.
        total: u64,
    },
    /// A download failed and is tried again.
    Retry {
        /// Address.
        uri: String,
        /// Which attempt failed, from 1.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// A package was unpacked.
    Unpacked {
        /// Packages done.
        done: usize,
        /// Packages in all.
        total: usize,
    },
    /// A layer of an OCI image was unpacked.
    LayerUnpacked {
        /// Layers done.
        done: usize,
        /// Layers in all.
        total: usize,
    },
}
