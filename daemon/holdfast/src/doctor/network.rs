//! Checks of the way to the hub and its brokers, step by step, so that the answer names the step: name, connection, TLS.

use super::{Check, Outcome, PATIENCE};
use crate::{
    codes,
    enrol::{
        https::{HttpsError, Target},
        tls::{self, TlsError, Trust},
    },
    identity::Identity,
    sync::BrokerAddress,
};
use holdfast_protocol::Problem;
use rustls::ClientConfig;
use std::sync::Arc;
use tokio::{net::lookup_host, time::timeout};

pub(super) async fn hub(identity: &Identity) -> Check {
    match Target::parse(&identity.hub_url) {
        Ok(target) => reach("hub", &target, tls::anonymous(&Trust::of(identity))).await,
        Err(error) => Check::problem("hub", Outcome::Fail, &(&error).into()),
    }
}

pub(super) async fn brokers(identity: &Identity) -> Vec<Check> {
    let checks = identity.brokers.iter().map(|broker| async move {
        match broker.parse::<BrokerAddress>() {
            Ok(address) => {
                let target = Target::new(address.host, address.port);
                reach("broker", &target, tls::authenticated(identity)).await
            }
            Err(error) => Check::fail("broker", error.to_string(), "correct the hub's broker addresses"),
        }
    });
    futures::future::join_all(checks).await
}

async fn reach(name: &str, target: &Target, tls: Result<ClientConfig, TlsError>) -> Check {
    match timeout(PATIENCE, steps(target, tls)).await {
        Ok(Ok(message)) => Check::ok(name, message),
        Ok(Err(problem)) => {
            let identity = problem.code == holdfast_protocol::codes::HUB_IDENTITY_MISMATCH;
            Check::problem(
                name,
                if identity { Outcome::Fail } else { Outcome::Warn },
                &problem,
            )
        }
        Err(_) => Check::problem(
            name,
            Outcome::Warn,
            &Problem::new(
                codes::HUB_UNREACHABLE,
                format!(
                    "{} did not answer within {} s",
                    target.authority(),
                    PATIENCE.as_secs()
                ),
                "check network and firewall; what runs keeps running without the hub",
            ),
        ),
    }
}

async fn steps(target: &Target, tls: Result<ClientConfig, TlsError>) -> Result<String, Problem> {
    let addresses = lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(|error| {
            Problem::new(
                codes::HUB_UNREACHABLE,
                format!("the name {} cannot be looked up: {error}", target.host),
                "check the box's name servers; what runs keeps running without the hub",
            )
        })?;
    let count = addresses.count();
    let tls = tls.map_err(|error| Problem::from(&HttpsError::from(error)))?;
    target
        .connect(Arc::new(tls))
        .await
        .map_err(|error| Problem::from(&error))?;
    Ok(format!(
        "{} answers and proves who it is (addresses: {count})",
        target.authority()
    ))
}
