//! What the fuzz targets reach of the readers that are not public; compiled for them alone.

use amiforge_recipe::actions::{S3Uri, WebUrl};

/// Reads bytes as an answer of a name server, as an answer of S3, and as the texts that come with
/// downloads: addresses, redirects, the files of the resolver and of AWS.
pub fn transfer(data: &[u8]) {
    crate::net::fuzz(data);
    crate::aws::fuzz(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = S3Uri::parse(text);
    let base = WebUrl::parse("http://a.test/b/c?d").ok();
    for url in [
        WebUrl::parse(text).ok(),
        base.and_then(|b| b.join(text).ok()),
    ] {
        let Some(url) = url else { continue };
        let again = WebUrl::parse(&url.to_string()).map(|u| u.to_string());
        assert_eq!(again, Ok(url.to_string()), "an address is its own text");
        assert!(
            ureq::http::Uri::try_from(url.to_string()).is_ok(),
            "it can be asked for"
        );
        if let Some(name) = url.file_name() {
            assert!(
                !name.contains(['/', '\0']) && name != "..",
                "a name is one part"
            );
        }
    }
}
