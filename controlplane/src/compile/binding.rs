//! Bindings become what nodes need of them (decision C9): functions, endpoints of services, credentials.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tidegate_plan::binding::{Endpoint, FunctionArn};
use tidegate_proto::config::v1::{
    self as config, binding_bundle::Target, function_target::Kind, uri_part::Part,
};
use zeroize::Zeroize;

use super::uri;
use crate::model::{Binding, Refusal};

/// What a binding of credentials keeps sealed.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SealedCredentials {
    pub(crate) secret_access_key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) session_token: String,
}

impl Drop for SealedCredentials {
    fn drop(&mut self) {
        self.secret_access_key.zeroize();
        self.session_token.zeroize();
    }
}

/// What nodes are told of a binding, and which nodes; `None`: nothing.
pub(crate) type Bound = Option<(config::BindingBundle, BTreeMap<String, String>)>;

/// Compiles a binding; refuses what cannot be used.
pub(crate) fn binding(binding: &Binding, secret: Option<&SealedCredentials>) -> Result<Bound, Refusal> {
    let kind = binding.kind.as_deref().unwrap_or_default();
    let pattern = binding.pattern.as_deref().unwrap_or_default();
    let written = binding.target.as_deref().unwrap_or_default();
    let options = Options::new(binding);
    let target = match kind {
        "function" => {
            options.only(&[
                "as",
                "credentials",
                "allow",
                "timeout-ms",
                "separate-connections",
                "insecure-skip-verification",
                "nodes",
            ])?;
            check_function(pattern)?;
            Target::Function(function(written, &options)?)
        }
        "service-endpoint" => {
            options.only(&["insecure-skip-verification", "nodes"])?;
            Target::ServiceEndpoint(endpoint(written, &options)?)
        }
        "credentials" => {
            options.only(&["nodes"])?;
            Target::Credentials(config::CredentialsTarget {
                access_key_id: written.into(),
                secret_access_key: secret
                    .map(|secret| secret.secret_access_key.clone())
                    .unwrap_or_default(),
                session_token: secret
                    .map(|secret| secret.session_token.clone())
                    .unwrap_or_default(),
            })
        }
        _ => return Ok(None),
    };
    let bundle = config::BindingBundle {
        id: binding.id.clone().unwrap_or_default(),
        pattern: pattern.into(),
        target: Some(target),
    };
    Ok(Some((bundle, options.nodes()?)))
}

/// The name of a function that is bound: an ARN, or the beginning of one.
fn check_function(pattern: &str) -> Result<(), Refusal> {
    const BEGINNING: [&str; 3] = ["arn", "", "lambda"];
    let fits = match pattern.strip_suffix('*') {
        None => FunctionArn::parse(pattern, "", "").is_ok(),
        Some(beginning) => {
            let given: Vec<&str> = beginning.split(':').take(3).collect();
            let last = given.len() - 1;
            given
                .iter()
                .zip(BEGINNING)
                .enumerate()
                .all(|(at, (given, wanted))| {
                    wanted.is_empty() || *given == wanted || at == last && wanted.starts_with(given)
                })
        }
    };
    match fits {
        true => Ok(()),
        false => Err(refuse(format!(
            "{pattern} names no Lambda function: give a name, or an ARN such as \
             arn:aws:lambda:us-east-1:000000000000:function:hello, or the beginning of one followed by *"
        ))),
    }
}

fn function(written: &str, options: &Options<'_>) -> Result<config::FunctionTarget, Refusal> {
    let kind = if let Some(address) = written.strip_prefix("runtime://") {
        options.without("as", "workers ask for invocations")?;
        let address: SocketAddr = address.parse().map_err(|_| {
            refuse(format!(
                "{address} is no address to listen on: write ADDRESS:PORT"
            ))
        })?;
        if address.port() == 0 {
            return Err(refuse("workers cannot find port 0: name one, or none".into()));
        }
        Kind::Runtime(config::RuntimeTarget {
            address: address.to_string(),
            separate_connections: options.flag("separate-connections")?,
        })
    } else {
        options.without("separate-connections", "no workers ask for invocations")?;
        let endpoint = endpoint(written, options)?;
        match options.get("as") {
            None | Some("invoke") => Kind::Invoke(endpoint),
            Some("url") => Kind::Url(endpoint),
            Some(other) => {
                return Err(refuse(format!("option as is invoke or url, not {other}")));
            }
        }
    };
    let timeout_ms = match options.get("timeout-ms") {
        None => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|timeout| (1..=FUNCTION_TIMEOUT_MAX_MS).contains(timeout))
            .ok_or_else(|| {
                refuse(format!(
                    "option timeout-ms is a number from 1 to {FUNCTION_TIMEOUT_MAX_MS}, not {text}"
                ))
            })?,
    };
    Ok(config::FunctionTarget {
        kind: Some(kind),
        credentials: options.get("credentials").unwrap_or_default().into(),
        allowed: options.list("allow"),
        timeout_ms,
    })
}

/// The longest time that a function of the service runs: 15 minutes.
const FUNCTION_TIMEOUT_MAX_MS: u32 = 900_000;

fn endpoint(written: &str, options: &Options<'_>) -> Result<config::EndpointTarget, Refusal> {
    let cannot = |why: String| refuse(format!("{written} cannot be called: {why}"));
    let backend = uri::parse(written).map_err(cannot)?;
    let path: String = backend
        .path
        .iter()
        .map(|part| match &part.part {
            Some(Part::Literal(text)) => text.as_str(),
            _ => "",
        })
        .collect();
    if !backend.placeholders.is_empty() || path.contains('?') {
        return Err(cannot("only a path may follow the host".into()));
    }
    let insecure_skip_verification = options.flag("insecure-skip-verification")?;
    let target = tidegate_plan::Target::new(
        backend.scheme,
        &backend.host,
        backend.port.into(),
        insecure_skip_verification,
    )
    .map_err(|error| cannot(error.to_string()))?;
    let endpoint = Endpoint::new(target, &path).map_err(|error| cannot(error.to_string()))?;
    Ok(config::EndpointTarget {
        scheme: backend.scheme.into(),
        host: backend.host,
        port: backend.port.into(),
        path: endpoint.path.into(),
        insecure_skip_verification,
    })
}

/// A binding's options.
struct Options<'b>(Option<&'b BTreeMap<String, String>>);

impl<'b> Options<'b> {
    fn new(binding: &'b Binding) -> Self {
        Self(binding.options.as_ref())
    }

    fn get(&self, name: &str) -> Option<&'b str> {
        self.0?.get(name).map(String::as_str)
    }

    /// Refuses options that are not among these.
    fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self
            .0
            .into_iter()
            .flatten()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _)) => Err(refuse(format!(
                "there is no option {name} here; there are {}",
                known.join(", ")
            ))),
        }
    }

    fn without(&self, name: &str, because: &str) -> Result<(), Refusal> {
        match self.get(name) {
            None => Ok(()),
            Some(_) => Err(refuse(format!("option {name} means nothing here: {because}"))),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(refuse(format!("option {name} is true or false, not {other}"))),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        let items = self.get(name).unwrap_or_default().split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// The labels of the nodes that are told.
    fn nodes(&self) -> Result<BTreeMap<String, String>, Refusal> {
        let labels = self
            .list("nodes")
            .into_iter()
            .map(|label| match label.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(refuse(format!("option nodes is LABEL=VALUE,…, not {label}"))),
            });
        labels.collect()
    }
}

fn refuse(why: String) -> Refusal {
    Refusal::bad_request(format!("Invalid binding: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, pattern: &str, target: &str, options: &[(&str, &str)]) -> Result<Bound, String> {
        let binding = Binding {
            id: Some("b1".into()),
            kind: Some(kind.into()),
            pattern: Some(pattern.into()),
            target: Some(target.into()),
            options: Some(
                options
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            ),
        };
        super::binding(&binding, None).map_err(|refusal| refusal.message)
    }

    /// C9, RES-102, RES-103: the three kinds that nodes are told of.
    #[test]
    fn what_nodes_are_told() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:hello";
        let (bundle, nodes) = read(
            "function",
            arn,
            "https://lambda.example/base/",
            &[
                ("allow", "arn:aws:execute-api:*:a/*, arn:aws:execute-api:*:b/*"),
                ("credentials", "own"),
                ("timeout-ms", "3000"),
                ("nodes", "site=lab"),
            ],
        )
        .unwrap()
        .unwrap();
        assert_eq!(nodes, BTreeMap::from([("site".to_owned(), "lab".to_owned())]));
        let Some(Target::Function(function)) = bundle.target else {
            panic!("a function")
        };
        assert_eq!((function.allowed.len(), function.timeout_ms), (2, 3000));
        let Some(Kind::Invoke(endpoint)) = function.kind else {
            panic!("an endpoint of the Invoke API")
        };
        assert_eq!(
            (endpoint.scheme.as_str(), endpoint.port, endpoint.path.as_str()),
            ("https", 443, "/base")
        );
        let (bundle, _) = read("function", arn, "runtime://127.0.0.1:26000", &[])
            .unwrap()
            .unwrap();
        let Some(Target::Function(function)) = bundle.target else {
            panic!("a function")
        };
        assert!(
            matches!(function.kind, Some(Kind::Runtime(runtime)) if runtime.address == "127.0.0.1:26000")
        );
        let (bundle, _) = read("service-endpoint", "s3.*", "http://127.0.0.1:5000", &[])
            .unwrap()
            .unwrap();
        assert!(matches!(bundle.target, Some(Target::ServiceEndpoint(_))));
        assert_eq!(read("log-sink", "*", "/var/log/x", &[("any", "thing")]), Ok(None));
    }

    #[test]
    fn what_cannot_be_bound_is_refused_with_the_reason() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:hello";
        for (kind, pattern, target, options, why) in [
            (
                "function",
                "arn:aws:sqs:*",
                "http://h",
                &[][..],
                "names no Lambda function",
            ),
            ("function", "hello", "http://h", &[], "names no Lambda function"),
            ("function", arn, "ftp://h", &[], "neither http nor https"),
            ("function", arn, "http://h/{x}", &[], "only a path may follow"),
            ("function", arn, "http://h/?x=1", &[], "only a path may follow"),
            (
                "function",
                arn,
                "runtime://localhost:1",
                &[],
                "no address to listen on",
            ),
            ("function", arn, "runtime://127.0.0.1:0", &[], "port 0"),
            (
                "function",
                arn,
                "runtime://127.0.0.1:1",
                &[("as", "url")],
                "means nothing here",
            ),
            ("function", arn, "http://h", &[("as", "soap")], "invoke or url"),
            (
                "function",
                arn,
                "http://h",
                &[("timeout", "1")],
                "there is no option timeout here",
            ),
            (
                "function",
                arn,
                "http://h",
                &[("timeout-ms", "0")],
                "from 1 to 900000",
            ),
            (
                "function",
                arn,
                "http://h",
                &[("separate-connections", "true")],
                "means nothing here",
            ),
            (
                "function",
                arn,
                "http://h",
                &[("insecure-skip-verification", "yes")],
                "true or false",
            ),
            ("function", arn, "http://h", &[("nodes", "lab")], "LABEL=VALUE"),
            ("service-endpoint", "s3.*", "nowhere", &[], "no URL"),
        ] {
            let refused = read(kind, pattern, target, options).unwrap_err();
            assert!(refused.contains(why), "{pattern} {target}: {refused}");
        }
        for pattern in [
            "*",
            "a*",
            "arn:*",
            "arn:aws:*",
            "arn:aws-cn:lam*",
            "arn:aws:lambda:*",
            "arn:aws:lambda:r:1*",
        ] {
            assert!(read("function", pattern, "http://h", &[]).is_ok(), "{pattern}");
        }
    }
}
