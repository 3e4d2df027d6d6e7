//! The event of the Lambda proxy integration (RES-120 to RES-132; OBV-187 to OBV-210).

use std::borrow::Cow;
use std::collections::HashMap;

use tidegate_plan::path;

use super::super::query;
use crate::http::{Fields, Known};

/// What an event is made of, borrowed from the exchange.
pub(super) struct Facts<'x> {
    pub(super) resource: &'x str,
    pub(super) resource_id: &'x str,
    /// The path below the stage.
    pub(super) path: &'x str,
    /// The path with the stage in front.
    pub(super) full_path: &'x str,
    pub(super) method: &'x [u8],
    pub(super) fields: &'x Fields,
    pub(super) trace: &'x [u8],
    pub(super) port: u16,
    pub(super) scheme: &'x str,
    pub(super) query: &'x [u8],
    pub(super) path_parameters: Vec<(&'x str, &'x str)>,
    pub(super) stage_variables: Vec<(&'x str, &'x str)>,
    pub(super) account: &'x str,
    pub(super) api: &'x str,
    pub(super) deployment: &'x str,
    pub(super) stage: &'x str,
    pub(super) host: &'x [u8],
    pub(super) request_id: &'x [u8],
    pub(super) extended_id: &'x [u8],
    pub(super) protocol: &'x [u8],
    pub(super) request_time: &'x [u8],
    pub(super) epoch_ms: u128,
    pub(super) source_ip: &'x [u8],
    pub(super) body: &'x [u8],
    /// The body's media type is one that the API calls binary.
    pub(super) binary: bool,
}

/// The event's JSON text.
pub(super) fn event(facts: &Facts<'_>) -> Vec<u8> {
    let mut json = Json(Vec::with_capacity(2048 + facts.body.len()));
    let headers = headers(facts);
    let query = grouped(
        query::parameters(facts.query)
            .map(|(name, value)| (path::decode(name, true), path::decode(value, true))),
        |name| name.to_vec(),
    );
    json.begin('{');
    json.text("resource", facts.resource.as_bytes());
    json.text("path", facts.path.as_bytes());
    json.text("httpMethod", facts.method);
    json.last_values("headers", &headers);
    json.all_values("multiValueHeaders", &headers);
    json.last_values("queryStringParameters", &query);
    json.all_values("multiValueQueryStringParameters", &query);
    json.pairs("pathParameters", &facts.path_parameters);
    json.pairs("stageVariables", &facts.stage_variables);
    json.name("requestContext");
    request_context(&mut json, facts);
    match (facts.body.is_empty(), facts.binary) {
        (true, _) => json.null("body"),
        (false, true) => {
            json.name("body");
            json.base64(facts.body);
        }
        (false, false) => json.text("body", facts.body),
    }
    json.name("isBase64Encoded");
    json.raw(if facts.binary && !facts.body.is_empty() {
        "true"
    } else {
        "false"
    });
    json.end('}');
    json.0
}

fn request_context(json: &mut Json, facts: &Facts<'_>) {
    json.begin('{');
    json.text("resourceId", facts.resource_id.as_bytes());
    json.text("resourcePath", facts.resource.as_bytes());
    json.text("httpMethod", facts.method);
    json.text("extendedRequestId", facts.extended_id);
    json.text("requestTime", facts.request_time);
    json.text("path", facts.full_path.as_bytes());
    json.text("accountId", facts.account.as_bytes());
    json.text("protocol", facts.protocol);
    json.text("stage", facts.stage.as_bytes());
    // OBV-193: the first label of the host.
    let prefix = facts.host.split(|byte| *byte == b'.').next().unwrap_or_default();
    json.text("domainPrefix", prefix);
    json.name("requestTimeEpoch");
    json.raw(&facts.epoch_ms.to_string());
    json.text("requestId", facts.request_id);
    json.name("identity");
    json.begin('{');
    // OBV-191: who is not known is null.
    for name in [
        "cognitoIdentityPoolId",
        "accountId",
        "cognitoIdentityId",
        "caller",
    ] {
        json.null(name);
    }
    json.text("sourceIp", facts.source_ip);
    for name in [
        "principalOrgId",
        "accessKey",
        "cognitoAuthenticationType",
        "cognitoAuthenticationProvider",
        "userArn",
    ] {
        json.null(name);
    }
    match facts.fields.get(Known::UserAgent) {
        Some(agent) => json.text("userAgent", agent),
        None => json.null("userAgent"),
    }
    json.null("user");
    json.end('}');
    json.text("domainName", facts.host);
    json.text("deploymentId", facts.deployment.as_bytes());
    json.text("apiId", facts.api.as_bytes());
    json.end('}');
}

/// A name with its values, in order.
type Group<'x> = (Cow<'x, [u8]>, Vec<Cow<'x, [u8]>>);

/// The client's headers and those that the service adds (OBV-196 to OBV-200).
fn headers<'x>(facts: &Facts<'x>) -> Vec<Group<'x>> {
    let named = facts.fields.connection_names_others();
    let own = facts
        .fields
        .iter()
        .filter(|field| passes(field.known) && !(named && facts.fields.connection_names(field.name)))
        .map(|field| {
            let name = match field.known {
                Some(known) => known.name().as_bytes(),
                None => usual_name(field.name).map_or(field.name, str::as_bytes),
            };
            (Cow::Borrowed(name), Cow::Borrowed(field.value))
        });
    let mut forwarded = Vec::new();
    for link in facts.fields.all(Known::XForwardedFor) {
        forwarded.extend_from_slice(link);
        forwarded.extend_from_slice(b", ");
    }
    forwarded.extend_from_slice(facts.source_ip);
    let added: [(Known, Cow<'x, [u8]>); 4] = [
        (Known::XAmznTraceId, facts.trace.into()),
        (Known::XForwardedFor, forwarded.into()),
        (Known::XForwardedPort, facts.port.to_string().into_bytes().into()),
        (Known::XForwardedProto, facts.scheme.as_bytes().into()),
    ];
    let added = added
        .into_iter()
        .map(|(known, value)| (Cow::Borrowed(known.name().as_bytes()), value));
    grouped(own.chain(added), |name| name.to_ascii_lowercase())
}

/// Whether a client's header is in the event: not what speaks of the connection (OBV-197, OBV-249), nor what is added.
fn passes(known: Option<Known>) -> bool {
    !matches!(
        known,
        Some(
            Known::Connection
                | Known::ContentLength
                | Known::ContentMd5
                | Known::Expect
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::MaxForwards
                | Known::ProxyAuthenticate
                | Known::ProxyConnection
                | Known::Server
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::WwwAuthenticate
                | Known::XAmznTraceId
                | Known::XForwardedFor
                | Known::XForwardedPort
                | Known::XForwardedProto
        )
    )
}

/// The usual form of well-known names that have no rules here (OBV-196).
fn usual_name(name: &[u8]) -> Option<&'static str> {
    const USUAL: [&str; 12] = [
        "Accept-Language",
        "Access-Control-Request-Headers",
        "Access-Control-Request-Method",
        "Cache-Control",
        "Content-Language",
        "Cookie",
        "From",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
    ];
    USUAL
        .into_iter()
        .find(|usual| usual.as_bytes().eq_ignore_ascii_case(name))
}

/// Collects the values of each name; names in the order in which they come first, in their first spelling.
fn grouped<'x>(
    pairs: impl Iterator<Item = (Cow<'x, [u8]>, Cow<'x, [u8]>)>,
    key: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<Group<'x>> {
    let mut places: HashMap<Vec<u8>, usize, ahash::RandomState> = HashMap::default();
    let mut groups: Vec<Group<'x>> = Vec::new();
    for (name, value) in pairs {
        let place = *places.entry(key(&name)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, values)) => values.push(value),
            None => groups.push((name, vec![value])),
        }
    }
    groups
}

/// JSON text that grows. Bytes that are no UTF-8 become U+FFFD.
struct Json(Vec<u8>);

impl Json {
    fn begin(&mut self, bracket: char) {
        self.0.push(bracket as u8);
    }

    fn end(&mut self, bracket: char) {
        self.0.push(bracket as u8);
    }

    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A member's name, and what parts it from the member before it.
    fn name(&mut self, name: &str) {
        self.separate();
        self.string(name.as_bytes());
        self.0.push(b':');
    }

    fn separate(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[') | None) {
            self.0.push(b',');
        }
    }

    fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.string(value);
    }

    fn null(&mut self, name: &str) {
        self.name(name);
        self.raw("null");
    }

    fn string(&mut self, text: &[u8]) {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut self.0, &String::from_utf8_lossy(text));
    }

    fn base64(&mut self, bytes: &[u8]) {
        use base64::Engine as _;
        self.0.push(b'"');
        let text = base64::prelude::BASE64_STANDARD.encode(bytes);
        self.raw(&text);
        self.0.push(b'"');
    }

    /// OBV-201: the last value of each name; OBV-188: null where there is none.
    fn last_values(&mut self, name: &str, groups: &[Group<'_>]) {
        if groups.is_empty() {
            return self.null(name);
        }
        self.name(name);
        self.begin('{');
        for (name, values) in groups {
            self.separate();
            self.string(name);
            self.0.push(b':');
            self.string(values.last().map(|value| &**value).unwrap_or_default());
        }
        self.end('}');
    }

    fn all_values(&mut self, name: &str, groups: &[Group<'_>]) {
        if groups.is_empty() {
            return self.null(name);
        }
        self.name(name);
        self.begin('{');
        for (name, values) in groups {
            self.separate();
            self.string(name);
            self.0.push(b':');
            self.begin('[');
            for value in values {
                self.separate();
                self.string(value);
            }
            self.end(']');
        }
        self.end('}');
    }

    fn pairs(&mut self, name: &str, pairs: &[(&str, &str)]) {
        if pairs.is_empty() {
            return self.null(name);
        }
        self.name(name);
        self.begin('{');
        for (name, value) in pairs {
            self.text(name, value.as_bytes());
        }
        self.end('}');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidegate_rt::Chunk;

    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> Fields {
        let mut fields = Fields::empty();
        for (name, value) in pairs {
            fields.append(Chunk::from(*name), Chunk::from(*value));
        }
        fields
    }

    fn facts(fields: &Fields) -> Facts<'_> {
        Facts {
            resource: "/{proxy+}",
            resource_id: "abc123",
            path: "/a%2Bb/",
            full_path: "/test/a%2Bb/",
            method: b"GET",
            fields,
            trace: b"Root=1-2-3",
            port: 443,
            scheme: "https",
            query: b"",
            path_parameters: Vec::new(),
            stage_variables: Vec::new(),
            account: "000000000000",
            api: "a1b2c3d4e5",
            deployment: "d1",
            stage: "test",
            host: b"a1b2c3d4e5.execute-api.localhost",
            request_id: b"c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            extended_id: b"JKJaXmPLvHcESHA=",
            protocol: b"HTTP/1.1",
            request_time: b"04/Mar/2020:19:15:17 +0000",
            epoch_ms: 1_583_349_317_135,
            source_ip: b"203.0.113.7",
            body: b"",
            binary: false,
        }
    }

    fn read(facts: &Facts<'_>) -> Value {
        serde_json::from_slice(&event(facts)).expect("JSON")
    }

    /// OBV-187, OBV-188, OBV-190 to OBV-195, OBV-203, RES-121, RES-124, RES-126, RES-127, RES-129, RES-132: every
    /// member, to the last null.
    #[test]
    fn the_whole_event() {
        let fields = fields(&[
            ("Host", "a1b2c3d4e5.execute-api.localhost"),
            ("user-Agent", "curl/8"),
        ]);
        let mut facts = facts(&fields);
        facts.path_parameters = vec![("proxy", "a%2Bb")];
        assert_eq!(
            read(&facts),
            json!({
                "resource": "/{proxy+}",
                "path": "/a%2Bb/",
                "httpMethod": "GET",
                "headers": {
                    "Host": "a1b2c3d4e5.execute-api.localhost",
                    "User-Agent": "curl/8",
                    "X-Amzn-Trace-Id": "Root=1-2-3",
                    "X-Forwarded-For": "203.0.113.7",
                    "X-Forwarded-Port": "443",
                    "X-Forwarded-Proto": "https",
                },
                "multiValueHeaders": {
                    "Host": ["a1b2c3d4e5.execute-api.localhost"],
                    "User-Agent": ["curl/8"],
                    "X-Amzn-Trace-Id": ["Root=1-2-3"],
                    "X-Forwarded-For": ["203.0.113.7"],
                    "X-Forwarded-Port": ["443"],
                    "X-Forwarded-Proto": ["https"],
                },
                "queryStringParameters": null,
                "multiValueQueryStringParameters": null,
                "pathParameters": { "proxy": "a%2Bb" },
                "stageVariables": null,
                "requestContext": {
                    "resourceId": "abc123",
                    "resourcePath": "/{proxy+}",
                    "httpMethod": "GET",
                    "extendedRequestId": "JKJaXmPLvHcESHA=",
                    "requestTime": "04/Mar/2020:19:15:17 +0000",
                    "path": "/test/a%2Bb/",
                    "accountId": "000000000000",
                    "protocol": "HTTP/1.1",
                    "stage": "test",
                    "domainPrefix": "a1b2c3d4e5",
                    "requestTimeEpoch": 1_583_349_317_135_u64,
                    "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
                    "identity": {
                        "cognitoIdentityPoolId": null,
                        "accountId": null,
                        "cognitoIdentityId": null,
                        "caller": null,
                        "sourceIp": "203.0.113.7",
                        "principalOrgId": null,
                        "accessKey": null,
                        "cognitoAuthenticationType": null,
                        "cognitoAuthenticationProvider": null,
                        "userArn": null,
                        "userAgent": "curl/8",
                        "user": null,
                    },
                    "domainName": "a1b2c3d4e5.execute-api.localhost",
                    "deploymentId": "d1",
                    "apiId": "a1b2c3d4e5",
                },
                "body": null,
                "isBase64Encoded": false,
            })
        );
    }

    /// OBV-196, OBV-197, OBV-198, OBV-200, RES-123: which headers, under which names, with which values.
    #[test]
    fn headers_of_the_client() {
        let fields = fields(&[
            ("aUThorization", "x"),
            ("tEsT-HEADeR", "one"),
            ("Test-Header", "two"),
            ("accept-encoding", "gzip, deflate"),
            ("cookie", "a=b"),
            ("Connection", "keep-alive, Hop"),
            ("Hop", "1"),
            ("Content-Length", "3"),
            ("Expect", "100-continue"),
            ("X-Forwarded-For", "198.51.100.1"),
            ("X-Forwarded-Proto", "gopher"),
        ]);
        let event = read(&facts(&fields));
        assert_eq!(
            event["multiValueHeaders"],
            json!({
                "Authorization": ["x"],
                "tEsT-HEADeR": ["one", "two"],
                "Accept-Encoding": ["gzip, deflate"],
                "Cookie": ["a=b"],
                "X-Amzn-Trace-Id": ["Root=1-2-3"],
                "X-Forwarded-For": ["198.51.100.1, 203.0.113.7"],
                "X-Forwarded-Port": ["443"],
                "X-Forwarded-Proto": ["https"],
            })
        );
        assert_eq!(event["headers"]["tEsT-HEADeR"], "two");
    }

    /// OBV-201, OBV-202: all values in order, and the last; decoded once, as form data.
    #[test]
    fn query_parameters() {
        let none = fields(&[]);
        let mut facts = facts(&none);
        facts.query = b"a=1&b=%2B+x%3A/@&a=2&c&%61=3&A=4";
        let event = read(&facts);
        assert_eq!(
            event["multiValueQueryStringParameters"],
            json!({ "a": ["1", "2", "3"], "b": ["+ x:/@"], "c": [""], "A": ["4"] })
        );
        assert_eq!(
            event["queryStringParameters"],
            json!({ "a": "3", "b": "+ x:/@", "c": "", "A": "4" })
        );
    }

    /// OBV-189, RES-125, GWR-078: text as it is, binary in base64.
    #[test]
    fn bodies() {
        let none = fields(&[]);
        let mut facts = facts(&none);
        facts.body = b"{\"a\": \"\xc3\xa9\"}";
        let event = read(&facts);
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("{\"a\": \"\u{e9}\"}"), &json!(false))
        );
        facts.body = b"\xff\x00";
        assert_eq!(read(&facts)["body"], "\u{fffd}\u{0}");
        facts.binary = true;
        let event = read(&facts);
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("/wA="), &json!(true))
        );
        facts.body = b"";
        let event = read(&facts);
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!(null), &json!(false))
        );
        facts.stage_variables = vec![("v", "1"), ("w", "\"")];
        assert_eq!(read(&facts)["stageVariables"], json!({ "v": "1", "w": "\"" }));
    }
}
