//! HTTPS at the edge, through clients that judge certificates: curl and openssl.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::instance::Instance;
use tidegate_harness::suite::{Context, Shared, Test};
use tidegate_harness::tools;

use crate::pets::pet_store;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere(
        "curl_trusts_the_installations_authority",
        curl_trusts_the_installations_authority,
    ),
    Test::everywhere("openssl_speaks_both_versions", openssl_speaks_both_versions),
    Test::both_drivers(
        "both_kinds_of_key_serve_one_name",
        both_kinds_of_key_serve_one_name,
    ),
];

/// The installation's authority, in a file.
fn authority(context: &Context, shared: &Shared) -> Result<PathBuf> {
    let path = context.directory().join("authority.pem");
    let text = shared.instance.run(&["ca"])?;
    ensure!(
        text.contains("-----BEGIN CERTIFICATE-----"),
        "`tidegate ca` printed {text:?}"
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// C12: HTTPS has a certificate of the internal authority by default, good for the APIs' own host names.
fn curl_trusts_the_installations_authority(context: &Context) -> Result<()> {
    tools::find("curl")?;
    let shared = context.shared()?;
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let authority = authority(context, &shared)?.display().to_string();
    let port = shared.instance.ready().https.port();
    let url = format!("https://{}:{port}{}", deployed.host(), deployed.path("/pets"));
    let resolve = format!("{}:{port}:127.0.0.1", deployed.host());
    let mut arguments = vec!["--noproxy", "*", "--fail-with-body", "--resolve", &resolve];
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let trusted =
            tools::curl(&[&arguments[..], &["--cacert", &authority, version, &url, &url]].concat())?;
        let text = String::from_utf8_lossy(&trusted.stdout);
        ensure!(
            trusted.status.success(),
            "{version}: {} {text} {}",
            trusted.status,
            String::from_utf8_lossy(&trusted.stderr)
        );
        ensure!(text.matches("\"dog\"").count() == 2, "{version}: {text}");
    }
    arguments.push(&url);
    let untrusted = tools::curl(&arguments)?;
    ensure!(
        untrusted.status.code() == Some(60),
        "a certificate of an unknown authority was taken: {}",
        untrusted.status
    );
    Ok(())
}

/// TLS 1.2 and 1.3 are spoken, older versions are not; a request over the session is answered.
fn openssl_speaks_both_versions(context: &Context) -> Result<()> {
    let openssl = tools::find("openssl")?;
    let shared = context.shared()?;
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let authority = authority(context, &shared)?;
    let address = shared.instance.ready().https.to_string();
    for (version, accepted) in [("-tls1_2", true), ("-tls1_3", true), ("-tls1_1", false)] {
        let mut client = Command::new(&openssl)
            .args([
                "s_client",
                "-connect",
                &address,
                "-servername",
                &deployed.host(),
                version,
                "-quiet",
                "-verify_return_error",
                "-CAfile",
            ])
            .arg(&authority)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            deployed.path("/pets"),
            deployed.host()
        );
        let mut input = client.stdin.take().context("openssl's input")?;
        // A refused handshake closes the pipe; what openssl said then tells more than the broken pipe.
        let _ = input.write_all(request.as_bytes());
        let output = client.wait_with_output()?;
        drop(input);
        let text = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        if accepted {
            ensure!(
                text.starts_with("HTTP/1.1 200 ") && text.contains("\"dog\""),
                "{version}: {text} {told}"
            );
        } else {
            ensure!(!text.contains("HTTP/1.1"), "{version} was accepted: {text}");
        }
    }
    Ok(())
}

/// Certificates as `openssl` makes them: an authority, an ECDSA and an RSA certificate for one name, and an OCSP response for
/// each.
struct Pair {
    directory: PathBuf,
}

impl Pair {
    fn make(context: &Context, name: &str) -> Result<Self> {
        let directory = context.directory().join("pair");
        std::fs::create_dir_all(&directory)?;
        let pair = Self { directory };
        let extension = format!("subjectAltName=DNS:{name}");
        pair.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=test authority",
            "-days",
            "2",
        ])?;
        let mut index = String::new();
        for (kind, serial, algorithm) in [
            (
                "ec",
                "1001",
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
            ),
            ("rsa", "1002", &["-newkey", "rsa:2048"]),
        ] {
            let (key, pem) = (format!("{kind}.key"), format!("{kind}.pem"));
            let hexadecimal = format!("0x{serial}");
            // An index has one certificate a subject.
            let subject = format!("/CN={kind}");
            let mut request = vec![
                "req", "-x509", "-nodes", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            ];
            request.extend([
                "-subj",
                &subject,
                "-addext",
                &extension,
                "-set_serial",
                &hexadecimal,
            ]);
            request.extend(["-keyout", &key, "-out", &pem]);
            request.extend(algorithm);
            pair.openssl(&request)?;
            index.push_str(&format!("V\t491231235959Z\t\t{serial}\tunknown\t{subject}\n"));
        }
        std::fs::write(pair.directory.join("index.txt"), index)?;
        for kind in ["ec", "rsa"] {
            pair.openssl(&[
                "ocsp",
                "-index",
                "index.txt",
                "-CA",
                "ca.pem",
                "-rsigner",
                "ca.pem",
                "-rkey",
                "ca.key",
                "-issuer",
                "ca.pem",
                "-cert",
                &format!("{kind}.pem"),
                "-ndays",
                "1",
                "-respout",
                &format!("{kind}.ocsp"),
            ])?;
        }
        Ok(pair)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(tools::find("openssl")?)
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "openssl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn text(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(self.directory.join(file)).with_context(|| file.to_owned())
    }

    /// The OCSP response of one kind as base64, by `openssl`.
    fn response(&self, kind: &str) -> Result<String> {
        let (from, to) = (format!("{kind}.ocsp"), format!("{kind}.base64"));
        self.openssl(&["base64", "-A", "-in", &from, "-out", &to])?;
        self.text(&to)
    }

    /// Puts the certificate of one kind into the installation's store.
    fn apply(&self, instance: &Instance, kind: &str, response: &str) -> Result<Output> {
        let entity = serde_json::json!({
            "key": kind,
            "name": "certificates",
            "certificate": {
                "chainPem": self.text(&format!("{kind}.pem"))?,
                "privateKeyPem": self.text(&format!("{kind}.key"))?,
                "ocspResponse": response,
            },
        });
        let file = self.directory.join(format!("{kind}.json"));
        std::fs::write(&file, entity.to_string())?;
        instance.command(&["apply", "-f", &file.display().to_string()])
    }

    /// What `openssl s_client` says of a handshake.
    fn handshake(&self, address: SocketAddr, name: &str, more: &[&str]) -> Result<String> {
        let output = Command::new(tools::find("openssl")?)
            .args([
                "s_client",
                "-connect",
                &address.to_string(),
                "-servername",
                name,
                "-status",
            ])
            .args(["-verify_return_error", "-CAfile", "ca.pem"])
            .args(more)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()?;
        Ok(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// Two kinds of key for one name: whoever can verify ECDSA is shown that, whoever cannot is shown RSA; with each the OCSP
/// response that was stored with it (RFC 6066 section 8).
fn both_kinds_of_key_serve_one_name(context: &Context) -> Result<()> {
    let name = "pair.example.com";
    let pair = Pair::make(context, name)?;
    let up = context.plan().up("up")?;
    for kind in ["rsa", "ec"] {
        let applied = pair.apply(&up, kind, &pair.response(kind)?)?;
        ensure!(
            applied.status.success(),
            "{}",
            String::from_utf8_lossy(&applied.stderr)
        );
    }
    up.await_nodes()?;
    let address = up.ready().https;
    for (wishes, shown) in [
        (&["-tls1_3"][..], "ecdsa"),
        (&["-tls1_2"], "ecdsa"),
        (&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "rsa"),
        (&["-tls1_2", "-sigalgs", "RSA+SHA256"], "rsa"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "rsa"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "ecdsa"),
    ] {
        let told = pair.handshake(address, name, wishes)?;
        let kind = told
            .lines()
            .find_map(|line| line.trim().strip_prefix("Peer signature type: "))
            .unwrap_or_default()
            .to_lowercase();
        ensure!(kind.starts_with(shown), "{wishes:?}: shown {kind}: {told}");
        ensure!(
            told.contains("OCSP Response Status: successful") && told.contains("Cert Status: good"),
            "{wishes:?}: {told}"
        );
        let serial = if shown == "rsa" { "1002" } else { "1001" };
        ensure!(
            told.contains(&format!("Serial Number: {serial}")),
            "{wishes:?}: {told}"
        );
    }
    // The cipher is the server's choice, whatever the client's order.
    let told = pair.handshake(
        address,
        name,
        &[
            "-tls1_3",
            "-ciphersuites",
            "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
        ],
    )?;
    ensure!(told.contains("TLS_AES_128_GCM_SHA256"), "{told}");
    // A response for another certificate is refused, and so is one without sense.
    let other = pair.apply(&up, "ec", &pair.response("rsa")?)?;
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    ensure!(
        !other.status.success() && told.contains("for another certificate"),
        "{told}"
    );
    // Without a response nothing is stapled.
    let applied = pair.apply(&up, "ec", "")?;
    ensure!(
        applied.status.success(),
        "{}",
        String::from_utf8_lossy(&applied.stderr)
    );
    up.await_nodes()?;
    let told = pair.handshake(address, name, &["-tls1_3"])?;
    ensure!(told.contains("OCSP response: no response sent"), "{told}");
    Ok(())
}
