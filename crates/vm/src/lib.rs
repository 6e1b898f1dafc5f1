//! QEMU: probe, machine, console, guest link, boot report.
