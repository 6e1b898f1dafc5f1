//! The certificate authorities that a server must be vouched for by: those of the live root, as for
//! every other program there, else the ones that Mozilla trusts (crate `webpki-roots`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// Where distributions keep them, the list that Go's crypto/x509 looks through.
const PLACES: &[&str] = &[
    // Debian, Ubuntu, Arch
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, older Red Hat
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    // Red Hat, Amazon Linux
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // Alpine
    "/etc/ssl/cert.pem",
];

/// Bytes of such a file; a usual one has a quarter of a MiB.
const MAX_FILE: u64 = 16 << 20;

/// Authorities, and where they are from.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    pub(super) certs: RootCerts,
    pub(super) from: String,
}

/// Those of `SSL_CERT_FILE`, else of the first usual file that has some, else the built-in ones.
pub(super) fn find(env: &BTreeMap<String, String>) -> Roots {
    let named = env.get("SSL_CERT_FILE").map(String::as_str);
    let places = named.into_iter().chain(PLACES.iter().copied());
    for place in places {
        let certificates = read(place);
        if !certificates.is_empty() {
            return Roots {
                certs: certificates.into(),
                from: place.to_owned(),
            };
        }
    }
    Roots {
        certs: RootCerts::WebPki,
        from: "amiforge's own list, since the image has none".to_owned(),
    }
}

fn read(path: &str) -> Vec<Certificate<'static>> {
    let mut pem = Vec::new();
    if std::fs::metadata(path).is_ok_and(|m| m.is_file())
        && let Ok(file) = File::open(path)
    {
        // One that cannot be read to its end is used as far as it goes.
        let _ends_early = file.take(MAX_FILE).read_to_end(&mut pem);
    }
    parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}
