//! The layers of a resolved image, into the cache.

use std::path::PathBuf;

use super::document::MAX_CONFIG;
use super::layout::Layout;
use super::registry::Registry;
use super::resolve::{bring_config, folder};
use super::{FetchedOci, OciContext, OciPlace, OciRequest, PlacedBlob, ResolvedBlob, ResolvedOci};
use crate::transfer::{Patience, Transfer, has_size};
use crate::{SourceError, SourceEvent};

/// Downloads under way at once.
const PARALLEL: usize = 4;

/// Brings configuration and layers into `<cache>/oci/<digest>`, each under its name only once it has that digest; of a
/// layout, says where they are. What is there is not fetched again, what was left half-way is resumed.
///
/// # Errors
/// When something cannot be had, or is not what its digest says.
pub fn fetch(
    request: &OciRequest,
    resolved: &ResolvedOci,
    ctx: &OciContext<'_>,
) -> Result<FetchedOci, SourceError> {
    fetch_with(request, resolved, ctx, Patience::NORMAL)
}

pub(super) fn fetch_with(
    request: &OciRequest,
    resolved: &ResolvedOci,
    ctx: &OciContext<'_>,
    patience: Patience,
) -> Result<FetchedOci, SourceError> {
    let reference = match &request.place {
        OciPlace::Registry(reference) => reference,
        OciPlace::Layout { path, asked, .. } => {
            let layout = Layout::open(path, asked)?;
            let place = |l: &super::ResolvedOciLayer| layout.place(l.blob.digest, l.blob.size);
            return Ok(FetchedOci {
                config: layout.blob(resolved.config.digest, MAX_CONFIG)?,
                layers: resolved
                    .layers
                    .iter()
                    .map(place)
                    .collect::<Result<_, _>>()?,
                downloaded: 0,
            });
        }
    };
    let dir = folder(ctx)?;
    let transfer = Transfer::new(ctx.base, patience);
    let registry = Registry::new(&transfer, ctx, reference)?;
    let config = bring_config(
        &registry,
        &resolved.config,
        &dir.join(resolved.config.digest.hex()),
    )?;
    let layers: Vec<PlacedBlob> = resolved
        .layers
        .iter()
        .map(|layer| PlacedBlob {
            path: dir.join(layer.blob.digest.hex()),
            offset: 0,
            cached: true,
        })
        .collect();
    // A layer may be in an image twice, an empty one for example.
    let mut missing: Vec<(&ResolvedBlob, &PathBuf)> = Vec::new();
    for (layer, place) in resolved.layers.iter().zip(&layers) {
        let known = missing
            .iter()
            .any(|(blob, _)| blob.digest == layer.blob.digest);
        if !known && !has_size(&place.path, layer.blob.size) {
            missing.push((&layer.blob, &place.path));
        }
    }
    let downloaded = bring(&transfer, &registry, missing)?;
    Ok(FetchedOci {
        config,
        layers,
        downloaded,
    })
}

fn bring(
    transfer: &Transfer<'_>,
    registry: &Registry<'_>,
    mut missing: Vec<(&ResolvedBlob, &PathBuf)>,
) -> Result<u64, SourceError> {
    if missing.is_empty() {
        return Ok(0);
    }
    // The largest first: they decide when the last transfer ends.
    missing.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.size));
    let sizes = missing.iter().map(|(blob, _)| blob.size);
    let total = sizes.fold(0, u64::saturating_add);
    (transfer.ctx.events)(SourceEvent::LayersStarted {
        layers: missing.len(),
        bytes: total,
    });
    transfer.together(&missing, PARALLEL, total, |(blob, path), progress| {
        registry.blob(blob, path, progress)
    })
}
