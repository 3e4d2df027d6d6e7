//! `worker`: copies of a command that serve a function, in the environment of the Lambda runtime.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::function;
use crate::cli::{GlobalArgs, WorkerArgs};
use crate::client::Client;

/// `tidegate worker`.
pub(crate) async fn run(global: &GlobalArgs, args: &WorkerArgs) -> anyhow::Result<()> {
    let address = match args.runtime_api {
        Some(address) => address.to_string(),
        None => function::runtime_api(&mut Client::connect(global).await?, &args.name).await?,
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for signals")?;
    let (stop, stopped) = watch::channel(false);
    let mut copies = JoinSet::new();
    for number in 1..=args.count {
        let copy = Copy {
            prefix: format!("[{} {number}] ", short_name(&args.name)),
            command: args.command.clone(),
            environment: environment(args, &address, number),
        };
        copies.spawn(copy.keep(stopped.clone()));
    }
    drop(stopped);
    eprintln!(
        "{} worker(s) of {} ask {address} for invocations; stop with Ctrl-C",
        args.count, args.name
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send_replace(true);
    while copies.join_next().await.is_some() {}
    Ok(())
}

/// One copy of the command.
struct Copy {
    prefix: String,
    command: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
}

impl Copy {
    /// Runs the command, again whenever it ends, until all are stopped.
    async fn keep(self, mut stopped: watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            match self.start() {
                Ok(mut child) => {
                    let outputs = self.forward(&mut child);
                    let ended = tokio::select! {
                        status = child.wait() => status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                        () = told(&mut stopped) => {
                            end(child).await;
                            outputs.join_all().await;
                            return;
                        }
                    };
                    outputs.join_all().await;
                    eprintln!("{}ended: {ended}", self.prefix);
                }
                Err(error) => eprintln!("{}{error:#}", self.prefix),
            }
            if begun.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stopped) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn start(&self) -> anyhow::Result<Child> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        Command::new(program)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Where this program ends for another reason than a signal.
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))
    }

    /// Passes on what the command says, each line with who said it.
    fn forward(&self, child: &mut Child) -> JoinSet<()> {
        let mut outputs = JoinSet::new();
        if let Some(output) = child.stdout.take() {
            outputs.spawn(lines(output, self.prefix.clone(), |text| print!("{text}")));
        }
        if let Some(output) = child.stderr.take() {
            outputs.spawn(lines(output, self.prefix.clone(), |text| eprint!("{text}")));
        }
        outputs
    }
}

/// Says whole lines, so that copies do not cut into each other's; one that is too long in pieces.
async fn lines(output: impl AsyncRead + Unpin, prefix: String, say: impl Fn(&str)) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        // Ends with the line, with the room or with the output.
        let read = (&mut output).take(LINE_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        say(&format!("{prefix}{}\n", text.trim_end_matches(['\r', '\n'])));
        line.clear();
    }
}

/// Returns when all are to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error says that nobody can tell any more.
    drop(stopped.wait_for(|stop| *stop).await);
}

/// Ends a child by signal, by force where that does not help.
async fn end(mut child: Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// The Lambda guide's "Working with Lambda environment variables", as far as they mean something here.
fn environment(args: &WorkerArgs, address: &str, number: u16) -> Vec<(&'static str, String)> {
    let name = short_name(&args.name).to_owned();
    let region = args
        .name
        .strip_prefix("arn:")
        .and_then(|arn| arn.split(':').nth(2))
        .unwrap_or("us-east-1");
    let mut all = vec![
        ("AWS_LAMBDA_RUNTIME_API", address.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", args.memory.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        (
            "AWS_LAMBDA_LOG_STREAM_NAME",
            format!("{}-{number}", std::process::id()),
        ),
        ("AWS_LAMBDA_FUNCTION_NAME", name),
        ("TZ", ":UTC".to_owned()),
    ];
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        // What the operator has set is meant.
        if std::env::var_os(variable).is_none() {
            all.push((variable, region.to_owned()));
        }
    }
    if std::env::var_os("LAMBDA_TASK_ROOT").is_none()
        && let Ok(here) = std::env::current_dir()
    {
        all.push(("LAMBDA_TASK_ROOT", here.display().to_string()));
    }
    if let Some(handler) = &args.handler {
        all.push(("_HANDLER", handler.clone()));
    }
    all
}

/// A function's name, out of its ARN.
fn short_name(name: &str) -> &str {
    match name.strip_prefix("arn:") {
        Some(arn) => arn.split(':').nth(5).unwrap_or(name),
        None => name.split(':').next().unwrap_or(name),
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A copy that ran for so long has started well.
const STEADY: Duration = Duration::from_secs(10);
/// For a copy to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);
/// A longer line is passed on in pieces.
const LINE_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn args(name: &str) -> WorkerArgs {
        WorkerArgs {
            name: name.into(),
            count: 1,
            handler: Some("app.handler".into()),
            memory: 256,
            runtime_api: None,
            command: vec!["true".into()],
        }
    }

    #[test]
    fn the_environment_is_the_runtimes() {
        for name in [
            "hello",
            "hello:prod",
            "arn:aws:lambda:eu-west-1:000000000000:function:hello:prod",
        ] {
            let all = environment(&args(name), "127.0.0.1:26000", 3);
            let of = |variable| {
                all.iter()
                    .find(|(name, _)| *name == variable)
                    .map(|(_, value)| value.as_str())
            };
            assert_eq!(of("AWS_LAMBDA_RUNTIME_API"), Some("127.0.0.1:26000"));
            assert_eq!(of("AWS_LAMBDA_FUNCTION_NAME"), Some("hello"), "{name}");
            assert_eq!(of("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), Some("256"));
            assert_eq!(of("AWS_LAMBDA_LOG_GROUP_NAME"), Some("/aws/lambda/hello"));
            assert_eq!(of("_HANDLER"), Some("app.handler"));
        }
    }

    #[tokio::test]
    async fn lines_say_who_said_them() {
        use tokio::io::AsyncWriteExt as _;
        const LENGTH: usize = LINE_MAX as usize;
        let said = std::sync::Mutex::new(Vec::new());
        let (mut writer, output) = tokio::io::duplex(2 * LENGTH);
        let speak = async move {
            // A line may come in pieces.
            for piece in ["one", "\n", "two\r\n", &"x".repeat(LENGTH + 1)] {
                writer.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let hear = lines(output, "[f 1] ".into(), |text| {
            said.lock().unwrap().push(text.to_owned())
        });
        tokio::join!(speak, hear);
        let said = said.into_inner().unwrap();
        let long = "x".repeat(LENGTH);
        assert_eq!(
            said,
            ["one", "two", &long, "x"].map(|text| format!("[f 1] {text}\n"))
        );
    }
}
