//! Whole ways through the crate, against tiny repositories that gpg signs and dpkg-deb fills.

mod archive;
mod bytecode;
mod diverted;
mod hostile;
mod initrd;
mod lock;
mod releases;
mod repo;
mod script;
mod unpacked;
