//! The amiforge command.
fn main() {}
