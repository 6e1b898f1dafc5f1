//! The guest agent: one static program, started by cloud-init inside a fresh instance of an image.
//!
//! It waits until the guest has reached its target, says hello over the virtio-serial port, runs
//! what the host asks for, and powers the guest off. What the two say to one another stands in
//! [`amiforge_exec::protocol`]. It writes nothing into the guest but what the steps write.
//!
//! With the hidden argument `__sandbox` it plays the child of a sandbox instead: for itself as the first process of a
//! [machine that builds](machine), and so that the tests of `amiforge-exec` have a program to start.
#![forbid(unsafe_code)]

mod guest;
mod link;
mod machine;
mod system;

use std::process::ExitCode;

fn main() -> ExitCode {
    // In an instance somebody else is.
    if std::process::id() == 1 {
        return machine::main();
    }
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some(amiforge_exec::CHILD_ARG), None) => amiforge_exec::child_main(),
        (None, _) => match guest::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                system::say(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
        _ => {
            system::say("this program is started inside a guest by amiforge, without arguments");
            ExitCode::from(2)
        }
    }
}
