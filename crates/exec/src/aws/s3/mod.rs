//! S3 as far as the transfer actions need it: read an object, list a prefix, write an object at once or in
//! parts. Amazon S3 API reference: GetObject, ListObjectsV2, PutObject, CreateMultipartUpload, UploadPart,
//! CompleteMultipartUpload, AbortMultipartUpload, Error Responses.
//!
//! Requests are signed when there are credentials, and plain otherwise, as for public objects. At
//! Amazon a bucket whose name can stand in a host name is addressed that way; elsewhere the bucket is the
//! first part of the path.

mod error;
mod list;
mod put;
mod xml;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use amiforge_recipe::actions::{S3Uri, WebUrl};
use jiff::tz::TimeZone;
use ureq::http::{Method, Response};
use ureq::{Body, SendBody};

use super::sign::{EMPTY, Signed, escaped, sign};
use super::{AwsAccess, Credentials};
use crate::net::{Address, Ask, Http, hex, retry_after};
use crate::outside::Outside;

pub(crate) use error::S3Error;
pub(crate) use put::{Piece, Sizes};

/// Where a bucket is until a server says otherwise.
const DEFAULT_REGION: &str = "us-east-1";

/// Bytes of an answer that is an error.
const MAX_ERROR: u64 = 64 << 10;

/// S3 for one step.
pub(crate) struct S3<'a> {
    pub(crate) http: &'a Http<'a>,
    access: &'a AwsAccess,
    /// Regions of buckets that are elsewhere than asked first.
    regions: RefCell<BTreeMap<String, String>>,
}

/// What every request of one step has.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// The object as messages may show it.
    pub(crate) place: &'a str,
    /// The account that must own the bucket.
    pub(crate) owner: Option<&'a str>,
    pub(crate) deadline: Option<Instant>,
}

/// One request.
struct Call<'a> {
    method: Method,
    bucket: &'a str,
    key: &'a str,
    query: Vec<(&'static str, String)>,
    payload: Payload<'a>,
    /// What somebody has to be allowed to.
    right: &'static str,
}

/// What is sent with it.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Part(&'a Part<'a>),
}

/// A piece of a file.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    length: u64,
    sha256: String,
}

/// Where a request goes and what of that is signed.
struct Target {
    address: Address,
    host: String,
    path: String,
    query: String,
}

impl<'a> S3<'a> {
    pub(crate) fn new(http: &'a Http<'a>, outside: &'a Outside) -> Self {
        static NOBODY: AwsAccess = AwsAccess {
            credentials: None,
            missing: None,
            region: None,
            endpoint: None,
        };
        Self {
            http,
            access: outside.aws.as_ref().unwrap_or(&NOBODY),
            regions: RefCell::default(),
        }
    }

    /// The object, with an answer of status 200.
    pub(crate) fn get(&self, uri: &S3Uri, frame: Frame<'_>) -> Result<Response<Body>, S3Error> {
        self.send(
            &Call {
                method: Method::GET,
                bucket: &uri.bucket,
                key: &uri.key,
                query: Vec::new(),
                payload: Payload::Nothing,
                right: "s3:GetObject",
            },
            frame,
        )
    }

    /// Sends a request; any status but 200 and 204 is an error. A bucket in another region is asked
    /// there, once.
    fn send(&self, call: &Call<'_>, frame: Frame<'_>) -> Result<Response<Body>, S3Error> {
        let known = self.regions.borrow().get(call.bucket).cloned();
        let asked = known.or_else(|| self.access.region.clone());
        let mut region = asked.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let mut moved = false;
        loop {
            let response = self.send_to(call, frame, &region)?;
            if matches!(response.status().as_u16(), 200 | 204) {
                return Ok(response);
            }
            let refusal = error::Refusal::read(response);
            match &refusal.region {
                Some(other) if !moved && *other != region && is_region(other) => {
                    region.clone_from(other);
                    self.regions
                        .borrow_mut()
                        .insert(call.bucket.to_owned(), region.clone());
                    moved = true;
                }
                _ => return Err(refusal.told(frame, call.right, self.access)),
            }
        }
    }

    fn send_to(
        &self,
        call: &Call<'_>,
        frame: Frame<'_>,
        region: &str,
    ) -> Result<Response<Body>, S3Error> {
        let target = self.target(call, region, frame.place)?;
        let mut headers: Vec<(&str, String)> = Vec::new();
        let owner = frame.owner.map(str::to_owned);
        headers.extend(owner.map(|id| ("x-amz-expected-bucket-owner", id)));
        if let Some(credentials) = &self.access.credentials {
            let payload = match call.payload {
                Payload::Nothing => EMPTY.to_owned(),
                Payload::Bytes(bytes) => {
                    use sha2::Digest as _;
                    hex(&sha2::Sha256::digest(bytes))
                }
                Payload::Part(part) => part.sha256.clone(),
            };
            headers.extend(signature(
                call,
                &target,
                &headers,
                &payload,
                region,
                credentials,
            ));
        }
        headers.push(("host", target.host.clone()));
        let (source, length) = match call.payload {
            Payload::Nothing => (Source::Nothing, 0),
            Payload::Bytes(bytes) => (
                Source::Bytes(bytes),
                u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            ),
            Payload::Part(part) => (Source::File(part.file, part.offset), part.length),
        };
        let bare = call.method == Method::GET || call.method == Method::DELETE;
        if !bare {
            headers.push(("content-length", length.to_string()));
        }
        let mut reader = PartReader {
            source,
            left: length,
            deadline: frame.deadline,
        };
        let ask = Ask {
            method: call.method.clone(),
            address: &target.address,
            place: frame.place,
            headers: &headers,
            insecure: false,
            deadline: frame.deadline,
            body: (),
        };
        Ok(match bare {
            true => self.http.send(ask)?,
            false => self
                .http
                .send(ask.with(SendBody::from_reader(&mut reader)))?,
        })
    }

    fn target(&self, call: &Call<'_>, region: &str, place: &str) -> Result<Target, S3Error> {
        if !is_region(region) {
            return Err(S3Error::Region {
                region: region.to_owned(),
            });
        }
        let query: Vec<String> = call
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", escaped(value, false)))
            .collect();
        let query = query.join("&");
        let key = escaped(call.key, true);
        let bucket = call.bucket;
        let (secure, host, port, path) = match &self.access.endpoint {
            Some(endpoint) => {
                let url = WebUrl::parse(endpoint).map_err(|source| S3Error::Endpoint {
                    place: place.to_owned(),
                    source,
                })?;
                let base = url.path().trim_end_matches('/');
                let path = format!("{base}/{bucket}/{key}");
                (url.is_secure(), url.host().to_owned(), url.port(), path)
            }
            None => {
                let domain = match region.starts_with("cn-") {
                    true => "amazonaws.com.cn",
                    false => "amazonaws.com",
                };
                match in_host_name(bucket) {
                    true => {
                        let host = format!("{bucket}.s3.{region}.{domain}");
                        (true, host, 443, format!("/{key}"))
                    }
                    false => {
                        let host = format!("s3.{region}.{domain}");
                        (true, host, 443, format!("/{bucket}/{key}"))
                    }
                }
            }
        };
        // As clients write it: the usual port is left out.
        let usual = if secure { 443 } else { 80 };
        let host_header = if port == usual {
            host.clone()
        } else {
            format!("{host}:{port}")
        };
        let scheme = if secure { "https" } else { "http" };
        let mut text = format!("{scheme}://{host_header}{path}");
        if !query.is_empty() {
            text.push('?');
            text.push_str(&query);
        }
        Ok(Target {
            address: Address {
                secure,
                host,
                port,
                text,
            },
            host: host_header,
            path,
            query,
        })
    }
}

fn signature(
    call: &Call<'_>,
    target: &Target,
    headers: &[(&str, String)],
    payload: &str,
    region: &str,
    credentials: &Credentials,
) -> Vec<(&'static str, String)> {
    let time = jiff::Timestamp::now().to_zoned(TimeZone::UTC);
    let time = time.strftime("%Y%m%dT%H%M%SZ").to_string();
    let request = Signed {
        method: call.method.as_str(),
        host: &target.host,
        path: &target.path,
        query: &target.query,
        headers,
        payload,
        region,
        time: &time,
    };
    sign(&request, credentials)
}

/// Whether it can stand in a host name, where the certificate's `*` is one part.
fn in_host_name(bucket: &str) -> bool {
    bucket.len() <= 63
        && bucket
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !bucket.starts_with('-')
        && !bucket.ends_with('-')
}

/// Whether it is the name of a region; it becomes part of a host name.
fn is_region(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

enum Source<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// And the next offset.
    File(&'a File, u64),
}

/// Gives a piece of a file, as long as it was when it was looked at, until the deadline.
struct PartReader<'a> {
    source: Source<'a>,
    left: u64,
    deadline: Option<Instant>,
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Nothing => Ok(0),
            Source::Bytes(bytes) => bytes.read(buffer),
            Source::File(file, offset) => {
                if self.deadline.is_some_and(|at| Instant::now() >= at) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                let most = usize::try_from(self.left).map_or(buffer.len(), |n| n.min(buffer.len()));
                let Some(buffer) = buffer.get_mut(..most).filter(|b| !b.is_empty()) else {
                    return Ok(0);
                };
                let count = file.read_at(buffer, *offset)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let step = u64::try_from(count).unwrap_or(0);
                *offset += step;
                self.left -= step;
                Ok(count)
            }
        }
    }
}

/// What an answer asks to wait.
fn wait_of(response: &Response<Body>) -> Option<std::time::Duration> {
    retry_after(response.headers())
}

#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    let _ = error::Refusal::of_body(data);
    for key in list::keys(data) {
        crate::actions::fuzz_key(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::Outside;

    fn address(
        endpoint: Option<&str>,
        bucket: &str,
        key: &str,
        region: &str,
    ) -> Result<String, S3Error> {
        let (env, outside) = (BTreeMap::new(), Outside::default());
        let http = Http::new(&env, &outside);
        let access = AwsAccess {
            endpoint: endpoint.map(str::to_owned),
            ..AwsAccess::default()
        };
        let outside = Outside {
            aws: Some(access),
            ..Outside::default()
        };
        let call = Call {
            method: Method::GET,
            bucket,
            key,
            query: vec![("prefix", "a b/&".to_owned())],
            payload: Payload::Nothing,
            right: "",
        };
        let target = S3::new(&http, &outside).target(&call, region, "place")?;
        Ok(target.address.text)
    }

    #[test]
    fn buckets_stand_in_the_host_name_or_in_the_path() {
        let all = [
            (
                None,
                "my-bucket",
                "eu-west-1",
                "https://my-bucket.s3.eu-west-1.amazonaws.com/k%20+",
            ),
            (
                None,
                "my.bucket",
                "eu-west-1",
                "https://s3.eu-west-1.amazonaws.com/my.bucket/k%20+",
            ),
            (
                None,
                "Old_One",
                "us-east-1",
                "https://s3.us-east-1.amazonaws.com/Old_One/k%20+",
            ),
            (
                None,
                "bucket",
                "cn-north-1",
                "https://bucket.s3.cn-north-1.amazonaws.com.cn/k%20+",
            ),
            (
                Some("http://127.0.0.1:9000"),
                "bucket",
                "x",
                "http://127.0.0.1:9000/bucket/k%20+",
            ),
            (
                Some("https://h/base/"),
                "bucket",
                "x",
                "https://h/base/bucket/k%20+",
            ),
            (
                Some("https://h:443"),
                "bucket",
                "x",
                "https://h/bucket/k%20+",
            ),
        ];
        for (endpoint, bucket, region, expected) in all {
            let expected = format!("{}?prefix=a%20b%2F%26", expected.replace('+', "%2B"));
            assert_eq!(address(endpoint, bucket, "k +", region).unwrap(), expected);
        }
        let dots = address(None, "bucket", "../a//./b", "r").unwrap();
        assert!(dots.contains("/../a//./b?"), "a key is not a path: {dots}");
    }

    #[test]
    fn a_region_cannot_name_another_host() {
        for region in ["evil.test/", "a.b", "", "x@y", &"r".repeat(41)] {
            let error = address(None, "bucket", "k", region).unwrap_err();
            assert!(matches!(error, S3Error::Region { .. }), "{region}");
        }
        let error = address(Some("ftp://x"), "bucket", "k", "r").unwrap_err();
        assert!(matches!(error, S3Error::Endpoint { .. }));
    }
}
