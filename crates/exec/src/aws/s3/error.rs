//! What S3 says when it does not do what was asked.

use std::io::Read as _;
use std::time::Duration;

use amiforge_recipe::actions::WebUrlError;
use ureq::Body;
use ureq::http::Response;

use super::xml::{self, XmlError};
use super::{Frame, MAX_ERROR, wait_of};
use crate::aws::AwsAccess;
use crate::net::{NetError, passing_status};

/// Characters of a message of a server that are shown.
const MAX_MESSAGE: usize = 400;

/// A request to S3 that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum S3Error {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("{place}: S3 says {code} (status {status}){message}{hint}")]
    Refused {
        place: String,
        status: u16,
        code: String,
        message: String,
        hint: String,
        retry_after: Option<Duration>,
    },
    #[error("the answer of S3 for {place} cannot be read")]
    Answer {
        place: String,
        #[source]
        source: XmlError,
    },
    #[error("the answer of S3 for {place} lacks {what}")]
    Lacks { place: String, what: &'static str },
    #[error("the answer of S3 for {place} has more than {limit} bytes")]
    TooLong { place: String, limit: u64 },
    #[error(
        "the endpoint for {place} is not a URL (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile)"
    )]
    Endpoint {
        place: String,
        #[source]
        source: WebUrlError,
    },
    #[error(
        "{region:?} is not the name of a region (AWS_REGION, AWS_DEFAULT_REGION or the profile)"
    )]
    Region { region: String },
}

impl S3Error {
    /// Whether the same may succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Net(error) => error.may_pass(),
            Self::Refused { status, code, .. } => {
                const CODES: [&str; 4] = [
                    "InternalError",
                    "RequestTimeout",
                    "ServiceUnavailable",
                    "SlowDown",
                ];
                passing_status(*status) || CODES.contains(&code.as_str())
            }
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Net(error) => error.retry_after(),
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// An answer that is an error.
pub(super) struct Refusal {
    status: u16,
    code: String,
    message: String,
    /// Where the bucket is, when that is what is wrong.
    pub(super) region: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads what can be read of it.
    pub(super) fn read(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let retry_after = wait_of(&response);
        let header = response
            .headers()
            .get("x-amz-bucket-region")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let mut body = Vec::new();
        // What arrived is enough; the status counts.
        let _ends_early = response
            .into_body()
            .into_reader()
            .take(MAX_ERROR)
            .read_to_end(&mut body);
        let mut refusal = Self::of_body(&body);
        refusal.status = status;
        refusal.retry_after = retry_after;
        let elsewhere = matches!(status, 301 | 307)
            || [
                "AuthorizationHeaderMalformed",
                "IllegalLocationConstraintException",
            ]
            .contains(&refusal.code.as_str());
        refusal.region = header.or(refusal.region).filter(|_| elsewhere);
        refusal
    }

    /// Of the XML alone.
    pub(super) fn of_body(body: &[u8]) -> Self {
        let names = ["Error/Code", "Error/Message", "Error/Region"];
        let [code, message, region] = xml::texts(body, names).unwrap_or_default();
        Self {
            status: 200,
            code,
            message,
            region: Some(region).filter(|r| !r.is_empty()),
            retry_after: None,
        }
    }

    /// The error with what to do about it. `right` is what the request takes.
    pub(super) fn told(self, frame: Frame<'_>, right: &str, access: &AwsAccess) -> S3Error {
        let Self {
            status,
            code,
            message,
            ..
        } = self;
        let code = match code.as_str() {
            "" => match status {
                301 => "PermanentRedirect",
                403 => "AccessDenied",
                404 => "NotFound",
                _ => "nothing",
            },
            code => code,
        };
        // What a server sends back of a request is not for logs.
        let clean = |text: &str| {
            let text = match &access.credentials {
                Some(credentials) => credentials.hidden(text),
                None => text.to_owned(),
            };
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(MAX_MESSAGE)
                .collect::<String>()
        };
        let hint = hint(code, status, frame, right, access);
        S3Error::Refused {
            place: frame.place.to_owned(),
            status,
            code: clean(code),
            message: match message.as_str() {
                "" => String::new(),
                text => format!(": {}", clean(text)),
            },
            hint: hint.map_or_else(String::new, |hint| format!(" ({hint})")),
            retry_after: self.retry_after,
        }
    }
}

fn hint(
    code: &str,
    status: u16,
    frame: Frame<'_>,
    right: &str,
    access: &AwsAccess,
) -> Option<String> {
    let text = match code {
        "NoSuchKey" => "letter case counts in keys".to_owned(),
        "NoSuchBucket" => "names of buckets are global; is the endpoint the right one?".to_owned(),
        "RequestTimeTooSkewed" => "the clock of this machine is wrong".to_owned(),
        "ExpiredToken" => "log in again".to_owned(),
        "SignatureDoesNotMatch" => "the secret key is not that of the key id".to_owned(),
        "XAmzContentSHA256Mismatch" => "the file changed while it was read".to_owned(),
        "PermanentRedirect" => "set AWS_REGION to the region of the bucket".to_owned(),
        "InvalidAccessKeyId" | "AccessDenied" | "InvalidToken" => match &access.credentials {
            None => {
                let why = access.missing.as_deref();
                let why = why.unwrap_or(
                    "none were found in environment, shared files, container or instance",
                );
                format!("the request had no credentials: {why}")
            }
            Some(credentials) => {
                let owner = match frame.owner {
                    Some(owner) => format!(", and the bucket must belong to {owner}"),
                    None => String::new(),
                };
                format!(
                    "the credentials of {} need {right}{owner}",
                    credentials.source
                )
            }
        },
        _ if status == 403 => format!("it takes {right}"),
        _ => return None,
    };
    Some(text)
}
