//! Files to a FAT volume.
//!
//! `fatfs` lays the volume out; what it leaves to us are the clock, which volume type and cluster
//! size to take, the hidden-sectors field, the second copy of the FSInfo sector, and the places of
//! `.` and `..`.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use amiforge_disk::Extents;
use amiforge_types::{MIB, SECTOR, Timestamp};
use fatfs::{
    Date, DateTime, Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions, ReadWriteSeek, Time,
    TimeProvider,
};

use unicode_normalization::UnicodeNormalization as _;

use super::dots;
use super::medium::Medium;
use super::{FatError, FatFile, Options};

/// From this size on FAT32 with one-sector clusters has the 65,525 clusters it must have.
const FAT32_FROM: u64 = 33 * MIB;
/// Longest name, in UTF-16 units.
const MAX_NAME: usize = 255;
/// Offset of the hidden-sectors field in a boot sector.
const HIDDEN_SECTORS: u64 = 28;
/// Sector of the FSInfo structure, and the distance to the second copies of it and the boot sector.
const FS_INFO_SECTOR: u64 = 1;
const BACKUP_SECTOR: u64 = 6;

/// Makes a volume that holds `files`.
///
/// Files are laid out in the order of their paths, so the order of `files` does not matter.
pub fn build(files: &[FatFile], options: &Options) -> Result<Extents, FatError> {
    if !options.size.is_multiple_of(SECTOR) || options.size < 64 << 10 || options.size >= 2 << 40 {
        return Err(FatError::Size(options.size));
    }
    let label = label(&options.label)?;
    let sorted = sort(files)?;

    let mut medium = Medium::new(options.size);
    let mut format = FormatVolumeOptions::new()
        .volume_id(options.volume_id)
        .bytes_per_sector(512);
    if options.size >= FAT32_FROM {
        format = format
            .fat_type(FatType::Fat32)
            .bytes_per_cluster(fat32_cluster(options.size));
    } else if options.size >= 16 * MIB {
        format = format.fat_type(FatType::Fat16).bytes_per_cluster(1024);
    }
    if let Some(label) = label {
        format = format.volume_label(label);
    }
    with_clock(options.clock, || {
        fatfs::format_volume(&mut medium, format).map_err(FatError::Format)?;
        fill(&mut medium, &sorted, options.size)
    })?;
    dots::repair(&mut medium).map_err(FatError::Format)?;
    finish(&mut medium, options).map_err(FatError::Format)?;
    medium.into_extents().map_err(FatError::Layout)
}

/// Cluster size of a FAT32 volume, by the table of Microsoft's specification.
fn fat32_cluster(size: u64) -> u32 {
    const GIB: u64 = 1024 * MIB;
    match size {
        0..=272_629_760 => 512,
        s if s <= 8 * GIB => 4096,
        s if s <= 16 * GIB => 8192,
        s if s <= 32 * GIB => 16384,
        _ => 32768,
    }
}

/// The eleven bytes of a label; `None` for an empty one.
fn label(text: &str) -> Result<Option<[u8; 11]>, FatError> {
    if text.is_empty() {
        return Ok(None);
    }
    let legal = |b: u8| matches!(b, b' '..=b'~') && !b"\"*+,./:;<=>?[\\]|".contains(&b);
    if text.len() > 11 || !text.bytes().all(legal) || text.starts_with(' ') {
        return Err(FatError::Label(text.to_owned()));
    }
    let mut out = [b' '; 11];
    out[..text.len()].copy_from_slice(text.to_ascii_uppercase().as_bytes());
    Ok(Some(out))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.encode_utf16().count() <= MAX_NAME
        && !name.ends_with(['.', ' '])
        && !name.starts_with(' ')
        && name
            .chars()
            .all(|c| c >= ' ' && c != '\u{7f}' && !"\"*/:<>?\\|".contains(c))
}

/// A path as FAT's readers compare it: without case, and for those that compose names (macOS does) in one
/// Unicode form. Slashes stay where they are.
fn key(path: &str) -> String {
    path.nfd().collect::<String>().to_uppercase()
}

/// Files by key, checked.
fn sort(files: &[FatFile]) -> Result<BTreeMap<String, &FatFile>, FatError> {
    let mut sorted: BTreeMap<String, &FatFile> = BTreeMap::new();
    let mut folders: BTreeMap<String, &str> = BTreeMap::new();
    let duplicate = |first: &str, second: &str| FatError::Duplicate {
        first: first.to_owned(),
        second: second.to_owned(),
    };
    for file in files {
        if !file.path.split('/').all(is_name) {
            return Err(FatError::BadPath(file.path.clone()));
        }
        for (at, _) in file.path.match_indices('/') {
            let folder = &file.path[..at];
            let known = *folders.entry(key(folder)).or_insert(folder);
            if known != folder {
                return Err(duplicate(known, folder));
            }
        }
        if let Some(first) = sorted.insert(key(&file.path), file) {
            return Err(duplicate(&first.path, &file.path));
        }
    }
    match sorted
        .iter()
        .find_map(|(key, file)| Some((folders.get(key)?, file)))
    {
        Some((folder, file)) => Err(duplicate(folder, &file.path)),
        None => Ok(sorted),
    }
}

/// A name that is already there as the short name of a longer one: `fatfs` would open that one.
fn check_short_names<T: ReadWriteSeek>(root: &Dir<'_, T>, path: &str) -> Result<(), FatError> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = match folder {
        "" => root.clone(),
        folder => root.open_dir(folder).map_err(FatError::Format)?,
    };
    let wanted = key(name);
    for entry in dir.iter() {
        let entry = entry.map_err(FatError::Format)?;
        if key(&entry.short_file_name()) == wanted {
            let before = if folder.is_empty() { "" } else { "/" };
            return Err(FatError::Duplicate {
                first: format!("{folder}{before}{}", entry.file_name()),
                second: path.to_owned(),
            });
        }
    }
    Ok(())
}

fn fill(
    medium: &mut Medium,
    files: &BTreeMap<String, &FatFile>,
    size: u64,
) -> Result<(), FatError> {
    let options = FsOptions::new()
        .time_provider(&CLOCK)
        .update_accessed_date(false);
    let fs = FileSystem::new(medium, options).map_err(FatError::Format)?;
    let cluster = u64::from(fs.cluster_size());
    let free = u64::from(fs.stats().map_err(FatError::Format)?.free_clusters());
    let mut made = BTreeSet::new();
    let folders: BTreeSet<_> = files
        .keys()
        .flat_map(|key| key.match_indices('/').map(|(at, _)| &key[..at]))
        .collect();
    let clusters: u64 = files
        .values()
        .map(|f| (f.content.len() as u64).div_ceil(cluster))
        .sum::<u64>()
        + folders.len() as u64;
    let full = || FatError::TooSmall {
        size,
        needed: clusters.max(free + 1) * cluster,
    };
    if clusters > free {
        return Err(full());
    }
    let root = fs.root_dir();
    for (key, file) in files {
        let failed = |source: std::io::Error| match fs.stats() {
            Ok(stats) if stats.free_clusters() == 0 => full(),
            _ => FatError::Write {
                path: file.path.clone(),
                source,
            },
        };
        for (at, _) in key.match_indices('/') {
            if made.insert(&key[..at]) {
                let depth = key[..at].matches('/').count() + 1;
                let folder: Vec<_> = file.path.split('/').take(depth).collect();
                let folder = folder.join("/");
                check_short_names(&root, &folder)?;
                root.create_dir(&folder).map_err(failed)?;
            }
        }
        check_short_names(&root, &file.path)?;
        let mut handle = root.create_file(&file.path).map_err(failed)?;
        handle.write_all(&file.content).map_err(failed)?;
        handle.flush().map_err(failed)?;
    }
    drop(root);
    fs.unmount().map_err(FatError::Format)
}

/// Fields that `fatfs` leaves alone.
fn finish(medium: &mut Medium, options: &Options) -> std::io::Result<()> {
    let hidden = options.hidden_sectors.to_le_bytes();
    medium.put(HIDDEN_SECTORS, &hidden)?;
    if options.size >= FAT32_FROM {
        medium.put(BACKUP_SECTOR * SECTOR + HIDDEN_SECTORS, &hidden)?;
        let info = medium.get(FS_INFO_SECTOR * SECTOR, 512)?;
        medium.put((BACKUP_SECTOR + FS_INFO_SECTOR) * SECTOR, &info)?;
    }
    Ok(())
}

/// `fatfs` wants a time provider that lives for ever, so there is one, and it tells the time of the
/// build that runs on its thread.
#[derive(Debug)]
struct BuildClock;

static CLOCK: BuildClock = BuildClock;

thread_local! {
    static NOW: Cell<Timestamp> = const { Cell::new(Timestamp::from_secs(0)) };
}

fn with_clock<T>(clock: Timestamp, work: impl FnOnce() -> T) -> T {
    let before = NOW.replace(clock);
    let result = work();
    NOW.set(before);
    result
}

impl TimeProvider for BuildClock {
    fn get_current_date(&self) -> Date {
        self.get_current_date_time().date
    }

    fn get_current_date_time(&self) -> DateTime {
        dos_time(NOW.get())
    }
}

/// UTC in FAT's calendar, clamped to the years it has, in whole seconds (files show even ones).
fn dos_time(time: Timestamp) -> DateTime {
    /// 1980-01-01 and the last second of 2107.
    const RANGE: (i64, i64) = (315_532_800, 4_354_819_199);
    let secs = time.secs.clamp(RANGE.0, RANGE.1);
    let part = |value: i64| u16::try_from(value).unwrap_or(0);
    let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Days since 0000-03-01 in the proleptic Gregorian calendar, cut into 400-year eras.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    DateTime {
        date: Date {
            year: part(year),
            month: part(month),
            day: part(day_of_year - (153 * march_month + 2) / 5 + 1),
        },
        time: Time {
            hour: part(second / 3600),
            min: part(second / 60 % 60),
            sec: part(second % 60),
            millis: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        let date = |secs| {
            let d = dos_time(Timestamp::from_secs(secs));
            (
                d.date.year,
                d.date.month,
                d.date.day,
                d.time.hour,
                d.time.min,
                d.time.sec,
            )
        };
        assert_eq!(date(0), (1980, 1, 1, 0, 0, 0));
        assert_eq!(date(951_782_399), (2000, 2, 28, 23, 59, 59));
        assert_eq!(date(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(date(1_795_215_480), (2026, 11, 20, 22, 58, 0));
        assert_eq!(date(i64::MAX), (2107, 12, 31, 23, 59, 59));
    }
}
