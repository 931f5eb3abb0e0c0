//! Enrolment and renewal against a hub that really speaks TLS.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

mod common;

use common::{
    TestBox,
    hub::{Authority, BROKER, Deed, ServerCertificate, TestHub},
};
use holdfast::{
    codes,
    enrol::{client::enrol, renew},
    identity::{Identity, clock::TimeFloor},
};
use holdfast_protocol::{Problem, codes as shared, enrol::EnrolAnswer, token::EnrolmentToken};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a hostile hub does to its answer.
type Forgery = Box<dyn FnOnce(&mut EnrolAnswer) + Send>;

async fn refused(token: &EnrolmentToken) -> Problem {
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    let error = enrol(&settings, token, &floor).await.unwrap_err();
    assert!(
        !Identity::exists(&settings.identity_dir()),
        "a refused box has no identity"
    );
    assert_eq!(floor.get(), None, "a refused answer moves no clock");
    (&error).into()
}

#[tokio::test]
async fn an_enrolled_box_has_a_private_identity_and_the_hubs_time() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    let identity = enrol(&settings, &hub.token("one"), &floor).await.unwrap();
    assert_eq!(identity.node.as_str(), "shop-17");

    let loaded = Identity::load(&settings.identity_dir()).unwrap().unwrap();
    assert_eq!(loaded.brokers, [BROKER]);
    assert_eq!(loaded.trust, hub.trust());
    assert_eq!(loaded.enrolled_by.as_deref(), Some("one"));
    assert_eq!(loaded.key.pin(), identity.key.pin());
    for name in [
        "device.key",
        "node.json",
        "certificate.pem",
        "hub-ca.pem",
        "time-floor",
    ] {
        let mode = fs::metadata(settings.identity_dir().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let restarted = TimeFloor::open(&settings.identity_dir()).unwrap();
    assert_eq!(restarted.get(), Some(*hub.time.lock().unwrap()));

    let again = enrol(&settings, &hub.token("two"), &floor).await.unwrap_err();
    assert_eq!(Problem::from(&again).code, codes::ALREADY_ENROLLED);
    let requests = hub.enrolments.lock().unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].requested_name.as_ref().unwrap().as_str(), "shop-17");
    assert!(requests[0].hardware.memory_bytes > 0);
}

#[tokio::test]
async fn pain_16_a_lost_answer_is_asked_for_again_with_the_same_key() {
    let hub = TestHub::start().await;
    hub.next(Deed::LoseTheAnswer);
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    let error = enrol(&settings, &hub.token("one"), &floor).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(Problem::from(&error).code, codes::HUB_UNREACHABLE);

    // As after a power cut: nothing but the disk is left.
    let floor = TimeFloor::open(&settings.identity_dir()).unwrap();
    enrol(&settings, &hub.token("one"), &floor).await.unwrap();
    let requests = hub.enrolments.lock().unwrap();
    let keys: Vec<_> = requests
        .iter()
        .map(|request| {
            rcgen::CertificateSigningRequestParams::from_pem(&request.csr)
                .unwrap()
                .public_key
        })
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(
        rcgen::PublicKeyData::der_bytes(&keys[0]),
        rcgen::PublicKeyData::der_bytes(&keys[1])
    );
}

#[tokio::test]
async fn only_the_hub_with_the_pinned_key_gets_the_token() {
    let hub = TestHub::start().await;
    let mut foreign = hub.token("one");
    foreign.ca_pin = Some(Authority::new("other CA").pin);
    assert_eq!(refused(&foreign).await.code, shared::HUB_IDENTITY_MISMATCH);

    // The right CA certificate is public; sending it along proves nothing.
    let thief = Authority::new("thief");
    let impostor = TestHub::start_signed_by(
        Authority::new("hub CA"),
        Some(&thief),
        ServerCertificate::default(),
    )
    .await;
    assert_eq!(
        refused(&impostor.token("one")).await.code,
        shared::HUB_IDENTITY_MISMATCH
    );

    let other_host = ServerCertificate {
        host: "hub.example",
        ..ServerCertificate::default()
    };
    let elsewhere = TestHub::start_with(Authority::new("hub CA"), other_host).await;
    assert_eq!(
        refused(&elsewhere.token("one")).await.code,
        shared::HUB_IDENTITY_MISMATCH
    );

    let without_ca = ServerCertificate {
        with_ca: false,
        ..ServerCertificate::default()
    };
    let bare = TestHub::start_with(Authority::new("hub CA"), without_ca).await;
    assert_eq!(
        refused(&bare.token("one")).await.code,
        shared::HUB_IDENTITY_MISMATCH
    );

    for hub in [hub, impostor, elsewhere, bare] {
        assert!(
            hub.enrolments.lock().unwrap().is_empty(),
            "the token never left the box"
        );
    }
}

#[tokio::test]
async fn a_token_without_a_pin_trusts_public_roots_only() {
    let hub = TestHub::start().await;
    let mut token = hub.token("one");
    token.ca_pin = None;
    let problem = refused(&token).await;
    // A system without any public roots says that instead.
    assert!(
        [shared::HUB_IDENTITY_MISMATCH, codes::HUB_UNREACHABLE].contains(&problem.code.as_ref()),
        "{problem}"
    );
    assert!(hub.enrolments.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_hubs_own_words_come_through_with_what_to_do() {
    let hub = TestHub::start().await;
    for code in [
        shared::TOKEN_EXPIRED,
        shared::TOKEN_REVOKED,
        shared::TOKEN_SPENT,
        shared::TOKEN_UNKNOWN,
    ] {
        hub.next(Deed::Refuse(StatusCode::CONFLICT, Problem::new(code, "no", "")));
        let problem = refused(&hub.token("one")).await;
        assert_eq!(problem.code, code);
        assert!(!problem.action.is_empty(), "{code}");
    }
}

#[tokio::test]
async fn a_busy_hub_is_asked_again_and_a_refusing_one_is_not() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    for (status, transient) in [
        (StatusCode::SERVICE_UNAVAILABLE, true),
        (StatusCode::TOO_MANY_REQUESTS, true),
        (StatusCode::CONFLICT, false),
        (StatusCode::FORBIDDEN, false),
    ] {
        hub.next(Deed::Refuse(status, Problem::new("x", "no", "")));
        let error = enrol(&settings, &hub.token("one"), &floor).await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{status}");
    }
}

#[tokio::test]
async fn a_hostile_or_broken_answer_leaves_the_box_as_it_was() {
    let hub = TestHub::start().await;
    let thief = Arc::new(Authority::new("thief"));
    let thief_pem = thief.pem.clone();
    let other_key = rcgen::KeyPair::generate().unwrap();
    let other_csr = rcgen::CertificateParams::default()
        .serialize_request(&other_key)
        .unwrap()
        .pem()
        .unwrap();
    let for_other_key = hub.authority.sign_request(&other_csr, "shop-17");
    let stranger = TestHub::start().await;
    let strange_time = stranger.signed_time(Timestamp::now());
    let mut unsigned_time = hub.signed_time(Timestamp::now());
    unsigned_time.signatures.clear();

    let forgeries: Vec<(&str, Forgery)> = vec![
        (
            "a certificate for another key",
            Box::new(move |answer| answer.certificate = for_other_key),
        ),
        (
            "a certificate of another name",
            Box::new(|answer| answer.node = "shop-18".parse().unwrap()),
        ),
        (
            "a foreign CA",
            Box::new(move |answer| answer.ca_certificates = thief_pem),
        ),
        ("no CA", Box::new(|answer| answer.ca_certificates = String::new())),
        (
            "its own certificate as CA",
            Box::new(|answer| answer.ca_certificates = answer.certificate.clone()),
        ),
        (
            "no certificate",
            Box::new(|answer| answer.certificate = "-----BEGIN nonsense".into()),
        ),
        (
            "time by a stranger",
            Box::new(move |answer| answer.signed_time = strange_time),
        ),
        (
            "time without a signature",
            Box::new(move |answer| answer.signed_time = unsigned_time),
        ),
        ("no trusted key", Box::new(|answer| answer.trust.keys.clear())),
        ("no broker", Box::new(|answer| answer.brokers.clear())),
        (
            "a broker without TLS",
            Box::new(|answer| answer.brokers = vec!["mqtt://127.0.0.1:1883".into()]),
        ),
        (
            "a hub without TLS",
            Box::new(|answer| answer.hub_url = "http://127.0.0.1".into()),
        ),
        ("a newer major", Box::new(|answer| answer.schema.major = 9)),
    ];
    for (what, forgery) in forgeries {
        hub.next(Deed::Forge(forgery));
        assert_eq!(
            refused(&hub.token("one")).await.code,
            codes::HUB_ANSWER_INVALID,
            "{what}"
        );
    }
    for bytes in [
        b"<html>log in to the hotel</html>".to_vec(),
        Vec::new(),
        vec![b' '; 5 << 20],
    ] {
        hub.next(Deed::Bytes(bytes));
        let code = refused(&hub.token("one")).await.code;
        assert!(
            [codes::HUB_ANSWER_INVALID, codes::HUB_UNREACHABLE].contains(&code.as_ref()),
            "{code}"
        );
    }
}

#[tokio::test]
async fn pain_04_a_wrong_clock_stops_neither_enrolment_nor_renewal() {
    // By this box's clock, the hub's certificate begins in forty years: the same as a box in 1970 sees.
    let future = ServerCertificate {
        not_before: (2066, 1, 1),
        ..ServerCertificate::default()
    };
    let hub = TestHub::start_with(Authority::new("hub CA"), future).await;
    let signed: Timestamp = "2066-06-01T00:00:00Z".parse().unwrap();
    *hub.time.lock().unwrap() = signed;
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    let identity = enrol(&settings, &hub.token("one"), &floor).await.unwrap();

    assert!(!floor.is_system_clock_trusted());
    assert!(floor.now() >= signed, "the clock is never left behind the floor");
    let restarted = Arc::new(TimeFloor::open(&settings.identity_dir()).unwrap());
    assert!(restarted.now() >= signed, "nor after a restart");
    restarted.raise("2030-01-01T00:00:00Z".parse().unwrap()).unwrap();
    assert_eq!(
        restarted.get(),
        Some(signed),
        "an older signed time changes nothing"
    );
    renew::renew(&settings, &identity, &restarted).await.unwrap();
}

#[tokio::test]
async fn a_hub_whose_clock_was_wrong_for_an_hour_loses_no_box() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    // Long after the end of every certificate there is.
    let wrong: Timestamp = "2150-01-01T00:00:00Z".parse().unwrap();
    *hub.time.lock().unwrap() = wrong;
    let identity = enrol(&settings, &hub.token("one"), &floor).await.unwrap();
    assert_eq!(floor.get(), Some(wrong));
    *hub.time.lock().unwrap() = "2026-06-01T00:00:00Z".parse().unwrap();
    renew::renew(&settings, &identity, &floor).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_by_proof_of_the_key_after_failures() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    let identity = enrol(&settings, &hub.token("one"), &floor).await.unwrap();
    let (_, end) = renew::validity(&identity.certificate).unwrap();
    floor
        .raise(end.checked_add(SignedDuration::from_hours(365 * 24)).unwrap())
        .unwrap();

    hub.next(Deed::LoseTheAnswer);
    hub.next(Deed::Refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        Problem::new("x", "later", ""),
    ));
    let (sender, mut receiver) = watch::channel(Arc::new(identity.clone()));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(renew::run(
        Arc::new(settings.clone()),
        sender,
        floor,
        shutdown.clone(),
    ));
    tokio::time::timeout(Duration::from_secs(60), receiver.changed())
        .await
        .unwrap()
        .unwrap();
    let renewed = receiver.borrow().clone();
    assert_eq!(renewed.brokers, ["mqtts://127.0.0.1:8884"]);
    let loaded = Identity::load(&settings.identity_dir()).unwrap().unwrap();
    assert_eq!(loaded.brokers, renewed.brokers);
    assert_eq!(loaded.node, identity.node);
    shutdown.cancel();
    task.await.unwrap();

    let requests = hub.renewals.lock().unwrap();
    assert_eq!(
        requests.len(),
        3,
        "a clock that runs ahead does not make the box ask without end"
    );
    let (_, pem) = x509_parser::pem::parse_x509_pem(identity.certificate.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let public = &certificate.public_key().subject_public_key.data;
    for request in requests.iter() {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public)
            .verify(&request.signed_bytes(), &request.signature)
            .unwrap();
    }
}

#[tokio::test]
async fn a_renewal_cannot_bring_keys_that_no_trusted_key_vouches_for() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let (settings, floor) = node.prepared();
    let identity = enrol(&settings, &hub.token("one"), &floor).await.unwrap();
    let stranger = TestHub::start().await;
    let (trust, time) = (stranger.trust(), stranger.signed_time(Timestamp::now()));
    hub.next(Deed::ForgeRenewal(Box::new(move |answer| {
        answer.trust = trust;
        answer.signed_time = time;
    })));
    let error = renew::renew(&settings, &identity, &floor).await.unwrap_err();
    assert_eq!(Problem::from(&error).code, codes::HUB_ANSWER_INVALID);
    let kept = Identity::load(&settings.identity_dir()).unwrap().unwrap();
    assert_eq!(kept.trust, hub.trust());
}

#[test]
fn renewal_is_due_at_two_thirds_of_the_life_and_spread_over_a_twelfth() {
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let end = begin.checked_add(SignedDuration::from_hours(30 * 24)).unwrap();
    let day = |jitter| renew::due(begin, end, jitter).duration_since(begin).as_secs_f64() / 86_400.0;
    assert!((day(0.0) - 20.0).abs() < 0.001);
    assert!((day(1.0) - 22.5).abs() < 0.001);
    assert!(day(0.5) > day(0.0) && day(0.5) < day(1.0));
}
