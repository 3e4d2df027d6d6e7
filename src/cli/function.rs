//! Arguments of `tidegate function` and `tidegate worker`.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{Args, Subcommand};

/// `tidegate function …`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum FunctionCommand {
    /// Say how a Lambda function is invoked on this installation
    Put(FunctionPutArgs),
    /// List the functions of this installation
    List,
    /// Take a function away; methods that call it answer 500 from then on
    Delete(FunctionDeleteArgs),
}

/// `tidegate function put`.
#[derive(Debug, Clone, Args)]
#[command(after_help = PUT_HELP, group(clap::ArgGroup::new("how").required(true)))]
pub(crate) struct FunctionPutArgs {
    /// The function's name, its ARN, or the beginning of one followed by `*`
    pub(crate) name: String,
    /// Workers ask for invocations, as in the Lambda runtime; `tidegate worker` starts them
    #[arg(long, group = "how")]
    pub(crate) runtime: bool,
    /// Where the data planes listen for workers [default: 127.0.0.1 and a port of its own, from 26000 on]
    #[arg(long, value_name = "ADDR:PORT", requires = "runtime", conflicts_with_all = ["url", "invoke"])]
    pub(crate) listen: Option<SocketAddr>,
    /// Workers open a connection for every call, as shell scripts with curl do
    #[arg(long, requires = "runtime", conflicts_with_all = ["url", "invoke"])]
    pub(crate) separate_connections: bool,
    /// A URL that takes the event by POST and answers the result
    #[arg(long, value_name = "URL", group = "how")]
    pub(crate) url: Option<String>,
    /// An endpoint that speaks the Lambda Invoke API
    #[arg(long, value_name = "URL", group = "how")]
    pub(crate) invoke: Option<String>,
    /// The credentials that sign calls of --invoke, as bound by `tidegate bind credentials`
    #[arg(long, value_name = "NAME", requires = "invoke", conflicts_with_all = ["runtime", "url"])]
    pub(crate) credentials: Option<String>,
    /// A method that may call it, as an ARN with `*` and `?`; may be repeated [default: any]
    #[arg(long, value_name = "ARN")]
    pub(crate) allow: Vec<String>,
    /// How long an invocation may take, in milliseconds [default: the limit `function-timeout`]
    #[arg(long, value_name = "MS", requires = "runtime", conflicts_with_all = ["url", "invoke"])]
    pub(crate) timeout_ms: Option<u32>,
}

/// `tidegate function delete`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tidegate function delete hello")]
pub(crate) struct FunctionDeleteArgs {
    /// The function's name, its ARN, or the beginning of one, as it was put
    pub(crate) name: String,
}

/// `tidegate worker`.
#[derive(Debug, Clone, Args)]
#[command(after_help = WORKER_HELP)]
pub(crate) struct WorkerArgs {
    /// The function, put with --runtime
    pub(crate) name: String,
    /// How many copies of the command run, each serving one invocation at a time
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
    /// The handler, for commands that read it from _HANDLER
    #[arg(long, value_name = "NAME")]
    pub(crate) handler: Option<String>,
    /// The memory that the function is told it has, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub(crate) memory: u32,
    /// Where the function's listener is, where no Admin API is asked for it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) runtime_api: Option<SocketAddr>,
    /// The command of one worker
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

const PUT_HELP: &str = "\
Examples:
  tidegate function put hello --runtime && tidegate worker hello -n 4 -- python3 -m awslambdaric app.handler
  tidegate function put hello --url http://127.0.0.1:9000/hello
  tidegate function put 'arn:aws:lambda:us-east-1:*' --invoke https://lambda.internal:9001 --credentials invoker";

const WORKER_HELP: &str = "\
The command is any client of the Lambda Runtime API: it finds AWS_LAMBDA_RUNTIME_API and the rest of the runtime's
environment set. A copy that ends is started again; a signal ends all.

Examples:
  tidegate worker hello -n 50 -- python3 -m awslambdaric app.handler
  tidegate worker hello --handler app.handler -- ./bootstrap";
