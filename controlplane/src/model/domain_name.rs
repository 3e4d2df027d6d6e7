//! Custom domains and what they lead to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EndpointConfiguration, Refusal, Timestamp, rules};

/// A custom domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the members are the public model's; nothing reads most of them yet"
)]
pub struct DomainName {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_upload_date: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regional_domain_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regional_hosted_zone_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regional_certificate_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regional_certificate_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution_domain_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution_hosted_zone_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_configuration: Option<EndpointConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name_status_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_access_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutual_tls_authentication: Option<MutualTlsAuthentication>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ownership_verification_certificate_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_mode: Option<String>,
}

/// Whose client certificates a domain takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MutualTlsAuthentication {
    /// Where the authorities' certificates are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truststore_uri: Option<String>,
    /// Which version of that object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truststore_version: Option<String>,
    /// What is wrong with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truststore_warnings: Option<Vec<String>>,
}

/// A path of a domain and the stage behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BasePathMapping {
    /// The path without slashes around it; `(none)` for the whole domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_path: Option<String>,
    /// The API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest_api_id: Option<String>,
    /// Its stage; absent: the first segment names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

/// A private listener that may reach a private domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainNameAccessAssociation {
    /// Its ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name_access_association_arn: Option<String>,
    /// The domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name_arn: Option<String>,
    /// `VPCE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_association_source_type: Option<String>,
    /// The listener's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_association_source: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

impl DomainName {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &[
        "domainNameId",
        "domainNameArn",
        "certificateUploadDate",
        "regionalDomainName",
        "regionalHostedZoneId",
        "distributionDomainName",
        "distributionHostedZoneId",
        "domainNameStatus",
        "domainNameStatusMessage",
    ];

    /// A host name, with a wildcard as its first label only (DEP-154).
    pub fn check(&self) -> Result<(), Refusal> {
        let name = self.domain_name.as_deref().unwrap_or_default();
        let host = name.strip_prefix("*.").unwrap_or(name);
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if name.len() > 253 || !host.contains('.') || !host.split('.').all(label) {
            return Err(Refusal::bad_request(format!(
                "The domain name to be provided is invalid: {name}"
            )));
        }
        if let Some(endpoint) = &self.endpoint_configuration {
            endpoint.check("createDomainNameInput")?;
        }
        rules::tags(self.tags.as_ref())
    }
}

impl BasePathMapping {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &[];

    /// No base path is `(none)`.
    pub fn fill_defaults(&mut self) {
        if self.base_path.as_deref().unwrap_or_default().is_empty() {
            self.base_path = Some("(none)".into());
        }
    }

    /// It names an API.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.rest_api_id.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Invalid REST API identifier specified"));
        }
        Ok(())
    }
}

impl DomainNameAccessAssociation {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["domainNameAccessAssociationArn"];

    /// It names a domain.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.domain_name_arn.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Invalid domain name ARN specified"));
        }
        rules::tags(self.tags.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DEP-154: a wildcard is the first label only.
    #[test]
    fn names() {
        let check = |name: &str| {
            DomainName {
                domain_name: Some(name.into()),
                ..DomainName::default()
            }
            .check()
            .is_ok()
        };
        assert!(check("*.example.com") && check("api.example.com"));
        assert!(!check("a.*.example.com") && !check("localhost") && !check("") && !check("-a.example.com"));
    }
}
