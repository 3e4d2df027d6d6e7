//! The kinds of entities, and where each lies.

/// What an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the entity of its name")]
pub enum Kind {
    RestApi,
    ApiResource,
    Method,
    Model,
    RequestValidator,
    Authorizer,
    GatewayResponse,
    DocumentationPart,
    DocumentationVersion,
    Deployment,
    Stage,
    ApiKey,
    UsagePlan,
    UsagePlanKey,
    DomainName,
    BasePathMapping,
    DomainNameAccessAssociation,
    ClientCertificate,
    VpcLink,
    Account,
    Binding,
    Certificate,
    Principal,
    /// Settings of the installation.
    Setting,
    /// What a caller's own key stands for (C10).
    CallerKey,
    /// A registered node.
    Node,
    /// A one-time token by which a node joins.
    JoinToken,
    /// The installation's certificate authority.
    Authority,
    /// The installation's keys for TLS session tickets.
    TicketKeys,
}

/// Every kind with its name in the store, what it lies in, and its collection.
const PLACES: [(Kind, &str, Option<&str>, &str); 29] = [
    (Kind::RestApi, "rest-api", None, "restApis"),
    (Kind::ApiResource, "resource", Some("restApis"), "resources"),
    (Kind::Method, "method", Some("restApis"), "methods"),
    (Kind::Model, "model", Some("restApis"), "models"),
    (
        Kind::RequestValidator,
        "request-validator",
        Some("restApis"),
        "requestValidators",
    ),
    (Kind::Authorizer, "authorizer", Some("restApis"), "authorizers"),
    (
        Kind::GatewayResponse,
        "gateway-response",
        Some("restApis"),
        "gatewayResponses",
    ),
    (
        Kind::DocumentationPart,
        "documentation-part",
        Some("restApis"),
        "documentationParts",
    ),
    (
        Kind::DocumentationVersion,
        "documentation-version",
        Some("restApis"),
        "documentationVersions",
    ),
    (Kind::Deployment, "deployment", Some("restApis"), "deployments"),
    (Kind::Stage, "stage", Some("restApis"), "stages"),
    (Kind::ApiKey, "api-key", None, "apiKeys"),
    (Kind::UsagePlan, "usage-plan", None, "usagePlans"),
    (Kind::UsagePlanKey, "usage-plan-key", Some("usagePlans"), "keys"),
    (Kind::DomainName, "domain-name", None, "domainNames"),
    (
        Kind::BasePathMapping,
        "base-path-mapping",
        Some("domainNames"),
        "basePathMappings",
    ),
    (
        Kind::DomainNameAccessAssociation,
        "domain-name-access",
        None,
        "domainNameAccessAssociations",
    ),
    (
        Kind::ClientCertificate,
        "client-certificate",
        None,
        "clientCertificates",
    ),
    (Kind::VpcLink, "vpc-link", None, "vpcLinks"),
    (Kind::Account, "account", None, "account"),
    (Kind::Binding, "binding", None, "bindings"),
    (Kind::Certificate, "certificate", None, "certificates"),
    (Kind::Principal, "principal", None, "principals"),
    (Kind::Setting, "setting", None, "settings"),
    (Kind::CallerKey, "caller-key", None, "callerKeys"),
    (Kind::Node, "node", None, "nodes"),
    (Kind::JoinToken, "join-token", None, "joinTokens"),
    (Kind::Authority, "authority", None, "authorities"),
    (Kind::TicketKeys, "ticket-keys", None, "ticketKeys"),
];

impl Kind {
    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// From its name in the store.
    pub fn parse(name: &str) -> Option<Self> {
        PLACES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The collection it lies in, and its own.
    pub fn place(self) -> (Option<&'static str>, &'static str) {
        let row = self.row();
        (row.2, row.3)
    }

    /// Whether users manage it by name.
    pub fn is_managed(self) -> bool {
        self <= Self::Principal
    }

    /// Whether it is part of a draft: it reaches traffic through a deployment only (DEP-054).
    pub fn is_draft(self) -> bool {
        self <= Self::DocumentationVersion
    }

    /// The kind that a collection at the top holds.
    pub fn top_level(collection: &str) -> Option<Self> {
        PLACES
            .iter()
            .find(|row| {
                row.3 == collection && row.2.is_none() && row.0.is_managed() && row.0 != Self::Account
            })
            .map(|row| row.0)
    }

    /// The kind that a collection within another entity holds.
    pub fn below(above: &str, collection: &str) -> Option<Self> {
        PLACES
            .iter()
            .find(|row| row.2 == Some(above) && row.3 == collection && row.0 != Self::Method)
            .map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, Option<&'static str>, &'static str) {
        &PLACES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is in the order of the kinds, and every name is its own.
    #[test]
    fn table() {
        for (index, row) in PLACES.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(Kind::parse(row.1), Some(row.0));
        }
    }
}
