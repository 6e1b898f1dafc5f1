//! Inode flags: what `chattr` sets.
//!
//! Bits have the values of `FS_IOC_GETFLAGS` (`linux/fs.h`), which are also those of `i_flags` in
//! ext4, so nobody has to translate. Only flags that a user sets and that mean something in an image
//! are kept; a file system's own (extents, hash index, encryption) never get here.

use std::fmt;

/// A set of inode flags. Unknown bits cannot be in it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeFlags(u32);

/// Each flag: bit, letter of `lsattr` and `chattr`, name in archives. In the order of `lsattr`.
const FLAGS: [(InodeFlags, char, &str); 12] = [
    (InodeFlags::SECURE_DELETION, 's', "secdel"),
    (InodeFlags::UNDELETE, 'u', "undel"),
    (InodeFlags::SYNC, 'S', "sync"),
    (InodeFlags::DIR_SYNC, 'D', "dirsync"),
    (InodeFlags::IMMUTABLE, 'i', "schg"),
    (InodeFlags::APPEND_ONLY, 'a', "sappnd"),
    (InodeFlags::NO_DUMP, 'd', "nodump"),
    (InodeFlags::NO_ATIME, 'A', "noatime"),
    (InodeFlags::COMPRESS, 'c', "compress"),
    (InodeFlags::JOURNAL_DATA, 'j', "journal-data"),
    (InodeFlags::NO_TAIL, 't', "notail"),
    (InodeFlags::TOP_DIR, 'T', "topdir"),
];

/// Further names that archives use for the same.
const ALIASES: [(&str, InodeFlags); 16] = [
    ("simmutable", InodeFlags::IMMUTABLE),
    ("schange", InodeFlags::IMMUTABLE),
    ("uchg", InodeFlags::IMMUTABLE),
    ("uchange", InodeFlags::IMMUTABLE),
    ("uimmutable", InodeFlags::IMMUTABLE),
    ("immutable", InodeFlags::IMMUTABLE),
    ("sappend", InodeFlags::APPEND_ONLY),
    ("uappnd", InodeFlags::APPEND_ONLY),
    ("uappend", InodeFlags::APPEND_ONLY),
    ("append", InodeFlags::APPEND_ONLY),
    ("compressed", InodeFlags::COMPRESS),
    ("journal", InodeFlags::JOURNAL_DATA),
    ("securedeletion", InodeFlags::SECURE_DELETION),
    ("secure-deletion", InodeFlags::SECURE_DELETION),
    ("undelete", InodeFlags::UNDELETE),
    ("uundel", InodeFlags::UNDELETE),
];

impl InodeFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Overwrite data on deletion (`s`).
    pub const SECURE_DELETION: Self = Self(0x1);
    /// Keep data on deletion (`u`).
    pub const UNDELETE: Self = Self(0x2);
    /// Compress (`c`).
    pub const COMPRESS: Self = Self(0x4);
    /// Write synchronously (`S`).
    pub const SYNC: Self = Self(0x8);
    /// Nobody may change, rename, link to or remove it (`i`).
    pub const IMMUTABLE: Self = Self(0x10);
    /// May only be appended to (`a`).
    pub const APPEND_ONLY: Self = Self(0x20);
    /// Backup programs leave it out (`d`).
    pub const NO_DUMP: Self = Self(0x40);
    /// Reading does not change the access time (`A`).
    pub const NO_ATIME: Self = Self(0x80);
    /// Data goes through the journal (`j`).
    pub const JOURNAL_DATA: Self = Self(0x4000);
    /// No merging of tails (`t`).
    pub const NO_TAIL: Self = Self(0x8000);
    /// Directory changes are written synchronously (`D`).
    pub const DIR_SYNC: Self = Self(0x1_0000);
    /// The top of a hierarchy of directories (`T`).
    pub const TOP_DIR: Self = Self(0x2_0000);

    const ALL: u32 = {
        let (mut all, mut at) = (0, 0);
        while at < FLAGS.len() {
            all |= FLAGS[at].0.0;
            at += 1;
        }
        all
    };

    /// The flags of a set of bits; `None` when there are others among them.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !Self::ALL == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// The flags of a set of bits, without those that an image does not keep.
    #[must_use]
    pub const fn from_bits_truncate(bits: u32) -> Self {
        Self(bits & Self::ALL)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// True without any flag.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when all of `other` are in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Names as `SCHILY.fflags` of an archive has them: what bsdtar writes.
    pub(crate) fn to_names(self) -> String {
        let names: Vec<_> = self.members().map(|(_, _, name)| *name).collect();
        names.join(",")
    }

    /// Reads `SCHILY.fflags`. Names of other systems' flags are passed over: an archive of one of
    /// them is no less readable for them.
    pub(crate) fn from_names(text: &str) -> Self {
        let named = |name: &str| {
            let own = FLAGS.iter().map(|(flag, _, known)| (*known, *flag));
            own.chain(ALIASES)
                .find(|(known, _)| *known == name)
                .map(|(_, flag)| flag)
        };
        let mut out = Self::NONE;
        for name in text.split([',', ' ', '\t']).filter(|name| !name.is_empty()) {
            match (named(name), name.strip_prefix("no").and_then(named)) {
                (Some(flag), _) => out.0 |= flag.0,
                (None, Some(flag)) => out.0 &= !flag.0,
                // Without the "no" of its name: `dump` takes `nodump` back.
                (None, None) => {
                    if let Some(flag) = named(&format!("no{name}")) {
                        out.0 &= !flag.0;
                    }
                }
            }
        }
        out
    }

    fn members(self) -> impl Iterator<Item = &'static (Self, char, &'static str)> {
        FLAGS.iter().filter(move |(flag, ..)| self.contains(*flag))
    }
}

impl std::ops::BitOr for InodeFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// The letters of `lsattr`, in its order; empty without flags.
impl fmt::Display for InodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.members()
            .try_for_each(|(_, letter, _)| fmt::Write::write_char(f, *letter))
    }
}

impl fmt::Debug for InodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InodeFlags({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_letters_are_one_to_one() {
        let mut seen = InodeFlags::NONE;
        for (flag, letter, name) in FLAGS {
            assert_eq!(flag.0.count_ones(), 1, "{name}");
            assert!(seen.intersection(flag).is_empty(), "{name}");
            seen = seen | flag;
            assert_eq!(flag.to_string(), letter.to_string());
            assert_eq!(flag.to_names(), name);
            assert_eq!(InodeFlags::from_names(name), flag);
        }
        assert_eq!(InodeFlags::from_names(&seen.to_names()), seen);
        assert_eq!(InodeFlags::from_bits(seen.bits()), Some(seen));
        assert_eq!(InodeFlags::from_bits(0x8_0010), None, "extents");
        assert_eq!(
            InodeFlags::from_bits_truncate(0x8_0010),
            InodeFlags::IMMUTABLE
        );
        for (name, flag) in ALIASES {
            assert_eq!(InodeFlags::from_names(name), flag, "{name}");
        }
    }

    #[test]
    fn later_names_take_earlier_ones_back() {
        let of = |text| InodeFlags::from_names(text).to_string();
        assert_eq!(of("schg,nodump"), "id");
        assert_eq!(of("schg,noschg,nodump,dump,sappnd"), "a");
        assert_eq!(of("uarch,hidden,,opaque"), "");
    }
}
