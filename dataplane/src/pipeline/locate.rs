//! Host and path to stage.

use std::rc::Rc;

use tidegate_plan::path::{self, PathRef};

use super::exchange::{Exchange, collapse};
use super::failure::Failure;
use crate::shard::{Client, LocalStage, Routes};

/// The prefix of the form that needs no host name.
const BY_PATH: &str = "restapis";
const USER_REQUEST: &str = "_user_request_";

/// Finds the stage that a request is for, and brings its path into its one form.
pub(super) fn locate<'h>(x: &mut Exchange<'h>, client: &Client) -> Result<(), Failure> {
    if let Some(query) = x.query {
        path::check_query(query).map_err(|_| Failure::BAD_PATH)?;
    }
    x.path = Some(path::normalize(x.head.path()).map_err(|_| Failure::BAD_PATH)?);

    if let Some(test) = &client.test {
        x.stage = Some(Rc::clone(&test.stage));
        return Ok(());
    }
    if let Some(identity) = &client.identity
        && let Some(server_name) = &identity.server_name
        && !std::str::from_utf8(x.host).is_ok_and(|host| identity.certificates.covers(server_name, host))
    {
        return Err(Failure::MISDIRECTED);
    }

    let routes = client.shard.routes.borrow();
    let view = x.path.as_ref().ok_or(Failure::BAD_PATH)?.view();
    let (stage, skip) = stage_of(&routes, x.host, view, client.origin.loopback)?;
    x.canary = match &stage.shared.plan.canary {
        Some(canary) => client.shard.ids.percent() < canary.percent(),
        None => false,
    };
    let stage = Rc::clone(stage);
    x.skip = skip;
    x.stage = Some(stage);
    Ok(())
}

/// The stage that host and path name, and how many segments of the path come before the resource's.
pub(super) fn stage_of<'r>(
    routes: &'r Routes,
    host: &[u8],
    path: PathRef<'_>,
    loopback: bool,
) -> Result<(&'r Rc<LocalStage>, u8), Failure> {
    let mut lower = [0; 63];
    let view = collapse(path);
    let (api, stage, skip) = match routes.api_of_host(host, &mut lower) {
        Some(id) => {
            let (stage, _) = view.split_first().ok_or(Failure::FORBIDDEN)?;
            (id, stage, 1)
        }
        None => {
            let (id, stage) = by_path(view.as_str()).ok_or(Failure::FORBIDDEN)?;
            if !routes.by_path(loopback) {
                return Err(Failure::FORBIDDEN);
            }
            (id.as_bytes(), stage, 4)
        }
    };
    let stage = routes
        .api(api)
        .and_then(|api| api.stage(stage.as_bytes()))
        .ok_or(Failure::FORBIDDEN)?;
    if stage.shared.plan.disable_execute_api_endpoint {
        return Err(Failure::FORBIDDEN);
    }
    Ok((stage, skip))
}

/// `/restapis/{api}/{stage}/_user_request_/…`.
fn by_path(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.strip_prefix('/')?.splitn(5, '/');
    if parts.next()? != BY_PATH {
        return None;
    }
    let (api, stage) = (parts.next()?, parts.next()?);
    (parts.next()? == USER_REQUEST).then_some((api, stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_found_by_path() {
        assert_eq!(
            by_path("/restapis/a/prod/_user_request_/x/y"),
            Some(("a", "prod"))
        );
        assert_eq!(by_path("/restapis/a/prod/_user_request_"), Some(("a", "prod")));
        assert_eq!(by_path("/restapis/a/prod/x"), None);
        assert_eq!(by_path("/a/prod"), None);
    }
}
