//! A stage: a name under which a deployment is served, and the settings that act without a redeployment (C4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Timestamp, rules};

/// A stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The deployment it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<String>,
    /// The certificate shown to backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_id: Option<String>,
    /// The first segment of its URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether answers may be cached at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_cluster_enabled: Option<bool>,
    /// The cache's size in GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_cluster_size: Option<String>,
    /// How the cache is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_cluster_status: Option<String>,
    /// `*/*` or `{path}/{verb}` to settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method_settings: Option<BTreeMap<String, MethodSetting>>,
    /// Stage variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<BTreeMap<String, String>>,
    /// The documentation that belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documentation_version: Option<String>,
    /// Where access log lines go, and their form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log_settings: Option<AccessLogSettings>,
    /// A second deployment for a share of the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_settings: Option<CanarySettings>,
    /// Whether requests are traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_enabled: Option<bool>,
    /// The firewall before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_acl_arn: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_date: Option<Timestamp>,
    /// When it last changed (DEP-062).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated_date: Option<Timestamp>,
}

/// Settings of one method of a stage, or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodSetting {
    /// Metrics of this method by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_enabled: Option<bool>,
    /// `OFF`, `ERROR` or `INFO`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging_level: Option<String>,
    /// Log whole requests and responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_trace_enabled: Option<bool>,
    /// Size of the bucket; -1: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttling_burst_limit: Option<i32>,
    /// Requests a second; -1: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttling_rate_limit: Option<f64>,
    /// Whether answers are cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caching_enabled: Option<bool>,
    /// How long, from 0 to 3,600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_ttl_in_seconds: Option<i32>,
    /// Whether the cache is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_data_encrypted: Option<bool>,
    /// Whether a client needs permission to skip the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_authorization_for_cache_control: Option<bool>,
    /// What a client without it gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unauthorized_cache_control_header_strategy: Option<String>,
}

/// Where access log lines go, and their form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessLogSettings {
    /// The form of a line, with `$context` variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// A log group or delivery stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_arn: Option<String>,
}

/// A second deployment for a share of the requests (DEP-102).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanarySettings {
    /// From 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent_traffic: Option<f64>,
    /// The second deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<String>,
    /// Laid over the stage's variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_variable_overrides: Option<BTreeMap<String, String>>,
    /// Whether it shares the stage's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_stage_cache: Option<bool>,
}

const MAX_NAME: usize = 128; // DEP-057
const MAX_VARIABLES: usize = 100; // QUO-059
const MAX_VARIABLE_NAME: usize = 64; // QUO-060
const MAX_VARIABLE: usize = 512; // QUO-061
const CACHE_SIZES: [&str; 8] = ["0.5", "1.6", "6.1", "13.5", "28.4", "58.2", "118", "237"];

impl Stage {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &[
        "cacheClusterStatus",
        "createdDate",
        "lastUpdatedDate",
        "webAclArn",
    ];

    /// What a stage has although nobody said so (OBV-149, DEP-061).
    pub fn fill_defaults(&mut self) {
        let cached = *self.cache_cluster_enabled.get_or_insert(false);
        self.cache_cluster_status = Some(if cached { "AVAILABLE" } else { "NOT_AVAILABLE" }.into());
        self.method_settings.get_or_insert_default();
        self.tracing_enabled.get_or_insert(false);
        if let Some(canary) = &mut self.canary_settings {
            // DEP-109, DEP-118: a canary begins on the stage's deployment.
            canary.deployment_id = canary.deployment_id.take().or_else(|| self.deployment_id.clone());
            canary.percent_traffic.get_or_insert(0.0);
            canary.use_stage_cache.get_or_insert(false);
        }
    }

    /// The rules that a stage obeys by itself.
    pub fn check(&self) -> Result<(), Refusal> {
        let name = self.stage_name.as_deref().unwrap_or_default();
        let valid = !name.is_empty()
            && name.len() <= MAX_NAME
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !valid {
            return Err(Refusal::bad_request("Stage name only allows a-zA-Z0-9_-"));
        }
        if self.deployment_id.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Deployment id is required"));
        }
        check_variables(self.variables.as_ref())?;
        rules::one_of(
            "createStageInput.cacheClusterSize",
            self.cache_cluster_size.as_deref(),
            &CACHE_SIZES,
        )?;
        if let Some(canary) = &self.canary_settings {
            canary.check()?;
        }
        for (key, setting) in self.method_settings.iter().flatten() {
            setting.check(key)?;
        }
        if let Some(log) = &self.access_log_settings {
            log.check()?;
        }
        rules::tags(self.tags.as_ref())
    }
}

impl CanarySettings {
    /// A share from 0 to 100 (DEP-103) and readable variables.
    pub fn check(&self) -> Result<(), Refusal> {
        let percent = self.percent_traffic.unwrap_or(0.0);
        if !(0.0..=100.0).contains(&percent) {
            return Err(Refusal::bad_request(
                "Canary percentTraffic must be between 0.0 and 100.0",
            ));
        }
        check_variables(self.stage_variable_overrides.as_ref())
    }
}

impl MethodSetting {
    fn check(&self, key: &str) -> Result<(), Refusal> {
        if method_key(key).is_none() {
            return Err(Refusal::bad_request(format!(
                "Invalid method setting path: {key}"
            )));
        }
        if let Some(level) = self.logging_level.as_deref()
            && !["OFF", "ERROR", "INFO"].contains(&level)
        {
            return Err(Refusal::bad_request(
                "Invalid logging level specified. Must be one of: [OFF, ERROR, INFO]",
            ));
        }
        if let Some(rate) = self.throttling_rate_limit
            && !(rate.is_finite() && (rate >= 0.0 || rate == -1.0))
        {
            return Err(Refusal::bad_request(format!(
                "Invalid throttling rate limit specified: {rate}"
            )));
        }
        if let Some(burst) = self.throttling_burst_limit
            && burst < -1
        {
            return Err(Refusal::bad_request(format!(
                "Invalid throttling burst limit specified: {burst}"
            )));
        }
        if let Some(ttl) = self.cache_ttl_in_seconds
            && !(0..=3_600).contains(&ttl)
        {
            return Err(Refusal::bad_request(
                "Invalid cache TTL, must be between 0 and 3600",
            ));
        }
        rules::one_of(
            "methodSettings.unauthorizedCacheControlHeaderStrategy",
            self.unauthorized_cache_control_header_strategy.as_deref(),
            &[
                "FAIL_WITH_403",
                "SUCCEED_WITH_RESPONSE_HEADER",
                "SUCCEED_WITHOUT_RESPONSE_HEADER",
            ],
        )
    }
}

impl AccessLogSettings {
    /// The destination is an ARN without the `:*` of a policy (OBV-154); what it names is not looked up (OBV-153).
    pub fn check(&self) -> Result<(), Refusal> {
        let Some(arn) = self.destination_arn.as_deref() else {
            return Ok(());
        };
        let fields: Vec<&str> = arn.splitn(6, ':').collect();
        let delivery = || {
            fields[5]
                .strip_prefix("deliverystream/")
                .is_some_and(|n| n.starts_with("amazon-apigateway-"))
        };
        let valid = fields.len() == 6
            && fields[0] == "arn"
            && match fields[2] {
                "logs" => fields[5].starts_with("log-group:") && !arn.ends_with(":*"),
                "firehose" => delivery(), // DEP-071
                _ => false,
            };
        if valid {
            return Ok(());
        }
        Err(Refusal::bad_request(format!(
            "Invalid ARN specified in the request: {arn}"
        )))
    }
}

/// Splits a key of `methodSettings` into path and verb: `*/*` for every method, else `pets/{id}/GET`; the path's
/// slashes may be written `~1` and the first one left out. The path comes back with its leading slash.
pub fn method_key(key: &str) -> Option<(String, String)> {
    let (path, verb) = key.rsplit_once('/')?;
    if path == "*" && verb == "*" {
        return Some(("*".into(), "*".into()));
    }
    let verb = verb.to_ascii_uppercase();
    if verb != "*" && !super::method::VERBS.contains(&verb.as_str()) {
        return None;
    }
    let path = path.replace("~1", "/").replace("~0", "~");
    Some((format!("/{}", path.trim_matches('/')), verb))
}

fn check_variables(variables: Option<&BTreeMap<String, String>>) -> Result<(), Refusal> {
    let Some(variables) = variables else { return Ok(()) };
    if variables.len() > MAX_VARIABLES {
        return Err(Refusal::bad_request(format!(
            "A stage has at most {MAX_VARIABLES} stage variables"
        )));
    }
    for (name, value) in variables {
        let named = !name.is_empty()
            && name.len() <= MAX_VARIABLE_NAME
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !named {
            return Err(Refusal::bad_request(format!(
                "Invalid stage variable name: {name}. Please use alphanumeric characters and underscores, at most {MAX_VARIABLE_NAME}"
            )));
        }
        let readable = value.len() <= MAX_VARIABLE
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#&=,".contains(&b));
        if !readable {
            return Err(Refusal::bad_request(format!(
                "Invalid stage variable value: {value}. Please use values with alphanumeric characters and the symbols \
                 ' ', -', '.', '_', ':', '/', '?', '&', '=', and ','."
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str) -> Stage {
        let mut stage = Stage {
            stage_name: Some(name.into()),
            deployment_id: Some("abc123".into()),
            ..Stage::default()
        };
        stage.fill_defaults();
        stage
    }

    /// OBV-149, DEP-061: the members of a new stage.
    #[test]
    fn defaults() {
        assert_eq!(
            serde_json::to_value(stage("test")).expect("serializes"),
            serde_json::json!({
                "stageName": "test", "deploymentId": "abc123", "cacheClusterEnabled": false,
                "cacheClusterStatus": "NOT_AVAILABLE", "methodSettings": {}, "tracingEnabled": false,
            })
        );
    }

    /// DEP-057: letters, digits, hyphens, underscores, at most 128.
    #[test]
    fn names() {
        assert_eq!(stage("a-Z_9").check(), Ok(()));
        assert_eq!(stage(&"a".repeat(128)).check(), Ok(()));
        for wrong in ["my stage", "", "a/b", &"a".repeat(129)] {
            assert!(stage(wrong).check().is_err(), "{wrong}");
        }
    }

    /// DEP-103: -1 and 100.5 are no shares. DEP-118: a canary begins on the stage's deployment.
    #[test]
    fn canary_share() {
        let mut stage = stage("prod");
        stage.canary_settings = Some(CanarySettings {
            percent_traffic: Some(10.5),
            ..CanarySettings::default()
        });
        stage.fill_defaults();
        assert_eq!(stage.check(), Ok(()));
        assert_eq!(
            stage
                .canary_settings
                .as_ref()
                .and_then(|c| c.deployment_id.as_deref()),
            Some("abc123")
        );
        for wrong in [-1.0, 100.5, f64::NAN] {
            stage.canary_settings = Some(CanarySettings {
                percent_traffic: Some(wrong),
                ..CanarySettings::default()
            });
            assert!(stage.check().is_err(), "{wrong}");
        }
    }

    /// QUO-059, QUO-060, QUO-061: bounds of stage variables.
    #[test]
    fn variables() {
        let mut stage = stage("prod");
        stage.variables = Some(BTreeMap::from([("url".into(), "httpbin.org/get?a=b".into())]));
        assert_eq!(stage.check(), Ok(()));
        for (name, value) in [("a-b", "x".into()), ("a", "x y".into()), ("a", "x".repeat(513))] {
            stage.variables = Some(BTreeMap::from([(name.into(), value)]));
            assert!(stage.check().is_err());
        }
        stage.variables = Some((0..101).map(|n| (format!("v{n}"), String::new())).collect());
        assert!(stage.check().is_err());
    }

    /// DEP-071, OBV-153, OBV-154: where access logs may go.
    #[test]
    fn log_destinations() {
        let check = |arn: &str| {
            AccessLogSettings {
                format: None,
                destination_arn: Some(arn.into()),
            }
            .check()
        };
        assert_eq!(
            check("arn:aws:logs:us-east-1:000000000000:log-group:nosuch"),
            Ok(())
        );
        assert_eq!(
            check("arn:aws:firehose:us-east-1:000000000000:deliverystream/amazon-apigateway-x"),
            Ok(())
        );
        assert!(check("arn:aws:logs:us-east-1:000000000000:log-group:x:*").is_err());
        assert!(check("arn:aws:firehose:us-east-1:000000000000:deliverystream/x").is_err());
        assert!(check("/var/log/x").is_err());
    }

    /// DEP-076: keys of method settings, escaped or not.
    #[test]
    fn method_keys() {
        let key = |text| method_key(text).map(|(path, verb)| format!("{path} {verb}"));
        assert_eq!(key("*/*").as_deref(), Some("* *"));
        assert_eq!(key("pets/{id}/GET").as_deref(), Some("/pets/{id} GET"));
        assert_eq!(key("~1pets~1{id}/get").as_deref(), Some("/pets/{id} GET"));
        assert_eq!(key("/GET").as_deref(), Some("/ GET"));
        assert_eq!(key("~1/GET").as_deref(), Some("/ GET"));
        assert_eq!(key("pets"), None);
        assert_eq!(key("pets/FETCH"), None);
    }
}
