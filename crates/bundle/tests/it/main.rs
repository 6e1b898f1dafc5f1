//! Bundles against openssl, gzip and tar.
