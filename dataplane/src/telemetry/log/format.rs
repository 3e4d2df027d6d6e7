//! Access log formats: literal text with `$context` variables, compiled once.

use std::net::IpAddr;
use std::sync::Arc;

use super::entry::{Entry, FieldMask, Text};
use crate::http::decimal;

/// The service's ready-made formats for REST APIs (OBS-036).
pub mod preset {
    /// The Common Log Format as the service writes it.
    pub const CLF: &str = "$context.identity.sourceIp $context.identity.caller $context.identity.user \
        [$context.requestTime]\"$context.httpMethod $context.resourcePath $context.protocol\" $context.status \
        $context.responseLength $context.requestId $context.extendedRequestId";

    /// One JSON object a line.
    pub const JSON: &str = "{ \"requestId\":\"$context.requestId\", \
        \"extendedRequestId\":\"$context.extendedRequestId\", \"ip\": \"$context.identity.sourceIp\", \
        \"caller\":\"$context.identity.caller\", \"user\":\"$context.identity.user\", \
        \"requestTime\":\"$context.requestTime\", \"httpMethod\":\"$context.httpMethod\", \
        \"resourcePath\":\"$context.resourcePath\", \"status\":\"$context.status\", \
        \"protocol\":\"$context.protocol\", \"responseLength\":\"$context.responseLength\" }";

    /// One XML element a line.
    pub const XML: &str = "<request id=\"$context.requestId\"> \
        <extendedRequestId>$context.extendedRequestId</extendedRequestId> \
        <ip>$context.identity.sourceIp</ip> <caller>$context.identity.caller</caller> \
        <user>$context.identity.user</user> <requestTime>$context.requestTime</requestTime> \
        <httpMethod>$context.httpMethod</httpMethod> <resourcePath>$context.resourcePath</resourcePath> \
        <status>$context.status</status> <protocol>$context.protocol</protocol> \
        <responseLength>$context.responseLength</responseLength> </request>";

    /// Comma-separated values.
    pub const CSV: &str = "$context.identity.sourceIp,$context.identity.caller,$context.identity.user,\
        $context.requestTime,$context.httpMethod,$context.resourcePath,$context.protocol,$context.status,\
        $context.responseLength,$context.requestId,$context.extendedRequestId";
}

/// What a log line can say about its stage without the request saying it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageFacts {
    /// `$context.accountId`.
    pub account_id: String,
    /// `$context.apiId`.
    pub api_id: String,
    /// `$context.stage`.
    pub stage: String,
    /// `$context.deploymentId`.
    pub deployment_id: String,
}

/// A compiled format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Arc<[Part]>,
    escape: Escape,
    fields: FieldMask,
}

/// A format that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// OBS-031
    #[error("the access log format must contain $context.requestId or $context.extendedRequestId")]
    NoRequestId,
    /// A record is one line.
    #[error("the access log format must be a single line; remove its line breaks")]
    LineBreak,
    /// A bound of ours.
    #[error("the access log format is longer than {MAX_FORMAT} bytes")]
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Text(Text),
    DomainPrefix,
    QuotedErrorMessage,
    SourceIp,
    Status,
    ResponseLength,
    Latency,
    Time,
    EpochMillis,
    IntegrationLatency,
    IntegrationStatus,
}

/// How a value is kept from ending the string or element that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    /// `"` and `\` get a backslash: right for JSON, and for the quoted parts of CLF.
    Backslash,
    /// Formats that begin with `<`.
    Xml,
}

impl Format {
    /// Compiles a format. Variables that are not known are accepted and logged as `-`, as are those that a
    /// request has no value for.
    pub fn compile(format: &str, facts: &StageFacts) -> Result<Format, FormatError> {
        if format.len() > MAX_FORMAT {
            return Err(FormatError::TooLong);
        }
        let format = format.trim_end_matches(['\r', '\n']);
        if format.contains(['\r', '\n']) {
            return Err(FormatError::LineBreak);
        }
        let escape = if format.trim_start().starts_with('<') {
            Escape::Xml
        } else {
            Escape::Backslash
        };
        let mut parts = Vec::new();
        let mut fields = FieldMask::default();
        let mut has_id = false;
        let mut rest = format;
        while let Some(start) = rest.find(PREFIX) {
            literal(&mut parts, &rest[..start]);
            let variable = &rest[start + PREFIX.len()..];
            let name = &variable[..name_length(variable)];
            rest = &variable[name.len()..];
            has_id |= matches!(name, "requestId" | "extendedRequestId");
            match variable_part(name, facts, escape) {
                Part::Literal(text) => literal(&mut parts, &text),
                part => {
                    if let Some(text) = part.needs() {
                        fields.insert(text);
                    }
                    parts.push(part);
                }
            }
        }
        literal(&mut parts, rest);
        if !has_id {
            return Err(FormatError::NoRequestId);
        }
        Ok(Format {
            parts: parts.into(),
            escape,
            fields,
        })
    }

    /// The texts that a shard has to send along.
    pub fn fields(&self) -> FieldMask {
        self.fields
    }

    /// Appends one line, with its end.
    pub(super) fn write_line(&self, entry: &Entry<'_>, memo: &mut Memo, out: &mut Vec<u8>) {
        for part in self.parts.iter() {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                // Made here, or checked to be of that form.
                Part::Text(text @ (Text::RequestId | Text::ExtendedRequestId)) => match entry.text(*text) {
                    [] => out.push(UNSET),
                    id => out.extend_from_slice(id),
                },
                Part::Text(text) => self.value(entry.text(*text), out),
                Part::DomainPrefix => {
                    let domain = entry.text(Text::DomainName);
                    self.value(domain.split(|&byte| byte == b'.').next().unwrap_or_default(), out);
                }
                Part::QuotedErrorMessage => match entry.text(Text::ErrorMessage) {
                    [] => out.push(UNSET),
                    message => {
                        out.push(b'"');
                        self.value(message, out);
                        out.push(b'"');
                    }
                },
                Part::SourceIp => out.extend_from_slice(memo.address(entry.source_ip).as_bytes()),
                Part::Status => number(out, entry.status.into()),
                Part::ResponseLength => number(out, entry.response_length),
                Part::Latency => number(out, millis(entry.latency_ns)),
                Part::Time => out.extend_from_slice(memo.time(entry.received_unix_ms).as_bytes()),
                Part::EpochMillis => number(out, entry.received_unix_ms),
                Part::IntegrationLatency => match entry.integration {
                    Some((latency, _)) => number(out, millis(latency)),
                    None => out.push(UNSET),
                },
                Part::IntegrationStatus => match entry.integration {
                    Some((_, Some(status))) => number(out, status.into()),
                    _ => out.push(UNSET),
                },
            }
        }
        out.push(b'\n');
    }

    fn value(&self, value: &[u8], out: &mut Vec<u8>) {
        if value.is_empty() {
            out.push(UNSET);
        } else if value.iter().all(|byte| PLAIN[usize::from(*byte)]) {
            out.extend_from_slice(value);
        } else {
            for chunk in value.utf8_chunks() {
                escape(self.escape, chunk.valid(), out);
                if !chunk.invalid().is_empty() {
                    out.extend_from_slice("\u{fffd}".as_bytes());
                }
            }
        }
    }
}

impl Part {
    fn needs(&self) -> Option<Text> {
        match self {
            Part::Text(text) => Some(*text),
            Part::DomainPrefix => Some(Text::DomainName),
            Part::QuotedErrorMessage => Some(Text::ErrorMessage),
            _ => None,
        }
    }
}

/// The variables that exist so far. What is the same for every request of a stage becomes literal text.
fn variable_part(name: &str, facts: &StageFacts, how: Escape) -> Part {
    let fact = |text: &str| {
        let mut out = Vec::new();
        escape(how, text, &mut out);
        let text = String::from_utf8(out).unwrap_or_default();
        Part::Literal(if text.is_empty() { "-".into() } else { text })
    };
    match name {
        "accountId" => fact(&facts.account_id),
        "apiId" => fact(&facts.api_id),
        "stage" => fact(&facts.stage),
        "deploymentId" => fact(&facts.deployment_id),
        "protocol" => fact("HTTP/1.1"), // for HTTP/2 clients too (VTL-329)
        "requestId" => Part::Text(Text::RequestId),
        "extendedRequestId" => Part::Text(Text::ExtendedRequestId),
        "httpMethod" => Part::Text(Text::HttpMethod),
        "path" => Part::Text(Text::Path),
        "resourcePath" => Part::Text(Text::ResourcePath),
        "resourceId" => Part::Text(Text::ResourceId),
        "domainName" => Part::Text(Text::DomainName),
        "domainPrefix" => Part::DomainPrefix,
        "identity.sourceIp" => Part::SourceIp,
        "identity.userAgent" => Part::Text(Text::UserAgent),
        "status" => Part::Status,
        "responseLength" => Part::ResponseLength,
        "responseLatency" => Part::Latency,
        "requestTime" => Part::Time,
        "requestTimeEpoch" => Part::EpochMillis,
        "error.responseType" => Part::Text(Text::ErrorType),
        "error.message" => Part::Text(Text::ErrorMessage),
        "error.messageString" => Part::QuotedErrorMessage,
        "error.validationErrorString" => Part::Text(Text::ErrorValidation),
        "integrationLatency" | "integration.latency" => Part::IntegrationLatency,
        "integrationStatus" | "integration.integrationStatus" | "integration.status" => {
            Part::IntegrationStatus
        }
        "integrationErrorMessage" | "integration.error" => Part::Text(Text::IntegrationError),
        _ => Part::Literal("-".into()),
    }
}

/// Names joined by dots; a dot that ends a sentence is not part of the name.
fn name_length(text: &str) -> usize {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        .unwrap_or(text.len());
    text[..end].trim_end_matches('.').len()
}

fn literal(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Literal(before)) => before.push_str(text),
        _ => parts.push(Part::Literal(text.to_owned())),
    }
}

fn escape(how: Escape, text: &str, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match (how, byte) {
            // Line breaks must not make two lines of one, nor other controls make JSON or XML invalid.
            (_, 0..=0x1f | 0x7f) => out.push(b' '),
            (Escape::Backslash, b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            (Escape::Xml, b'<') => out.extend_from_slice(b"&lt;"),
            (Escape::Xml, b'>') => out.extend_from_slice(b"&gt;"),
            (Escape::Xml, b'&') => out.extend_from_slice(b"&amp;"),
            (Escape::Xml, b'"') => out.extend_from_slice(b"&quot;"),
            _ => out.push(byte),
        }
    }
}

/// Bytes that stand for themselves in every format.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[byte as usize] = !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    table
};

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(decimal(number, &mut [0; 20]));
}

fn millis(ns: u64) -> u64 {
    (ns + 500_000) / 1_000_000
}

/// Texts that many lines in a row have in common.
#[derive(Debug, Default)]
pub(super) struct Memo {
    second: Option<u64>,
    time: String,
    peer: Option<IpAddr>,
    address: String,
}

impl Memo {
    /// `12/Mar/2020:19:03:58 +0000`, made anew once a second.
    fn time(&mut self, unix_ms: u64) -> &str {
        let second = unix_ms / 1000;
        if self.second != Some(second) {
            self.second = Some(second);
            let time = i64::try_from(second)
                .ok()
                .and_then(|second| jiff::Timestamp::from_second(second).ok());
            self.time = match time {
                Some(time) => time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
                None => "-".into(),
            };
        }
        &self.time
    }

    fn address(&mut self, peer: IpAddr) -> &str {
        if self.peer != Some(peer) {
            self.peer = Some(peer);
            self.address = peer.to_string();
        }
        &self.address
    }
}

const PREFIX: &str = "$context.";
const UNSET: u8 = b'-';

/// The service's own bound on the setting is 3 KiB; this one only keeps a node from being fed megabytes.
const MAX_FORMAT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::entry::Encoder;
    use super::super::entry::tests::{failed, sample};
    use super::*;
    use crate::telemetry::RequestRecord;

    fn facts() -> StageFacts {
        StageFacts {
            account_id: "123456789012".into(),
            api_id: "a1b2c3d4e5".into(),
            stage: "prod".into(),
            deployment_id: "d3p10y".into(),
        }
    }

    fn line(format: &str, record: &RequestRecord<'_>) -> String {
        let format = Format::compile(format, &facts()).unwrap();
        let mut encoder = Encoder::new(4096);
        let entry = Entry::decode(encoder.encode(1, format.fields(), record)).unwrap();
        let mut out = Vec::new();
        format.write_line(&entry, &mut Memo::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// OBS-033, OBS-036: the four ready-made formats.
    #[test]
    fn the_presets_read_as_the_service_writes_them() {
        let ids = "11111111-2222-3333-4444-555555555555 JKJaXmPLvHcESHA=";
        assert_eq!(
            line(preset::CLF, &sample()),
            format!(
                "192.0.2.1 - - [03/Mar/2020:19:03:58 +0000]\"GET /pets/{{petId}} HTTP/1.1\" 200 1234 {ids}\n"
            )
        );
        let json: serde_json::Value = serde_json::from_str(&line(preset::JSON, &sample())).unwrap();
        assert_eq!(json["ip"], "192.0.2.1");
        assert_eq!((&json["caller"], &json["status"]), (&"-".into(), &"200".into()));
        assert_eq!(json.as_object().unwrap().len(), 11);
        let csv = line(preset::CSV, &sample());
        assert_eq!(csv.split(',').count(), 11);
        assert!(
            csv.starts_with("192.0.2.1,-,-,03/Mar/2020:19:03:58 +0000,GET,/pets/{petId},HTTP/1.1,200,1234,")
        );
        let xml = line(preset::XML, &sample());
        assert!(
            xml.starts_with("<request id=\"11111111-2222-3333-4444-555555555555\"> <extendedRequestId>JKJ")
        );
        assert!(xml.ends_with("<responseLength>1234</responseLength> </request>\n"));
    }

    /// VTL-320, VTL-324 to VTL-326, OBS-088: every variable that exists so far.
    #[test]
    fn variables_have_their_values() {
        let names = [
            ("accountId", "123456789012", "123456789012"),
            ("apiId", "a1b2c3d4e5", "a1b2c3d4e5"),
            ("stage", "prod", "prod"),
            ("deploymentId", "d3p10y", "d3p10y"),
            ("protocol", "HTTP/1.1", "HTTP/1.1"),
            ("extendedRequestId", "JKJaXmPLvHcESHA=", "JKJaXmPLvHcESHA="),
            ("path", "/prod/pets/7", "/prod/pets/7"),
            ("resourceId", "ab12cd", "ab12cd"),
            (
                "domainName",
                "a1b2c3d4e5.execute-api.localhost",
                "a1b2c3d4e5.execute-api.localhost",
            ),
            ("domainPrefix", "a1b2c3d4e5", "a1b2c3d4e5"),
            ("identity.userAgent", "curl/8.0", "curl/8.0"),
            ("status", "200", "418"),
            ("responseLatency", "13", "13"),
            ("requestTimeEpoch", "1583262238512", "1583262238512"),
            ("integrationLatency", "11", "-"),
            ("integration.latency", "11", "-"),
            ("integrationStatus", "200", "-"),
            ("integration.status", "200", "-"),
            ("integration.error", "-", "-"),
            ("error.responseType", "-", "THROTTLED"),
            ("error.message", "-", "Too \\\"many\\\" Requests"),
            ("error.messageString", "-", "\"Too \\\"many\\\" Requests\""),
            ("error.validationErrorString", "-", "-"),
            ("authorizer.claims.sub", "-", "-"),
            ("noSuchThing", "-", "-"),
        ];
        for (name, fine, error) in names {
            let format = format!("$context.requestId|$context.{name}|$context.{name}.");
            for (record, expected) in [(sample(), fine), (failed(), error)] {
                let line = line(&format, &record);
                let got: Vec<&str> = line.trim_end().split('|').skip(1).collect();
                assert_eq!(got, [expected, &format!("{expected}.")], "{name}");
            }
        }
    }

    /// OBS-033: a value cannot break out of the line, nor of the string it stands in.
    #[test]
    fn hostile_values_keep_json_and_lines_whole() {
        let agent = b"a\"b\\c\r\nd\x00\te\xff<&>";
        let record = RequestRecord {
            user_agent: agent,
            ..sample()
        };
        let json = line(
            "{\"id\":\"$context.requestId\",\"agent\":\"$context.identity.userAgent\"}",
            &record,
        );
        assert_eq!(json.matches('\n').count(), 1);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["agent"], "a\"b\\c  d  e\u{fffd}<&>");
        let xml = line(
            "<r id='$context.requestId'>$context.identity.userAgent</r>",
            &record,
        );
        assert!(
            xml.contains(">a&quot;b\\c  d  e\u{fffd}&lt;&amp;&gt;</r>"),
            "{xml}"
        );
    }

    /// OBS-031: a request id must be in the format.
    #[test]
    fn formats_without_request_id_or_with_line_breaks_are_refused() {
        let compile = |format: &str| Format::compile(format, &facts()).map(drop);
        assert_eq!(compile("$context.status"), Err(FormatError::NoRequestId));
        assert_eq!(
            compile("$context.requestIdentifier"),
            Err(FormatError::NoRequestId)
        );
        assert_eq!(compile("$context.extendedRequestId"), Ok(()));
        assert_eq!(compile("$context.requestId\n"), Ok(()));
        assert_eq!(
            compile("$context.requestId\n$context.status"),
            Err(FormatError::LineBreak)
        );
        assert_eq!(
            compile(&"$context.requestId".repeat(1000)),
            Err(FormatError::TooLong)
        );
    }
}
