//! AWS Signature Version 4 (the IAM guide's topic "AWS Signature Version 4 for API requests").
//!
//! Everything is borrowed from the request as it goes over the wire: the path and the query with their percent
//! encoding, the headers as they are sent, the body's hash. [`sign_headers`] and [`presign`] make what a caller has to
//! add; [`canonical_request`], [`string_to_sign`] and [`SigningKey::sign`] are their parts, by which a request that
//! came in can be checked as well.

mod canonical;
mod date;
mod key;
#[cfg(test)]
mod tests;

pub use canonical::{Canonical, canonical_request, string_to_sign};
pub use date::AmzDate;
pub use key::{Credentials, Signature, SigningKey, SigningKeys};

use std::fmt::Write;

use canonical::{Escapes, encode};

/// The name of the algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The payload's hash where the payload is not part of what is signed. S3 takes it, and [`presign`]ed requests to S3
/// always have it.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A request, as it goes over the wire.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path with its percent encoding; empty stands for `/`.
    pub path: &'a [u8],
    /// The query with its percent encoding, without the question mark.
    pub query: &'a [u8],
    /// The headers to be signed, `Host` among them, in the order in which they are sent. Names are compared without
    /// regard to case.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The body.
    pub payload: Payload<'a>,
}

/// A request's body, as far as it is signed.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// To be hashed.
    Bytes(&'a [u8]),
    /// Its SHA-256 in lower-case hexadecimal digits, or a word that stands for it.
    Hash(&'a str),
    /// Not signed ([`UNSIGNED_PAYLOAD`]).
    Unsigned,
}

/// How a service has its paths signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathRule {
    /// `.`, `..` and empty segments are resolved, and what is on the wire is percent-encoded once more.
    Normalized,
    /// As [`PathRule::Normalized`], but segments stay as they are.
    Encoded,
    /// S3: one percent encoding, nothing resolved. A key may have any segments.
    Once,
}

/// Where and when a signature holds.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// When.
    pub date: AmzDate,
    /// The region's name.
    pub region: &'a str,
    /// The service's name in signatures.
    pub service: &'a str,
}

impl Scope<'_> {
    /// `{day}/{region}/{service}/aws4_request`.
    pub fn credential_scope(&self) -> String {
        format!(
            "{}/{}/{}/aws4_request",
            self.date.day(),
            self.region,
            self.service
        )
    }
}

/// What a service wants of a signature.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How paths are signed.
    pub path: PathRule,
    /// Whether the body's hash is a header, `x-amz-content-sha256`, which is signed.
    pub content_sha256: bool,
    /// Whether the session token is part of what is signed; a few services want it added afterwards.
    pub sign_session_token: bool,
}

impl Rules {
    /// What a service of this signing name wants.
    pub fn of(service: &str) -> Self {
        let s3 = matches!(service, "s3" | "s3-outposts" | "s3-object-lambda" | "s3express");
        Self {
            path: if s3 { PathRule::Once } else { PathRule::Normalized },
            content_sha256: s3,
            sign_session_token: true,
        }
    }
}

/// The headers that a request needs beside its own: `X-Amz-Date`, `X-Amz-Content-Sha256` where the service wants it,
/// `X-Amz-Security-Token` where the credentials have one, `Authorization`; in this order.
///
/// A request must not have any of them yet.
pub fn sign_headers(
    request: &Request<'_>,
    credentials: &Credentials,
    scope: &Scope<'_>,
    rules: Rules,
    keys: &mut SigningKeys,
) -> Vec<(&'static str, String)> {
    let mut added: Vec<(&'static str, String)> = Vec::with_capacity(4);
    added.push(("X-Amz-Date", scope.date.as_str().to_owned()));
    if rules.content_sha256 {
        added.push(("X-Amz-Content-Sha256", canonical::payload_hash(request.payload)));
    }
    let mut late = None;
    if let Some(token) = credentials.session_token() {
        let header = ("X-Amz-Security-Token", token.to_owned());
        if rules.sign_session_token {
            added.push(header);
        } else {
            late = Some(header);
        }
    }
    let mut headers = request.headers.to_vec();
    headers.extend(added.iter().map(|(name, value)| (*name, value.as_bytes())));
    let canonical = canonical_request(
        &Request {
            headers: &headers,
            ..*request
        },
        rules.path,
    );
    let signature = keys
        .get(credentials, scope)
        .sign(&string_to_sign(scope, &canonical));
    added.extend(late);
    added.push((
        "Authorization",
        format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
            credentials.access_key_id(),
            scope.credential_scope(),
            canonical.signed_headers,
            signature.as_str(),
        ),
    ));
    added
}

/// The query that lets whoever has it send this request for `expires` seconds, the request's own parameters first.
///
/// A request must not have any of the parameters `X-Amz-…` of signatures yet.
pub fn presign(
    request: &Request<'_>,
    credentials: &Credentials,
    scope: &Scope<'_>,
    rules: Rules,
    expires: u32,
    keys: &mut SigningKeys,
) -> String {
    let mut query = String::from_utf8_lossy(request.query).into_owned();
    if !query.is_empty() {
        query.push('&');
    }
    let credential = format!("{}/{}", credentials.access_key_id(), scope.credential_scope());
    let names = canonical::signed_headers(request.headers);
    let _ = write!(query, "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential=");
    encode(&mut query, credential.as_bytes(), Escapes::All);
    let date = scope.date.as_str();
    let _ = write!(
        query,
        "&X-Amz-Date={date}&X-Amz-Expires={expires}&X-Amz-SignedHeaders="
    );
    encode(&mut query, names.as_bytes(), Escapes::All);
    let token = credentials.session_token().map(|token| {
        let mut parameter = String::from("&X-Amz-Security-Token=");
        encode(&mut parameter, token.as_bytes(), Escapes::All);
        parameter
    });
    let late = match token {
        Some(token) if rules.sign_session_token => {
            query.push_str(&token);
            None
        }
        token => token,
    };
    let payload = if rules.content_sha256 {
        Payload::Unsigned
    } else {
        request.payload
    };
    let canonical = canonical_request(
        &Request {
            query: query.as_bytes(),
            payload,
            ..*request
        },
        rules.path,
    );
    let signature = keys
        .get(credentials, scope)
        .sign(&string_to_sign(scope, &canonical));
    query.push_str(late.as_deref().unwrap_or_default());
    let _ = write!(query, "&X-Amz-Signature={}", signature.as_str());
    query
}
