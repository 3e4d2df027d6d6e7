//! Principals and their credentials, and how an installation begins.

use super::{Caller, Service, Stored, audit_of, export};
use crate::{
    compile::{self, InstallationSettings},
    model::{Code, Entity, Key, Kind, Principal, Refusal, Timestamp, id},
    store::{self, List, Put, Secret},
};

/// What an installation needs to begin.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Suffixes of host names, where they are configured; `None`: as they are.
    pub domain_suffixes: Option<Vec<String>>,
}

/// The principal of whoever set the installation up.
const FIRST: &str = "admin";

impl Service {
    /// Who a bearer token belongs to.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, Refusal> {
        let refused = || {
            Refusal::new(
                Code::Unauthorized,
                "The token is missing or not valid. Give the one in the adminTokenFile of the ready file, or one made by \
                 tidegate principal create",
            )
        };
        if token.is_empty() || token.len() > 256 {
            return Err(refused());
        }
        let mut view = self.store().read().await?;
        let row = view
            .find(Kind::Principal, token.as_bytes())
            .await?
            .ok_or_else(refused)?;
        super::unit::read_body(row)
    }

    /// Makes a principal; its token is in the answer and nowhere else.
    pub async fn create_principal(
        &self,
        caller: &Caller,
        name: &str,
        account: Option<String>,
        admin: bool,
    ) -> Result<(Stored, String), Refusal> {
        caller.may_write(Kind::Principal)?;
        let account = account
            .filter(|account| !account.is_empty())
            .unwrap_or_else(|| self.options().account.clone());
        let token = id::secret()?;
        let (id, region) = (id::random(id::LONG)?, self.options().region.clone());
        let principal = Principal {
            id: Some(id.clone()),
            name: Some(name.into()),
            account_id: Some(account.clone()),
            admin: Some(admin),
            created_date: Some(Timestamp::now()),
        };
        let entity = Entity::Principal(principal);
        entity.check()?;
        let put = Put {
            key: Key::top(Kind::Principal, id),
            account,
            region,
            body: entity.to_json()?,
            secret: Secret::Hashed(token.clone().into_bytes()),
        };
        let audit = audit_of(caller, "CreatePrincipal", &put.key.to_string());
        let (stored, _) = store::transact(self.store().as_ref(), move |tx| {
            Box::pin(async move {
                tx.act_as(&audit.principal);
                let key = put.key.clone();
                tx.put(put).await?;
                tx.audit(&audit).await?;
                let row = tx
                    .get(&key)
                    .await?
                    .ok_or_else(|| Refusal::internal("what was written is gone"))?;
                export::stored(tx.as_read(), row, false).await
            })
        })
        .await?;
        Ok((stored, token))
    }

    /// Makes what every installation has, where it is not there yet.
    pub async fn bootstrap(&self, bootstrap: Bootstrap) -> Result<(), Refusal> {
        let options = self.options().clone();
        store::transact(self.store().as_ref(), move |tx| {
            Box::pin(async move {
                let (revision, before) = compile::settings(tx.as_read()).await?;
                let mut settings = before.clone();
                if let Some(suffixes) = bootstrap.domain_suffixes {
                    settings.domain_suffixes = suffixes;
                }
                if revision != 0 && settings == before {
                    return Ok(());
                }
                let body = serde_json::to_value(&settings).map_err(Refusal::internal)?;
                tx.act_as("local");
                let key = compile::settings_key();
                tx.put(Put {
                    key,
                    account: options.account,
                    region: options.region,
                    body,
                    secret: Secret::Clear,
                })
                .await?;
                Ok(())
            })
        })
        .await?;
        Ok(())
    }

    /// The installation's settings as they are.
    pub async fn settings(&self) -> Result<InstallationSettings, Refusal> {
        let mut view = self.store().read().await?;
        Ok(compile::settings(view.as_mut()).await?.1)
    }

    /// A token of the first principal, whose old ones end with it: for a token file that is not there.
    pub async fn first_token(&self) -> Result<String, Refusal> {
        let local = Caller::local(&self.options().account);
        let mut view = self.store().read().await?;
        let known = view.list(&List::all(Kind::Principal)).await?;
        drop(view);
        for row in known {
            if row.body.get("name").and_then(|name| name.as_str()) == Some(FIRST) {
                self.delete(&local, row.key, None, None).await?;
            }
        }
        let (_, token) = self.create_principal(&local, FIRST, None, true).await?;
        Ok(token)
    }
}
