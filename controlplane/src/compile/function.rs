//! Lambda functions behind integrations: the function that a URI names, and whether this installation has it.

use std::collections::BTreeMap;

use tidegate_plan::binding::FunctionArn;
use tidegate_proto::config::v1 as config;

use super::{Warnings, uri};
use crate::model::{Binding, Integration};

/// What is needed to know functions.
#[derive(Clone, Copy)]
pub(super) struct Functions<'a> {
    /// Whose a function is that is named without an account.
    pub(super) account: &'a str,
    /// The installation's bindings; `None`: not to be judged now.
    pub(super) bindings: Option<&'a [Binding]>,
}

impl Functions<'_> {
    /// Compiles an `AWS_PROXY` integration (RES-091, RES-092, RES-095, RES-100).
    pub(super) fn lambda_proxy(
        &self,
        at: &str,
        integration: &Integration,
        variables: &BTreeMap<String, String>,
        warnings: &mut Warnings,
    ) -> Result<config::LambdaProxy, String> {
        let written = integration.uri.as_deref().unwrap_or_default();
        if warnings.without_variables && uri::has_variables(written) {
            return Ok(config::LambdaProxy::default());
        }
        let verb = integration.http_method.as_deref().unwrap_or("POST");
        if verb != "POST" {
            return Err(format!("a Lambda function is invoked by POST, not by {verb}"));
        }
        for (member, given) in [
            (
                "requestTemplates",
                integration
                    .request_templates
                    .as_ref()
                    .is_some_and(|map| !map.is_empty()),
            ),
            (
                "requestParameters",
                integration
                    .request_parameters
                    .as_ref()
                    .is_some_and(|map| !map.is_empty()),
            ),
        ] {
            if given {
                // RES-107, OBV-209: accepted and ignored, there as here.
                warnings.add(format!("{at}: {member}: AWS_PROXY integrations ignore them"));
            }
        }
        let arn = self.named(&uri::substitute(written, variables))?;
        self.warn_if_unbound(at, &arn, warnings);
        Ok(config::LambdaProxy {
            function: arn.as_str().into(),
            credentials: integration.credentials.clone().unwrap_or_default(),
        })
    }

    /// The function that a URI invokes.
    fn named(&self, uri: &str) -> Result<FunctionArn, String> {
        let invalid = || format!("{uri} does not invoke a Lambda function");
        let parts: Vec<&str> = uri.splitn(6, ':').collect();
        let ["arn", _, "apigateway", region, service, rest] = parts.as_slice() else {
            return Err(invalid());
        };
        // Once the path begins with two slashes in the guide.
        let path = rest
            .strip_prefix("path/")
            .map(|path| path.trim_start_matches('/'));
        let function = path
            .filter(|_| *service == "lambda")
            .and_then(|path| path.strip_prefix("2015-03-31/functions/"))
            .and_then(|path| path.strip_suffix("/invocations"))
            .ok_or_else(invalid)?;
        FunctionArn::parse(function, region, self.account).map_err(|error| error.to_string())
    }

    /// An unbound function answers 500, as soon as it is called (C9).
    fn warn_if_unbound(&self, at: &str, arn: &FunctionArn, warnings: &mut Warnings) {
        let Some(bindings) = self.bindings else { return };
        let fits = |binding: &Binding| {
            let fit = |name| binding.fit("function", name).is_some();
            fit(arn.as_str()) || fit(arn.unqualified())
        };
        if !bindings.iter().any(fits) {
            warnings.add(format!(
                "{at}: the function {arn} is not bound to anything on this installation: the method answers 500 until \
                 `tidegate function put {}` says how it is invoked",
                arn.unqualified()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integration(uri: &str) -> Integration {
        Integration {
            uri: Some(uri.into()),
            http_method: Some("POST".into()),
            ..Integration::default()
        }
    }

    fn compile(
        integration: &Integration,
        bindings: &[Binding],
    ) -> (Result<config::LambdaProxy, String>, Vec<String>) {
        let functions = Functions {
            account: "111122223333",
            bindings: Some(bindings),
        };
        let variables = BTreeMap::from([("name".to_owned(), "hello".to_owned())]);
        let mut warnings = Warnings::default();
        let compiled = functions.lambda_proxy("GET /", integration, &variables, &mut warnings);
        (compiled, warnings.list)
    }

    /// RES-095, OBV-220: the function may be in another region and account, a stage variable, have a qualifier.
    #[test]
    fn which_function() {
        let prefix = "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/";
        for (name, arn) in [
            (
                "arn:aws:lambda:eu-west-1:000000000000:function:f",
                "arn:aws:lambda:eu-west-1:000000000000:function:f",
            ),
            (
                "arn:aws:lambda:us-east-1:000000000000:function:f:prod",
                "arn:aws:lambda:us-east-1:000000000000:function:f:prod",
            ),
            (
                "arn:aws:lambda:us-east-1:000000000000:function:${stageVariables.name}",
                "arn:aws:lambda:us-east-1:000000000000:function:hello",
            ),
            ("hello", "arn:aws:lambda:us-east-1:111122223333:function:hello"),
        ] {
            let (compiled, _) = compile(&integration(&format!("{prefix}{name}/invocations")), &[]);
            assert_eq!(
                compiled.map(|lambda| lambda.function).as_deref(),
                Ok(arn),
                "{name}"
            );
        }
        let (twice, _) = compile(
            &integration(&format!(
                "{}/invocations",
                prefix.replace("path/", "path//") + "f"
            )),
            &[],
        );
        assert!(twice.is_ok());
        for uri in [
            "http://example.com",
            "arn:aws:apigateway:us-east-1:sqs:path/2015-03-31/functions/f/invocations",
            "arn:aws:apigateway:us-east-1:lambda:action/Invoke",
            "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/f",
            "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/a b/invocations",
        ] {
            assert!(compile(&integration(uri), &[]).0.is_err(), "{uri}");
        }
    }

    /// C9, RES-092, RES-107, OBV-209: what is said where it will not work, or does nothing.
    #[test]
    fn warnings() {
        let uri = "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/hello:prod/invocations";
        let (_, unbound) = compile(&integration(uri), &[]);
        assert_eq!(unbound.len(), 1);
        assert!(
            unbound[0]
                .contains("tidegate function put arn:aws:lambda:us-east-1:111122223333:function:hello`"),
            "{unbound:?}"
        );
        let bound = |pattern: &str| Binding {
            kind: Some("function".into()),
            pattern: Some(pattern.into()),
            target: Some("http://h".into()),
            ..Binding::default()
        };
        for pattern in [
            "arn:aws:lambda:*",
            "arn:aws:lambda:us-east-1:111122223333:function:hello",
            "arn:aws:lambda:us-east-1:111122223333:function:hello:prod",
        ] {
            assert!(
                compile(&integration(uri), &[bound(pattern)]).1.is_empty(),
                "{pattern}"
            );
        }
        let mapped = Integration {
            request_templates: Some(FromIterator::from_iter([(
                "application/json".into(),
                "{}".into(),
            )])),
            credentials: Some("arn:aws:iam::000000000000:role/r".into()),
            ..integration(uri)
        };
        let (compiled, said) = compile(&mapped, &[bound("*")]);
        assert_eq!(
            compiled.map(|lambda| lambda.credentials).as_deref(),
            Ok("arn:aws:iam::000000000000:role/r")
        );
        assert!(said.iter().any(|text| text.contains("ignore them")), "{said:?}");
        let get = Integration {
            http_method: Some("GET".into()),
            ..integration(uri)
        };
        assert!(compile(&get, &[bound("*")]).0.is_err());
    }
}
