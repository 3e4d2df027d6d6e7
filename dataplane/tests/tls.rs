//! TLS on both sides of the data plane: names, versions, swapped certificates, misdirected requests, HTTPS backends.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned, SupportedProtocolVersion, version,
};
use support::{Api, Gateway, PATIENCE, get, mock, on_both_drivers, request};
use tidegate_dataplane::config::{Certificate, Change};
use tidegate_harness::http2::{Ended, Http2};
use tidegate_plan::integration::{BackendMethod, UriPartSpec};
use tidegate_plan::{HttpBackend, Integration, Limits, Target};

fn key_pair(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (
        made.cert.der().clone(),
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
    )
}

fn certificate(id: &str, name: &str) -> (Change, CertificateDer<'static>) {
    certificate_for(id, &[name])
}

fn certificate_for(id: &str, names: &[&str]) -> (Change, CertificateDer<'static>) {
    let (chain, key) = key_pair(names[0]);
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let key = Arc::new(CertifiedKey::new(vec![chain.clone()], key));
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let made = Certificate::new(id.into(), names, key);
    (Change::Certificate(Arc::new(made)), chain)
}

/// Takes any certificate, and keeps what it was shown.
#[derive(Debug)]
struct Shown(Mutex<Option<CertificateDer<'static>>>, Arc<CryptoProvider>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(end.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.1.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.1.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that takes any certificate.
fn client_config(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> (ClientConfig, Arc<Shown>) {
    let provider = Arc::new(provider);
    let shown = Arc::new(Shown(Mutex::new(None), Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&shown) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    (config, shown)
}

fn connect(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(session, socket)
}

struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    shown: Arc<Shown>,
}

impl TlsClient {
    fn connect(address: SocketAddr, name: &str, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let (mut config, shown) = client_config(aws_lc_rs::default_provider(), versions);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            stream: connect(address, name, &Arc::new(config)),
            shown,
        }
    }

    /// One request; the status and the body.
    fn get(&mut self, host: &str, path: &str) -> (u16, String) {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            if let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(seen[..end].to_vec()).unwrap();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "))
                    .map_or(0, |length| length.parse().unwrap());
                if seen.len() >= end + 4 + length {
                    let body = String::from_utf8(seen[end + 4..end + 4 + length].to_vec()).unwrap();
                    return (head[9..12].parse().unwrap(), body);
                }
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the connection ended: {}", String::from_utf8_lossy(&seen)),
                Ok(count) => seen.extend_from_slice(&bytes[..count]),
                // The end of a ring that this thread has probed interrupts it.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn shown(&self) -> CertificateDer<'static> {
        self.shown.0.lock().unwrap().clone().unwrap()
    }
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// D18: certificates by name; swapped without dropping connections; a request for another name is misdirected.
#[test]
fn certificates_are_chosen_by_name_and_swapped_in_place() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::with_https(driver);
        let mut api = Api::default();
        api.route("/pets", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let (first, first_shown) = certificate("a", "*.execute-api.localhost");
        let (other, other_shown) = certificate("b", "other.example");
        gateway.apply(vec![first, other]);
        let address = gateway.https.unwrap();
        let name = "api.execute-api.localhost";

        let mut old = TlsClient::connect(address, name, &BOTH);
        assert_eq!(old.get(name, "/test/pets"), (200, "{}".into()));
        assert_eq!(old.shown(), first_shown);
        for versions in [[&version::TLS12], [&version::TLS13]] {
            let mut client = TlsClient::connect(address, "other.example", &versions);
            assert_eq!(client.get("other.example", "/test/pets").0, 403);
            assert_eq!(client.shown(), other_shown);
            assert_eq!(client.get(name, "/test/pets").0, 421);
        }

        let (second, second_shown) = certificate("a", "*.execute-api.localhost");
        gateway.apply(vec![second]);
        let mut new = TlsClient::connect(address, name, &BOTH);
        assert_eq!(new.get(name, "/test/pets").0, 200);
        assert_eq!(new.shown(), second_shown);
        assert_eq!(old.get(name, "/test/pets").0, 200);
    });
}

/// D18, RFC 9113 section 9.1.2: a connection may carry requests for every name of the certificate that it was made with,
/// and for no other; what is misdirected ends its stream and no more.
#[test]
fn an_http2_connection_serves_the_names_of_its_certificate() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::with_https(driver);
        let mut api = Api::default();
        api.route("/pets", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let name = "api.execute-api.localhost";
        let (two, _) = certificate_for("a", &["*.execute-api.localhost", "alias.example"]);
        let (other, _) = certificate("b", "other.example");
        gateway.apply(vec![two, other]);
        for version in BOTH {
            let (mut config, _) = client_config(aws_lc_rs::default_provider(), &[version]);
            config.alpn_protocols = vec![b"h2".to_vec()];
            let config = Arc::new(config);
            let open = |server_name: &str| {
                let mut client = Http2::over(connect(gateway.https.unwrap(), server_name, &config));
                client.begin(&[]).unwrap();
                client
            };
            let mut client = open(name);
            for (stream, authority, status) in [
                (1, name, 200),
                // Under the same certificate, but no API has that host.
                (3, "alias.example", 403),
                (5, "other.example", 421),
                (7, "nobody.example", 421),
                (9, name, 200),
            ] {
                let seen = client.get(stream, authority, "/test/pets").unwrap();
                assert_eq!(
                    (seen.status, seen.ended),
                    (Some(status), Ended::Whole),
                    "{authority}"
                );
                if status == 421 {
                    let body = String::from_utf8(seen.body).unwrap();
                    assert!(body.contains("Misdirected Request"), "{body}");
                }
            }
            assert!(client.goaways.is_empty() && !client.closed);
            let mut client = open("other.example");
            assert_eq!(client.get(1, name, "/test/pets").unwrap().status, Some(421));
            let mut client = open("alias.example");
            assert_eq!(client.get(1, name, "/test/pets").unwrap().status, Some(200));
        }
    });
}

/// AES-128-GCM comes first whatever the client prefers, and the post-quantum group where the client offers it, without
/// another round trip.
#[test]
fn the_server_chooses_cipher_suite_and_group() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::with_https(driver);
        let (first, _) = certificate("a", "*.execute-api.localhost");
        gateway.apply(vec![first]);
        let shaken = |provider: CryptoProvider, version| {
            let (config, _) = client_config(provider, &[version]);
            let name = "api.execute-api.localhost";
            let mut stream = connect(gateway.https.unwrap(), name, &Arc::new(config));
            while stream.conn.is_handshaking() {
                match stream.conn.complete_io(&mut stream.sock) {
                    // As in `TlsClient::get`.
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    result => drop(result.unwrap()),
                }
            }
            assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
            let suite = stream.conn.negotiated_cipher_suite().unwrap().suite();
            let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
            (suite, group)
        };
        use aws_lc_rs::{cipher_suite as suite, kx_group};
        for (version, offered, chosen) in [
            (
                &version::TLS13,
                vec![
                    suite::TLS13_CHACHA20_POLY1305_SHA256,
                    suite::TLS13_AES_256_GCM_SHA384,
                    suite::TLS13_AES_128_GCM_SHA256,
                ],
                CipherSuite::TLS13_AES_128_GCM_SHA256,
            ),
            (
                &version::TLS13,
                vec![
                    suite::TLS13_CHACHA20_POLY1305_SHA256,
                    suite::TLS13_AES_256_GCM_SHA384,
                ],
                CipherSuite::TLS13_AES_256_GCM_SHA384,
            ),
            (
                &version::TLS12,
                vec![
                    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                ],
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ),
        ] {
            let provider = CryptoProvider {
                cipher_suites: offered,
                ..aws_lc_rs::default_provider()
            };
            assert_eq!(shaken(provider, version).0, chosen);
        }
        for (offered, chosen) in [
            (
                vec![kx_group::X25519MLKEM768, kx_group::X25519],
                NamedGroup::X25519MLKEM768,
            ),
            (vec![kx_group::X25519], NamedGroup::X25519),
            (vec![kx_group::SECP256R1], NamedGroup::secp256r1),
        ] {
            let provider = CryptoProvider {
                kx_groups: offered,
                ..aws_lc_rs::default_provider()
            };
            assert_eq!(shaken(provider, &version::TLS13).1, chosen);
        }
    });
}

/// D18: a client that comes back is spared half of the handshake, in both versions, also after certificates have changed.
#[test]
fn sessions_of_clients_are_resumed() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::with_https(driver);
        let mut api = Api::default();
        api.route("/pets", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let (address, name) = (gateway.https.unwrap(), "api.execute-api.localhost");
        for version in BOTH {
            let (first, _) = certificate("a", "*.execute-api.localhost");
            gateway.apply(vec![first]);
            let (config, shown) = client_config(aws_lc_rs::default_provider(), &[version]);
            let config = Arc::new(config);
            let kind = || {
                let stream = connect(address, name, &config);
                let mut client = TlsClient {
                    stream,
                    shown: Arc::clone(&shown),
                };
                assert_eq!(client.get(name, "/test/pets").0, 200);
                client.stream.conn.handshake_kind().unwrap()
            };
            assert_eq!(kind(), HandshakeKind::Full, "{version:?}");
            assert_eq!(kind(), HandshakeKind::Resumed, "{version:?}");
            let (second, _) = certificate("a", "*.execute-api.localhost");
            gateway.apply(vec![second]);
            assert_eq!(kind(), HandshakeKind::Resumed, "{version:?}");
        }
    });
}

/// D16: a storm of handshakes waits its turn; each is completed, and a connection that is there is served all the while.
#[test]
fn a_storm_of_handshakes_waits_its_turn() {
    on_both_drivers(|driver| {
        let mut limits = Limits::default();
        limits.set("newcomer-share", "0").unwrap();
        limits.set("newcomers-per-turn", "1").unwrap();
        let mut gateway = Gateway::with_https_limits(driver, limits);
        let mut api = Api::default();
        api.route("/pets", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let (change, _) = certificate("a", "*.execute-api.localhost");
        gateway.apply(vec![change]);
        let (address, name) = (gateway.https.unwrap(), "api.execute-api.localhost");
        let mut there = gateway.connect();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    for _ in 0..10 {
                        let mut client = TlsClient::connect(address, name, &BOTH);
                        assert_eq!(client.get(name, "/test/pets").0, 200);
                    }
                })
            })
            .collect();
        while !clients.iter().all(|client| client.is_finished()) {
            there.send(request("GET", "/test/pets", &[], b""));
            assert_eq!(there.answer().status, 200);
        }
        for client in clients {
            client.join().unwrap();
        }
        let counters = &gateway.node().telemetry().node().shards()[0];
        // Each of them when it was accepted, and in its handshake.
        assert!(counters.newcomers_delayed.get() >= 80);
        assert_eq!(counters.handshake_failures.get(), 0);
    });
}

/// Garbage on the port ends one connection and nothing else.
#[test]
fn garbage_ends_in_an_alert() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::with_https(driver);
        let (first, _) = certificate("a", "*.execute-api.localhost");
        gateway.apply(vec![first]);
        let mut socket = TcpStream::connect(gateway.https.unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut seen = [0; 64];
        let count = loop {
            match socket.read(&mut seen) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.unwrap_or(0),
            }
        };
        assert!(
            count == 0 || seen[0] == 0x15,
            "an alert or the end: {:?}",
            &seen[..count]
        );
        assert_eq!(gateway.node().telemetry().node().status().panics_total, 0);
    });
}

/// D11: a connection to a backend that was spoken to before takes the session up, as often as the table allows.
#[test]
fn sessions_with_backends_are_resumed() {
    on_both_drivers(|driver| {
        for (version, most, expected) in [
            (&version::TLS13, "32", HandshakeKind::Resumed),
            (&version::TLS12, "32", HandshakeKind::Resumed),
            (&version::TLS13, "0", HandshakeKind::Full),
            (&version::TLS12, "0", HandshakeKind::Full),
        ] {
            let (chain, key) = key_pair("localhost");
            let provider = Arc::new(aws_lc_rs::default_provider());
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![chain], key)
                .unwrap();
            config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
            let config = Arc::new(config);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = u32::from(listener.local_addr().unwrap().port());
            let (shook, shaken) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                    let mut stream = StreamOwned::new(session, socket);
                    let mut bytes = [0; 4096];
                    if stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                        shook.send(stream.conn.handshake_kind()).unwrap();
                        let _ = stream.write_all(
                            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
                        );
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                }
            });
            let mut limits = Limits::default();
            limits.set("upstream-tls-sessions", most).unwrap();
            let mut gateway = Gateway::with_limits(driver, limits);
            let mut api = Api::default();
            let target = Target::new("https", "localhost", port, true).unwrap();
            let target = api.builder().target(target).unwrap();
            let uri = vec![UriPartSpec::Literal("/".into())];
            let backend =
                HttpBackend::new(target, BackendMethod::Same, uri, Vec::new(), Vec::new(), 0).unwrap();
            api.route("/x", get(), Integration::HttpProxy(Box::new(backend)));
            gateway.deploy(api.finish());
            let mut kinds = Vec::new();
            for _ in 0..4 {
                assert_eq!(gateway.get("/test/x").text(), "ok");
                kinds.push(support::wait(&shaken).unwrap());
            }
            assert_eq!(kinds[0], HandshakeKind::Full, "{version:?}");
            assert_eq!(kinds[1..], [expected; 3], "{version:?}, {most} sessions");
        }
    });
}

/// RES-165: a certificate that no authority vouches for fails the integration, unless verification is off.
#[test]
fn https_backends_are_verified_unless_told_otherwise() {
    on_both_drivers(|driver| {
        let (chain, key) = key_pair("localhost");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = u32::from(listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(session, socket);
                    let mut bytes = [0; 4096];
                    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
                    }
                });
            }
        });
        let mut gateway = Gateway::start(driver);
        let mut api = Api::default();
        for (path, insecure) in [("/checked", false), ("/unchecked", true)] {
            let target = Target::new("https", "localhost", port, insecure).unwrap();
            let target = api.builder().target(target).unwrap();
            let uri = vec![UriPartSpec::Literal("/".into())];
            let backend =
                HttpBackend::new(target, BackendMethod::Same, uri, Vec::new(), Vec::new(), 0).unwrap();
            api.route(path, get(), Integration::HttpProxy(Box::new(backend)));
        }
        gateway.deploy(api.finish());
        for _ in 0..3 {
            assert_eq!(gateway.get("/test/unchecked").text(), "secret");
        }
        assert_eq!(gateway.get("/test/checked").status, 504);
    });
}
