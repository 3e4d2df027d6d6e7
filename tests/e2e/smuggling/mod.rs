//! Where a request ends: what Tidegate lets through, nginx, HAProxy, Node and Python understand as one request with one
//! end, and what it does not let through reaches none of them (RFC 9112 sections 6 and 11.2, D12). The same the other way:
//! a backend's bytes never become two answers.
//!
//! The cases stand in tables. Behind each of them the same connection carries a canary, a request that nothing is wrong
//! with: it must arrive as itself, or not at all where the case ends the connection.

mod backends;
mod table;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use tidegate_harness::definition::Definition;
use tidegate_harness::http2::{Ended, Http2, flag, frame, headers, kind};
use tidegate_harness::instance::Deployed;
use tidegate_harness::raw::{Connection, Response};
use tidegate_harness::suite::{Context, Shared, Test};

use backends::{Backends, NAMES};
use table::Case;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::both_drivers(
        "everybody_agrees_where_requests_end",
        everybody_agrees_where_requests_end,
    ),
    Test::both_drivers(
        "everybody_agrees_where_streams_end",
        everybody_agrees_where_streams_end,
    ),
    Test::both_drivers("answers_are_not_split", answers_are_not_split),
];

const REQUESTS: &str = include_str!("requests.txt");
const STREAMS: &str = include_str!("streams.txt");
const ANSWERS: &str = include_str!("answers.txt");

/// What came of a case: nothing, or one request: method, target and body as the backend had them.
type Outcome = Option<[String; 3]>;

/// What the table expects of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected<'t> {
    /// An error of the gateway's or GOAWAY, the connection's end, and nothing at the backend.
    Refused,
    /// The gateway finds out within the body: an error or nothing, the connection's end, no whole request at the backend.
    Cut,
    /// Of a stream: an error, nothing at the backend, and the canary all the same.
    Reset,
    /// One request with this method and length of body, and the canary behind it.
    Passed(&'t str, usize),
    /// One request, and the connection's end.
    Alone(&'t str, usize),
}

impl<'t> Expected<'t> {
    fn of(case: &Case<'t>) -> Result<Self> {
        Ok(match case.expected[..] {
            ["refused"] => Self::Refused,
            ["cut"] => Self::Cut,
            ["reset"] => Self::Reset,
            ["passed", method, length] => Self::Passed(method, length.parse()?),
            ["alone", method, length] => Self::Alone(method, length.parse()?),
            _ => bail!("unknown expectation {:?} of {:?}", case.expected, case.name),
        })
    }

    /// How often the case itself and its canary come to a backend.
    fn counts(self) -> [usize; 2] {
        match self {
            Self::Refused | Self::Cut => [0, 0],
            Self::Reset => [0, 1],
            Self::Passed(..) => [1, 1],
            Self::Alone(..) => [1, 0],
        }
    }

    /// Whether it is what came.
    fn is(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Refused | Self::Cut | Self::Reset, None) => true,
            (Self::Passed(method, length) | Self::Alone(method, length), Some(seen)) => {
                // Bodies come as Latin-1: a character a byte.
                seen[0] == method && seen[2].chars().count() == length
            }
            _ => false,
        }
    }
}

/// An API with a resource for each backend.
struct Field<'c> {
    backends: &'c Backends,
    http: SocketAddr,
    deployed: Deployed,
}

impl<'c> Field<'c> {
    fn new(shared: &Shared, backends: &'c Backends) -> Result<Self> {
        let definition = NAMES
            .iter()
            .enumerate()
            .fold(Definition::new("smuggling"), |all, (at, name)| {
                let uri = format!("http://{}/{{proxy}}", backends.address(at));
                all.proxy("ANY", &format!("/{name}/{{proxy+}}"), &uri)
            });
        Ok(Self {
            backends,
            http: shared.http(),
            deployed: shared.deploy(&definition)?,
        })
    }

    /// Runs all cases against all backends, one thread a backend, and holds against each other what came.
    fn run(
        &self,
        cases: &[Case<'_>],
        one: impl Fn(&Self, usize, usize, &Case<'_>) -> Result<Outcome> + Sync,
    ) -> Result<()> {
        let outcomes: Vec<Vec<Result<Outcome>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..NAMES.len())
                .map(|at| {
                    let one = &one;
                    scope.spawn(move || {
                        let all = cases.iter().enumerate();
                        all.map(|(number, case)| one(self, at, number, case)).collect()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .map_err(|_| anyhow::anyhow!("a backend's thread panicked"))
                })
                .collect::<Result<_>>()
        })?;
        let mut wrong = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let expected = Expected::of(case)?;
            let first = outcomes[0][number].as_ref().ok();
            for (name, all) in NAMES.iter().zip(&outcomes) {
                match &all[number] {
                    Ok(outcome) if !expected.is(outcome) => {
                        wrong.push(format!("{} ({name}): {outcome:?} for {expected:?}", case.name));
                    }
                    Ok(outcome) if first.is_some_and(|first| first != outcome) => {
                        wrong.push(format!("{} ({name}): {outcome:?}, unlike {first:?}", case.name));
                    }
                    Ok(_) => {}
                    Err(error) => wrong.push(format!("{} ({name}): {error:#}", case.name)),
                }
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} went otherwise:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        for (at, name) in NAMES.iter().enumerate() {
            let mut seen = self.backends.seen(at)?;
            for (number, case) in cases.iter().enumerate() {
                let [itself, canary] = Expected::of(case)?.counts();
                for (target, times) in [
                    (format!("/case{number}"), itself),
                    (format!("/canary{number}"), canary),
                ] {
                    let came = seen.remove(&target).unwrap_or_default();
                    ensure!(
                        came == times,
                        "{}: {name} had {came} requests for {target}",
                        case.name
                    );
                }
            }
            ensure!(seen.is_empty(), "{name} had requests that nobody sent: {seen:?}");
        }
        Ok(())
    }

    fn path(&self, at: usize, what: &str, number: usize) -> String {
        self.deployed.path(&format!("/{}/{what}{number}", NAMES[at]))
    }
}

/// RFC 9112, D12, D14: over HTTP/1.1.
fn everybody_agrees_where_requests_end(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backends = Backends::start(context.directory())?;
    let field = Field::new(&shared, &backends)?;
    field.run(&table::cases(REQUESTS)?, |field, at, number, case| {
        let (host, target) = (field.deployed.host(), field.path(at, "case", number));
        let post = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n");
        let words = [("post", &post[..]), ("host", &host), ("target", &target)];
        let mut wire = Vec::new();
        for line in &case.lines {
            wire.extend(table::bytes(line, &words)?);
        }
        let canary = canary(number);
        write!(
            wire,
            "POST {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{canary}",
            field.path(at, "canary", number),
            canary.len()
        )?;
        let mut connection = Connection::open(field.http)?;
        // The gateway may answer and close before it has taken everything.
        let sent = connection.send(wire);
        let expected = Expected::of(case)?;
        if matches!(expected, Expected::Refused | Expected::Cut) {
            let (bytes, _) = connection.drain()?;
            let text = String::from_utf8_lossy(&bytes);
            let is_error = text.starts_with("HTTP/1.1 4")
                || text.starts_with("HTTP/1.1 501 ")
                || text.starts_with("HTTP/1.1 505 ");
            ensure!(
                (is_error && text.matches("HTTP/1.1 ").count() == 1)
                    || (text.is_empty() && expected == Expected::Cut),
                "answered with {text:?}"
            );
            return Ok(None);
        }
        sent?;
        let is_head = matches!(expected, Expected::Passed("HEAD", _) | Expected::Alone("HEAD", _));
        let first = connection.response_to(is_head).context("the case's answer")?;
        let outcome = if is_head {
            ensure!(first.status == 200, "{first:?}");
            Some(["HEAD".to_owned(), format!("/case{number}"), String::new()])
        } else {
            told(&first)?
        };
        if let Expected::Passed(..) = expected {
            let second = connection.response().context("the canary's answer")?;
            ensure_canary(&told(&second)?, number)?;
        }
        let (rest, _) = connection.drain()?;
        ensure!(
            rest.is_empty(),
            "behind it came {:?}",
            String::from_utf8_lossy(&rest)
        );
        Ok(outcome)
    })
}

/// RFC 9113 sections 8.1, 8.2 and 10.3: what HTTP/2 can say and HTTP/1.1 cannot never gets into a head, and a length that
/// does not fit its body is no request.
fn everybody_agrees_where_streams_end(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backends = Backends::start(context.directory())?;
    let field = Field::new(&shared, &backends)?;
    let cases = table::cases(STREAMS)?;
    field.run(&cases, |field, at, number, case| {
        let (host, target) = (field.deployed.host(), field.path(at, "case", number));
        let words = [("host", &host[..]), ("target", &target)];
        let (mut fields, mut data, mut trailers) = (Vec::new(), Vec::new(), Vec::new());
        for line in &case.lines {
            let pair = |line: &str| -> Result<(String, String)> {
                let (name, value) = line
                    .split_once(' ')
                    .context("a field is a name, a blank and a value")?;
                let text = |part| Ok::<_, anyhow::Error>(String::from_utf8(table::bytes(part, &words)?)?);
                Ok((text(name)?, text(value)?))
            };
            if *line == "{post}" {
                for line in [
                    ":method POST",
                    ":scheme http",
                    ":authority {host}",
                    ":path {target}",
                ] {
                    fields.push(pair(line)?);
                }
            } else if let Some(part) = line.strip_prefix("> ") {
                data.push(table::bytes(part, &words)?);
            } else if let Some(trailer) = line.strip_prefix("+ ") {
                trailers.push(pair(trailer)?);
            } else {
                fields.push(pair(line)?);
            }
        }
        let mut wire = headers(
            1,
            if data.is_empty() && trailers.is_empty() {
                flag::END_STREAM
            } else {
                0
            },
            &borrowed(&fields),
        );
        for (place, part) in data.iter().enumerate() {
            let is_last = place + 1 == data.len() && trailers.is_empty();
            wire.extend(frame(
                kind::DATA,
                if is_last { flag::END_STREAM } else { 0 },
                1,
                part,
            ));
        }
        if !trailers.is_empty() {
            wire.extend(headers(1, flag::END_STREAM, &borrowed(&trailers)));
        }
        let (path, canary) = (field.path(at, "canary", number), canary(number));
        let length = canary.len().to_string();
        let behind = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", &host[..]),
            (":path", &path),
            ("content-length", &length),
        ];
        wire.extend(headers(3, 0, &behind));
        wire.extend(frame(kind::DATA, flag::END_STREAM, 3, canary.as_bytes()));
        let mut connection = Http2::open(field.http)?;
        connection.send(wire)?;
        let first = connection.end_of(1)?;
        if Expected::of(case)? == Expected::Refused {
            connection.end()?;
            ensure!(
                !connection.goaways.is_empty() && connection.streams.is_empty(),
                "{:?}",
                connection.streams
            );
            return Ok(None);
        }
        // An error of one stream is none of the connection's.
        let second = connection.end_of(3)?;
        ensure!(
            second.ended == Ended::Whole && second.status == Some(200),
            "the canary: {second:?}"
        );
        ensure_canary(&parsed(&second.body)?, number)?;
        match first.status {
            Some(200) if first.ended == Ended::Whole => parsed(&first.body),
            status => {
                ensure!(
                    status.is_none_or(|status| (400..500).contains(&status)),
                    "{first:?}"
                );
                Ok(None)
            }
        }
    })
}

/// RFC 9112 section 6.3, D12: what a backend sends beside or behind its answer is never another one.
fn answers_are_not_split(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let cases = table::cases(ANSWERS)?;
    let wires: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| {
            let lines = case.lines.iter().filter(|line| **line != "{end}");
            Ok(lines
                .map(|line| table::bytes(line, &[]))
                .collect::<Result<Vec<_>>>()?
                .concat())
        })
        .collect::<Result<_>>()?;
    let ends: Vec<bool> = cases.iter().map(|case| case.lines.contains(&"{end}")).collect();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let uri = format!("http://{}/{{proxy}}", listener.local_addr()?);
    let answers = Arc::new((wires, ends));
    // Ends with the test's process: nobody connects any more when the API is not asked for.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = answers.clone();
            // A connection that ends in an error ends.
            std::thread::spawn(move || answer_all(stream, &answers.0, &answers.1));
        }
    });
    let deployed = shared.deploy(&Definition::new("splitting").proxy("ANY", "/{proxy+}", &uri))?;
    let host = deployed.host();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let get = |what: &str, method: &str| {
            let path = deployed.path(&format!("/{what}{number}"));
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        };
        let mut expected = case.expected.clone();
        let is_head = expected[0] == "head";
        if is_head {
            expected.remove(0);
        }
        let mut connection = Connection::open(shared.http())?;
        connection.send(get("case", if is_head { "HEAD" } else { "GET" }) + &get("canary", "GET"))?;
        let came = match connection.response_to(is_head) {
            Ok(response) if response.status == 502 => "refused".to_owned(),
            Ok(response) => format!("passed {} {}", response.status, response.body.len()),
            Err(_) => "cut".to_owned(),
        };
        if came != expected.join(" ") {
            wrong.push(format!("{}: {came} for {expected:?}", case.name));
        }
        if came == "cut" {
            let (rest, _) = connection.drain()?;
            let text = String::from_utf8_lossy(&rest).into_owned();
            ensure!(
                !text.contains("HTTP/1.1"),
                "{}: behind the cut came {text:?}",
                case.name
            );
            continue;
        }
        let second = connection
            .response()
            .with_context(|| format!("{}: the canary", case.name))?;
        if second.status != 200 || second.text() != canary(number) {
            wrong.push(format!("{}: the canary's answer was {second:?}", case.name));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} went otherwise:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// A backend that answers `/case{n}` with that case's bytes, and `/canary{n}` as it should.
fn answer_all(mut stream: TcpStream, wires: &[Vec<u8>], ends: &[bool]) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next() {
        let line = line?;
        let target = line.split(' ').nth(1).context("a request line")?;
        while lines.next().transpose()?.is_some_and(|field| !field.is_empty()) {}
        if let Some(number) = target.strip_prefix("/canary") {
            let canary = canary(number.parse()?);
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{canary}",
                canary.len()
            )?;
        } else {
            let number: usize = target.strip_prefix("/case").context("a case")?.parse()?;
            stream.write_all(&wires[number])?;
            if ends[number] {
                stream.shutdown(Shutdown::Write)?;
            }
        }
    }
    Ok(())
}

/// The body of a case's canary.
fn canary(number: usize) -> String {
    format!("canary {number}")
}

fn ensure_canary(outcome: &Outcome, number: usize) -> Result<()> {
    let wanted = ["POST".to_owned(), format!("/canary{number}"), canary(number)];
    ensure!(
        outcome.as_ref() == Some(&wanted),
        "the canary came as {outcome:?}"
    );
    Ok(())
}

/// What a backend says it had.
fn told(response: &Response) -> Result<Outcome> {
    ensure!(response.status == 200, "{response:?}");
    parsed(&response.body)
}

fn parsed(body: &[u8]) -> Result<Outcome> {
    let told: serde_json::Value = serde_json::from_slice(body).context("a backend's answer is JSON")?;
    let text = |name: &str| {
        told[name]
            .as_str()
            .map(str::to_owned)
            .context("a member of the answer")
    };
    Ok(Some([text("method")?, text("target")?, text("body")?]))
}

fn borrowed(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    fields
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect()
}
