//! Who calls, and what they may do.

use crate::model::{Code, Kind, Refusal};

/// Who makes a call (C6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The principal's id.
    pub principal: String,
    /// The account it acts in.
    pub account: String,
    /// The region it speaks of; `None`: what is created goes to the installation's, what is listed comes from all.
    pub region: Option<String>,
    /// Whether it may manage the installation itself, and sees every account.
    pub admin: bool,
    /// Where the call comes from.
    pub source: String,
    /// Through which face: `grpc`, `aws`, `local`.
    pub face: &'static str,
    /// The call's id.
    pub request_id: String,
}

impl Caller {
    /// The program itself.
    pub fn local(account: &str) -> Self {
        Self {
            principal: "local".into(),
            account: account.into(),
            admin: true,
            face: "local",
            ..Self::default()
        }
    }

    /// Whether it may know of what belongs to an account.
    pub fn sees(&self, account: &str) -> bool {
        self.admin || self.account == account
    }

    /// Whether it may read entities of a kind.
    pub fn may_read(&self, kind: Kind) -> Result<(), Refusal> {
        self.may(kind, "read")
    }

    /// Whether it may change entities of a kind.
    pub fn may_write(&self, kind: Kind) -> Result<(), Refusal> {
        self.may(kind, "change")
    }

    /// Whether it may manage nodes, backups and the like.
    pub fn may_manage(&self, what: &str) -> Result<(), Refusal> {
        if self.admin {
            Ok(())
        } else {
            Err(self.denied(what))
        }
    }

    /// Which accounts a list is drawn from.
    pub(super) fn account_filter(&self, kind: Kind) -> Option<String> {
        (!self.admin && !is_installation(kind)).then(|| self.account.clone())
    }

    fn may(&self, kind: Kind, verb: &str) -> Result<(), Refusal> {
        if !kind.is_managed() || (is_installation(kind) && !self.admin) {
            return Err(self.denied(&format!("{verb} {}", kind.place().1)));
        }
        Ok(())
    }

    fn denied(&self, what: &str) -> Refusal {
        Refusal::new(
            Code::AccessDenied,
            format!(
                "Principal {} may not {what}: that takes an administrator",
                self.principal
            ),
        )
    }
}

/// What belongs to the installation and not to an account.
fn is_installation(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Binding | Kind::Certificate | Kind::Principal | Kind::Setting
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C6: an account's principal manages its APIs, not the installation.
    #[test]
    fn accounts_and_administrators() {
        let caller = Caller {
            account: "111122223333".into(),
            ..Caller::default()
        };
        assert_eq!(caller.may_write(Kind::Stage), Ok(()));
        assert_eq!(
            caller.may_write(Kind::Certificate).expect_err("denied").code,
            Code::AccessDenied
        );
        assert!(caller.may_manage("list nodes").is_err());
        assert!(caller.sees("111122223333") && !caller.sees("000000000000"));
        let admin = Caller::local("000000000000");
        assert_eq!(admin.may_write(Kind::Binding), Ok(()));
        assert!(admin.may_write(Kind::Node).is_err());
    }
}
