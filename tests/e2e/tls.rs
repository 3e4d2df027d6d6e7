//! HTTPS at the edge, through clients that judge certificates: curl and openssl.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
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
