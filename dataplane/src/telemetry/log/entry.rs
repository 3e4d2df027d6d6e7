//! The packed form in which a request travels from the shard to the log's thread.

use std::net::IpAddr;

use crate::telemetry::record::RequestRecord;

/// A text of a request that a format can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Text {
    RequestId,
    ExtendedRequestId,
    HttpMethod,
    Path,
    ResourcePath,
    ResourceId,
    DomainName,
    UserAgent,
    ErrorType,
    ErrorMessage,
    ErrorValidation,
    IntegrationError,
}

const TEXTS: [Text; 12] = [
    Text::RequestId,
    Text::ExtendedRequestId,
    Text::HttpMethod,
    Text::Path,
    Text::ResourcePath,
    Text::ResourceId,
    Text::DomainName,
    Text::UserAgent,
    Text::ErrorType,
    Text::ErrorMessage,
    Text::ErrorValidation,
    Text::IntegrationError,
];

/// Which texts a format uses: the others are not copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldMask(u16);

impl FieldMask {
    pub(super) fn insert(&mut self, text: Text) {
        self.0 |= 1 << text as u8;
    }

    fn texts(self) -> impl Iterator<Item = Text> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let text = *TEXTS.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(text)
        })
    }
}

/// Packs records. Keeps its buffer, so that packing allocates nothing after the first few.
#[derive(Debug)]
pub(in crate::telemetry) struct Encoder {
    buffer: Vec<u8>,
    max_text: usize,
}

impl Encoder {
    /// Texts longer than `max_text` bytes are cut: one client's long header must not push out everybody's lines.
    pub(in crate::telemetry) fn new(max_text: usize) -> Encoder {
        Encoder {
            buffer: Vec::new(),
            max_text: max_text.min(usize::from(u16::MAX)),
        }
    }

    /// The record's bytes, valid until the next call.
    pub(in crate::telemetry) fn encode(
        &mut self,
        sink: u32,
        mask: FieldMask,
        record: &RequestRecord<'_>,
    ) -> &[u8] {
        let (called, integration_ns, integration_status) = match &record.integration {
            Some(integration) => (1, integration.latency_ns, integration.status.unwrap_or(0)),
            None => (0, 0, 0),
        };
        let (version, address) = match record.source_ip {
            IpAddr::V4(ip) => (4, ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => (6, ip.octets()),
        };
        let mut head = [0; HEAD];
        head[0..8].copy_from_slice(&record.received_unix_ms.to_le_bytes());
        head[8..16].copy_from_slice(&record.latency_ns.to_le_bytes());
        head[16..24].copy_from_slice(&record.response_length.to_le_bytes());
        head[24..32].copy_from_slice(&integration_ns.to_le_bytes());
        head[32..48].copy_from_slice(&address);
        head[48..52].copy_from_slice(&sink.to_le_bytes());
        head[52..54].copy_from_slice(&record.status.to_le_bytes());
        head[54..56].copy_from_slice(&integration_status.to_le_bytes());
        head[56] = called;
        head[57] = version;
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(&head);
        for text in mask.texts() {
            let value = text_of(record, text);
            let value = &value[..value.len().min(self.max_text)];
            if !value.is_empty() {
                let [low, high] = (value.len() as u16).to_le_bytes();
                out.extend_from_slice(&[text as u8, low, high]);
                out.extend_from_slice(value);
            }
        }
        out
    }
}

fn text_of<'a>(record: &RequestRecord<'a>, text: Text) -> &'a [u8] {
    let error = record.error.as_ref();
    match text {
        Text::RequestId => record.request_id,
        Text::ExtendedRequestId => record.extended_request_id,
        Text::HttpMethod => record.http_method,
        Text::Path => record.path,
        Text::ResourcePath => record.resource_path,
        Text::ResourceId => record.resource_id,
        Text::DomainName => record.domain_name,
        Text::UserAgent => record.user_agent,
        Text::ErrorType => error.map_or(&[], |error| error.response_type),
        Text::ErrorMessage => error.map_or(&[], |error| error.message),
        Text::ErrorValidation => error.map_or(&[], |error| error.validation),
        Text::IntegrationError => record
            .integration
            .as_ref()
            .map_or(&[], |integration| integration.error),
    }
}

/// A packed record, read back.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) sink: u32,
    pub(super) received_unix_ms: u64,
    pub(super) latency_ns: u64,
    pub(super) response_length: u64,
    pub(super) status: u16,
    pub(super) integration: Option<(u64, Option<u16>)>,
    pub(super) source_ip: IpAddr,
    texts: [&'a [u8]; TEXTS.len()],
}

impl<'a> Entry<'a> {
    /// `None` for bytes that [`Encoder`] did not write.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Entry<'a>> {
        let mut bytes = Reader(bytes);
        let mut head = Reader(bytes.slice(HEAD)?);
        let received_unix_ms = u64::from_le_bytes(head.take()?);
        let latency_ns = u64::from_le_bytes(head.take()?);
        let response_length = u64::from_le_bytes(head.take()?);
        let integration_ns = u64::from_le_bytes(head.take()?);
        let address = IpAddr::from(head.take::<16>()?);
        let sink = u32::from_le_bytes(head.take()?);
        let status = u16::from_le_bytes(head.take()?);
        let integration_status = u16::from_le_bytes(head.take()?);
        let [called, version] = head.take()?;
        let integration_status = (integration_status != 0).then_some(integration_status);
        let mut entry = Entry {
            sink,
            received_unix_ms,
            latency_ns,
            response_length,
            status,
            integration: (called != 0).then_some((integration_ns, integration_status)),
            source_ip: if version == 4 {
                address.to_canonical()
            } else {
                address
            },
            texts: [&[]; TEXTS.len()],
        };
        while !bytes.0.is_empty() {
            let [text] = bytes.take()?;
            let len = u16::from_le_bytes(bytes.take()?);
            *entry.texts.get_mut(usize::from(text))? = bytes.slice(usize::from(len))?;
        }
        Some(entry)
    }

    /// Empty where the request had none.
    pub(super) fn text(&self, text: Text) -> &'a [u8] {
        self.texts[text as usize]
    }
}

/// Bytes of the fixed part.
const HEAD: usize = 58;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::telemetry::record::{GatewayError, IntegrationOutcome};

    pub(in crate::telemetry) fn sample() -> RequestRecord<'static> {
        RequestRecord {
            stage: None,
            method: None,
            log: None,
            received_unix_ms: 1_583_262_238_512,
            latency_ns: 12_600_000,
            status: 200,
            response_length: 1234,
            error: None,
            integration: Some(IntegrationOutcome {
                latency_ns: 11_400_000,
                status: Some(200),
                error: b"",
            }),
            source_ip: IpAddr::from([192, 0, 2, 1]),
            request_id: b"11111111-2222-3333-4444-555555555555",
            extended_request_id: b"JKJaXmPLvHcESHA=",
            http_method: b"GET",
            path: b"/prod/pets/7",
            resource_path: b"/pets/{petId}",
            resource_id: b"ab12cd",
            domain_name: b"a1b2c3d4e5.execute-api.localhost",
            user_agent: b"curl/8.0",
        }
    }

    pub(in crate::telemetry) fn failed() -> RequestRecord<'static> {
        RequestRecord {
            status: 418,
            integration: None,
            error: Some(GatewayError {
                response_type: b"THROTTLED",
                type_status: 429,
                message: b"Too \"many\" Requests",
                validation: b"",
            }),
            ..sample()
        }
    }

    #[test]
    fn what_was_asked_for_comes_back_and_nothing_else() {
        let mut mask = FieldMask::default();
        for text in [
            Text::Path,
            Text::UserAgent,
            Text::ErrorValidation,
            Text::ErrorType,
        ] {
            mask.insert(text);
        }
        let mut encoder = Encoder::new(4096);
        let entry = Entry::decode(encoder.encode(77, mask, &sample())).unwrap();
        assert_eq!((entry.sink, entry.status, entry.response_length), (77, 200, 1234));
        assert_eq!(
            (entry.latency_ns, entry.received_unix_ms),
            (12_600_000, 1_583_262_238_512)
        );
        assert_eq!(entry.integration, Some((11_400_000, Some(200))));
        assert_eq!(entry.source_ip, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(
            (entry.text(Text::Path), entry.text(Text::RequestId)),
            (&b"/prod/pets/7"[..], &b""[..])
        );
        assert_eq!(
            (entry.text(Text::ErrorValidation), entry.text(Text::ErrorType)),
            (&b""[..], &b""[..])
        );
    }

    #[test]
    fn long_texts_are_cut_and_cut_records_are_refused() {
        let mut mask = FieldMask::default();
        mask.insert(Text::UserAgent);
        let long = vec![b'x'; 100_000];
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        let record = RequestRecord {
            user_agent: &long,
            source_ip: mapped,
            ..sample()
        };
        let mut encoder = Encoder::new(4096);
        let bytes = encoder.encode(1, mask, &record);
        let entry = Entry::decode(bytes).unwrap();
        assert_eq!(
            (entry.text(Text::UserAgent).len(), entry.source_ip),
            (4096, mapped)
        );
        for len in 0..bytes.len() {
            let cut = Entry::decode(&bytes[..len]);
            assert!(
                cut.is_none_or(|entry| entry.text(Text::UserAgent).is_empty()),
                "{len}"
            );
        }
    }
}
