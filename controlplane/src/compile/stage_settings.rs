//! What acts without a redeployment: method settings, access logs, and the installation's settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_proto::config::v1 as config;

use super::{Warnings, mapping};
use crate::model::{Binding, Definition, MethodSetting, Stage, ThrottleSettings, method_key};

/// What the service applies where a throttle names only one of its two figures.
const ACCOUNT_RATE: f64 = 10_000.0;
const ACCOUNT_BURST: i64 = 5_000;

/// The format of an access log line that names none: the common log format's members.
const COMMON_LOG: &str = "$context.identity.sourceIp $context.identity.caller $context.identity.user \
                          [$context.requestTime]\"$context.httpMethod $context.resourcePath $context.protocol\" \
                          $context.status $context.responseLength $context.requestId";

/// The settings of a stage's methods, the more specific over the general (DEP-077).
pub(super) struct MethodSettings<'a> {
    all: Option<&'a MethodSetting>,
    methods: BTreeMap<(String, String), &'a MethodSetting>,
}

impl<'a> MethodSettings<'a> {
    pub(super) fn new(stage: &'a Stage, warnings: &mut Warnings) -> Self {
        let mut settings = Self {
            all: None,
            methods: BTreeMap::new(),
        };
        for (key, setting) in stage.method_settings.iter().flatten() {
            if setting.caching_enabled == Some(true) {
                warnings.add(format!("methodSettings {key}: responses are not cached yet"));
            }
            if setting
                .logging_level
                .as_deref()
                .is_some_and(|level| level != "OFF")
            {
                warnings.add(format!(
                    "methodSettings {key}: execution logs are not written yet"
                ));
            }
            match method_key(key) {
                Some((path, _)) if path == "*" => settings.all = Some(setting),
                Some(key) => {
                    settings.methods.insert(key, setting);
                }
                None => warnings.add(format!("methodSettings {key}: no method is named so")),
            }
        }
        if stage.tracing_enabled == Some(true) {
            warnings.add("tracingEnabled: requests are not traced yet".into());
        }
        if stage.cache_cluster_enabled == Some(true) {
            warnings.add("cacheClusterEnabled: responses are not cached yet".into());
        }
        if stage.client_certificate_id.is_some() {
            warnings.add("clientCertificateId: backends are not shown a certificate yet".into());
        }
        settings
    }

    /// The throttle of every method that has none of its own.
    pub(super) fn stage_throttle(&self) -> Option<config::Throttle> {
        let all = self.all?;
        throttle(all.throttling_rate_limit, all.throttling_burst_limit)
    }

    /// Whether methods have metrics of their own where they do not say otherwise.
    pub(super) fn stage_metrics(&self) -> bool {
        self.all.and_then(|all| all.metrics_enabled).unwrap_or(false)
    }

    /// A method's own throttle. Figures it does not name are the stage's.
    pub(super) fn throttle(&self, path: &str, verb: &str) -> Option<config::Throttle> {
        let own = self.own(path, verb)?;
        if own.throttling_rate_limit.is_none() && own.throttling_burst_limit.is_none() {
            return None;
        }
        let all = self.all;
        let limits = throttle(
            own.throttling_rate_limit.or_else(|| all?.throttling_rate_limit),
            own.throttling_burst_limit.or_else(|| all?.throttling_burst_limit),
        );
        // A method without limit is another thing than one that has the stage's.
        Some(limits.unwrap_or(config::Throttle {
            rate: -1.0,
            burst: -1,
        }))
    }

    /// Whether a method has metrics of its own, where it says so.
    pub(super) fn metrics(&self, path: &str, verb: &str) -> Option<bool> {
        self.own(path, verb)?.metrics_enabled
    }

    fn own(&self, path: &str, verb: &str) -> Option<&'a MethodSetting> {
        if self.methods.is_empty() {
            return None;
        }
        let named = |verb: &str| self.methods.get(&(path.to_owned(), verb.to_owned())).copied();
        named(verb).or_else(|| named("*"))
    }
}

fn throttle(rate: Option<f64>, burst: Option<i32>) -> Option<config::Throttle> {
    let (rate, burst) = match (rate, burst.map(i64::from)) {
        (None, None) => return None,
        (rate, burst) => (rate.unwrap_or(ACCOUNT_RATE), burst.unwrap_or(ACCOUNT_BURST)),
    };
    (rate >= 0.0 && burst >= 0).then_some(config::Throttle { rate, burst })
}

/// Why no method of this stage may answer: what guards it is not there to run.
pub(super) fn stage_guard(stage: &Stage) -> Option<String> {
    let acl = stage.web_acl_arn.as_deref().is_some_and(|arn| !arn.is_empty());
    acl.then(|| "the web ACL cannot be enforced yet".into())
}

/// Where a stage's access log goes (C9): what a binding says, else a file of the group's name under the node's data
/// directory. A delivery stream that nothing is bound to has nowhere to go.
pub(super) fn access_log(
    stage: &Stage,
    bindings: &[Binding],
    warnings: &mut Warnings,
) -> Option<config::AccessLog> {
    let settings = stage.access_log_settings.as_ref()?;
    let arn = settings.destination_arn.as_deref()?;
    let bound = bindings
        .iter()
        .filter_map(|binding| Some((binding.fit("log-sink", arn)?, binding.target.as_deref()?)))
        .max_by_key(|(fit, _)| *fit);
    let destination = match bound {
        Some((_, target)) => target.strip_prefix("file://").unwrap_or(target).to_owned(),
        None => match arn
            .splitn(6, ':')
            .nth(5)
            .and_then(|rest| rest.strip_prefix("log-group:"))
        {
            Some(group) => format!("access-logs/{}.log", file_name(group)),
            None => {
                warnings.add(format!(
                    "accessLogSettings: nothing is bound to {arn}: no access log is written (tidegate bind log-sink)"
                ));
                return None;
            }
        },
    };
    let format = settings.format.clone().unwrap_or_else(|| COMMON_LOG.into());
    Some(config::AccessLog { destination, format })
}

/// A log group's name as a file's: nothing in it leads out of the directory.
fn file_name(group: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    let name: String = group
        .trim_start_matches(['/', '.'])
        .chars()
        .map(plain)
        .take(200)
        .collect();
    if name.is_empty() { "access".into() } else { name }
}

/// The overrides of the gateway's own answers.
pub(super) fn gateway_responses(
    definition: &Definition,
    warnings: &mut Warnings,
) -> Vec<config::GatewayResponse> {
    let overrides = definition.gateway_responses.iter().map(|(kind, response)| {
        let (mut headers, mut mapped_headers) = (BTreeMap::new(), BTreeMap::new());
        for (target, source) in response.response_parameters.iter().flatten() {
            match (
                target.strip_prefix("gatewayresponse.header."),
                mapping::literal(source),
            ) {
                (Some(name), Some(value)) => {
                    headers.insert(name.to_owned(), value.to_owned());
                }
                (Some(name), None) if mapping::is_gateway_source(source) => {
                    mapped_headers.insert(name.to_owned(), source.clone());
                }
                _ => warnings.add(format!(
                    "{kind}: response parameter {target} = {source} names no header or no known source: left out"
                )),
            }
        }
        config::GatewayResponse {
            response_type: kind.clone(),
            status: response
                .status_code
                .as_deref()
                .and_then(|code| code.parse().ok())
                .unwrap_or(0),
            headers,
            mapped_headers,
            templates: response.response_templates.clone().unwrap_or_default(),
        }
    });
    overrides.collect()
}

/// Settings of the installation that users may change; a row of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstallationSettings {
    /// Suffixes under which `{api}.execute-api.{region?}.{suffix}` is answered.
    pub domain_suffixes: Vec<String>,
    /// Answer `/restapis/{api}/{stage}/_user_request_/…` on every listener, not on loopback only.
    pub invoke_by_path_everywhere: bool,
    /// A throttle over each account; none unless set.
    pub account_throttle: Option<ThrottleSettings>,
    /// The service's hard caps instead of the hardware's.
    pub service_limits: bool,
    /// How long a call waits for the nodes unless it says otherwise, in milliseconds (C2).
    pub rollout_wait_ms: u32,
}

impl Default for InstallationSettings {
    fn default() -> Self {
        Self {
            domain_suffixes: vec!["localhost".into()],
            invoke_by_path_everywhere: false,
            account_throttle: None,
            service_limits: false,
            rollout_wait_ms: 2_000,
        }
    }
}

impl InstallationSettings {
    /// As the nodes get them.
    pub fn compile(&self) -> config::SettingsBundle {
        config::SettingsBundle {
            domain_suffixes: self.domain_suffixes.clone(),
            invoke_by_path_everywhere: self.invoke_by_path_everywhere,
            account_throttle: self
                .account_throttle
                .as_ref()
                .and_then(|t| throttle(t.rate_limit, t.burst_limit)),
            service_limits: self.service_limits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AccessLogSettings;

    fn stage(settings: &[(&str, MethodSetting)]) -> Stage {
        Stage {
            method_settings: Some(
                settings
                    .iter()
                    .map(|(key, s)| ((*key).to_owned(), s.clone()))
                    .collect(),
            ),
            ..Stage::default()
        }
    }

    fn limits(rate: Option<f64>, burst: Option<i32>) -> MethodSetting {
        MethodSetting {
            throttling_rate_limit: rate,
            throttling_burst_limit: burst,
            ..MethodSetting::default()
        }
    }

    /// DEP-068, DEP-077: `*/*` for all, `{path}/{verb}` before it, figures one by one; -1 is no limit.
    #[test]
    fn method_settings() {
        let stage = stage(&[
            ("*/*", limits(Some(100.0), Some(50))),
            ("pets/GET", limits(Some(1.0), None)),
            ("~1pets~1{id}/POST", limits(Some(-1.0), Some(-1))),
            (
                "/DELETE",
                MethodSetting {
                    metrics_enabled: Some(true),
                    ..MethodSetting::default()
                },
            ),
        ]);
        let mut warnings = Warnings::default();
        let settings = MethodSettings::new(&stage, &mut warnings);
        assert_eq!(
            settings.stage_throttle(),
            Some(config::Throttle {
                rate: 100.0,
                burst: 50
            })
        );
        assert_eq!(
            settings.throttle("/pets", "GET"),
            Some(config::Throttle { rate: 1.0, burst: 50 })
        );
        assert_eq!(
            settings.throttle("/pets/{id}", "POST"),
            Some(config::Throttle {
                rate: -1.0,
                burst: -1
            })
        );
        assert_eq!(settings.throttle("/pets", "POST"), None);
        assert_eq!(settings.throttle("/", "DELETE"), None);
        assert_eq!(settings.metrics("/", "DELETE"), Some(true));
        assert_eq!(warnings.list, Vec::<String>::new());
    }

    /// C9: a binding says where, the longest pattern best; else a file that lies under the data directory.
    #[test]
    fn access_log_destinations() {
        let binding = |pattern: &str, target: &str| Binding {
            kind: Some("log-sink".into()),
            pattern: Some(pattern.into()),
            target: Some(target.into()),
            ..Binding::default()
        };
        let resolve = |arn: &str, bindings: &[Binding]| {
            let stage = Stage {
                access_log_settings: Some(AccessLogSettings {
                    destination_arn: Some(arn.into()),
                    format: Some("$context.requestId".into()),
                }),
                ..Stage::default()
            };
            access_log(&stage, bindings, &mut Warnings::default()).map(|log| log.destination)
        };
        let group = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/../pets";
        assert_eq!(
            resolve(group, &[]).as_deref(),
            Some("access-logs/aws-..-pets.log")
        );
        let bindings = [
            binding("arn:aws:logs:*", "file:///var/log/all"),
            binding(group, "/var/log/pets"),
        ];
        assert_eq!(resolve(group, &bindings).as_deref(), Some("/var/log/pets"));
        let stream = "arn:aws:firehose:us-east-1:000000000000:deliverystream/amazon-apigateway-x";
        assert_eq!(resolve(stream, &[]), None);
    }
}
