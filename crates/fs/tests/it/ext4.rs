//! ext4 against e2fsprogs, `ext4-view`, the kernel and GRUB.

use amiforge_fs::ext4::{self, Size};
use amiforge_types::{GIB, MIB};

use crate::{compare, corpus, image, tool};

#[test]
fn everything_survives() {
    let (tree, blobs) = corpus::everything();
    let plan = ext4::plan(&tree, &corpus::options(Size::Volume(256 * MIB))).unwrap();
    let image = image::write(&plan.extents, &blobs);
    tool::e2fsck(&image.path);
    compare::with_reader(&tree, &blobs, &image.path);
    let _ = GIB;
}
