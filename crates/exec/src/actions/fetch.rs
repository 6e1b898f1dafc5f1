//! Fetching a file: redirects, tries, checks, and a target that changes only when all is well.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Instant;

use amiforge_recipe::actions::{Checksum, WebUrl};
use amiforge_types::Hasher;
use ureq::Body;
use ureq::http::{HeaderMap, Method, Response, header};

use super::{StepError, chain};
use crate::aws::s3::S3Error;
use crate::event::Download;
use crate::net::{Address, Ask, Hash, Http, NetError, basic, of_io, promised, retry_after};
use crate::outside::Outside;

/// Times that an address may lead on.
const MAX_REDIRECTS: u32 = 10;

/// What a download must be.
pub(crate) struct Wanted<'a> {
    pub(crate) checksum: Option<&'a Checksum>,
    /// Bytes at most.
    pub(crate) limit: u64,
    pub(crate) deadline: Option<Instant>,
}

impl Wanted<'_> {
    /// Whether its time is over.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }
}

/// Why a try failed: at the far end, or at this one, where another try does not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TryError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Tries until one succeeds or fails for good. `told` hears why the next one is made.
pub(crate) fn retrying<T>(
    http: &Http<'_>,
    deadline: Option<Instant>,
    told: &mut dyn FnMut(String),
    mut attempt: impl FnMut() -> Result<T, TryError>,
) -> Result<T, StepError> {
    let patience = http.patience();
    let over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    let mut number = 1;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if over() {
            return Err(StepError::TimedOut);
        }
        let (may_pass, wait) = match &error {
            TryError::Net(error) => (error.may_pass(), error.retry_after()),
            TryError::S3(error) => (error.may_pass(), error.retry_after()),
            TryError::Step(_) => (false, None),
        };
        let error = match error {
            TryError::Step(error) => return Err(error),
            TryError::Net(error) if !may_pass => return Err(StepError::Net(Box::new(error))),
            TryError::S3(error) if !may_pass => return Err(StepError::S3(Box::new(error))),
            error => error,
        };
        if number >= patience.tries {
            let tries = number;
            return Err(StepError::GaveUp {
                tries,
                source: Box::new(error),
            });
        }
        let pause = patience.pause * 2u32.saturating_pow(number - 1);
        let pause = pause.max(wait.unwrap_or_default());
        told(format!(
            "try {number} of {} failed, the next is made in {} s: {}",
            patience.tries,
            pause.as_secs_f64(),
            chain(&error)
        ));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
        if over() {
            return Err(StepError::TimedOut);
        }
        number += 1;
    }
}

/// One try of a download from the web into `landing`. Any status but 200 is an error.
pub(crate) fn web(
    http: &Http<'_>,
    source: &WebUrl,
    insecure: bool,
    show: &dyn Fn(&WebUrl) -> String,
    wanted: &Wanted<'_>,
    receiver: &mut impl Receiver,
) -> Result<(), TryError> {
    let mut url = source.clone();
    let mut followed = 0;
    let response = loop {
        let place = show(&url);
        let headers = authorization(source, &url);
        let response = http.send(Ask {
            method: Method::GET,
            address: &Address::from(&url),
            place: &place,
            headers: &headers,
            insecure,
            deadline: wanted.deadline,
            body: (),
        })?;
        let status = response.status().as_u16();
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            break response;
        }
        followed += 1;
        if followed > MAX_REDIRECTS {
            return Err(TryError::Net(NetError::Redirects {
                place: show(source),
                limit: MAX_REDIRECTS,
            }));
        }
        url = next(&url, response.headers(), place)?;
    };
    let place = show(&url);
    let status = response.status().as_u16();
    if status != 200 {
        return Err(TryError::Net(NetError::Status {
            place,
            status,
            retry_after: retry_after(response.headers()),
        }));
    }
    body(http, response, &place, wanted, receiver)
}

/// User and password of the source, for its own server alone.
fn authorization(source: &WebUrl, url: &WebUrl) -> Vec<(&'static str, String)> {
    let user = url
        .user()
        .or_else(|| source.user().filter(|_| source.same_server(url)));
    user.map(|(user, password)| ("authorization", basic(&user, &password)))
        .into_iter()
        .collect()
}

fn next(url: &WebUrl, headers: &HeaderMap, place: String) -> Result<WebUrl, NetError> {
    let Some(location) = headers.get(header::LOCATION) else {
        return Err(NetError::NoLocation { place });
    };
    // Servers send UTF-8 where only ASCII may stand.
    let location = String::from_utf8_lossy(location.as_bytes());
    url.join(&location).map_err(|source| NetError::Redirect {
        place,
        location: location.chars().take(200).collect(),
        source,
    })
}

/// What takes a body in.
pub(crate) trait Receiver {
    /// Forgets what it has.
    fn restart(&mut self) -> Result<(), StepError>;

    fn write(&mut self, bytes: &[u8]) -> Result<(), StepError>;
}

/// Keeps nothing but what is needed to tell one content from another.
#[derive(Default)]
struct Digesting(Hasher, u64);

impl Receiver for Digesting {
    fn restart(&mut self) -> Result<(), StepError> {
        *self = Self::default();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        self.0.update(bytes);
        self.1 = self.1.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

/// What is at an address of the web now, as a `WebDownload` of it would find it.
///
/// # Errors
/// Why there is nothing, in one line.
pub fn download_of(source: &WebUrl, insecure: bool, outside: &Outside) -> Result<Download, String> {
    let env = BTreeMap::new();
    let http = Http::new(&env, outside);
    let wanted = Wanted {
        checksum: None,
        limit: http.patience().bytes,
        deadline: None,
    };
    let mut found = Digesting::default();
    retrying(&http, None, &mut |_| {}, || {
        let show = |url: &WebUrl| url.to_string();
        web(&http, source, insecure, &show, &wanted, &mut found)
    })
    .map_err(|error| chain(&error))?;
    let Digesting(hasher, bytes) = found;
    Ok(Download {
        source: source.to_string(),
        sha256: hasher.finish(),
        bytes,
        checked: false,
    })
}

impl Receiver for Vec<u8> {
    fn restart(&mut self) -> Result<(), StepError> {
        self.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// The body of an answer into `receiver`, from its beginning, as long as it says and as `wanted`.
pub(crate) fn body(
    http: &Http<'_>,
    response: Response<Body>,
    place: &str,
    wanted: &Wanted<'_>,
    receiver: &mut impl Receiver,
) -> Result<(), TryError> {
    let too_large = || NetError::TooLarge {
        place: place.to_owned(),
        limit: wanted.limit,
    };
    let promised = promised(response.headers());
    if promised.is_some_and(|promised| promised > wanted.limit) {
        return Err(too_large().into());
    }
    receiver.restart()?;
    let mut hash = wanted.checksum.map(|sum| Hash::new(sum.algorithm));
    let mut source = response.into_body().into_reader();
    let mut piece = vec![0; 64 << 10];
    let mut got = 0;
    loop {
        if wanted.is_late() {
            return Err(StepError::TimedOut.into());
        }
        let count = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => {
                let place = format!("{place}, after {got} bytes");
                return Err(of_io(place, http.roots_from(), &e).into());
            }
        };
        got += u64::try_from(count).unwrap_or(u64::MAX);
        if got > wanted.limit {
            return Err(too_large().into());
        }
        let bytes = piece.get(..count).unwrap_or_default();
        if let Some(hash) = &mut hash {
            hash.update(bytes);
        }
        receiver.write(bytes)?;
    }
    if let Some(promised) = promised.filter(|promised| *promised != got) {
        return Err(TryError::Net(NetError::Short {
            place: place.to_owned(),
            got,
            promised,
        }));
    }
    if let (Some(sum), Some(hash)) = (wanted.checksum, hash) {
        let found = hash.finish();
        if found != sum.digits {
            return Err(TryError::Net(NetError::Checksum {
                place: place.to_owned(),
                algorithm: sum.algorithm.name(),
                found,
                expected: sum.digits.clone(),
            }));
        }
    }
    Ok(())
}
