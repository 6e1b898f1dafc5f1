//! Writing objects: at once, or in parts when they are large.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use amiforge_recipe::actions::{ChecksumAlgorithm, S3Uri};
use ureq::http::{Method, header};

use super::error::Refusal;
use super::{Call, Frame, Part, Payload, S3, S3Error, xml};
use crate::net::{Hash, text};

/// Bytes of an answer.
const MAX_ANSWER: u64 = 1 << 20;

/// S3 takes no more parts of one object.
const MAX_PARTS: u64 = 10_000;

/// Sizes above which files are sent in parts, and of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// A file of up to so many bytes is sent at once.
    pub(crate) whole: u64,
    /// Bytes of a part, at least.
    pub(crate) part: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            whole: 64 << 20,
            part: 16 << 20,
        }
    }
}

impl Sizes {
    /// Offsets and lengths of the parts of a file; `None` when it is sent at once.
    pub(crate) fn parts(self, size: u64) -> Option<Vec<(u64, u64)>> {
        if size <= self.whole {
            return None;
        }
        let mib = 1 << 20;
        let least = size.div_ceil(MAX_PARTS).div_ceil(mib) * mib;
        let part = self.part.max(least);
        let count = size.div_ceil(part);
        Some(
            (0..count)
                .map(|n| (n * part, part.min(size - n * part)))
                .collect(),
        )
    }
}

/// A piece of a file with its digest, ready to be sent.
pub(crate) struct Piece<'a>(Part<'a>);

impl<'a> Piece<'a> {
    /// Reads the piece once. `None` when the deadline passes.
    pub(crate) fn read(
        file: &'a File,
        (offset, length): (u64, u64),
        deadline: Option<Instant>,
    ) -> std::io::Result<Option<Self>> {
        let mut hash = Hash::new(ChecksumAlgorithm::Sha256);
        let mut buffer = vec![0; 128 << 10];
        let mut at = 0;
        while at < length {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            let most = usize::try_from(length - at).map_or(buffer.len(), |n| n.min(buffer.len()));
            let piece = buffer.get_mut(..most).unwrap_or_default();
            let count = file.read_at(piece, offset + at)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            hash.update(piece.get(..count).unwrap_or_default());
            at += u64::try_from(count).unwrap_or(0);
        }
        Ok(Some(Self(Part {
            file,
            offset,
            length,
            sha256: hash.finish(),
        })))
    }
}

/// An object that is being written in parts.
pub(crate) struct Upload {
    id: String,
}

impl S3<'_> {
    /// Writes an object at once.
    pub(crate) fn put(
        &self,
        to: &S3Uri,
        piece: &Piece<'_>,
        frame: Frame<'_>,
    ) -> Result<(), S3Error> {
        self.send(
            &self.call(Method::PUT, to, Vec::new(), Payload::Part(&piece.0)),
            frame,
        )
        .map(|_| ())
    }

    /// Begins an object in parts.
    pub(crate) fn begin(&self, to: &S3Uri, frame: Frame<'_>) -> Result<Upload, S3Error> {
        let query = vec![("uploads", String::new())];
        let response = self.send(&self.call(Method::POST, to, query, Payload::Nothing), frame)?;
        let body = self.small(response, frame, MAX_ANSWER)?;
        let name = ["InitiateMultipartUploadResult/UploadId"];
        let [id] = xml::texts(&body, name).map_err(|source| S3Error::Answer {
            place: frame.place.to_owned(),
            source,
        })?;
        match id.is_empty() {
            true => Err(lacks(frame, "an id")),
            false => Ok(Upload { id }),
        }
    }

    /// Writes part `number`, from 1, and returns its tag.
    pub(crate) fn part(
        &self,
        to: &S3Uri,
        upload: &Upload,
        number: usize,
        piece: &Piece<'_>,
        frame: Frame<'_>,
    ) -> Result<String, S3Error> {
        let query = vec![
            ("partNumber", number.to_string()),
            ("uploadId", upload.id.clone()),
        ];
        let response = self.send(
            &self.call(Method::PUT, to, query, Payload::Part(&piece.0)),
            frame,
        )?;
        let tag = text(response.headers(), header::ETAG).map(str::to_owned);
        tag.ok_or_else(|| lacks(frame, "an ETag"))
    }

    /// Makes the object of its parts. An answer of status 200 may still be an error.
    pub(crate) fn complete(
        &self,
        to: &S3Uri,
        upload: &Upload,
        tags: &[String],
        frame: Frame<'_>,
    ) -> Result<(), S3Error> {
        let mut body = String::from("<CompleteMultipartUpload>");
        for (number, tag) in (1..).zip(tags) {
            let tag = quick_xml::escape::escape(tag);
            body.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            ));
        }
        body.push_str("</CompleteMultipartUpload>");
        let query = vec![("uploadId", upload.id.clone())];
        let payload = Payload::Bytes(body.as_bytes());
        let response = self.send(&self.call(Method::POST, to, query, payload), frame)?;
        let answer = self.small(response, frame, MAX_ANSWER)?;
        let name = ["CompleteMultipartUploadResult/ETag"];
        match xml::texts(&answer, name) {
            Ok([tag]) if !tag.is_empty() => Ok(()),
            _ => Err(Refusal::of_body(&answer).told(frame, "s3:PutObject", self.access)),
        }
    }

    /// Throws the parts away that are there.
    pub(crate) fn abort(
        &self,
        to: &S3Uri,
        upload: &Upload,
        frame: Frame<'_>,
    ) -> Result<(), S3Error> {
        let query = vec![("uploadId", upload.id.clone())];
        self.send(
            &self.call(Method::DELETE, to, query, Payload::Nothing),
            frame,
        )
        .map(|_| ())
    }

    fn call<'c>(
        &self,
        method: Method,
        to: &'c S3Uri,
        query: Vec<(&'static str, String)>,
        payload: Payload<'c>,
    ) -> Call<'c> {
        Call {
            method,
            bucket: &to.bucket,
            key: &to.key,
            query,
            payload,
            right: "s3:PutObject",
        }
    }
}

fn lacks(frame: Frame<'_>, what: &'static str) -> S3Error {
    S3Error::Lacks {
        place: frame.place.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_file_and_are_no_more_than_s3_takes() {
        let sizes = Sizes::default();
        assert_eq!(sizes.parts(0), None);
        assert_eq!(sizes.parts(64 << 20), None);
        for size in [(64 << 20) + 1, 6 << 30, (5 << 40) - 1, 5 << 40] {
            let parts = sizes.parts(size).unwrap();
            assert!(parts.len() <= 10_000, "{} parts", parts.len());
            let mut at = 0;
            for (offset, length) in &parts {
                assert_eq!(*offset, at);
                at += length;
            }
            assert_eq!(at, size);
            let (last, others) = parts.split_last().unwrap();
            assert!(others.iter().all(|(_, n)| *n >= 5 << 20 && *n <= 5 << 30) && last.1 > 0);
        }
    }
}
