//! Signature Version 4 in the `Authorization` header, for S3.
//! AWS general reference, "Create a signed AWS API request"; Amazon S3 API reference, "Authenticating
//! Requests: Using the Authorization Header".

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::Credentials;
use crate::net::hex;

/// SHA-256 of nothing.
pub(crate) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";

/// What is signed.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// Value of the header `Host`.
    pub(crate) host: &'a str,
    /// Escaped as [`escaped`] does, `/` kept.
    pub(crate) path: &'a str,
    /// Escaped too, as sent.
    pub(crate) query: &'a str,
    /// Further headers in lower case that must not change on the way.
    pub(crate) headers: &'a [(&'a str, String)],
    /// SHA-256 of the body in hexadecimal digits.
    pub(crate) payload: &'a str,
    pub(crate) region: &'a str,
    /// `YYYYMMDDTHHMMSSZ`.
    pub(crate) time: &'a str,
}

/// The headers to add.
pub(crate) fn sign(request: &Signed<'_>, credentials: &Credentials) -> Vec<(&'static str, String)> {
    let mut added = vec![
        ("x-amz-content-sha256", request.payload.to_owned()),
        ("x-amz-date", request.time.to_owned()),
    ];
    let token = credentials.session_token.clone();
    added.extend(token.map(|token| ("x-amz-security-token", token)));

    let mut headers: Vec<(&str, &str)> = vec![("host", request.host)];
    headers.extend(request.headers.iter().map(|(k, v)| (*k, v.trim())));
    headers.extend(added.iter().map(|(k, v)| (*k, v.as_str())));
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");

    let mut query: Vec<&str> = request.query.split('&').filter(|q| !q.is_empty()).collect();
    query.sort_unstable();
    let mut canonical = format!(
        "{}\n{}\n{}\n",
        request.method,
        request.path,
        query.join("&")
    );
    for (name, value) in &headers {
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    canonical.push_str(&format!("\n{names}\n{}", request.payload));

    let day = request.time.get(..8).unwrap_or_default();
    let scope = format!("{day}/{}/{SERVICE}/aws4_request", request.region);
    let text = format!(
        "{ALGORITHM}\n{}\n{scope}\n{}",
        request.time,
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let mut key = format!("AWS4{}", credentials.secret_access_key).into_bytes();
    for part in [day, request.region, SERVICE, "aws4_request", &text] {
        key = code(&key, part.as_bytes());
    }
    let value = format!(
        "{ALGORITHM} Credential={}/{scope},SignedHeaders={names},Signature={}",
        credentials.access_key_id,
        hex(&key)
    );
    added.push(("authorization", value));
    added
}

fn code(key: &[u8], text: &[u8]) -> Vec<u8> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut code) => {
            code.update(text);
            code.finalize().into_bytes().to_vec()
        }
        // Keys of any length are taken.
        Err(_) => Vec::new(),
    }
}

/// Escapes all but letters, digits and `-._~`; `/` is kept where `path` says so.
pub(crate) fn escaped(text: &str, path: bool) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (path && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the S3 API reference, section "Examples: Signature Calculations": key, time
    /// and bucket are theirs.
    fn signature(
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, String)],
        payload: &str,
    ) -> String {
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
            source: "test".into(),
        };
        let added = sign(
            &Signed {
                method,
                host: "examplebucket.s3.amazonaws.com",
                path,
                query,
                headers,
                payload,
                region: "us-east-1",
                time: "20130524T000000Z",
            },
            &credentials,
        );
        let value = &added.last().unwrap().1;
        value.rsplit('=').next().unwrap().to_owned()
    }

    #[test]
    fn signatures_are_those_of_the_reference() {
        let range = [("range", "bytes=0-9".to_owned())];
        assert_eq!(
            signature("GET", "/test.txt", "", &range, EMPTY),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT".to_owned()),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY".to_owned()),
        ];
        assert_eq!(
            signature(
                "PUT",
                &escaped("/test$file.text", true),
                "",
                &headers,
                "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
            ),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature("GET", "/", "lifecycle=", &[], EMPTY),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature("GET", "/", "prefix=J&max-keys=2", &[], EMPTY),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }
}
