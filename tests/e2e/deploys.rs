//! Redeployments under load: what was acknowledged is served at once, and no request or connection pays for it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tidegate_harness::backend::pattern;
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::{Deployed, Instance};
use tidegate_harness::load::{Load, Target};
use tidegate_harness::rate::Admissions;
use tidegate_harness::raw::{Connection, get, request};
use tidegate_harness::suite::{Context, Test};

use crate::pets::everything;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::both_drivers("what_is_acknowledged_is_served", what_is_acknowledged_is_served),
    Test::everywhere("twenty_redeployments_under_load", |context| {
        redeploy(context, 20, 2)
    }),
    Test::both_drivers("two_hundred_redeployments_on_eight_shards", |context| {
        redeploy(context, 200, 8)
    })
    .slow(),
    Test::both_drivers(
        "a_request_ends_on_the_version_it_began_with",
        a_request_ends_on_the_version_it_began_with,
    ),
    Test::both_drivers("throttled_requests_are_told", throttled_requests_are_told),
    Test::once("a_deleted_api_is_gone_at_once", a_deleted_api_is_gone_at_once),
];

/// C2: the request that follows the acknowledgement sees the new deployment, on any connection.
fn what_is_acknowledged_is_served(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut deployed = shared.deploy(&Definition::new("versions").mock("GET", "/v0", 200))?;
    let mut kept: Vec<Connection> = (0..8)
        .map(|_| Connection::open(shared.http()))
        .collect::<Result<_>>()?;
    for version in 1..=10 {
        let definition = Definition::new("versions").mock("GET", &format!("/v{version}"), 200);
        deployed = shared.instance.replace(&deployed, &definition)?;
        for connection in &mut kept {
            connection.send(request(
                "GET",
                &deployed.host(),
                &deployed.path(&format!("/v{version}")),
            ))?;
            let new = connection.response()?;
            ensure!(
                new.status == 200,
                "version {version} was acknowledged and is not served: {new:?}"
            );
            connection.send(request(
                "GET",
                &deployed.host(),
                &deployed.path(&format!("/v{}", version - 1)),
            ))?;
            let old = connection.response()?;
            ensure!(
                old.status == 403,
                "version {} is still served: {old:?}",
                version - 1
            );
        }
    }
    Ok(())
}

/// Redeploys an API again and again while it is under load: no failed request, no dropped connection.
fn redeploy(context: &Context, times: usize, shards: usize) -> Result<()> {
    let shared;
    let own;
    let backend;
    let instance: &Instance = if shards == 2 {
        shared = context.shared()?;
        backend = None;
        &shared.instance
    } else {
        own = context.plan().shards(shards).up("up")?;
        backend = Some(tidegate_harness::backend::Backend::start()?);
        shared = context.shared()?;
        &own
    };
    let backend = backend.as_ref().unwrap_or(&shared.backend);
    let mut deployed = instance.import(&everything(backend), "test")?;
    let throttled = instance.import(&Definition::new("throttled").mock("GET", "/t", 200), "test")?;
    throttle(instance, &throttled, RATE, BURST)?;
    let target = |path: &str, deployed: &Deployed, body: Option<Vec<u8>>| Target {
        address: instance.ready().http,
        request: request("GET", &deployed.host(), &deployed.path(path)).into_bytes(),
        body,
    };
    let proxied = Load::start(&target("/b/fixed/1000", &deployed, Some(pattern(1_000))), 8);
    let limited = Load::start_timed(&target("/t", &throttled, None), 2);
    proxied.await_answers(100)?;
    for at in 0..times {
        deployed = instance.replace(
            &deployed,
            &everything(backend).mock("GET", &format!("/only-{at}"), 200),
        )?;
        let new = get(
            instance.ready().http,
            &deployed.host(),
            &deployed.path(&format!("/only-{at}")),
        )?;
        ensure!(
            new.status == 200,
            "redeployment {at} was acknowledged and is not served: {new:?}"
        );
        instance.deploy_again(&throttled)?;
        proxied.await_answers(20)?;
    }
    proxied.stop().ensure_flawless(&[200])?;
    let (limited, timed) = limited.stop_timed();
    limited.ensure_flawless(&[200, 429])?;
    // D8, D9: never more than burst + rate × T; and while more is asked than that, within 1% of the rate both ways.
    let admissions = Admissions::new(RATE, f64::from(BURST), &timed);
    let left = admissions.ensure_never_more()?;
    let shares = admissions.between_refusals(STRETCH);
    println!(
        "{times} redeployments, {shards} shards: {} of {} requests admitted, {left:.2} tokens short of the bound; {}",
        limited.status(200),
        limited.answered(),
        match shares {
            None => "no stretch is long enough to compare with the rate".to_owned(),
            Some(shares) => format!(
                "in any stretch of {} s or more, {:.3} s in all, at most {:.2}% and at least {:.2}% of the rate",
                STRETCH.as_secs(),
                shares.covered.as_secs_f64(),
                100.0 * shares.most,
                100.0 * shares.least
            ),
        }
    );
    match shares {
        Some(shares) => ensure!(
            shares.most <= 1.01 && shares.least >= 0.99,
            "the throttle is off by more than 1%: {shares:?}"
        ),
        // Twenty redeployments may be over sooner.
        None => ensure!(
            times < 100,
            "the load was too thin to tell what the throttle admits"
        ),
    }
    Ok(())
}

/// The throttle under redeployment. The bucket takes seven seconds to fill, so that a load that stands still for a while
/// does not let it overflow; and it is too small for shards to hold credit of.
const RATE: f64 = 100.0;
const BURST: u32 = 700;

/// The shortest time over which the rate is compared: 1% of it is five requests.
const STRETCH: Duration = Duration::from_secs(5);

/// Sets the stage's default throttle.
fn throttle(instance: &Instance, deployed: &Deployed, rate: f64, burst: u32) -> Result<()> {
    let file = instance.home().join(format!("throttle-{}.json", deployed.api_id));
    let entity = json!({
        "name": format!("restApis/{}/stages/{}", deployed.api_id, deployed.stage),
        "stage": { "methodSettings": { "*/*": { "throttlingRateLimit": rate, "throttlingBurstLimit": burst } } },
    });
    std::fs::write(&file, entity.to_string())?;
    instance.run(&["apply", "-f", &file.display().to_string()])?;
    Ok(())
}

/// D9, C4: a request in flight ends on the version it began with, and the connection goes on with the new one.
fn a_request_ends_on_the_version_it_began_with(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut deployed = shared.deploy(&everything(&shared.backend))?;
    let mut upload = Connection::open(shared.http())?;
    upload.send(format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 6\r\n\r\nabc",
        deployed.path("/b/echo"),
        deployed.host()
    ))?;
    let mut download = Connection::open(shared.http())?;
    download.send(request(
        "GET",
        &deployed.host(),
        &deployed.path("/b/fixed/9000000"),
    ))?;
    download.read_some(1)?;
    let seen = shared.backend.count()?;
    deployed = shared.instance.replace(
        &deployed,
        &Definition::new("everything").mock("GET", "/other", 200),
    )?;
    upload.send("def")?;
    let answered = upload.response().context("a request that began before")?;
    ensure!(
        answered.status == 200 && answered.json()?["body"] == "abcdef",
        "{answered:?}"
    );
    ensure!(
        download.response()?.body == pattern(9_000_000),
        "a response that began before"
    );
    ensure!(shared.backend.count()? >= seen, "the backend was restarted");
    upload.send(request("GET", &deployed.host(), &deployed.path("/b/fixed/3")))?;
    ensure!(
        upload.response()?.status == 403,
        "the old version is still served"
    );
    upload.send(request("GET", &deployed.host(), &deployed.path("/other")))?;
    ensure!(upload.response()?.status == 200, "the new version is not served");
    Ok(())
}

/// GWR-036, D8: over the limit comes 429 in the service's form; the connection stays.
fn throttled_requests_are_told(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&Definition::new("throttled").mock("GET", "/t", 200))?;
    throttle(&shared.instance, &deployed, 1.0, 5)?;
    let mut connection = Connection::open(shared.http())?;
    let mut admitted = 0;
    let refused = loop {
        connection.send(request("GET", &deployed.host(), &deployed.path("/t")))?;
        let response = connection.response()?;
        if response.status != 200 {
            break response;
        }
        admitted += 1;
        ensure!(admitted < 1_000, "nothing is ever refused");
    };
    ensure!(
        refused.status == 429 && refused.text() == r#"{"message":"Too Many Requests"}"#,
        "{refused:?}"
    );
    ensure!(
        refused.header("x-amzn-errortype") == Some("TooManyRequestsException"),
        "{refused:?}"
    );
    ensure!(admitted >= 5, "only {admitted} of a burst of 5 were admitted");
    // No limit any more: settings of a stage are live, without a deployment.
    throttle(&shared.instance, &deployed, 100_000.0, 5_000)?;
    for _ in 0..20 {
        connection.send(request("GET", &deployed.host(), &deployed.path("/t")))?;
        ensure!(connection.response()?.status == 200, "still limited");
    }
    Ok(())
}

/// C4: deleting an API is live.
fn a_deleted_api_is_gone_at_once(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    ensure!(
        get(shared.http(), &deployed.host(), &deployed.path("/b/fixed/3"))?.status == 200,
        "before"
    );
    shared
        .instance
        .run(&["delete", &format!("restApis/{}", deployed.api_id)])?;
    let gone = get(shared.http(), &deployed.host(), &deployed.path("/b/fixed/3"))?;
    ensure!(
        gone.status == 403 && gone.json()?["message"] == "Forbidden",
        "{gone:?}"
    );
    Ok(())
}
