//! Whole ways through the crate, against tiny repositories that gpg signs and dpkg-deb fills.

mod archive;
mod hostile;
mod lock;
mod repo;
mod unpacked;
