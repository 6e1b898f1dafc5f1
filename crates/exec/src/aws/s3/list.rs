//! ListObjectsV2.

use std::io::Read as _;

use amiforge_recipe::actions::S3Uri;
use ureq::http::Method;

use super::xml;
use super::{Call, Frame, Payload, S3, S3Error};
use crate::net::of_io;

/// Bytes of one page: a thousand keys, each character written as a reference.
const MAX_PAGE: u64 = 16 << 20;

/// Some of the keys below a prefix.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) keys: Vec<String>,
    /// What to ask the next page with.
    pub(crate) next: Option<String>,
}

impl S3<'_> {
    /// The keys that start with the key of `prefix`, or the next ones.
    pub(crate) fn list(
        &self,
        prefix: &S3Uri,
        next: Option<&str>,
        frame: Frame<'_>,
    ) -> Result<Page, S3Error> {
        let mut query = vec![
            ("list-type", "2".to_owned()),
            ("max-keys", "1000".to_owned()),
        ];
        query.push(("prefix", prefix.key.clone()));
        query.extend(next.map(|token| ("continuation-token", token.to_owned())));
        let call = Call {
            method: Method::GET,
            bucket: &prefix.bucket,
            key: "",
            query,
            payload: Payload::Nothing,
            right: "s3:ListBucket",
        };
        let response = self.send(&call, frame)?;
        let body = self.small(response, frame, MAX_PAGE)?;
        page(&body).map_err(|source| S3Error::Answer {
            place: frame.place.to_owned(),
            source,
        })
    }

    /// A whole answer that may have `limit` bytes.
    pub(super) fn small(
        &self,
        response: ureq::http::Response<ureq::Body>,
        frame: Frame<'_>,
        limit: u64,
    ) -> Result<Vec<u8>, S3Error> {
        let mut body = Vec::new();
        let place = frame.place.to_owned();
        response
            .into_body()
            .into_reader()
            .take(limit + 1)
            .read_to_end(&mut body)
            .map_err(|e| of_io(place.clone(), self.http.roots_from(), &e))?;
        if u64::try_from(body.len()).unwrap_or(u64::MAX) > limit {
            return Err(S3Error::TooLong { place, limit });
        }
        Ok(body)
    }
}

fn page(body: &[u8]) -> Result<Page, xml::XmlError> {
    let mut page = Page {
        keys: Vec::new(),
        next: None,
    };
    let mut more = false;
    xml::walk(body, |path, text| match (path, text) {
        ("ListBucketResult/Contents/Key", Some(text)) => page.keys.push(text.to_owned()),
        ("ListBucketResult/NextContinuationToken", Some(text)) => page.next = Some(text.to_owned()),
        ("ListBucketResult/IsTruncated", Some(text)) => more = text == "true",
        _ => {}
    })?;
    page.next = page.next.filter(|_| more);
    Ok(page)
}

#[cfg(fuzzing)]
pub(super) fn keys(body: &[u8]) -> Vec<String> {
    page(body).map(|page| page.keys).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_the_next_token_are_read() {
        let body = b"<ListBucketResult xmlns=\"x\"><IsTruncated>true</IsTruncated>\
            <NextContinuationToken>t+/=</NextContinuationToken>\
            <Contents><Key>a/b &amp; c</Key><Size>1</Size></Contents>\
            <Contents><Key>a/</Key></Contents>\
            <CommonPrefixes><Prefix>no</Prefix></CommonPrefixes></ListBucketResult>";
        let found = page(body).unwrap();
        assert_eq!(found.keys, ["a/b & c", "a/"]);
        assert_eq!(found.next.as_deref(), Some("t+/="));
        let last = page(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>");
        assert_eq!(last.unwrap().next, None);
    }
}
