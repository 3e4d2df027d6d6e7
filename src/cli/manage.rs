//! Arguments of the sub-commands that talk to a running control plane.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;

/// `tidegate import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = IMPORT_HELP)]
pub(crate) struct ImportArgs {
    /// The document, JSON or YAML; `-` reads standard input
    pub(crate) file: PathBuf,
    /// Deploy to this stage afterwards; it is created where there is none
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    /// Update this API instead of creating one
    #[arg(long, value_name = "ID")]
    pub(crate) api: Option<String>,
    /// What an update does with definitions that the document lacks: keep or delete them
    #[arg(long, value_enum, requires = "api", default_value_t = ImportMode::Merge)]
    pub(crate) mode: ImportMode,
    /// What becomes of the document's base path
    #[arg(long, value_enum, default_value_t = BasePathMode::Ignore, value_name = "MODE")]
    pub(crate) base_path: BasePathMode,
    /// Change nothing when the import has warnings
    #[arg(long)]
    pub(crate) fail_on_warnings: bool,
    /// How long to wait for the data planes, in milliseconds; 0 does not wait [default: the installation's setting]
    #[arg(long, value_name = "MS")]
    pub(crate) wait_ms: Option<u32>,
}

/// What an update by import does with definitions that the document lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportMode {
    /// Keep them.
    Merge,
    /// Delete them.
    Overwrite,
}

/// What becomes of the document's base path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BasePathMode {
    /// It is not looked at.
    Ignore,
    /// It goes in front of every path.
    Prepend,
    /// Its first segment is dropped, the rest goes in front of every path.
    Split,
}

impl BasePathMode {
    /// The name in the Admin API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Prepend => "prepend",
            Self::Split => "split",
        }
    }
}

/// `tidegate deploy`.
#[derive(Debug, Clone, Args)]
#[command(after_help = DEPLOY_HELP)]
pub(crate) struct DeployArgs {
    /// The API's id
    pub(crate) api: String,
    /// The stage to point to the new deployment; it is created where there is none
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    /// What to remember of this deployment
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A stage variable; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) variables: Vec<(String, String)>,
    /// How long to wait for the data planes, in milliseconds; 0 does not wait [default: the installation's setting]
    #[arg(long, value_name = "MS")]
    pub(crate) wait_ms: Option<u32>,
}

/// `tidegate apply`.
#[derive(Debug, Clone, Args)]
#[command(after_help = APPLY_HELP)]
pub(crate) struct ApplyArgs {
    /// Entities, YAML or JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Delete what lies below this name and is not in the file
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) prune: String,
    /// Check everything, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for the data planes, in milliseconds; 0 does not wait [default: the installation's setting]
    #[arg(long, value_name = "MS")]
    pub(crate) wait_ms: Option<u32>,
}

/// `tidegate diff`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tidegate diff -f api.yaml --exit-code || tidegate apply -f api.yaml")]
pub(crate) struct DiffArgs {
    /// Entities, YAML or JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Exit with 1 where there is a difference
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// `tidegate get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = NAMES_HELP)]
pub(crate) struct GetArgs {
    /// The entity's name
    pub(crate) name: String,
}

/// `tidegate list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = NAMES_HELP)]
pub(crate) struct ListArgs {
    /// The collection's name
    #[arg(default_value = "restApis")]
    pub(crate) parent: String,
    /// At most so many entities [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

/// `tidegate delete`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  tidegate delete restApis/a1b2c3d4e5/stages/prod\n  tidegate delete restApis/a1b2c3d4e5"
)]
pub(crate) struct DeleteArgs {
    /// The entity's name
    pub(crate) name: String,
    /// Only when the entity's last change was this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) expected_revision: Option<u64>,
    /// How long to wait for the data planes, in milliseconds; 0 does not wait [default: the installation's setting]
    #[arg(long, value_name = "MS")]
    pub(crate) wait_ms: Option<u32>,
}

/// `tidegate node …`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum NodeCommand {
    /// Print a join file with a one-time token for a new data plane
    Token(NodeTokenArgs),
    /// Remove a data plane; its certificate is refused from then on
    Remove(NodeRemoveArgs),
}

/// `tidegate node token`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tidegate node token --name edge-1 > join.txt && scp join.txt edge-1:")]
pub(crate) struct NodeTokenArgs {
    /// The new node's name [default: the one it gives itself]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// How long the token is good for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) valid_seconds: u32,
}

/// `tidegate node remove`.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeRemoveArgs {
    /// The node's id, as `tidegate nodes` shows it
    pub(crate) id: String,
}

/// `tidegate principal …`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PrincipalCommand {
    /// Create a principal and print its token, once
    Create(PrincipalCreateArgs),
}

/// `tidegate principal create`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  TIDEGATE_TOKEN=$(tidegate principal create ci --admin -o json | jq -r .token)"
)]
pub(crate) struct PrincipalCreateArgs {
    /// The principal's name
    pub(crate) name: String,
    /// The principal's account, 12 digits [default: the installation's]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub(crate) account: String,
    /// May do everything
    #[arg(long)]
    pub(crate) admin: bool,
}

/// `tidegate bind`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BIND_HELP)]
pub(crate) struct BindArgs {
    /// function, credentials, certificate, link, log-sink, object-store, oidc-issuer or service-endpoint
    #[arg(value_parser = BINDING_KINDS)]
    pub(crate) kind: String,
    /// An ARN, or the beginning of one followed by `*`
    pub(crate) pattern: String,
    /// A URL, a path or a name, as the kind has it
    pub(crate) target: String,
    /// An option of the binding; `NAME=@FILE` reads its value from a file; may be repeated
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) options: Vec<(String, String)>,
}

/// `tidegate explain`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  tidegate explain GET http://127.0.0.1:8080/restapis/a1b2c3d4e5/prod/_user_request_/pets"
)]
pub(crate) struct ExplainArgs {
    /// The request's method
    pub(crate) method: String,
    /// The request's URL
    pub(crate) url: String,
    /// A request header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Ask this node [default: any connected one]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub(crate) node: String,
}

/// `tidegate test-invoke`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  tidegate test-invoke abc123 GET /pets/{petId} --path /pets/7?verbose=1\n  tidegate test-invoke abc123 POST /pets --data '{\"type\":\"dog\"}' --header 'content-type: application/json'\n\nThe call is real: the integration is called. Nothing is counted or logged."
)]
pub(crate) struct TestInvokeArgs {
    /// The API's id
    pub(crate) api: String,
    /// The method to send
    pub(crate) method: String,
    /// The resource: its path as defined, or its id
    pub(crate) resource: String,
    /// Path and query of the request [default: the resource's path as it is defined]
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(crate) path: String,
    /// A header of the request; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// The body: text, or `@FILE`
    #[arg(long, short = 'd', value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// A stage variable; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) variables: Vec<(String, String)>,
    /// The node that runs it, by id or name [default: any]
    #[arg(long, value_name = "NODE", default_value = "", hide_default_value = true)]
    pub(crate) node: String,
}

/// `tidegate wait`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  tidegate wait 0 --timeout 30      the newest revision, for at most 30 seconds"
)]
pub(crate) struct WaitArgs {
    /// The revision; 0 stands for the newest
    pub(crate) revision: u64,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u32,
}

/// `tidegate upgrade`.
#[derive(Debug, Clone, Args)]
#[command(after_help = UPGRADE_HELP)]
pub(crate) struct UpgradeArgs {
    /// How long to wait for what comes of it, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
}

const UPGRADE_HELP: &str = "\
The program at the path that the running one was started by takes over its listening sockets; the old process finishes
what it has and ends. Where the new process does not get ready (limit `upgrade-timeout`) the old one goes on. Run it on
the data plane's machine, as the user that runs Tidegate. Sending SIGUSR2 to the process does the same.

Example:
  mv tidegate-new /usr/local/bin/tidegate && tidegate upgrade --data-dir /var/lib/tidegate";

/// `tidegate backup`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  tidegate backup tidegate-$(date +%F).backup\n\nThe file holds sealed secrets: keep the installation's key file apart from it."
)]
pub(crate) struct BackupArgs {
    /// Where to write; it must not exist yet
    pub(crate) file: PathBuf,
}

/// `tidegate restore`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  tidegate restore tidegate-2026-01-31.backup --key-file secrets.key --data-dir /var/lib/tidegate"
)]
pub(crate) struct RestoreArgs {
    /// A file from `tidegate backup`
    pub(crate) file: PathBuf,
    /// The key file of the installation (secrets.key of its data directory), which a backup does not hold
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

/// `tidegate completions`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected NAME: VALUE".to_owned()),
    }
}

const BINDING_KINDS: [&str; 8] = [
    "function",
    "credentials",
    "certificate",
    "link",
    "log-sink",
    "object-store",
    "oidc-issuer",
    "service-endpoint",
];

const IMPORT_HELP: &str = "\
Prints the API's id, the deployment's id, the invoke URL and what was not understood. Without --stage nothing is
deployed: the API is a draft that no request reaches.

Examples:
  tidegate import petstore.yaml --stage prod
  tidegate import petstore.yaml --stage prod -o json | jq -r .invokeUrl
  tidegate import petstore.yaml --api a1b2c3d4e5 --mode overwrite --stage prod";

const DEPLOY_HELP: &str = "\
Examples:
  tidegate deploy a1b2c3d4e5 --stage prod --description 'adds /orders'
  tidegate deploy a1b2c3d4e5 --stage blue --variable backend=blue.internal";

const APPLY_HELP: &str = "\
A file holds one entity a YAML document (or a list of them): its name, and its members under the entity's kind. With
`key` the entity is found again under a name of your own, and `name` is the collection.

  name: restApis/a1b2c3d4e5/stages/prod
  stage:
    methodSettings:
      '*/*': { throttlingRateLimit: 100, throttlingBurstLimit: 50 }
  ---
  key: shop
  name: restApis
  restApi: { name: Shop, description: The shop's API }

Examples:
  tidegate apply -f prod.yaml --dry-run
  tidegate apply -f prod.yaml";

const NAMES_HELP: &str = "\
Names:
  restApis/{id}                  restApis/{id}/resources/{id}/methods/{verb}
  restApis/{id}/stages/{name}    restApis/{id}/deployments/{id}       restApis/{id}/models/{name}
  usagePlans/{id}                domainNames/{name}                   bindings/{id}
  principals/{id}                certificates/{id}                    account

Examples:
  tidegate list
  tidegate list restApis/a1b2c3d4e5/stages
  tidegate get restApis/a1b2c3d4e5/stages/prod -o json";

const BIND_HELP: &str = "\
Examples:
  tidegate bind log-sink 'arn:aws:logs:us-east-1:000000000000:log-group:prod*' /var/log/tidegate/prod.log
  tidegate bind function 'arn:aws:lambda:*' http://lambda.internal:9001
  tidegate bind service-endpoint 's3.*' http://127.0.0.1:9000
  tidegate bind credentials arn:aws:iam::000000000000:role/invoker AKIAEXAMPLE --option secret-access-key=@secret.txt";
