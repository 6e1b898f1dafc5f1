//! The name of an image in the index of its layout: `org.opencontainers.image.ref.name`.
//!
//! ```text
//! reference ::= component ("/" component)*
//! component ::= alphanum (separator alphanum)*
//! separator ::= one of - . _ : @ +, or --
//! ```

/// Most characters of a part of the name.
const MOST: usize = 256;

/// `<repository>:<version>`. What its grammar does not have becomes `-`.
#[must_use]
pub fn reference(repository: &str, version: &str) -> String {
    let parts: Vec<String> = repository
        .split('/')
        .map(component)
        .filter(|part| !part.is_empty())
        .collect();
    let version = component(version);
    let version = if version.is_empty() {
        "latest"
    } else {
        &version
    };
    if parts.is_empty() {
        version.to_owned()
    } else {
        format!("{}:{version}", parts.join("/"))
    }
}

/// Letters and digits, with single separators between them.
fn component(text: &str) -> String {
    let mut out = String::new();
    let mut separator = None;
    for c in text.chars().take(MOST) {
        if c.is_ascii_alphanumeric() {
            if let Some(separator) = separator.take().filter(|_| !out.is_empty()) {
                out.push(separator);
            }
            out.push(c);
        } else {
            separator.get_or_insert(if matches!(c, '.' | '_') { c } else { '-' });
        }
    }
    out
}
