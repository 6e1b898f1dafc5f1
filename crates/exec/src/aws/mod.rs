//! Access to AWS, or to what speaks its protocols: whose credentials, which region, which endpoint,
//! signed requests, and S3.
//!
//! ```text
//! AwsEnvironment ─ find ─▶ AwsAccess ─ lent ─▶ Outside ─▶ s3 ─ sign ─▶ net::Http
//!   variables, files         a secret            to the executor
//! ```

mod access;
mod find;
mod profile;
pub(crate) mod s3;
mod sign;

pub use access::{AwsAccess, Credentials};
pub use find::AwsEnvironment;

#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    s3::fuzz(data);
    let _ = profile::Sections::parse(&String::from_utf8_lossy(data));
}
