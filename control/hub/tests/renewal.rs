//! Renewal at a real hub over real TLS: a box that was dark comes back by itself, a deleted one does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_protocol::{codes, enrol::RenewAnswer, operator::NodeInfo};
use rcgen::KeyPair;
use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use support::{Device, Hub, Site, eventually, problem, release};

async fn renew(
    hub: &Hub,
    client: &Client,
    request: &holdfast_protocol::enrol::RenewRequest,
) -> reqwest::Response {
    client
        .post(format!("{}/v1/renew", hub.api))
        .json(request)
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn pain_3_an_expired_certificate_is_renewed_by_its_key() {
    let site = Site::new();
    let hub = site
        .start_with(&[("enrolment", "certificate_lifetime = \"2s\"")])
        .await;
    let node = hub.node("dark").await;
    let blob = format!("{}/v1/blobs/{}", hub.api, holdfast_protocol::Digest::of(b"x"));
    // The expired certificate still makes a connection, on which the hub says what is wrong.
    eventually("the certificate to expire", async || {
        let (_, problem) = problem(node.client().get(&blob).send().await.unwrap()).await;
        (problem.code == holdfast_hub::codes::CERTIFICATE_EXPIRED).then_some(())
    })
    .await;
    let request = node.device.renewal(&node.answer.certificate, &node.device.key);
    // With the expired certificate and with none: the device key is the proof.
    for client in [node.client(), hub.client.clone()] {
        let answer: RenewAnswer = renew(&hub, &client, &request).await.json().await.unwrap();
        assert_ne!(answer.certificate, node.answer.certificate);
        assert_eq!(answer.brokers, node.answer.brokers);
        answer
            .signed_time
            .verify(&answer.trust, holdfast_protocol::trust::Role::Time)
            .unwrap();
        let shown: NodeInfo = hub.get("/api/v1/nodes/dark").await;
        assert!(shown.certificate_expires_at > jiff::Timestamp::UNIX_EPOCH);
    }
    // The new one opens what the old one could not.
    let long = hub.figure("holdfast_hub_renewals_total{result=\"ok\"}").await;
    assert_eq!(long, Some(2.0));
}

#[tokio::test]
async fn a_renewed_certificate_opens_what_the_first_one_did() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let request = node.device.renewal(&node.answer.certificate, &node.device.key);
    let answer: RenewAnswer = renew(&hub, &hub.client, &request).await.json().await.unwrap();
    let digest = holdfast_protocol::Digest::of(b"x");
    for certificate in [&node.answer.certificate, &answer.certificate] {
        let url = format!("{}/v1/blobs/{digest}", hub.api);
        let response = node.client_with(certificate).get(url).send().await.unwrap();
        assert_eq!(problem(response).await.1.code, codes::BLOB_UNKNOWN);
    }
}

#[tokio::test]
async fn a_deleted_node_is_locked_out_for_good() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("gone").await;
    let _: serde_json::Value = hub
        .ask(Method::POST, "/api/v1/releases", release("r1", "a"))
        .await;
    let _: serde_json::Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({ "nodes": ["gone"] }),
        )
        .await;
    let _: () = hub.ask(Method::DELETE, "/api/v1/nodes/gone", ()).await;
    let request = node.device.renewal(&node.answer.certificate, &node.device.key);
    let (status, refused) = problem(renew(&hub, &hub.client, &request).await).await;
    assert_eq!(
        (status, refused.code.as_ref()),
        (StatusCode::FORBIDDEN, codes::CERTIFICATE_REVOKED)
    );
    let url = format!("{}/v1/blobs/{}", hub.api, holdfast_protocol::Digest::of(b"x"));
    let (_, refused) = problem(node.client().get(url).send().await.unwrap()).await;
    assert_eq!(refused.code, codes::CERTIFICATE_REVOKED);
    let (status, _) = hub.refused(Method::GET, "/api/v1/nodes/gone", json!(null)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // The revocation list for external brokers names it.
    let list = std::fs::read(site.data_dir().join("keys/revoked.pem")).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(&list).unwrap();
    let (_, list) = x509_parser::parse_x509_crl(&block.contents).unwrap();
    let (_, leaf) = x509_parser::pem::parse_x509_pem(node.answer.certificate.as_bytes()).unwrap();
    let serial = leaf.parse_x509().unwrap().tbs_certificate.serial.clone();
    assert_eq!(
        list.iter_revoked_certificates()
            .map(|entry| entry.user_certificate.clone())
            .collect::<Vec<_>>(),
        [serial]
    );
    // A new node of the same name gets generations above those of the old one.
    let again = hub.node("gone").await;
    let assigned: serde_json::Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({ "nodes": [again.id()] }),
        )
        .await;
    assert_eq!(assigned["generations"]["gone"], "1.2");
}

#[tokio::test]
async fn only_the_key_of_the_certificate_can_renew_it() {
    let site = Site::new();
    let hub = site.start().await;
    let node = hub.node("shop-17").await;
    let thief = Device::new();
    let certificate = &node.answer.certificate;
    let invalid = holdfast_hub::codes::RENEWAL_SIGNATURE_INVALID;
    // Signed by another key; for another key; altered after signing.
    let stolen = node.device.renewal(certificate, &thief.key);
    let for_another = thief.renewal(certificate, &node.device.key);
    let mut altered = node.device.renewal(certificate, &node.device.key);
    altered.at = jiff::Timestamp::now();
    for request in [stolen, for_another, altered] {
        let (status, refused) = problem(renew(&hub, &hub.client, &request).await).await;
        assert_eq!((status, refused.code.as_ref()), (StatusCode::FORBIDDEN, invalid));
    }
    // A certificate of another CA, and none at all.
    let foreign = KeyPair::generate().unwrap();
    let foreign_certificate = rcgen::CertificateParams::default()
        .self_signed(&foreign)
        .unwrap()
        .pem();
    let device = Device {
        key: foreign,
        ..Device::new()
    };
    let (_, refused) = problem(
        renew(
            &hub,
            &hub.client,
            &device.renewal(&foreign_certificate, &device.key),
        )
        .await,
    )
    .await;
    assert_eq!(refused.code, holdfast_hub::codes::CERTIFICATE_UNKNOWN);
    let (_, refused) = problem(renew(&hub, &hub.client, &device.renewal("no PEM", &device.key)).await).await;
    assert_eq!(refused.code, codes::BAD_REQUEST);
}

#[tokio::test]
async fn a_certificate_of_another_authority_makes_no_connection() {
    let site = Site::new();
    let hub = site.start().await;
    let key = KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    let client = support::client(&hub.ca, Some((&certificate, &key)));
    client
        .get(format!("{}/healthz", hub.api))
        .send()
        .await
        .unwrap_err();
    hub.client
        .get(format!("{}/healthz", hub.api))
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn the_hub_renews_its_own_certificate_while_it_runs() {
    let site = Site::new();
    let lifetime = ("enrolment", "hub_certificate_lifetime = \"3s\"");
    let hub = site.start_with(&[lifetime]).await;
    let mut tls = support::tls(&hub.ca, None);
    // A resumed session shows the certificate with which it began.
    tls.resumption = rustls::client::Resumption::disabled();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .pool_max_idle_per_host(0)
        .tls_info(true)
        .build()
        .unwrap();
    let shown = async || {
        let response = client.get(format!("{}/healthz", hub.api)).send().await.ok()?;
        let tls = response.extensions().get::<reqwest::tls::TlsInfo>()?;
        tls.peer_certificate().map(<[u8]>::to_vec)
    };
    let first = eventually("an answer", shown).await;
    let mut seen = std::collections::BTreeSet::from([first]);
    eventually("three certificates", async || {
        seen.extend(shown().await);
        (seen.len() >= 3).then_some(())
    })
    .await;
    // It waits for each to be due: no more than one a second.
    assert!(site.log().matches("certificate was renewed").count() < 60);
}
