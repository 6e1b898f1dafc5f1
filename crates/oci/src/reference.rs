//! The name of an image in the index of its layout.

/// `1.0.0` of a version: what follows the colon in `oci:folder:1.0.0`. Characters that the grammar of
/// `org.opencontainers.image.ref.name` does not have become `-`.
#[must_use]
pub fn reference_name(version: &str) -> String {
    let name: String = version
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c,
            '.' | '_' | '-' => c,
            _ => '-',
        })
        .take(128)
        .collect();
    let name = name.trim_matches(['.', '-', '_']);
    match name {
        "" => "latest".to_owned(),
        name => name.to_owned(),
    }
}
