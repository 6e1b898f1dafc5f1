//! What is answered to a request: tokens, methods, paths. No I/O.

use std::time::Duration;

use amiforge_ami::ec2::HttpTokens;

use super::http::{Request, Response, decode_path};
use super::metadata::Metadata;
use super::token::Tokens;
use super::tree::{Found, Tree, VERSIONS};

/// Header with the token.
const TOKEN: &str = "x-aws-ec2-metadata-token";
/// Header with a token's time to live, in seconds.
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The longest time to live: six hours.
const TTL_MAX: u64 = 21_600;

/// The metadata service of one instance.
#[derive(Debug)]
pub struct Service {
    metadata: Metadata,
    tree: Tree,
    tokens: Tokens,
}

impl Service {
    /// A service that tells `metadata`. Tokens are sealed with `secret`, which is random and made anew for each run.
    #[must_use]
    pub fn new(metadata: Metadata, secret: [u8; 32]) -> Self {
        let tree = Tree::of(&metadata);
        Self {
            metadata,
            tree,
            tokens: Tokens::new(secret),
        }
    }

    /// What is told.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Changes what is told from the next request on.
    pub fn update(&mut self, change: impl FnOnce(&mut Metadata)) {
        change(&mut self.metadata);
        self.tree = Tree::of(&self.metadata);
    }

    /// Answers a request. `now` is the time since any point that stays the same; tokens end by it.
    pub fn respond(&mut self, request: &Request, now: Duration) -> Response {
        let response = self.choose(request, now);
        match request.method.as_str() {
            "HEAD" => response.without_body(),
            _ => response,
        }
    }

    fn choose(&mut self, request: &Request, now: Duration) -> Response {
        if !self.metadata.options.http_endpoint {
            return Response::error(403);
        }
        let Some(path) = decode_path(&request.target) else {
            return Response::error(400);
        };
        let mut parts = path.split('/').filter(|p| !p.is_empty());
        let version = parts.next();
        let below: Vec<&str> = parts.collect();
        let is_token = version.is_some() && below == ["api", "token"];
        match request.method.as_str() {
            "GET" | "HEAD" if !is_token => {}
            "PUT" if is_token => return self.token(request, version == Some("latest"), now),
            _ if is_token => return Response::error(405).with_header("Allow", "PUT"),
            _ => return Response::error(405).with_header("Allow", "GET, HEAD"),
        }
        let authorized = match request.header(TOKEN) {
            Some(token) => self.tokens.good(token, now),
            None => self.metadata.options.http_tokens == HttpTokens::Optional,
        };
        if !authorized {
            return Response::error(401);
        }
        let Some(version) = version else {
            return Response::text(VERSIONS.join("\n"));
        };
        if !VERSIONS.contains(&version) {
            return Response::error(404);
        }
        // Keys of tags may have slashes at odd places, so the rest of the path is taken as it is.
        let rest = path.trim_start_matches('/');
        let rest = rest.get(version.len()..).unwrap_or_default();
        match self.tree.get(rest) {
            Some(Found::Listing(names)) => Response::text(names),
            Some(Found::Text(text)) => Response::text(text),
            Some(Found::Bytes(bytes)) => Response::bytes(bytes),
            None => Response::error(404),
        }
    }

    fn token(&mut self, request: &Request, latest: bool, now: Duration) -> Response {
        // Whoever stands between instance and client, it is no client on the instance.
        if !latest || request.header("x-forwarded-for").is_some() {
            return Response::error(403);
        }
        let ttl = request
            .header(TTL)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|seconds| (1..=TTL_MAX).contains(seconds));
        let Some(ttl) = ttl else {
            return Response::error(400);
        };
        let token = self.tokens.make(now + Duration::from_secs(ttl));
        Response::text(token).with_header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", &ttl.to_string())
    }
}
