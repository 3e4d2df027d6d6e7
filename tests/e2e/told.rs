//! Backends that are told of the client by the PROXY protocol, and say what they heard: nginx and haproxy.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::{Deployed, Instance};
use tidegate_harness::process::PATIENCE;
use tidegate_harness::raw::{Connection, request};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::both_drivers("nginx_hears_who_the_client_is", nginx_hears_who_the_client_is),
    Test::both_drivers("haproxy_hears_who_the_client_is", haproxy_hears_who_the_client_is),
    Test::both_drivers("other_clients_make_room", other_clients_make_room),
];

const VERSIONS: [&str; 2] = ["v1", "v2"];

/// What a backend heard: client, and where it connected to; and which connection it heard it on, where it tells.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    source: SocketAddr,
    destination: SocketAddr,
    connection: String,
}

/// Text of both backends: `address port address port connection`.
fn heard(text: &str) -> Result<Heard> {
    let words: Vec<_> = text.split_whitespace().collect();
    let &[source, source_port, destination, destination_port, connection] = words.as_slice() else {
        bail!("`{text}` is not what the backend was to say");
    };
    Ok(Heard {
        source: SocketAddr::new(source.parse()?, source_port.parse()?),
        destination: SocketAddr::new(destination.parse()?, destination_port.parse()?),
        connection: connection.into(),
    })
}

/// A backend's process, and where it listens.
struct Server {
    process: Child,
    plain: [SocketAddr; 2],
    tls: Option<SocketAddr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is nobody's but this test's.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Addresses that were free a moment ago.
fn free(count: usize) -> Result<Vec<SocketAddr>> {
    let held: Vec<_> = (0..count)
        .map(|at| match at % 2 {
            0 => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)),
            _ => TcpListener::bind((Ipv6Addr::LOCALHOST, 0)),
        })
        .collect::<Result<_, _>>()?;
    held.iter().map(|socket| Ok(socket.local_addr()?)).collect()
}

impl Server {
    fn start(command: &mut Command, plain: [SocketAddr; 2], tls: Option<SocketAddr>) -> Result<Self> {
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut this = Self { process, plain, tls };
        // Another program's process: that it listens is seen by trying.
        let deadline = Instant::now() + PATIENCE;
        for address in plain.into_iter().chain(tls) {
            while TcpStream::connect(address).is_err() {
                ensure!(Instant::now() < deadline, "{address} is not listened on");
                if let Some(status) = this.process.try_wait()? {
                    bail!("the backend ended: {status}");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(this)
    }

    fn nginx(directory: &Path) -> Result<Self> {
        let program = tools::find("nginx")?;
        let addresses = free(3)?;
        let made = rcgen::generate_simple_self_signed(["backend.example".to_owned()])?;
        std::fs::write(directory.join("cert.pem"), made.cert.pem())?;
        std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?;
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {}/{name};", directory.display()))
            .join(" ");
        let configuration = directory.join("nginx.conf");
        std::fs::write(
            &configuration,
            format!(
                "daemon off; master_process off; pid {0}/nginx.pid; error_log {0}/error.log;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off; {paths} ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;\n\
                 server {{ listen {1} proxy_protocol; listen {2} proxy_protocol; listen {3} ssl proxy_protocol;\n\
                 location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr \
                 $proxy_protocol_server_port $connection\"; }} }} }}\n",
                directory.display(),
                addresses[0],
                addresses[1],
                addresses[2],
            ),
        )?;
        let mut command = Command::new(program);
        command.arg("-p").arg(directory).arg("-c").arg(&configuration);
        command.args(["-e", "stderr"]);
        Self::start(&mut command, [addresses[0], addresses[1]], Some(addresses[2]))
    }

    fn haproxy(directory: &Path) -> Result<Self> {
        let program = tools::find("haproxy")?;
        let addresses = free(2)?;
        let configuration = directory.join("haproxy.cfg");
        std::fs::write(
            &configuration,
            format!(
                "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 listen front\n bind {} accept-proxy\n bind {} accept-proxy\n \
                 http-request return status 200 content-type text/plain lf-string \
                 \"%[src] %[src_port] %[dst] %[dst_port] -\"\n",
                addresses[0], addresses[1]
            ),
        )?;
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&configuration);
        Self::start(&mut command, [addresses[0], addresses[1]], None)
    }
}

/// An API with a path for each version and address, and `/none` to which nobody is named.
fn definition(server: &Server) -> Definition {
    let mut definition = Definition::new("told");
    let tls = server.tls.map(|address| ("tls", format!("https://{address}/")));
    let plain = server
        .plain
        .iter()
        .zip(["four", "six"])
        .map(|(address, name)| (name, format!("http://{address}/")));
    for (name, uri) in plain.chain(tls) {
        for version in VERSIONS {
            let integration = json!({
                "type": "http_proxy", "httpMethod": "GET", "uri": uri,
                "x-tidegate-proxy-protocol": version,
                "tlsConfig": { "insecureSkipVerification": true },
            });
            definition = definition.method("GET", &format!("/{name}/{version}"), 200, integration);
        }
    }
    definition
}

fn ask(connection: &mut Connection, deployed: &Deployed, path: &str) -> Result<Heard> {
    connection.send(request("GET", &deployed.host(), &deployed.path(path)))?;
    let response = connection.response()?;
    ensure!(response.status == 200, "{path}: {response:?}");
    heard(&response.text()).with_context(|| path.to_owned())
}

/// Every way to the backend, asked by two clients in turn: each is named as itself, every time.
fn everybody_is_named(gateway: &Instance, server: &Server, deployed: &Deployed) -> Result<()> {
    let http = gateway.ready().http;
    let names: &[&str] = match server.tls {
        Some(_) => &["four", "six", "tls"],
        None => &["four", "six"],
    };
    for name in names {
        for version in VERSIONS {
            let path = format!("/{name}/{version}");
            let mut clients = [Connection::open(http)?, Connection::open(http)?];
            let mut connections = Vec::new();
            for _ in 0..3 {
                for client in &mut clients {
                    let said = ask(client, deployed, &path)?;
                    ensure!(said.source == client.local()?, "{path}: {said:?}");
                    ensure!(said.destination == http, "{path}: {said:?}");
                    connections.push(said.connection);
                }
            }
            if connections[0] != "-" {
                // One connection a client, used again.
                let first = connections[..2].to_vec();
                ensure!(first[0] != first[1], "{path}: {connections:?}");
                ensure!(
                    connections.chunks(2).all(|pair| pair == first),
                    "{path}: {connections:?}"
                );
            }
        }
    }
    Ok(())
}

/// What another proxy said of the client is passed on, in either family.
fn what_was_said_is_passed_on(context: &Context, server: &Server) -> Result<()> {
    let gateway = context
        .plan()
        .set("TIDEGATE_PROXY_PROTOCOL", "[http]")
        .set("TIDEGATE_PROXY_PROTOCOL_FROM", "[\"127.0.0.0/8\"]")
        .up("behind")?;
    let deployed = gateway.import(&definition(server), "test")?;
    for (header, source, destination) in [
        (
            "PROXY TCP4 203.0.113.7 198.51.100.1 12345 443\r\n",
            "203.0.113.7:12345",
            "198.51.100.1:443",
        ),
        (
            "PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n",
            "[2001:db8::7]:12345",
            "[2001:db8::1]:443",
        ),
    ] {
        for path in ["/four/v1", "/four/v2", "/six/v1", "/six/v2"] {
            let mut connection = Connection::open(gateway.ready().http)?;
            connection.send(header)?;
            let said = ask(&mut connection, &deployed, path)?;
            ensure!(
                said.source == source.parse()? && said.destination == destination.parse()?,
                "{path}: {said:?}"
            );
        }
    }
    Ok(())
}

fn hears_who_the_client_is(context: &Context, server: &Server) -> Result<()> {
    let gateway = context.plan().up("up")?;
    let deployed = gateway.import(&definition(server), "test")?;
    everybody_is_named(&gateway, server, &deployed)?;
    drop(gateway);
    what_was_said_is_passed_on(context, server)
}

fn nginx_hears_who_the_client_is(context: &Context) -> Result<()> {
    hears_who_the_client_is(context, &Server::nginx(context.directory())?)
}

fn haproxy_hears_who_the_client_is(context: &Context) -> Result<()> {
    hears_who_the_client_is(context, &Server::haproxy(context.directory())?)
}

/// Where a backend has all the connections that it may have and they are idle for other clients, one of those is closed
/// and not waited for; also where they are another shard's, and were in use when they were asked for.
fn other_clients_make_room(context: &Context) -> Result<()> {
    let server = Server::nginx(context.directory())?;
    let gateway = context
        .plan()
        .set("TIDEGATE_LIMITS__UPSTREAM_CONNECTIONS_PER_TARGET", "1")
        .up("up")?;
    let deployed = gateway.import(&definition(&server), "test")?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Connection::open(gateway.ready().http)?);
    }
    for _ in 0..50 {
        for client in &mut clients {
            let said = ask(client, &deployed, "/four/v2")?;
            ensure!(said.source == client.local()?, "{said:?}");
        }
    }
    Ok(())
}
