//! ext4 and FAT.
