//! Where cloud names lead (decision C9), as the shards run it: one table, made anew when a binding changes.

use std::sync::Arc;
use std::time::Duration;

use tidegate_plan::Target;
use tidegate_plan::binding::{Endpoint, Function, FunctionArn, FunctionKind, RuntimeApi, Table};
use tidegate_policy::sigv4::Credentials;
use tidegate_proto::config::v1 as proto;

use super::ContentError;

/// Every name that is bound.
#[derive(Debug, Default)]
pub struct Bindings {
    functions: Table<Function>,
    endpoints: Table<Endpoint>,
    credentials: Table<Credentials>,
}

/// One name and where it leads.
#[derive(Debug)]
pub struct Binding {
    pattern: Box<str>,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    Function(Arc<Function>),
    ServiceEndpoint(Arc<Endpoint>),
    Credentials(Arc<Credentials>),
}

impl Bindings {
    /// A table of all bindings.
    pub fn new<'b>(bindings: impl IntoIterator<Item = &'b Binding>) -> Self {
        let mut table = Self::default();
        for binding in bindings {
            match &binding.bound {
                Bound::Function(function) => table.functions.bind(&binding.pattern, Arc::clone(function)),
                Bound::ServiceEndpoint(endpoint) => {
                    table.endpoints.bind(&binding.pattern, Arc::clone(endpoint));
                }
                Bound::Credentials(credentials) => {
                    table.credentials.bind(&binding.pattern, Arc::clone(credentials));
                }
            }
        }
        table
    }

    /// How a function is invoked: by its version or alias where that is bound by itself, else by its name, else by the
    /// longest beginning of it.
    pub fn function(&self, arn: &FunctionArn) -> Option<&Arc<Function>> {
        let exact = self.functions.exact(arn.as_str());
        exact.or_else(|| self.functions.find(arn.unqualified()))
    }

    /// Where a service's requests go in a region, where that is bound (RES-103).
    pub fn service_endpoint(&self, service: &str, region: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.find(&format!("{service}.{region}.amazonaws.com"))
    }

    /// The access key behind a role's ARN, or another name.
    pub fn credentials(&self, name: &str) -> Option<&Arc<Credentials>> {
        self.credentials.find(name)
    }

    /// Every bound function, in no order.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.functions.targets()
    }

    /// Every endpoint that requests may go to.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let of_functions = self
            .functions
            .targets()
            .filter_map(|function| function.endpoint());
        of_functions.chain(self.endpoints.targets().map(|endpoint| &**endpoint))
    }
}

impl Binding {
    /// Checks a bundle's content.
    pub(crate) fn read(bundle: proto::BindingBundle) -> Result<Self, ContentError> {
        use proto::binding_bundle::Target as Of;
        let bound = match bundle.target {
            Some(Of::Function(target)) => {
                Bound::Function(Arc::new(function(&bundle.id, &bundle.pattern, target)?))
            }
            Some(Of::ServiceEndpoint(target)) => Bound::ServiceEndpoint(Arc::new(endpoint(target)?)),
            Some(Of::Credentials(target)) => Bound::Credentials(Arc::new(Credentials::new(
                target.access_key_id,
                target.secret_access_key,
                Some(target.session_token).filter(|token| !token.is_empty()),
            ))),
            None => return Err(ContentError::Binding("a target that this version knows")),
        };
        if bundle.pattern.is_empty() {
            return Err(ContentError::Binding("a name"));
        }
        Ok(Self {
            pattern: bundle.pattern.into(),
            bound,
        })
    }
}

fn function(id: &str, pattern: &str, target: proto::FunctionTarget) -> Result<Function, ContentError> {
    use proto::function_target::Kind;
    let kind = match target.kind {
        Some(Kind::Invoke(target)) => FunctionKind::Invoke(endpoint(target)?),
        Some(Kind::Url(target)) => FunctionKind::Url(endpoint(target)?),
        Some(Kind::Runtime(runtime)) => FunctionKind::Runtime(RuntimeApi {
            address: runtime
                .address
                .parse()
                .map_err(|_| ContentError::Binding("an address to listen on"))?,
            separate_connections: runtime.separate_connections,
        }),
        None => return Err(ContentError::Binding("a way to invoke the function")),
    };
    Ok(Function {
        binding: id.into(),
        pattern: pattern.into(),
        kind,
        credentials: Some(target.credentials.into_boxed_str()).filter(|name| !name.is_empty()),
        allowed: target.allowed.into_iter().map(Into::into).collect(),
        timeout: (target.timeout_ms > 0).then(|| Duration::from_millis(target.timeout_ms.into())),
    })
}

fn endpoint(target: proto::EndpointTarget) -> Result<Endpoint, ContentError> {
    let checked = Target::new(
        &target.scheme,
        &target.host,
        target.port,
        target.insecure_skip_verification,
    );
    Ok(Endpoint::new(checked?, &target.path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{binding_bundle, function_target};

    fn url(host: &str) -> proto::EndpointTarget {
        proto::EndpointTarget {
            scheme: "http".into(),
            host: host.into(),
            port: 9000,
            ..proto::EndpointTarget::default()
        }
    }

    fn bound(pattern: &str, target: binding_bundle::Target) -> Result<Binding, ContentError> {
        Binding::read(proto::BindingBundle {
            id: format!("id of {pattern}"),
            pattern: pattern.into(),
            target: Some(target),
        })
    }

    fn function(pattern: &str, host: &str) -> Binding {
        let target = proto::FunctionTarget {
            kind: Some(function_target::Kind::Url(url(host))),
            ..proto::FunctionTarget::default()
        };
        bound(pattern, binding_bundle::Target::Function(target)).unwrap()
    }

    /// C9: the version or alias first, then the name, then the longest beginning.
    #[test]
    fn functions_are_found_by_the_best_fit() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:hello";
        let all = [
            function(arn, "name"),
            function(&format!("{arn}:prod"), "alias"),
            function("arn:aws:lambda:*", "any"),
            function("arn:aws:lambda:us-east-1:000000000000:function:h*", "h"),
        ];
        let bindings = Bindings::new(&all);
        let host = |name: &str| {
            let arn = FunctionArn::parse(name, "us-east-1", "000000000000").unwrap();
            let endpoint = bindings.function(&arn).unwrap().endpoint().unwrap();
            endpoint.target.host().to_string()
        };
        assert_eq!(
            ["hello", "hello:prod", "hello:7", "hi", "other", "other:prod"].map(host),
            ["name", "alias", "name", "h", "any", "any"]
        );
        assert_eq!(bindings.functions().count(), 4);
        let none = Bindings::default();
        let arn = FunctionArn::parse("hello", "r", "000000000000").unwrap();
        assert!(none.function(&arn).is_none());
    }

    /// RES-103: a service's endpoint by service and region.
    #[test]
    fn services_and_credentials() {
        let secret = proto::CredentialsTarget {
            access_key_id: "AKIDA".into(),
            secret_access_key: "hush".into(),
            session_token: String::new(),
        };
        let all = [
            bound("s3.*", binding_bundle::Target::ServiceEndpoint(url("store"))).unwrap(),
            bound("*", binding_bundle::Target::ServiceEndpoint(url("rest"))).unwrap(),
            bound("role", binding_bundle::Target::Credentials(secret)).unwrap(),
        ];
        let bindings = Bindings::new(&all);
        let host = |service| {
            bindings
                .service_endpoint(service, "us-east-1")
                .unwrap()
                .target
                .host()
                .to_string()
        };
        assert_eq!((host("s3"), host("sqs")), ("store".into(), "rest".into()));
        let credentials = bindings.credentials("role").unwrap();
        assert_eq!(
            (credentials.access_key_id(), credentials.session_token()),
            ("AKIDA", None)
        );
        assert!(!format!("{bindings:?}").contains("hush"));
        assert_eq!(bindings.endpoints().count(), 2);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let runtime = proto::FunctionTarget {
            kind: Some(function_target::Kind::Runtime(proto::RuntimeTarget {
                address: "nowhere".into(),
                ..proto::RuntimeTarget::default()
            })),
            ..proto::FunctionTarget::default()
        };
        assert!(bound("f", binding_bundle::Target::Function(runtime)).is_err());
        let empty = proto::FunctionTarget::default();
        assert!(bound("f", binding_bundle::Target::Function(empty)).is_err());
        assert!(bound("f", binding_bundle::Target::ServiceEndpoint(url("a b"))).is_err());
        assert!(Binding::read(proto::BindingBundle::default()).is_err());
    }
}
