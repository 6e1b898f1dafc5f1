//! As much of HTTP/1.1 (RFC 9112) as a metadata service needs. What the guest sends is not trusted: everything has a limit, and
//! what is unclear is refused.

use std::io::{self, BufRead, Read as _, Write};

/// Longest request line, in bytes.
const LINE_MAX: usize = 8 << 10;
/// Longest header section, in bytes.
const HEADERS_MAX: usize = 16 << 10;
/// Most headers.
const HEADER_COUNT_MAX: usize = 64;
/// Longest body; none is wanted, so what comes is read and thrown away.
const BODY_MAX: u64 = 64 << 10;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, as sent.
    pub method: String,
    /// Path and query, as sent; an absolute address without its scheme and host.
    pub target: String,
    /// Names in lower case, values without spaces around them.
    pub headers: Vec<(String, String)>,
    /// Whether the connection stays open after it.
    pub keep_alive: bool,
}

impl Request {
    /// A request without headers, for tests and the like.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            keep_alive: true,
        }
    }

    /// The same with a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The first header of that name, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Of the body, also where it is left out as the answer to `HEAD`.
    pub content_length: usize,
}

impl Response {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::new(200, "text/plain", text.into().into_bytes())
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::new(200, "application/octet-stream", bytes.to_vec())
    }

    /// An error, with a page that says so.
    pub(super) fn error(status: u16) -> Self {
        let reason = reason(status);
        let page = format!(
            "<html><head><title>{status} - {reason}</title></head><body><h1>{status} - {reason}</h1></body></html>\n"
        );
        Self::new(status, "text/html", page.into_bytes())
    }

    fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            content_length: body.len(),
            body,
        }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn without_body(mut self) -> Self {
        self.body.clear();
        self
    }

    /// Writes it as the answer to the last request of a connection, or not.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub(super) fn write(&self, writer: &mut impl Write, keep_alive: bool) -> io::Result<()> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nServer: EC2ws\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.content_length
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let connection = if keep_alive { "keep-alive" } else { "close" };
        head.push_str(&format!("Connection: {connection}\r\n\r\n"));
        let mut message = head.into_bytes();
        message.extend(&self.body);
        writer.write_all(&message)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    }
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// It is answered with this status, and the connection ends.
    Status(u16),
    /// The connection is gone, or nothing came in time.
    Io(io::Error),
}

impl From<io::Error> for HttpError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

const BAD: HttpError = HttpError::Status(400);

/// Reads a request with its body; `None` when the connection ends before one begins.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Result<Option<Request>, HttpError> {
    let mut line = line(reader, LINE_MAX, 414)?;
    // An empty line before a request is to be overlooked (RFC 9112, 2.2).
    if line.as_deref() == Some("") {
        line = self::line(reader, LINE_MAX, 414)?;
    }
    let Some(line) = line else {
        return Ok(None);
    };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if method.is_empty() || method.len() > 32 || !method.bytes().all(is_token) {
        return Err(BAD);
    }
    let target = origin(target).ok_or(BAD)?.to_owned();
    let mut keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        other if other.starts_with("HTTP/") => return Err(HttpError::Status(505)),
        _ => return Err(BAD),
    };
    let headers = headers(reader)?;
    let mut body = 0;
    for (name, value) in &headers {
        match name.as_str() {
            "content-length" => {
                if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(BAD);
                }
                let length = value.parse().map_err(|_| HttpError::Status(413))?;
                let first = headers.iter().find(|(n, _)| n == "content-length");
                if first.is_some_and(|(_, v)| v != value) {
                    return Err(BAD);
                }
                body = length;
            }
            // Nobody needs it here, and two lengths of one body are how requests are smuggled.
            "transfer-encoding" => return Err(BAD),
            "connection" => {
                for option in value.split(',') {
                    match option.trim().to_ascii_lowercase().as_str() {
                        "close" => keep_alive = false,
                        "keep-alive" if version == "HTTP/1.0" => keep_alive = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if body > BODY_MAX {
        return Err(HttpError::Status(413));
    }
    if io::copy(&mut reader.take(body), &mut io::sink())? < body {
        return Err(BAD);
    }
    Ok(Some(Request {
        method: method.to_owned(),
        target,
        headers,
        keep_alive,
    }))
}

fn headers(reader: &mut impl BufRead) -> Result<Vec<(String, String)>, HttpError> {
    let mut headers = Vec::new();
    let mut left = HEADERS_MAX;
    loop {
        let line = line(reader, left, 431)?.ok_or(BAD)?;
        if line.is_empty() {
            return Ok(headers);
        }
        left = left.saturating_sub(line.len() + 2);
        if headers.len() >= HEADER_COUNT_MAX {
            return Err(HttpError::Status(431));
        }
        // A space before the colon, or at the beginning (a folded line), is no part of a name.
        let (name, value) = line.split_once(':').ok_or(BAD)?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(BAD);
        }
        headers.push((
            name.to_ascii_lowercase(),
            value.trim_matches([' ', '\t']).to_owned(),
        ));
    }
}

/// A line without its end, which is CR LF or LF; `None` when nothing comes.
fn line(
    reader: &mut impl BufRead,
    limit: usize,
    too_long: u16,
) -> Result<Option<String>, HttpError> {
    let mut bytes = Vec::new();
    reader
        .by_ref()
        .take(limit as u64 + 2)
        .read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(match bytes.len() + 1 >= limit + 2 {
            true => HttpError::Status(too_long),
            false => BAD,
        });
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    let text = String::from_utf8(bytes).map_err(|_| BAD)?;
    match text.contains(|c: char| c.is_control() && c != '\t') {
        true => Err(BAD),
        false => Ok(Some(text)),
    }
}

/// Of a name or method (RFC 9110, 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Path and query of a target.
fn origin(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let scheme = target.get(..7)?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    let rest = &target[7..];
    Some(rest.find('/').map_or("/", |at| &rest[at..]))
}

/// The path of a target, decoded; `None` when it is not well encoded, or not text.
pub(super) fn decode_path(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(b) = rest.next() {
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    let path = String::from_utf8(bytes).ok()?;
    (!path.contains('\0')).then_some(path)
}
