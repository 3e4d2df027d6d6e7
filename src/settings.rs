//! The settings of a process: defaults, one TOML file, the environment, flags; each overrides what stands before it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use figment::{
    Figment, Provider,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use tidegate_dataplane::net::proxy_protocol::Required;
use tidegate_plan::{Limits, limits::Mode};

use crate::cli::{
    ControlListenArgs, ControlPlaneArgs, DataPlaneArgs, GlobalArgs, IoDriver, LogFormat, TrafficArgs, UpArgs,
};

/// Everything that can be set, under the names that the file, the environment and the flags use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// Where the installation keeps its state.
    pub(crate) data_dir: PathBuf,
    /// Plain HTTP listener.
    pub(crate) http: SocketAddr,
    /// HTTPS listener.
    pub(crate) https: SocketAddr,
    /// Listener of /metrics, /healthz and /readyz.
    pub(crate) metrics: SocketAddr,
    /// Admin API listener.
    pub(crate) admin: SocketAddr,
    /// AWS management API listener.
    pub(crate) management: SocketAddr,
    /// Listener for data planes; absent: what the sub-command prefers.
    pub(crate) config: Option<SocketAddr>,
    /// Threads that serve traffic; absent: the cores that the process may use.
    pub(crate) shards: Option<NonZeroU16>,
    /// How shards do I/O.
    pub(crate) io_driver: IoDriver,
    /// Listeners that require the PROXY protocol, `http` and `https`.
    pub(crate) proxy_protocol: Vec<String>,
    /// Networks from which they take it.
    pub(crate) proxy_protocol_from: Vec<String>,
    /// Written when everything serves.
    pub(crate) ready_file: Option<PathBuf>,
    /// The control plane that a data plane connects to.
    pub(crate) control: Option<String>,
    /// The join file of a data plane.
    pub(crate) join: Option<PathBuf>,
    /// What a data plane calls itself; absent: the machine's host name.
    pub(crate) node_name: Option<String>,
    /// Labels of a data plane, which node selectors match.
    pub(crate) labels: BTreeMap<String, String>,
    /// The configuration address as data planes reach it, where that differs from what it listens on.
    pub(crate) control_address: Option<String>,
    /// Names and addresses of this machine, for certificates of the Admin API and the configuration address.
    pub(crate) server_names: Vec<String>,
    /// Log filter.
    pub(crate) log: Option<String>,
    /// Log form, `text` or `json`; absent: text.
    pub(crate) log_format: Option<String>,
    /// Account of everything that no principal's account says otherwise for; 12 digits.
    pub(crate) account_id: String,
    /// Region of the same.
    pub(crate) region: String,
    /// `{api}.execute-api.{suffix}` is answered.
    pub(crate) domain_suffix: String,
    /// Plain HTTP connections may begin with HTTP/2.
    pub(crate) http2_prior_knowledge: bool,
    /// Addresses from which backends are connected to, one a family at most.
    pub(crate) upstream_source: Vec<IpAddr>,
    /// Limits and time-outs by the names that `tidegate limits` prints.
    pub(crate) limits: BTreeMap<String, toml::Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: default_data_dir(),
            http: loopback(8080),
            https: SocketAddr::from(([0, 0, 0, 0], 8443)),
            metrics: loopback(9183),
            admin: loopback(9180),
            management: loopback(9181),
            config: None,
            shards: None,
            io_driver: IoDriver::Auto,
            proxy_protocol: Vec::new(),
            proxy_protocol_from: Vec::new(),
            ready_file: None,
            control: None,
            join: None,
            node_name: None,
            labels: BTreeMap::new(),
            control_address: None,
            server_names: Vec::new(),
            log: None,
            log_format: None,
            account_id: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            domain_suffix: "localhost".to_owned(),
            http2_prior_knowledge: false,
            upstream_source: Vec::new(),
            limits: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads the file that `global` names (or a default one where it exists) and the environment, and lays the flags
    /// over them. Unknown keys of the file are refused with the nearest known name.
    pub(crate) fn load(global: &GlobalArgs, flags: Flags) -> anyhow::Result<Self> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = configuration_file(global)? {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            check_keys(&text, &file)?;
            figment = figment.merge(Toml::string(&text));
        }
        figment = figment.merge(environment());
        let mut flags = flags;
        flags.data_dir = global.data_dir.clone();
        flags.log = global.log.clone();
        flags.log_format = global.log_format.map(LogFormat::name);
        let settings: Self = figment
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(describe)?;
        settings.check()?;
        Ok(settings)
    }

    /// The table of limits with what is set. `mode` is `service` or `hardware` (D15).
    pub(crate) fn limits(&self) -> anyhow::Result<Limits> {
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mode = match self.limits.get("mode").map(text).as_deref() {
            None | Some("hardware") => Mode::Hardware,
            Some("service") => Mode::Service,
            Some(other) => bail!("limits: mode is `{other}`; it takes `service` or `hardware`"),
        };
        let mut limits = Limits::new(mode);
        for (name, value) in self.limits.iter().filter(|(name, _)| *name != "mode") {
            limits.set(name, &text(value))?;
        }
        Ok(limits)
    }

    /// Which listeners require the PROXY protocol, and from whom.
    pub(crate) fn proxied(&self) -> anyhow::Result<Required> {
        let mut required = Required::default();
        for listener in &self.proxy_protocol {
            match listener.as_str() {
                "http" => required.http = true,
                "https" => required.https = true,
                other => bail!("proxy-protocol names `{other}`; it takes `http` and `https`"),
            }
        }
        for network in &self.proxy_protocol_from {
            required
                .from
                .push(network.parse().context("proxy-protocol-from")?);
        }
        if (required.http || required.https) == required.from.is_empty() {
            bail!(
                "proxy-protocol (listeners that require it) and proxy-protocol-from (networks that it is taken from) are set \
                 together: a client could name any address otherwise"
            );
        }
        Ok(required)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.limits()?;
        self.proxied()?;
        if self.account_id.len() != 12 || !self.account_id.bytes().all(|b| b.is_ascii_digit()) {
            bail!(
                "account-id is `{}`; an account has exactly 12 digits",
                self.account_id
            );
        }
        for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
            if self
                .upstream_source
                .iter()
                .filter(|source| family(source))
                .count()
                > 1
            {
                bail!("upstream-source has two addresses of one family; it takes one of each at most");
            }
        }
        if let Some(format) = &self.log_format
            && !matches!(format.as_str(), "text" | "json")
        {
            bail!("log-format is `{format}`; it takes `text` or `json`");
        }
        Ok(())
    }
}

/// What flags said; absent where there was none.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    https: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    management: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<NonZeroU16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io_driver: Option<IoDriver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<&'static str>,
}

impl Flags {
    fn with_traffic(mut self, traffic: &TrafficArgs) -> Self {
        self.http = traffic.http;
        self.https = traffic.https;
        self.metrics = traffic.metrics;
        self.shards = traffic.shards;
        self.io_driver = traffic.io_driver;
        self
    }

    fn with_control(mut self, control: &ControlListenArgs) -> Self {
        self.admin = control.admin;
        self.management = control.management;
        self.config = control.config;
        self
    }
}

impl From<&UpArgs> for Flags {
    fn from(args: &UpArgs) -> Self {
        Self {
            ready_file: args.ready_file.clone(),
            ..Self::default()
        }
        .with_traffic(&args.traffic)
        .with_control(&args.control)
    }
}

impl From<&ControlPlaneArgs> for Flags {
    fn from(args: &ControlPlaneArgs) -> Self {
        Self {
            ready_file: args.ready_file.clone(),
            ..Self::default()
        }
        .with_control(&args.listen)
    }
}

impl From<&DataPlaneArgs> for Flags {
    fn from(args: &DataPlaneArgs) -> Self {
        Self {
            ready_file: args.ready_file.clone(),
            control: args.control.clone(),
            join: args.join.clone(),
            ..Self::default()
        }
        .with_traffic(&args.traffic)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The system's directory for root, the user's own for everyone else.
fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/tidegate");
    }
    let user = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
    user.map_or_else(|| PathBuf::from("tidegate-data"), |dir| dir.join("tidegate"))
}

fn configuration_file(global: &GlobalArgs) -> anyhow::Result<Option<PathBuf>> {
    if let Some(file) = &global.config_file {
        if !file.is_file() {
            bail!("the configuration file {} does not exist", file.display());
        }
        return Ok(Some(file.clone()));
    }
    Ok(DEFAULT_FILES
        .iter()
        .map(PathBuf::from)
        .find(|file| file.is_file()))
}

/// `TIDEGATE_HTTP`, `TIDEGATE_DATA_DIR`, `TIDEGATE_LIMITS__BODY_IDLE_TIMEOUT`: two underscores go one table deeper.
/// A variable that is no setting is left alone: the environment is not ours alone.
fn environment() -> impl Provider {
    Env::prefixed("TIDEGATE_")
        .map(|key| {
            key.as_str()
                .to_ascii_lowercase()
                .replace("__", ".")
                .replace('_', "-")
                .into()
        })
        .filter(|key| {
            let top = key.as_str().split('.').next().unwrap_or_default();
            KEYS.contains(&top)
        })
}

fn check_keys(text: &str, file: &Path) -> anyhow::Result<()> {
    let table: toml::Table =
        toml::from_str(text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    for key in table.keys() {
        if !KEYS.contains(&key.as_str()) {
            let hint = nearest(key, KEYS).map_or_else(
                || format!("known settings: {}", KEYS.join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            bail!("{}: unknown setting `{key}`; {hint}", file.display());
        }
    }
    Ok(())
}

/// The known name that is most like `name`, when one is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&name.replace('_', "-"), candidate),
                *candidate,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// figment's errors, with where the value came from.
fn describe(error: figment::Error) -> anyhow::Error {
    let lines: Vec<String> = error.into_iter().map(|one| one.to_string()).collect();
    anyhow::anyhow!("{}", lines.join("; "))
}

const DEFAULT_FILES: [&str; 2] = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];

/// The settings' names.
const KEYS: &[&str] = &[
    "data-dir",
    "http",
    "https",
    "metrics",
    "admin",
    "management",
    "config",
    "shards",
    "io-driver",
    "proxy-protocol",
    "proxy-protocol-from",
    "ready-file",
    "control",
    "join",
    "node-name",
    "labels",
    "control-address",
    "server-names",
    "log",
    "log-format",
    "account-id",
    "region",
    "domain-suffix",
    "http2-prior-knowledge",
    "upstream-source",
    "limits",
];

#[cfg(test)]
mod tests {
    use figment::Jail;
    use tidegate_plan::Limit;

    use super::*;

    #[expect(clippy::result_large_err, reason = "the type of figment's own closure")]
    fn in_jail(test: impl FnOnce(&mut Jail) -> anyhow::Result<()>) {
        Jail::expect_with(|jail| {
            jail.clear_env();
            test(jail).map_err(|error| format!("{error:#}").into())
        });
    }

    fn global(file: &str) -> GlobalArgs {
        GlobalArgs {
            config_file: Some(file.into()),
            ..GlobalArgs::default()
        }
    }

    #[test]
    fn names_are_the_settings() {
        let value = serde_json::to_value(Settings::default()).expect("settings serialise");
        let mut names: Vec<_> = value
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        let mut known = KEYS.to_vec();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        in_jail(|jail| {
            jail.create_file(
                "t.toml",
                "http = '127.0.0.1:1'\nhttps = '127.0.0.1:1'\nmetrics = '127.0.0.1:1'\n",
            )?;
            jail.set_env("TIDEGATE_HTTPS", "127.0.0.1:2");
            jail.set_env("TIDEGATE_METRICS", "127.0.0.1:2");
            jail.set_env("TIDEGATE_IO_DRIVER", "epoll");
            jail.set_env("TIDEGATE_UNRELATED", "x");
            let flags = Flags {
                metrics: Some(loopback(3)),
                ..Flags::default()
            };
            let settings = Settings::load(&global("t.toml"), flags)?;
            assert_eq!(settings.http, loopback(1));
            assert_eq!(settings.https, loopback(2));
            assert_eq!(settings.metrics, loopback(3));
            assert_eq!(settings.admin, loopback(9180));
            assert_eq!(settings.io_driver, IoDriver::Epoll);
            Ok(())
        });
    }

    #[test]
    fn limits_layer_by_name() {
        in_jail(|jail| {
            jail.create_file(
                "t.toml",
                "[limits]\nbody-idle-timeout = '10s'\nconnect-timeout = 2000\n",
            )?;
            jail.set_env("TIDEGATE_LIMITS__CONNECT_TIMEOUT", "5s");
            let limits = Settings::load(&global("t.toml"), Flags::default())?.limits()?;
            assert_eq!(limits.get(Limit::BodyIdleTimeout), 10_000);
            assert_eq!(limits.get(Limit::ConnectTimeout), 5_000);
            Ok(())
        });
    }

    #[test]
    fn unknown_limits_are_refused_with_a_suggestion() {
        in_jail(|jail| {
            jail.create_file("t.toml", "[limits]\nbody-idle-timeuot = '10s'\n")?;
            let error = Settings::load(&global("t.toml"), Flags::default()).expect_err("unknown");
            assert!(error.to_string().contains("body-idle-timeout"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_name() {
        in_jail(|jail| {
            jail.create_file("t.toml", "data_dir = 'x'\n")?;
            let error = Settings::load(&global("t.toml"), Flags::default()).expect_err("unknown key");
            assert!(error.to_string().contains("did you mean `data-dir`?"), "{error}");
            Ok(())
        });
    }

    /// D18: nobody is believed by default, and nobody is meant to be believed on no listener.
    #[test]
    fn the_proxy_protocol_needs_listeners_and_networks() {
        in_jail(|jail| {
            for (text, good) in [
                ("", true),
                (
                    "proxy-protocol = ['https']\nproxy-protocol-from = ['10.0.0.0/8', '::1']\n",
                    true,
                ),
                ("proxy-protocol = ['https']\n", false),
                ("proxy-protocol-from = ['10.0.0.0/8']\n", false),
                (
                    "proxy-protocol = ['metrics']\nproxy-protocol-from = ['10.0.0.0/8']\n",
                    false,
                ),
                (
                    "proxy-protocol = ['http']\nproxy-protocol-from = ['10.0.0.0/33']\n",
                    false,
                ),
            ] {
                jail.create_file("t.toml", text)?;
                let loaded = Settings::load(&global("t.toml"), Flags::default());
                assert_eq!(loaded.is_ok(), good, "{text}");
            }
            jail.create_file("t.toml", "")?;
            jail.set_env("TIDEGATE_PROXY_PROTOCOL", "[http]");
            jail.set_env("TIDEGATE_PROXY_PROTOCOL_FROM", "[\"127.0.0.0/8\"]");
            assert!(
                Settings::load(&global("t.toml"), Flags::default())?
                    .proxied()?
                    .http
            );
            Ok(())
        });
    }

    #[test]
    fn backends_are_connected_to_from_one_address_a_family() {
        in_jail(|jail| {
            for (text, good) in [
                ("upstream-source = ['10.0.0.1']\n", true),
                ("upstream-source = ['10.0.0.1', '2001:db8::1']\n", true),
                ("upstream-source = ['10.0.0.1', '10.0.0.2']\n", false),
                ("upstream-source = ['eth0']\n", false),
            ] {
                jail.create_file("t.toml", text)?;
                assert_eq!(
                    Settings::load(&global("t.toml"), Flags::default()).is_ok(),
                    good,
                    "{text}"
                );
            }
            Ok(())
        });
    }

    #[test]
    fn broken_files_name_the_line() {
        in_jail(|jail| {
            jail.create_file("t.toml", "http = '127.0.0.1:1'\nhttps = \n")?;
            let error = Settings::load(&global("t.toml"), Flags::default()).expect_err("bad syntax");
            assert!(error.to_string().contains("line 2"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_wrong_value_names_the_key_and_its_source() {
        in_jail(|jail| {
            jail.create_file("t.toml", "")?;
            jail.set_env("TIDEGATE_HTTP", "somewhere");
            let error = Settings::load(&global("t.toml"), Flags::default()).expect_err("bad address");
            let text = error.to_string().to_ascii_lowercase();
            assert!(text.contains("http") && text.contains("tidegate_"), "{error}");
            Ok(())
        });
    }
}
