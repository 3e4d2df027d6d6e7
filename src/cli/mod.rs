//! The command line: every sub-command with its arguments and the help that teaches it.

mod function;
mod manage;
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use function::{FunctionCommand, FunctionDeleteArgs, FunctionPutArgs, WorkerArgs};
pub(crate) use manage::{
    ApplyArgs, BackupArgs, BasePathMode, BindArgs, CompletionsArgs, DeleteArgs, DeployArgs, DiffArgs,
    ExplainArgs, GetArgs, ImportArgs, ImportMode, ListArgs, NodeCommand, NodeRemoveArgs, NodeTokenArgs,
    PrincipalCommand, PrincipalCreateArgs, RestoreArgs, TestInvokeArgs, UpgradeArgs, WaitArgs,
};
pub(crate) use serve::{
    ControlListenArgs, ControlPlaneArgs, DataPlaneArgs, DemoArgs, DemoBackendArgs, IoDriver, TrafficArgs,
    UpArgs,
};

/// Everything Amazon API Gateway does, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, max_term_width = 110)]
#[command(about, long_about = None, after_help = TOP_HELP, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Options that every sub-command takes.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every sub-command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The configuration file (TOML) [default: ./tidegate.toml, else /etc/tidegate/tidegate.toml, where one exists]
    #[arg(long, global = true, value_name = "FILE", env = "TIDEGATE_CONFIG_FILE")]
    pub(crate) config_file: Option<PathBuf>,
    /// Where the installation keeps its state; every command finds the running instance here
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The Admin API to talk to, instead of the instance of the data directory
    #[arg(long, global = true, value_name = "URL", env = "TIDEGATE_SERVER")]
    pub(crate) server: Option<String>,
    /// The token to show to the Admin API
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "TIDEGATE_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// The authority (PEM) that signed a remote Admin API's certificate [default: the system's authorities]
    #[arg(long, global = true, value_name = "FILE", env = "TIDEGATE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How to print: a table for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
    /// How the program's own log looks on standard error
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// What the program logs: a level, or `target=level` pairs [default: info for planes, warn otherwise]
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Tables, for people.
    #[default]
    Table,
    /// JSON, for programs.
    Json,
}

/// How the program's own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The name under which the option takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run both planes on this machine, supervised
    Up(Box<UpArgs>),
    /// Run both planes with a sample API and backend, and print what to try
    Demo(Box<DemoArgs>),
    /// Run the control plane alone
    #[command(name = "controlplane")]
    ControlPlane(Box<ControlPlaneArgs>),
    /// Run a data plane alone
    #[command(name = "dataplane")]
    DataPlane(Box<DataPlaneArgs>),
    /// Create or update an API from an OpenAPI 3.0 or Swagger 2.0 document
    Import(ImportArgs),
    /// Freeze an API's draft into a deployment and point a stage to it
    Deploy(DeployArgs),
    /// Create or change entities from a file
    Apply(ApplyArgs),
    /// Show what `apply` would change
    Diff(DiffArgs),
    /// Show one entity
    Get(GetArgs),
    /// List the entities of a collection
    List(ListArgs),
    /// Delete an entity and what lies below it
    Delete(DeleteArgs),
    /// Show the data planes and how far each has come
    Nodes,
    /// Admit or remove a data plane
    #[command(subcommand)]
    Node(NodeCommand),
    /// Manage who may manage
    #[command(subcommand)]
    Principal(PrincipalCommand),
    /// Say where a cloud name leads on this installation
    Bind(BindArgs),
    /// Say how Lambda functions are invoked
    #[command(subcommand)]
    Function(FunctionCommand),
    /// Run workers of a function, in the environment of the Lambda runtime
    Worker(Box<WorkerArgs>),
    /// Print the certificate of the installation's own authority
    Ca,
    /// Show which phases a request would pass, and what each decides
    Explain(ExplainArgs),
    /// Run a method of an API's draft, deployed or not, and print the answer and its execution log
    #[command(name = "test-invoke")]
    TestInvoke(TestInvokeArgs),
    /// Wait until every connected data plane runs a revision
    Wait(WaitArgs),
    /// Copy the store of a running installation to a file
    Backup(BackupArgs),
    /// Put a backup into an empty data directory
    Restore(RestoreArgs),
    /// Have a new data plane process take over from the running one, without a connection lost
    Upgrade(UpgradeArgs),
    /// Print the table of limits and time-outs with their defaults
    Limits,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Serve the sample pet store (what `demo` starts as a backend)
    #[command(name = "demo-backend", hide = true)]
    DemoBackend(DemoBackendArgs),
}

const TOP_HELP: &str = "\
Examples:
  tidegate demo                                  look around: a running sample API, and what to try with it
  tidegate up                                    run an installation on this machine
  tidegate import petstore.yaml --stage prod     an OpenAPI file becomes a callable API
  tidegate list restApis                         which APIs are there
  tidegate explain GET http://127.0.0.1:8080/…   why a request is answered as it is

Settings come from a TOML file, overridden by TIDEGATE_* in the environment (TIDEGATE_HTTP=127.0.0.1:8000),
overridden by flags. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    /// clap's own consistency check over every sub-command.
    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_fixed_name_parses() {
        for line in [
            "tidegate up --data-dir d --http 127.0.0.1:0 --https 127.0.0.1:0 --admin 127.0.0.1:0 --management 127.0.0.1:0 \
             --metrics 127.0.0.1:0 --shards 2 --io-driver epoll --ready-file r",
            "tidegate controlplane --data-dir d --admin 127.0.0.1:0 --management 127.0.0.1:0 --config 127.0.0.1:0 --ready-file r",
            "tidegate dataplane --control 127.0.0.1:1 --join f --data-dir d --http 127.0.0.1:0 --https 127.0.0.1:0 \
             --metrics 127.0.0.1:0 --shards 1 --io-driver uring --ready-file r",
            "tidegate demo",
            "tidegate import FILE --stage S -o json",
            "tidegate import FILE --api abc --mode merge --data-dir d",
            "tidegate deploy abc --stage prod",
            "tidegate apply -f x.yaml",
            "tidegate diff -f x.yaml",
            "tidegate get restApis/abc",
            "tidegate list restApis",
            "tidegate delete restApis/abc",
            "tidegate nodes",
            "tidegate node token",
            "tidegate principal create ops",
            "tidegate bind function arn:aws:lambda:us-east-1:000000000000:function:f http://127.0.0.1:9/",
            "tidegate function put hello --runtime --listen 127.0.0.1:26000",
            "tidegate function put hello --url http://127.0.0.1:9/ --allow a --allow b",
            "tidegate function put hello --invoke http://127.0.0.1:9/ --credentials c",
            "tidegate function list",
            "tidegate function delete hello",
            "tidegate worker hello -n 50 --handler a.b -- python3 -m awslambdaric a.b",
            "tidegate ca",
            "tidegate explain GET http://localhost/x",
            "tidegate test-invoke abc GET /pets/{id} --path /pets/1?a=b --header a:b --data @f --variable v=1",
            "tidegate wait 12",
            "tidegate backup b.tgb",
            "tidegate restore b.tgb",
            "tidegate upgrade --timeout 10 --data-dir d",
            "tidegate dataplane --take-over --data-dir d",
            "tidegate completions bash",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        for line in [
            "tidegate",
            "tidegate fly",
            "tidegate import",
            "tidegate import f --mode replace",
            "tidegate up --shards 0",
            "tidegate function put hello",
            "tidegate function put hello --runtime --url http://h",
            "tidegate function put hello --url http://h --credentials c",
            "tidegate worker hello -n 5",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn misspelt_names_get_a_suggestion() {
        let text = parse("tidegate deplyo").expect_err("no such command").to_string();
        assert!(text.contains("deploy"), "{text}");
    }
}
