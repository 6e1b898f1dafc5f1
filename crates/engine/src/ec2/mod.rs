//! EC2 on this host: instances in QEMU, and the life of images, snapshots and keys.
//!
//! The rules are those of [`amiforge_ami::ec2`]; here requests get their caller, time and chance, bytes are moved, and
//! processes started. A request changes the state in one transaction. What takes longer is begun by one transaction (a
//! pending image), done, and ended by another.

mod adopt;
mod control;
mod create;
mod desk;
mod images;
mod instances;
mod keys;
mod run;
mod snapshots;
mod supervise;

pub use desk::Place;
