//! The Admin API from the command line's side: where it is, who we are, and what its refusals mean for a person.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, anyhow, bail};
use tidegate_proto::admin::v1::admin_service_client::AdminServiceClient;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    cli::GlobalArgs,
    instance::Instance,
    settings::{Flags, Settings},
};

/// A connection to an Admin API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The calls.
    pub(crate) api: AdminServiceClient<InterceptedService<Channel, Bearer>>,
    /// The URL, for messages.
    pub(crate) url: String,
}

impl Client {
    /// Connects to the server that flags or the environment name, else to the instance of the data directory.
    pub(crate) async fn connect(global: &GlobalArgs) -> anyhow::Result<Self> {
        let (url, token, authority) = match &global.server {
            Some(server) => {
                let token = global.token.clone().ok_or_else(|| {
                    anyhow!("TIDEGATE_SERVER names {server}; set TIDEGATE_TOKEN to a principal's token for it as well")
                })?;
                (server_url(server), token, global.ca_file.clone())
            }
            None => {
                let settings = Settings::load(global, Flags::default())?;
                let instance = Instance::find(&settings.data_dir)?;
                let token = match &global.token {
                    Some(token) => token.clone(),
                    None => instance.token()?,
                };
                let scheme = if instance.authority_file.is_some() {
                    "https"
                } else {
                    "http"
                };
                (
                    format!("{scheme}://{}", instance.admin),
                    token,
                    instance.authority_file,
                )
            }
        };
        let authority = match authority {
            Some(file) => {
                Some(std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?)
            }
            None => None,
        };
        Self::open(&url, &token, authority.as_deref()).await
    }

    /// Connects to `url` with `token`; `authority` (PEM) is trusted in place of the system's authorities.
    pub(crate) async fn open(url: &str, token: &str, authority: Option<&[u8]>) -> anyhow::Result<Self> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_| {
                anyhow!("`{url}` is no URL of an Admin API; it looks like https://gate.example.com:9180")
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))?;
        if url.starts_with("https:") {
            let tls = match authority {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_enabled_roots(),
            };
            endpoint = endpoint
                .tls_config(tls)
                .with_context(|| format!("cannot speak TLS to {url}"))?;
        }
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| unreachable(url, &error))?;
        let mut header = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| {
            anyhow!("the token holds characters that no token has; was the file copied whole?")
        })?;
        header.set_sensitive(true);
        let api = AdminServiceClient::with_interceptor(channel, Bearer(header))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Self {
            api,
            url: url.to_owned(),
        })
    }

    /// Says what a refusal of this server means and what to do.
    pub(crate) fn explain(&self, status: Status) -> anyhow::Error {
        let message = status.message();
        match status.code() {
            Code::Unauthenticated => anyhow!(
                "{} does not accept the token ({message}); set TIDEGATE_TOKEN to the token of a principal of that \
                 installation (`tidegate principal create` makes one)",
                self.url
            ),
            Code::PermissionDenied => anyhow!("not allowed: {message}"),
            Code::Unavailable if message.is_empty() => anyhow!("{} went away; try again", self.url),
            Code::Unimplemented => {
                anyhow!(
                    "{} does not know this call ({message}); is it an older version?",
                    self.url
                )
            }
            _ if message.is_empty() => anyhow!("{}", status.code().description()),
            _ => anyhow!("{message}"),
        }
    }
}

/// Puts the token on every call.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Completes what people leave out of a URL: plain HTTP to this machine, TLS to any other.
fn server_url(server: &str) -> String {
    if server.contains("://") {
        return server.trim_end_matches('/').to_owned();
    }
    let local = server.parse::<SocketAddr>().map_or_else(
        |_| server.split(':').next() == Some("localhost"),
        |address| address.ip().is_loopback(),
    );
    format!("{}://{server}", if local { "http" } else { "https" })
}

fn unreachable(url: &str, error: &dyn std::error::Error) -> anyhow::Error {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    anyhow!(
        "cannot reach the Admin API at {url}: {root}; is Tidegate running there, and is the address right?"
    )
}

/// Refuses early what cannot be a name, with an example.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() || name.starts_with('/') || name.ends_with('/') || name.contains("//") {
        bail!("`{name}` is no name of an entity; names look like restApis/a1b2c3d4e5/stages/prod");
    }
    Ok(())
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One entity is at most a few MiB; this bounds what a server can make us hold.
const MAX_MESSAGE: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_completed() {
        assert_eq!(server_url("127.0.0.1:9180"), "http://127.0.0.1:9180");
        assert_eq!(server_url("localhost:9180"), "http://localhost:9180");
        assert_eq!(
            server_url("gate.example.com:9180"),
            "https://gate.example.com:9180"
        );
        assert_eq!(
            server_url("https://gate.example.com/"),
            "https://gate.example.com"
        );
    }

    #[tokio::test]
    async fn a_refused_connection_says_where_and_what_to_do() {
        // A port that was free a moment ago and that nobody listens on.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a port");
        let error = Client::open(&format!("http://{address}"), "t", None)
            .await
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("running"),
            "{error}"
        );
    }
}
