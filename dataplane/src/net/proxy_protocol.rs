//! The PROXY protocol, versions 1 and 2: a proxy's word on whose connection it passes on, before anything else
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Taken only from listed networks, on listeners that
//! require it (D18): anyone else could claim any address. Said to backends whose integrations ask for it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tidegate_plan::ProxyProtocol;
use tidegate_rt::Buffer;

use crate::shard::Protocol;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header: what follows belongs to the connection.
    pub length: usize,
    /// Who connected to the proxy, and where. None where the proxy speaks for itself (a health check), or does not know.
    pub addresses: Option<Addresses>,
}

/// The two ends of a client's connection to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// The address that it connected to.
    pub destination: SocketAddr,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum Malformed {
    #[error("it begins with neither version's signature")]
    Signature,
    #[error("it is longer than it may be")]
    TooLong,
    #[error("a line of version 1 that cannot be understood")]
    Line,
    #[error("version or command of version 2 that there is none of")]
    Command,
    #[error("an address family or protocol that cannot be a TCP client's")]
    Family,
    #[error("addresses of version 2 that are cut short")]
    Short,
}

/// Writes a header; `None`: the proxy speaks for itself.
pub fn write(version: ProxyProtocol, addresses: Option<&Addresses>, out: &mut Buffer) {
    let pair = addresses.map(|Addresses { source, destination }| {
        let destination_ip = match (source.ip(), destination.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => destination.ip(),
            // A header has addresses of one family; a proxy before this one may have changed it.
            (IpAddr::V4(_), IpAddr::V6(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (IpAddr::V6(_), IpAddr::V4(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        (*source, SocketAddr::new(destination_ip, destination.port()))
    });
    match version {
        ProxyProtocol::V1 => write_v1(pair, out),
        ProxyProtocol::V2 => write_v2(pair, out),
    }
}

fn write_v1(pair: Option<(SocketAddr, SocketAddr)>, out: &mut Buffer) {
    let line = match pair {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((source, destination)) => format!(
            "PROXY TCP{} {} {} {} {}\r\n",
            if source.is_ipv4() { '4' } else { '6' },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
    };
    out.extend_from_slice(line.as_bytes());
}

fn write_v2(pair: Option<(SocketAddr, SocketAddr)>, out: &mut Buffer) {
    out.extend_from_slice(V2);
    let Some((source, destination)) = pair else {
        out.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]);
        return;
    };
    let (family, size) = if source.is_ipv4() { (TCP4, 12) } else { (TCP6, 36) };
    out.extend_from_slice(&[PROXIED, family, 0, size]);
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
    for address in [source, destination] {
        out.extend_from_slice(&address.port().to_be_bytes());
    }
}

/// The longest header that is written.
pub const WRITTEN_MAX: usize = V1_MAX;

/// Understands the beginning of a connection; `None`: more bytes are needed. A header has at most `most` bytes.
///
/// # Errors
/// As soon as the bytes cannot become a header.
pub fn parse(bytes: &[u8], most: usize) -> Result<Option<Header>, Malformed> {
    if bytes.starts_with(&V2[..bytes.len().min(V2.len())]) {
        parse_v2(bytes, most)
    } else if bytes.starts_with(&V1[..bytes.len().min(V1.len())]) {
        parse_v1(bytes, most)
    } else {
        Err(Malformed::Signature)
    }
}

fn parse_v1(bytes: &[u8], most: usize) -> Result<Option<Header>, Malformed> {
    let bound = V1_MAX.min(most);
    let line = &bytes[..bytes.len().min(bound)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() == bound {
            Err(Malformed::TooLong)
        } else {
            Ok(None)
        };
    };
    let line = line[..end].strip_suffix(b"\r").ok_or(Malformed::Line)?;
    let length = end + 1;
    let line = std::str::from_utf8(&line[V1.len()..]).map_err(|_| Malformed::Line)?;
    // Everything behind UNKNOWN is to be passed over.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some(Header {
            length,
            addresses: None,
        }));
    }
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(Malformed::Line);
    let (family, source, destination) = (word()?, word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Malformed::Line);
    }
    let (source, destination) = match family {
        "TCP4" => (
            IpAddr::V4(address::<Ipv4Addr>(source)?),
            IpAddr::V4(address(destination)?),
        ),
        "TCP6" => (
            IpAddr::V6(address::<Ipv6Addr>(source)?),
            IpAddr::V6(address(destination)?),
        ),
        _ => return Err(Malformed::Family),
    };
    Ok(Some(Header {
        length,
        addresses: Some(Addresses {
            source: SocketAddr::new(source, source_port),
            destination: SocketAddr::new(destination, destination_port),
        }),
    }))
}

fn address<T: FromStr>(text: &str) -> Result<T, Malformed> {
    text.parse().map_err(|_| Malformed::Line)
}

/// Decimal, without sign or leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if !plain {
        return Err(Malformed::Line);
    }
    address(text)
}

fn parse_v2(bytes: &[u8], most: usize) -> Result<Option<Header>, Malformed> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD>() else {
        return Ok(None);
    };
    let [.., version_command, family, high, low] = *head;
    let size = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_HEAD + size;
    if length > most {
        return Err(Malformed::TooLong);
    }
    let local = match version_command {
        LOCAL => true,
        PROXIED => false,
        _ => return Err(Malformed::Command),
    };
    let Some(body) = rest.get(..size) else {
        return Ok(None);
    };
    let addresses = match (local, family) {
        (true, _) | (false, UNSPEC) => None,
        (false, TCP4) => Some(pair::<4>(body)?),
        (false, TCP6) => Some(pair::<16>(body)?),
        _ => return Err(Malformed::Family),
    };
    Ok(Some(Header { length, addresses }))
}

/// Two addresses of so many bytes, then two ports; what follows is not for us.
fn pair<const N: usize>(body: &[u8]) -> Result<Addresses, Malformed>
where
    [u8; N]: IntoIp,
{
    let (source, rest) = body.split_first_chunk::<N>().ok_or(Malformed::Short)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(Malformed::Short)?;
    let (&[a, b, c, d], _) = rest.split_first_chunk::<4>().ok_or(Malformed::Short)?;
    Ok(Addresses {
        source: SocketAddr::new(source.into_ip(), u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination.into_ip(), u16::from_be_bytes([c, d])),
    })
}

trait IntoIp {
    fn into_ip(self) -> IpAddr;
}

impl IntoIp for [u8; 4] {
    fn into_ip(self) -> IpAddr {
        self.into()
    }
}

impl IntoIp for [u8; 16] {
    fn into_ip(self) -> IpAddr {
        self.into()
    }
}

/// A network, `10.0.0.0/8`; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network; write 10.0.0.0/8, 2001:db8::/32 or a single address")]
pub struct NotANetwork(String);

impl Network {
    /// Whether an address lies within. An IPv4 address that came in by an IPv6 socket is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                let cut = |address: Ipv4Addr| u64::from(address.to_bits()) >> shift;
                cut(network) == cut(address)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                let cut = |address: Ipv6Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
                cut(network) == cut(address)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let wrong = || NotANetwork(text.chars().take(60).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
        };
        if prefix > longest {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Which listeners require a header, and from whom it is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Required {
    /// On the listener of plain HTTP.
    pub http: bool,
    /// On the listener of HTTPS.
    pub https: bool,
    /// Connections from anywhere else are closed there.
    pub from: Vec<Network>,
}

impl Required {
    /// Whether connections to a listener begin with a header.
    pub fn on(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http => self.http,
            Protocol::Https => self.https,
        }
    }

    /// Whether a header of this peer is taken.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.from.iter().any(|network| network.contains(peer))
    }
}

const V1: &[u8] = b"PROXY ";
/// The longest line, of version 1, its end included.
const V1_MAX: usize = 107;
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const V2_HEAD: usize = 16;
const LOCAL: u8 = 0x20;
const PROXIED: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const BODY4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb];

    fn source(bytes: &[u8]) -> Option<String> {
        let header = parse(bytes, 2048).unwrap().unwrap();
        header.addresses.map(|addresses| addresses.source.to_string())
    }

    #[test]
    fn both_versions_say_who_connected() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nGET";
        let header = parse(line, 2048).unwrap().unwrap();
        assert_eq!(&line[header.length..], b"GET");
        let addresses = header.addresses.unwrap();
        assert_eq!(addresses.destination.to_string(), "198.51.100.2:443");
        assert_eq!(source(line).as_deref(), Some("192.0.2.1:12345"));
        assert_eq!(
            source(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n").as_deref(),
            Some("[2001:db8::1]:1")
        );
        let full = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", ["ffff"; 8].join(":"));
        assert!(source(full.as_bytes()).is_some());
        assert_eq!(source(&v2(0x21, TCP4, BODY4)).as_deref(), Some("192.0.2.1:12345"));
        // Further information behind the addresses is passed over.
        let mut more = BODY4.to_vec();
        more.extend([0x04, 0, 3, 1, 2, 3]);
        let bytes = v2(0x21, TCP4, &more);
        assert_eq!(parse(&bytes, 2048).unwrap().unwrap().length, bytes.len());
        let mut six = [0; 36];
        six[15] = 1;
        six[33] = 9;
        assert_eq!(source(&v2(0x21, TCP6, &six)).as_deref(), Some("[::1]:9"));
    }

    /// What is written is what is read.
    #[test]
    fn a_header_names_the_client_in_both_versions_and_families() {
        for (from, to, read) in [
            ("192.0.2.1:12345", "198.51.100.2:443", "198.51.100.2:443"),
            ("[2001:db8::1]:12345", "[2001:db8::2]:443", "[2001:db8::2]:443"),
            ("192.0.2.1:12345", "[2001:db8::2]:443", "0.0.0.0:443"),
            ("[2001:db8::1]:12345", "198.51.100.2:443", "[::]:443"),
        ] {
            let addresses = Addresses {
                source: from.parse().unwrap(),
                destination: to.parse().unwrap(),
            };
            for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
                let mut out = Buffer::with_capacity(WRITTEN_MAX);
                write(version, Some(&addresses), &mut out);
                assert!(out.len() <= WRITTEN_MAX);
                let header = parse(&out, WRITTEN_MAX).unwrap().unwrap();
                assert_eq!(header.length, out.len());
                let said = header.addresses.unwrap();
                assert_eq!(
                    (said.source.to_string(), said.destination.to_string()),
                    (from.into(), read.into())
                );
            }
        }
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let mut out = Buffer::with_capacity(WRITTEN_MAX);
            write(version, None, &mut out);
            assert_eq!(parse(&out, WRITTEN_MAX).unwrap().unwrap().addresses, None);
        }
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_names_nobody() {
        for bytes in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec(),
            v2(0x20, UNSPEC, b""),
            v2(0x20, TCP4, BODY4),
            v2(0x20, 0xff, b"x"),
            v2(0x21, UNSPEC, b""),
        ] {
            assert_eq!(source(&bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_cannot_become_a_header_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(100));
        for (bytes, why) in [
            (&b"GET / HTTP/1.1\r\n"[..], Malformed::Signature),
            (b"\x16\x03\x01", Malformed::Signature),
            (b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n", Malformed::Signature),
            (b"\r\n\r\n\0\r\nQUIT\r", Malformed::Signature),
            (b"PROXY \r\n", Malformed::Line),
            (b"PROXY TCP4\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", Malformed::Line),
            (b"PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n", Malformed::Line),
            (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.1.1.1 1.1.1.\xff 1 1\r\n", Malformed::Line),
            (b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", Malformed::Family),
            (b"PROXY UNKNOWNX 1 1 1 1\r\n", Malformed::Family),
            (long.as_bytes(), Malformed::TooLong),
        ] {
            assert_eq!(parse(bytes, 2048), Err(why), "{}", String::from_utf8_lossy(bytes));
        }
        for (bytes, why) in [
            (v2(0x11, TCP4, BODY4), Malformed::Command),
            (v2(0x22, TCP4, BODY4), Malformed::Command),
            (v2(0x31, TCP4, BODY4), Malformed::Command),
            (v2(0x21, 0x12, BODY4), Malformed::Family),
            (v2(0x21, 0x31, &[0; 216]), Malformed::Family),
            (v2(0x21, 0x41, BODY4), Malformed::Family),
            (v2(0x21, TCP4, &BODY4[..11]), Malformed::Short),
            (v2(0x21, TCP6, BODY4), Malformed::Short),
            (v2(0x21, TCP4, b""), Malformed::Short),
            (v2(0x21, TCP4, &[0; 2033]), Malformed::TooLong),
        ] {
            assert_eq!(parse(&bytes, 2048), Err(why), "{bytes:?}");
        }
    }

    #[test]
    fn a_header_in_pieces_is_awaited_to_its_last_byte() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n".to_vec();
        for bytes in [line, v2(0x21, TCP4, BODY4), v2(0x20, UNSPEC, b"")] {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut], 2048), Ok(None), "{cut} of {bytes:?}");
            }
            assert_eq!(parse(&bytes, 2048).unwrap().unwrap().length, bytes.len());
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, within) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("::1/128", "::1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.contains(address.parse().unwrap()),
                within,
                "{network} {address}"
            );
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0/8",
            "localhost",
            "10.0.0.0/",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(
            signature in prop::sample::select(vec![&b""[..], V1, V2]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
            most in 16usize..300,
        ) {
            let mut bytes = signature.to_vec();
            bytes.extend(rest);
            match parse(&bytes, most) {
                Ok(Some(header)) => prop_assert!(header.length <= bytes.len() && header.length <= most),
                // Whoever sends no more than the bound allows is not asked for more.
                Ok(None) => prop_assert!(bytes.len() < most),
                Err(_) => {}
            }
        }
    }
}
