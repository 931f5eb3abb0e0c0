//! Renewal of the certificate: at two thirds of its life, and for as long as it takes.
//!
//! The request is signed by the device key, and the hub takes an expired certificate as well: a box that was dark for a year
//! renews with its first word. A box with a sealing key that the hub was never told renews at once, for the renewal carries it. Failures are tried again with full jitter between `enrolment.retry_min` and `retry_max`, without end.
//! Nothing here ever stops what runs.

use super::{
    client::EnrolError,
    https::{HttpsError, Target},
    tls::{self, Trust},
    verify,
};
use crate::{
    identity::{Identity, clock::TimeFloor},
    pace::{Pace, random},
    settings::Settings,
    telemetry::metrics::METRICS,
};
use holdfast_core::clock;
use holdfast_protocol::{
    Problem, SchemaVersion,
    enrol::{RenewAnswer, RenewRequest},
};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// The longest sleep before the clock is looked at again: it may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_hours(1);

/// Begin and end of the life of a PEM chain's first certificate.
pub fn validity(certificate: &str) -> Result<(Timestamp, Timestamp), String> {
    verify::validity(certificate)
}

/// When a certificate is to be renewed: at two thirds of its life, plus up to a twelfth of it by `jitter` (0 to 1), so that boxes
/// that were enrolled together do not come back together.
pub fn due(begin: Timestamp, end: Timestamp, jitter: f64) -> Timestamp {
    let life = end.duration_since(begin).as_secs_f64().max(0.0);
    let after = SignedDuration::try_from_secs_f64(life * (2.0 / 3.0 + jitter.clamp(0.0, 1.0) / 12.0))
        .unwrap_or_default();
    begin.checked_add(after).unwrap_or(end)
}

/// Renews until `shutdown`; each new identity goes to the disk, and then to `identity`.
pub async fn run(
    settings: Arc<Settings>,
    identity: watch::Sender<Arc<Identity>>,
    floor: Arc<TimeFloor>,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = renew_for_ever(&settings, &identity, &floor) => {}
    }
}

async fn renew_for_ever(
    settings: &Settings,
    identity: &watch::Sender<Arc<Identity>>,
    floor: &Arc<TimeFloor>,
) {
    // Chosen once a start: a new choice with each look at the clock would drift towards early.
    let jitter = random() as f64 / u64::MAX as f64;
    loop {
        let current = identity.borrow().clone();
        // A certificate that cannot be read is renewed at once.
        let (begin, end) = validity(&current.certificate).unwrap_or_default();
        METRICS.certificate_expiry.set(end.as_second());
        let wait = due(begin, end, jitter).duration_since(floor.now());
        // A sealing key that the hub does not know is told at once: until then nothing can be sealed to this box.
        if !current.sealing_untold() && wait > SignedDuration::ZERO {
            sleep(wait.unsigned_abs().min(LOOK_AGAIN)).await;
            continue;
        }
        let renewed = until_renewed(settings, current, floor).await;
        let life = validity(&renewed.certificate).map_or(Duration::ZERO, |(begin, end)| {
            end.duration_since(begin).unsigned_abs()
        });
        let _ = identity.send_replace(Arc::new(renewed));
        // By a clock that runs years ahead the new certificate is over as well. It is not renewed again before half its life has really gone by.
        METRICS.certificate_renewals.add(1);
        if due_at_once(&identity.borrow(), jitter, floor) {
            sleep(life / 2).await;
        }
    }
}

fn due_at_once(identity: &Identity, jitter: f64, floor: &TimeFloor) -> bool {
    validity(&identity.certificate).map_or(true, |(begin, end)| due(begin, end, jitter) <= floor.now())
}

async fn until_renewed(settings: &Settings, current: Arc<Identity>, floor: &Arc<TimeFloor>) -> Identity {
    let mut pace = Pace::new(settings.enrolment.retry_min, settings.enrolment.retry_max);
    loop {
        match renew(settings, &current, floor).await {
            Ok(identity) => {
                tracing::info!("certificate renewed");
                return identity;
            }
            Err(error) => {
                let wait = pace.next_wait();
                METRICS.certificate_renewal_failures.add(1);
                let problem = Problem::from(&error);
                tracing::warn!(
                    code = %problem.code,
                    action = %problem.action,
                    retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    "certificate not renewed; what runs is not touched: {}",
                    problem.message
                );
                sleep(wait).await;
            }
        }
    }
}

/// Renews once: asks the hub, checks its answer, and puts the new identity on the disk.
pub async fn renew(
    settings: &Settings,
    current: &Identity,
    floor: &Arc<TimeFloor>,
) -> Result<Identity, EnrolError> {
    let mut request = RenewRequest {
        schema: SchemaVersion::CURRENT,
        certificate: current.certificate.clone(),
        csr: current.key.certificate_request(current.node.as_str())?,
        at: floor.now(),
        sealing_key: current.sealing_statement()?,
        signature: Vec::new(),
    };
    request.signature = current.key.sign(&request.signed_bytes())?;
    let tls = tls::anonymous(&Trust::of(current)).map_err(HttpsError::from)?;
    let answer: RenewAnswer = Target::parse(&current.hub_url)?
        .post(
            Arc::new(tls),
            "/v1/renew",
            &request,
            settings.enrolment.request_timeout,
        )
        .await?;

    let unusable = |reason: String| EnrolError::Answer { reason };
    answer
        .schema
        .check_supported()
        .map_err(|error| unusable(error.to_string()))?;
    verify::certificate(
        &answer.certificate,
        &answer.ca_certificates,
        &current.node,
        &current.key.public_key_info(),
    )
    .map_err(unusable)?;
    verify::usable(&answer.brokers, &answer.trust).map_err(unusable)?;
    // Signed by a key that was trusted before and by one that is trusted from now on: no one can change the keys who has none of them.
    clock::verified_time(&answer.signed_time, &current.trust).map_err(|problem| unusable(problem.message))?;
    let time = clock::verified_time(&answer.signed_time, &answer.trust)
        .map_err(|problem| unusable(problem.message))?;
    floor.raise(time)?;
    let identity = Identity {
        brokers: answer.brokers,
        trust: answer.trust,
        certificate: answer.certificate,
        ca_certificates: answer.ca_certificates,
        told_sealing: current.sealing.as_ref().map(|key| key.public().digest()),
        ..current.clone()
    };
    identity.store(&settings.identity_dir())?;
    Ok(identity)
}
