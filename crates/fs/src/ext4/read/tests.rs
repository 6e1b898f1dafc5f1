//! Units that need no image.

use amiforge_types::Uuid;

use super::hash::{self, Version};
use crate::ext4::hash::HashSeed;

#[test]
fn hashes_agree_with_the_writers() {
    let seed: Uuid = "deadbeef-0102-4304-8506-0708090a0b0c".parse().unwrap();
    let seed = HashSeed::new(&seed);
    for name in [
        &b"a"[..],
        b"lost+found",
        "caf\u{e9}".as_bytes(),
        &[0xFF; 200],
    ] {
        let own = hash::major(Version::HalfMd4, false, seed, name);
        assert_eq!(own, seed.hash(name).major);
        let unsigned = hash::major(Version::HalfMd4, true, seed, name);
        assert_eq!(own == unsigned, name.is_ascii());
    }
}
