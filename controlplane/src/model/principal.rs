//! Who may call the management interfaces.

use serde::{Deserialize, Serialize};

use super::{Refusal, Timestamp};

/// Who may call the management interfaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The account it acts in: 12 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Whether it may manage the installation itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<bool>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_date: Option<Timestamp>,
}

impl Principal {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id", "createdDate"];

    /// A name and an account of 12 digits.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.name.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("A principal needs a name"));
        }
        let account = self.account_id.as_deref().unwrap_or_default();
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refusal::bad_request(format!(
                "Invalid account id: {account}. Give 12 digits"
            )));
        }
        Ok(())
    }
}
