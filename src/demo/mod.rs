//! `tidegate demo`: everything that `up` starts, a backend, and a sample API in front of it.

mod backend;

use std::{
    io::{Cursor, IsTerminal, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
};

use anyhow::Context;
use serde_json::Value;

pub(crate) use backend::run as backend;

use crate::{
    cli::{BasePathMode, DemoArgs, GlobalArgs, ImportArgs, ImportMode},
    commands::import_document,
    instance::write_atomically,
    logging,
    settings::{Flags, Settings},
    supervise::{Role, Supervisor, block_on},
};

/// `tidegate demo`.
pub(crate) fn run(global: &GlobalArgs, args: &DemoArgs) -> anyhow::Result<()> {
    let mut settings = Settings::load(global, Flags::from(&args.up))?;
    logging::start(settings.log.as_deref(), settings.log_format.as_deref(), "warn")?;
    // Children log what matters to a demo only.
    settings.log.get_or_insert_with(|| "warn".to_owned());
    prefer_free_ports(&mut settings);
    let temporary = match &global.data_dir {
        Some(_) => None,
        None => {
            let dir = tempfile::Builder::new()
                .prefix("tidegate-demo-")
                .tempdir()
                .context("cannot make a directory for the demo; name one with --data-dir")?;
            settings.data_dir = dir.path().to_owned();
            Some(dir)
        }
    };
    let listen = args.backend.unwrap_or(ANY_PORT);
    block_on(async {
        let mut supervisor = Supervisor::start(global, &settings).await?;
        let result = present(&mut supervisor, &settings, listen, temporary.is_some()).await;
        match result {
            Ok(()) => supervisor.watch().await,
            Err(error) => {
                supervisor.stop().await;
                Err(error)
            }
        }
    })
}

/// Starts the backend, imports the sample and says what to try.
async fn present(
    supervisor: &mut Supervisor,
    settings: &Settings,
    listen: SocketAddr,
    temporary: bool,
) -> anyhow::Result<()> {
    supervisor
        .run(Role::Backend, vec![("--listen", listen.to_string().into())])
        .await?;
    let backend = supervisor
        .told(Role::Backend)
        .and_then(|told| told["address"].as_str())
        .context("the backend did not say where it listens")?
        .to_owned();
    let client = supervisor.client().await?;
    let memory = settings.data_dir.join("demo.json");
    let import = ImportArgs {
        file: "petstore.yaml".into(),
        stage: Some(STAGE.to_owned()),
        api: remembered(&memory),
        mode: ImportMode::Overwrite,
        base_path: BasePathMode::Ignore,
        fail_on_warnings: false,
        wait_ms: None,
    };
    let document = PETSTORE.replace(SAMPLE_BACKEND, &backend).into_bytes();
    let imported = match import_document(client.clone(), Cursor::new(document.clone()), &import).await {
        Ok(imported) => imported,
        // The API of an earlier demo was deleted since.
        Err(_) if import.api.is_some() => {
            import_document(
                client,
                Cursor::new(document),
                &ImportArgs {
                    api: None,
                    ..import.clone()
                },
            )
            .await?
        }
        Err(error) => return Err(error),
    };
    write_atomically(
        &memory,
        &serde_json::to_vec(&serde_json::json!({ "apiId": imported.api_id }))?,
    )?;
    supervisor.publish()?;
    let ready = supervisor.ready();
    let text = lines(&ready, &imported.api_id, &backend, &settings.data_dir, temporary);
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if std::io::stdout().is_terminal() {
        writeln!(out, "\nCtrl-C ends the demo.")?;
    }
    out.flush()?;
    Ok(())
}

/// The id of the API that an earlier demo on this data directory made.
fn remembered(memory: &Path) -> Option<String> {
    let value: Value = serde_json::from_slice(&std::fs::read(memory).ok()?).ok()?;
    value.get("apiId")?.as_str().map(str::to_owned)
}

/// A demo should not fail because something else listens on a port that nobody asked for.
fn prefer_free_ports(settings: &mut Settings) {
    let defaults = Settings::default();
    if settings.http == defaults.http && TcpListener::bind(settings.http).is_err() {
        settings.http = ANY_PORT;
    }
    for (own, default) in [
        (&mut settings.https, defaults.https),
        (&mut settings.admin, defaults.admin),
        (&mut settings.management, defaults.management),
        (&mut settings.metrics, defaults.metrics),
    ] {
        if *own == default {
            *own = ANY_PORT;
        }
    }
}

/// What to try, with addresses that need no name resolution.
fn lines(ready: &Value, api: &str, backend: &str, data_dir: &Path, temporary: bool) -> String {
    let address = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
    let (http, https, metrics) = (address("http"), address("https"), address("metrics"));
    let host = format!("{api}.execute-api.localhost");
    let https_port = https.rsplit(':').next().unwrap_or_default();
    let dir = data_dir.display();
    let keep = if temporary {
        "\n(everything is thrown away at the end; --data-dir keeps it)\n"
    } else {
        ""
    };
    format!(
        "\
The pet store is open: API {api}, stage {STAGE}, in front of http://{backend}/petstore
{keep}
  invoke URL   http://{http}/restapis/{api}/{STAGE}/_user_request_/
  by host      http://{host}:{http_port}/{STAGE}/

Try, in another terminal:

  curl http://{http}/restapis/{api}/{STAGE}/_user_request_/pets
  curl http://{http}/restapis/{api}/{STAGE}/_user_request_/pets/1
  curl -H 'Host: {host}' 'http://{http}/{STAGE}/pets?type=fish'
  curl -H 'Content-Type: application/json' -d '{{\"type\":\"dog\",\"price\":249.99}}' http://{http}/restapis/{api}/{STAGE}/_user_request_/pets
  curl -i http://{http}/restapis/{api}/{STAGE}/_user_request_/no-such-path
  tidegate ca --data-dir {dir} > {dir}/ca.pem && \\
    curl --cacert {dir}/ca.pem --resolve {host}:{https_port}:127.0.0.1 https://{host}:{https_port}/{STAGE}/pets
  curl http://{metrics}/metrics

  tidegate list --data-dir {dir}
  tidegate nodes --data-dir {dir}
  tidegate explain GET http://{http}/restapis/{api}/{STAGE}/_user_request_/pets --data-dir {dir}
",
        http_port = http.rsplit(':').next().unwrap_or_default(),
    )
}

const PETSTORE: &str = include_str!("../../examples/petstore.yaml");
/// The backend's address in the sample.
const SAMPLE_BACKEND: &str = "127.0.0.1:8700";
const STAGE: &str = "demo";
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_names_the_backend_it_is_given() {
        assert!(PETSTORE.contains(&format!("http://{SAMPLE_BACKEND}/petstore")));
    }

    /// The first URL needs no resolution of names below `localhost`.
    #[test]
    fn the_invoke_url_is_an_address() {
        let ready = serde_json::json!({"http": "127.0.0.1:8080", "https": "127.0.0.1:8443", "metrics": "127.0.0.1:9183"});
        let text = lines(&ready, "a1b2c3d4e5", "127.0.0.1:8700", Path::new("/tmp/d"), true);
        assert!(
            text.contains("invoke URL   http://127.0.0.1:8080/restapis/a1b2c3d4e5/demo/_user_request_/"),
            "{text}"
        );
    }
}
