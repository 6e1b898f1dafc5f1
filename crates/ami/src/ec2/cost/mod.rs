//! What storing images would cost at AWS, by a dated table of prices.
//!
//! EBS bills the blocks of 512 KiB that a snapshot holds, not the size of its volume, and of each snapshot only what the one before it
//! had not. The same numbers are kept of every snapshot here ([`Snapshot::blocks`], [`Snapshot::changed_blocks`]); who has the block maps at hand
//! gives a [`Blocks`], and then the sums are exact even where a snapshot between two others was deleted.
//!
//! [`PriceTable::builtin`] holds public list prices with their date and source; [`PriceTable::from_json`] reads another table in its place.
//!
//! What is *not* here: running instances and volumes, requests to keys, taxes and discounts.
//!
//! Source: EBS user guide, `ebs-snapshots` (how incremental snapshots work), `snapshot-archive-pricing`; EC2 user guide, `billing-info-fields`.

mod money;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use amiforge_types::KIB;
use serde::{Deserialize, Serialize};

use super::{Caller, Image, ImageState, Region, RootDevice, Snapshot, SnapshotState, State};
use crate::{ImageId, SnapshotId};

pub use money::Money;

/// A block of a snapshot, in bytes.
pub const BLOCK_BYTES: u64 = 512 * KIB;
/// Largest table of prices, in bytes.
pub const MAX_TABLE_BYTES: usize = 1024 * 1024;
/// Months that an archived snapshot is billed at least.
const ARCHIVE_MONTHS: u128 = 3;

const BUILTIN: &str = include_str!("prices.json");

/// A table of prices that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriceError {
    /// Too much text.
    #[error("a table of prices has at most {MAX_TABLE_BYTES} bytes, this one {0}")]
    TooLarge(usize),
    /// Not JSON, or not of this shape; the cause has line and column.
    #[error("the table of prices cannot be read")]
    Json(#[source] serde_json::Error),
    /// Of another version.
    #[error("a table of prices has the schemaVersion 1, this one {0}")]
    Version(u32),
}

/// Prices by region, of one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceTable {
    /// Always 1.
    pub schema_version: u32,
    /// Of all prices, for example `USD`.
    pub currency: String,
    /// When they held, as text.
    pub date: String,
    /// Where they are from.
    pub source: String,
    /// Prices of regions that do not say otherwise.
    pub default: Prices,
    /// What differs in a region; a member that is absent is the default's.
    #[serde(default)]
    pub regions: BTreeMap<String, RegionPrices>,
}

macro_rules! prices {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The prices of one region. A gigabyte is 2³⁰ bytes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct Prices { $($(#[$doc])* pub $name: Money,)* }

        /// The prices of one region that differ from the default's.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct RegionPrices { $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<Money>,)* }

        impl PriceTable {
            /// The prices of a region.
            #[must_use]
            pub fn of(&self, region: &Region) -> Prices {
                let own = self.regions.get(region.as_str()).copied().unwrap_or_default();
                Prices { $($name: own.$name.unwrap_or(self.default.$name),)* }
            }
        }
    };
}

prices! {
    /// A gigabyte of snapshots for a month.
    snapshot_gb_month,
    /// The same in the archive tier.
    archive_gb_month,
    /// A gigabyte brought back from the archive.
    archive_restore_gb,
    /// A gigabyte that goes to another region.
    transfer_gb,
    /// A gigabyte of objects for a month: bundles of instance-store images.
    object_gb_month,
    /// A thousand blocks written by the EBS direct API.
    put_blocks_1000,
    /// A thousand blocks read by it.
    get_blocks_1000,
}

impl PriceTable {
    /// The table that comes with the program.
    #[must_use]
    pub fn builtin() -> Self {
        match Self::from_json(BUILTIN) {
            Ok(table) => table,
            // A test reads it.
            Err(error) => unreachable!("the built-in table of prices: {error}"),
        }
    }

    /// Reads a table of at most 1 MiB.
    ///
    /// # Errors
    /// Its syntax, shape or version.
    pub fn from_json(text: &str) -> Result<Self, PriceError> {
        if text.len() > MAX_TABLE_BYTES {
            return Err(PriceError::TooLarge(text.len()));
        }
        let table: Self = serde_json::from_str(text).map_err(PriceError::Json)?;
        match table.schema_version {
            1 => Ok(table),
            other => Err(PriceError::Version(other)),
        }
    }
}

/// Who has the block maps.
pub trait Blocks {
    /// How many different blocks these snapshots hold together, blocks of zeros left out; `None` when a map cannot be read.
    fn distinct(&self, snapshots: &[&Snapshot]) -> Option<u64>;
}

/// Nobody: the counts of the records serve.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

impl Blocks for Unread {
    fn distinct(&self, _: &[&Snapshot]) -> Option<u64> {
        None
    }
}

/// What an estimate is of.
#[derive(Clone, Debug)]
pub struct CostQuery<'a> {
    /// These images alone; `None`: all images and snapshots of the caller.
    pub images: Option<&'a BTreeSet<ImageId>>,
    /// Those of all regions, not of the caller's alone.
    pub all_regions: bool,
    /// Bytes that the bundles of instance-store images have.
    pub bundles: &'a BTreeMap<ImageId, u64>,
}

/// What a snapshot would cost in the archive tier: all of its blocks, for three months at least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveCost {
    /// Bytes.
    pub bytes: u64,
    /// A month.
    pub month: Money,
    /// However soon it is taken out again.
    pub minimum: Money,
    /// Bringing it back.
    pub restore: Money,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotCost {
    /// Its id.
    pub snapshot_id: SnapshotId,
    /// The region.
    pub region: Region,
    /// Size of the volume, which is not what is billed.
    pub volume_bytes: u64,
    /// Bytes of all its blocks.
    pub full_bytes: u64,
    /// Bytes that are billed for it: what the one before it had not.
    pub billed_bytes: u64,
    /// The one before it, that shares the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<SnapshotId>,
    /// A month.
    pub month: Money,
    /// In the archive tier instead.
    pub archive: ArchiveCost,
    /// Images that use it. None: it could be deleted.
    pub images: Vec<ImageId>,
    /// Whether it lies in the recycle bin, where it costs the same.
    pub in_bin: bool,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageCost {
    /// Its id.
    pub image_id: ImageId,
    /// Its name.
    pub name: String,
    /// The region.
    pub region: Region,
    /// Bytes of all blocks of its snapshots, or of its bundle.
    pub full_bytes: u64,
    /// Bytes that are billed for them.
    pub billed_bytes: u64,
    /// Of these, bytes of snapshots that other images use, too; the totals have them once.
    pub shared_bytes: u64,
    /// A month.
    pub month: Money,
    /// Snapshots that it names and that are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<SnapshotId>,
}

/// Sums, each snapshot once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CostTotals {
    /// Bytes of all volumes.
    pub volume_bytes: u64,
    /// Bytes of all blocks of all snapshots.
    pub full_bytes: u64,
    /// Bytes that are billed: snapshots and bundles.
    pub billed_bytes: u64,
    /// Bytes of different blocks, which is what a store keeps that has each block once; absent when the maps were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_bytes: Option<u64>,
    /// A month.
    pub month: Money,
}

/// An estimate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CostReport {
    /// Currency of all amounts.
    pub currency: String,
    /// When the prices held.
    pub price_date: String,
    /// Where they are from.
    pub price_source: String,
    /// Whether the block maps were read, not just the counts.
    pub exact: bool,
    /// Images, by id.
    pub images: Vec<ImageCost>,
    /// Snapshots, by id.
    pub snapshots: Vec<SnapshotCost>,
    /// Sums.
    pub totals: CostTotals,
}

/// What copying an image to another region would cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyCost {
    /// The region it goes to.
    pub region: Region,
    /// Bytes that go: all blocks, as there is nothing to build on.
    pub bytes: u64,
    /// Once.
    pub transfer: Money,
    /// A month, there.
    pub month: Money,
}

/// Estimates what the caller's images and snapshots cost. Those of others cost the caller nothing and are left out.
#[must_use]
pub fn estimate(
    state: &State,
    caller: &Caller,
    query: &CostQuery<'_>,
    prices: &PriceTable,
    blocks: &dyn Blocks,
) -> CostReport {
    let here = |region: &Region| query.all_regions || *region == caller.region;
    let there = |i: &Image| i.state != ImageState::Deregistered || i.bin.is_some();
    let images: Vec<&Image> = state
        .images
        .values()
        .filter(|i| i.owner == caller.account && here(&i.region) && there(i))
        .filter(|i| query.images.is_none_or(|ids| ids.contains(&i.image_id)))
        .collect();
    let mut users: BTreeMap<&SnapshotId, Vec<ImageId>> = BTreeMap::new();
    for image in state.images.values().filter(|i| there(i)) {
        for id in snapshots_of(image) {
            users.entry(id).or_default().push(image.image_id.clone());
        }
    }
    let wanted: BTreeSet<&SnapshotId> = images.iter().flat_map(|i| snapshots_of(i)).collect();
    let snapshots: Vec<&Snapshot> = state
        .snapshots
        .values()
        .filter(|s| s.owner == caller.account && here(&s.region) && s.state != SnapshotState::Error)
        .filter(|s| query.images.is_none() || wanted.contains(&s.snapshot_id))
        .collect();
    let mut exact = true;
    let costs: Vec<SnapshotCost> = snapshots
        .iter()
        .map(|s| {
            let (cost, read) = snapshot_cost(state, s, prices, blocks, &users);
            exact &= read;
            cost
        })
        .collect();
    let by_id: BTreeMap<&SnapshotId, &SnapshotCost> =
        costs.iter().map(|c| (&c.snapshot_id, c)).collect();
    let image_costs: Vec<ImageCost> = images
        .iter()
        .map(|i| image_cost(i, state, &by_id, query, prices))
        .collect();
    let bundles = || {
        images
            .iter()
            .zip(&image_costs)
            .filter(|(i, _)| i.root_device_type == RootDevice::InstanceStore)
            .map(|(_, c)| c)
    };
    let totals = CostTotals {
        volume_bytes: costs.iter().map(|c| c.volume_bytes).sum(),
        full_bytes: costs.iter().map(|c| c.full_bytes).sum(),
        billed_bytes: costs.iter().map(|c| c.billed_bytes).sum::<u64>()
            + bundles().map(|c| c.billed_bytes).sum::<u64>(),
        distinct_bytes: blocks
            .distinct(&snapshots)
            .map(|n| n.saturating_mul(BLOCK_BYTES)),
        month: costs.iter().map(|c| c.month).sum::<Money>() + bundles().map(|c| c.month).sum(),
    };
    CostReport {
        currency: prices.currency.clone(),
        price_date: prices.date.clone(),
        price_source: prices.source.clone(),
        exact,
        images: image_costs,
        snapshots: costs,
        totals,
    }
}

/// What a copy of an image in another region costs: all blocks of its snapshots, or its bundle.
#[must_use]
pub fn copy_cost(
    state: &State,
    image: &Image,
    to: &Region,
    query: &CostQuery<'_>,
    prices: &PriceTable,
) -> CopyCost {
    let bytes = match image.root_device_type {
        RootDevice::InstanceStore => query.bundles.get(&image.image_id).copied().unwrap_or(0),
        RootDevice::Ebs => snapshots_of(image)
            .filter_map(|id| state.snapshots.get(id))
            .map(|s| s.blocks.saturating_mul(BLOCK_BYTES))
            .sum(),
    };
    let there = prices.of(to);
    let month = match image.root_device_type {
        RootDevice::InstanceStore => there.object_gb_month,
        RootDevice::Ebs => there.snapshot_gb_month,
    };
    let transfer = match *to == image.region {
        true => Money::default(),
        false => prices.of(&image.region).transfer_gb.of_bytes(bytes),
    };
    CopyCost {
        region: to.clone(),
        bytes,
        transfer,
        month: month.of_bytes(bytes),
    }
}

/// The snapshot that a snapshot builds on: the latest before it of the same volume, else the one that its volume was made from. It
/// must be the same owner's, in the same region and under the same data key, or nothing is shared.
fn predecessor<'a>(state: &'a State, snapshot: &Snapshot) -> Option<&'a Snapshot> {
    let shares = |s: &&Snapshot| {
        s.snapshot_id != snapshot.snapshot_id
            && s.owner == snapshot.owner
            && s.region == snapshot.region
            && s.state != SnapshotState::Error
            && s.encryption.as_ref().map(|e| &e.data_key_id)
                == snapshot.encryption.as_ref().map(|e| &e.data_key_id)
            && (s.start_time, &s.snapshot_id) < (snapshot.start_time, &snapshot.snapshot_id)
    };
    let of_volume = snapshot.volume_id.as_ref().and_then(|volume| {
        state
            .snapshots
            .values()
            .filter(|s| s.volume_id.as_ref() == Some(volume))
            .filter(shares)
            .max_by_key(|s| (s.start_time, &s.snapshot_id))
    });
    of_volume.or_else(|| {
        snapshot
            .parent
            .as_ref()
            .and_then(|id| state.snapshots.get(id))
            .filter(shares)
    })
}

fn snapshot_cost(
    state: &State,
    snapshot: &Snapshot,
    prices: &PriceTable,
    blocks: &dyn Blocks,
    users: &BTreeMap<&SnapshotId, Vec<ImageId>>,
) -> (SnapshotCost, bool) {
    let before = predecessor(state, snapshot);
    let (billed, exact) = match before {
        None => (snapshot.blocks, true),
        Some(before) => match (
            blocks.distinct(&[before, snapshot]),
            blocks.distinct(&[before]),
        ) {
            (Some(both), Some(alone)) => (both.saturating_sub(alone), true),
            _ => (snapshot.changed_blocks.min(snapshot.blocks), false),
        },
    };
    let full_bytes = snapshot.blocks.saturating_mul(BLOCK_BYTES);
    let billed_bytes = billed.saturating_mul(BLOCK_BYTES);
    let prices = prices.of(&snapshot.region);
    let archived = prices.archive_gb_month.of_bytes(full_bytes);
    let cost = SnapshotCost {
        snapshot_id: snapshot.snapshot_id.clone(),
        region: snapshot.region.clone(),
        volume_bytes: u64::from(snapshot.volume_size) << 30,
        full_bytes,
        billed_bytes,
        after: before.map(|s| s.snapshot_id.clone()),
        month: prices.snapshot_gb_month.of_bytes(billed_bytes),
        archive: ArchiveCost {
            bytes: full_bytes,
            month: archived,
            minimum: archived.times(ARCHIVE_MONTHS),
            restore: prices.archive_restore_gb.of_bytes(full_bytes),
        },
        images: users
            .get(&snapshot.snapshot_id)
            .cloned()
            .unwrap_or_default(),
        in_bin: snapshot.bin.is_some(),
    };
    (cost, exact)
}

fn image_cost(
    image: &Image,
    state: &State,
    costs: &BTreeMap<&SnapshotId, &SnapshotCost>,
    query: &CostQuery<'_>,
    prices: &PriceTable,
) -> ImageCost {
    let mut cost = ImageCost {
        image_id: image.image_id.clone(),
        name: image.name.clone(),
        region: image.region.clone(),
        full_bytes: 0,
        billed_bytes: 0,
        shared_bytes: 0,
        month: Money::default(),
        missing: Vec::new(),
    };
    if image.root_device_type == RootDevice::InstanceStore {
        cost.full_bytes = query.bundles.get(&image.image_id).copied().unwrap_or(0);
        cost.billed_bytes = cost.full_bytes;
        cost.month = prices
            .of(&image.region)
            .object_gb_month
            .of_bytes(cost.full_bytes);
    }
    for id in snapshots_of(image) {
        match costs.get(id) {
            Some(snapshot) => {
                cost.full_bytes += snapshot.full_bytes;
                cost.billed_bytes += snapshot.billed_bytes;
                cost.month = cost.month + snapshot.month;
                if snapshot.images.len() > 1 {
                    cost.shared_bytes += snapshot.billed_bytes;
                }
            }
            // Of another account: it costs the caller nothing.
            None if state.snapshots.contains_key(id) => {}
            None => cost.missing.push(id.clone()),
        }
    }
    cost
}

/// The snapshots of an image, each once.
fn snapshots_of(image: &Image) -> impl Iterator<Item = &SnapshotId> {
    let ids: BTreeSet<&SnapshotId> = image
        .block_device_mappings
        .iter()
        .filter_map(|m| m.as_ebs().and_then(|v| v.snapshot_id.as_ref()))
        .collect();
    ids.into_iter()
}

impl CostReport {
    /// Titles of [`Self::rows`].
    pub const TITLES: [&'static str; 6] = [
        "image",
        "name",
        "region",
        "full GiB",
        "billed GiB",
        "a month",
    ];

    /// A table: one row for each image, one for each snapshot that no image uses, and the total.
    #[must_use]
    pub fn rows(&self) -> Vec<[String; 6]> {
        let row = |id: &str, name: &str, region: &str, full: u64, billed: u64, month: Money| {
            [
                id.to_owned(),
                name.to_owned(),
                region.to_owned(),
                gib(full),
                gib(billed),
                month.to_string(),
            ]
        };
        let mut rows: Vec<[String; 6]> = self
            .images
            .iter()
            .map(|i| {
                row(
                    i.image_id.as_str(),
                    &i.name,
                    i.region.as_str(),
                    i.full_bytes,
                    i.billed_bytes,
                    i.month,
                )
            })
            .collect();
        let unused = self.snapshots.iter().filter(|s| s.images.is_empty());
        rows.extend(unused.map(|s| {
            let name = if s.in_bin {
                "(in the recycle bin)"
            } else {
                "(of no image)"
            };
            row(
                s.snapshot_id.as_str(),
                name,
                s.region.as_str(),
                s.full_bytes,
                s.billed_bytes,
                s.month,
            )
        }));
        let totals = &self.totals;
        rows.push(row(
            "total",
            "",
            "",
            totals.full_bytes,
            totals.billed_bytes,
            totals.month,
        ));
        rows
    }
}

/// GiB with three digits after the point.
fn gib(bytes: u64) -> String {
    let thousandths = (u128::from(bytes) * 1000 + (1 << 29)) >> 30;
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}
