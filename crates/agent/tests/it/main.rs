//! The sandbox with a real helper program: a small root is made of the test machine's own programs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod actions;
mod chroot;
mod harm;
mod on_tree;
mod ordinary;
mod pauses;
mod played;
mod root;
mod run;
mod steps;
mod transfers;
