//! Enrolment at a real hub over real TLS: what tokens allow, and to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use futures::future::join_all;
use holdfast_protocol::{
    codes,
    envelope::TimeStatement,
    operator::{AuditEvent, CreateToken, NodeInfo, TokenInfo, TokenState},
    token::EnrolmentToken,
    trust::Role,
};
use rcgen::KeyPair;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeSet;
use support::{Device, Site, csr, eventually};

fn named(name: &str) -> CreateToken {
    CreateToken {
        node_name: Some(name.parse().unwrap()),
        ..CreateToken::default()
    }
}

#[tokio::test]
async fn a_box_gets_all_that_it_needs() {
    let site = Site::new();
    let hub = site.start().await;
    let mut request = named("shop-17");
    request.labels.insert("site".to_owned(), "berlin".to_owned());
    let token = hub.token(request).await;
    assert_eq!(token.hub_url, hub.api);
    let answer = hub.try_enrol(&token, &Device::new()).await.unwrap();
    assert_eq!(answer.node.as_str(), "shop-17");
    assert_eq!(answer.brokers, std::slice::from_ref(&hub.mqtt));
    assert_eq!(answer.hub_url, hub.api);
    assert_eq!(answer.ca_certificates, hub.ca);
    assert_eq!(answer.desired, None);
    answer.signed_time.verify(&answer.trust, Role::Time).unwrap();
    answer
        .signed_time
        .verify(&answer.trust, Role::DesiredState)
        .unwrap_err();
    let statement: TimeStatement = serde_json::from_slice(&answer.signed_time.payload).unwrap();
    assert!(
        jiff::Timestamp::now()
            .duration_since(statement.time)
            .abs()
            .as_secs()
            < 60
    );

    // The pin in the token is that of the CA which signed the certificate.
    let (_, ca) = x509_parser::pem::parse_x509_pem(answer.ca_certificates.as_bytes()).unwrap();
    let ca = ca.parse_x509().unwrap();
    let (_, leaf) = x509_parser::pem::parse_x509_pem(answer.certificate.as_bytes()).unwrap();
    let leaf = leaf.parse_x509().unwrap();
    assert_eq!(
        token.ca_pin,
        Some(holdfast_protocol::enrol::key_pin(ca.public_key().raw))
    );
    leaf.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(leaf.subject().to_string(), "CN=shop-17");

    let node: NodeInfo = hub.get("/api/v1/nodes/shop-17").await;
    assert_eq!(node.labels["site"], "berlin");
    let tokens: Vec<TokenInfo> = hub.get("/api/v1/tokens").await;
    assert_eq!(
        (tokens[0].state, tokens[0].spent_by.as_ref()),
        (TokenState::Spent, Some(&answer.node))
    );
}

#[tokio::test]
async fn nodes_are_told_the_public_addresses_and_this_machine_the_real_ones() {
    let site = Site::new();
    let more = [
        ("api", "public_url = \"https://hub.example:8443\""),
        (
            "broker",
            "public = [\"mqtts://mqtt.example:8883\", \"mqtts://192.0.2.1:8883\"]",
        ),
    ];
    let hub = site.start_with(&more).await;
    let token = hub.token(CreateToken::default()).await;
    assert_eq!(token.hub_url, "https://hub.example:8443");
    let answer = hub.try_enrol(&token, &Device::new()).await.unwrap();
    assert_eq!(answer.hub_url, "https://hub.example:8443");
    assert_eq!(
        answer.brokers,
        ["mqtts://mqtt.example:8883", "mqtts://192.0.2.1:8883"]
    );
    let port = hub.mqtt.strip_prefix("mqtts://127.0.0.1:").unwrap();
    tokio::net::TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_cannot_enrol_two_keys() {
    let site = Site::new();
    let hub = site.start().await;
    let token = hub.token(CreateToken::default()).await;
    let winner = hub.try_enrol(&token, &Device::new()).await.unwrap();
    let (status, problem) = hub.try_enrol(&token, &Device::new()).await.unwrap_err();
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::CONFLICT, codes::TOKEN_SPENT)
    );
    let nodes: Vec<NodeInfo> = hub.get("/api/v1/nodes").await;
    assert_eq!(
        nodes.iter().map(|node| &node.id).collect::<Vec<_>>(),
        [&winner.node]
    );
    let audit: Vec<AuditEvent> = hub.get("/api/v1/audit").await;
    let alarm = audit
        .iter()
        .find(|event| event.action == "node.enrol.refused")
        .unwrap();
    assert!(alarm.detail.contains("token-spent"), "{alarm:?}");
    assert_eq!(alarm.subject, format!("token/{}", token.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_boxes_with_one_token_exactly_one_wins() {
    let site = Site::new();
    let hub = site.start().await;
    let devices: Vec<Device> = (0..100).map(|_| Device::new()).collect();
    for round in 0..20 {
        let token = hub.token(named(&format!("round-{round}"))).await;
        let results = join_all(devices.iter().map(|device| hub.try_enrol(&token, device))).await;
        let winners = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(winners, 1, "round {round}");
        for (status, problem) in results.into_iter().filter_map(Result::err) {
            assert_eq!(
                (status, problem.code.as_ref()),
                (StatusCode::CONFLICT, codes::TOKEN_SPENT)
            );
        }
    }
    let nodes: Vec<NodeInfo> = hub.get("/api/v1/nodes").await;
    assert_eq!(nodes.len(), 20);
    assert_eq!(
        hub.figure("holdfast_hub_enrolments_total{result=\"token-spent\"}")
            .await,
        Some(1980.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_16_lost_reply_same_key_gets_the_same_answer() {
    let site = Site::new();
    let hub = site.start().await;
    let token = hub.token(named("shop-17")).await;
    let device = Device::new();
    // All at once, as a box does whose replies are lost; and again after a restart of the hub.
    let answers = join_all((0..10).map(|_| hub.try_enrol(&token, &device))).await;
    let first = answers[0].as_ref().unwrap().clone();
    for answer in answers {
        assert_eq!(answer.unwrap().certificate, first.certificate);
    }
    hub.kill().await;
    let hub = site.start().await;
    let again = hub.try_enrol(&token, &device).await.unwrap();
    assert_eq!(again.certificate, first.certificate);
    assert_eq!((again.node, again.trust), (first.node, first.trust));

    // Once the node is deleted, the spent token opens nothing any more.
    let _: () = hub.ask(Method::DELETE, "/api/v1/nodes/shop-17", ()).await;
    let (status, problem) = hub.try_enrol(&token, &device).await.unwrap_err();
    assert_eq!(
        (status, problem.code.as_ref()),
        (StatusCode::FORBIDDEN, codes::CERTIFICATE_REVOKED)
    );
}

#[tokio::test]
async fn pain_17_token_is_single_use_and_hashed_at_rest() {
    let site = Site::new();
    let hub = site.start().await;
    let token = hub.token(CreateToken::default()).await;
    let text = token.to_string();
    hub.try_enrol(&token, &Device::new()).await.unwrap();
    assert_eq!(
        hub.try_enrol(&token, &Device::new()).await.unwrap_err().1.code,
        codes::TOKEN_SPENT
    );
    let bearer = hub.token.clone();
    hub.stop().await;
    // Neither the token nor its secret is in any file of the hub, its log included; the administrator's token is in its one file only.
    let encoded = text.split('.').nth(1).unwrap().to_owned();
    let secret_base64 =
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, token.secret);
    let secret_hex = holdfast_protocol::Digest::from_bytes(token.secret).hex();
    let mut files = 0;
    let mut open = vec![site.directory.path().to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        files += 1;
        let content = std::fs::read(&path).unwrap();
        let holds = |secret: &[u8]| content.windows(secret.len()).any(|window| window == secret);
        assert!(!holds(encoded.as_bytes()), "{path:?}");
        assert!(!holds(secret_base64.as_bytes()), "{path:?}");
        assert!(!holds(secret_hex.as_bytes()), "{path:?}");
        assert!(!holds(&token.secret), "{path:?}");
        assert_eq!(
            holds(bearer.as_bytes()),
            path.ends_with("admin.token"),
            "{path:?}"
        );
    }
    assert!(files >= 8, "{files}");
}

#[tokio::test]
async fn every_refusal_of_a_token_has_its_own_code() {
    let site = Site::new();
    let hub = site.start().await;
    let refused = async |token: &EnrolmentToken, device: &Device| {
        let (status, problem) = hub.try_enrol(token, device).await.unwrap_err();
        (status.as_u16(), problem.code.into_owned())
    };

    let expired = hub
        .token(CreateToken {
            ttl_seconds: Some(1),
            ..CreateToken::default()
        })
        .await;
    eventually("the token to expire", async || {
        let tokens: Vec<TokenInfo> = hub.get("/api/v1/tokens").await;
        (tokens[0].state == TokenState::Expired).then_some(())
    })
    .await;
    assert_eq!(
        refused(&expired, &Device::new()).await,
        (403, codes::TOKEN_EXPIRED.into())
    );

    let revoked = hub.token(CreateToken::default()).await;
    let path = format!("/api/v1/tokens/{}", revoked.id);
    let _: () = hub.ask(Method::DELETE, &path, ()).await;
    let _: () = hub.ask(Method::DELETE, &path, ()).await;
    assert_eq!(
        refused(&revoked, &Device::new()).await,
        (403, codes::TOKEN_REVOKED.into())
    );

    let mut unknown = hub.token(CreateToken::default()).await;
    unknown.id = "0000000000000000".into();
    assert_eq!(
        refused(&unknown, &Device::new()).await,
        (403, codes::TOKEN_UNKNOWN.into())
    );

    // A right name with a wrong secret looks the same as an unknown one.
    let mut guessed = hub.token(CreateToken::default()).await;
    guessed.secret[31] ^= 1;
    assert_eq!(
        refused(&guessed, &Device::new()).await,
        (403, codes::TOKEN_UNKNOWN.into())
    );

    let serial = hub
        .token(CreateToken {
            serial: Some("S-1".into()),
            ..CreateToken::default()
        })
        .await;
    let mut device = Device::new();
    assert_eq!(
        refused(&serial, &device).await,
        (403, codes::TOKEN_WRONG_MACHINE.into())
    );
    device.serial = Some("S-2".into());
    assert_eq!(
        refused(&serial, &device).await,
        (403, codes::TOKEN_WRONG_MACHINE.into())
    );
    // Being refused does not spend it.
    device.serial = Some("S-1".into());
    hub.try_enrol(&serial, &device).await.unwrap();

    hub.node("taken").await;
    let taken = hub.token(named("taken")).await;
    assert_eq!(
        refused(&taken, &Device::new()).await,
        (409, codes::NAME_TAKEN.into())
    );
}

#[tokio::test]
async fn only_a_request_that_its_own_p256_key_signed_is_taken() {
    let site = Site::new();
    let hub = site.start().await;
    let token = hub.token(CreateToken::default()).await;
    let device = Device::new();
    let mut requests = Vec::new();
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        requests.push(csr(&KeyPair::generate_for(algorithm).unwrap()));
    }
    // The last byte of the request is the last of its signature.
    let (_, block) = x509_parser::pem::parse_x509_pem(device.csr().as_bytes()).unwrap();
    let mut forged = block.contents;
    *forged.last_mut().unwrap() ^= 1;
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &forged);
    requests.push(format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
    ));
    requests.push(hub.ca.clone());
    requests.push(String::new());
    requests.push("x".repeat(100_000));
    for csr in requests {
        let mut request = device.request(&token);
        request.csr = csr;
        let (status, problem) = hub.try_enrol_request(&request).await.unwrap_err();
        assert_eq!(
            (status, problem.code.as_ref()),
            (StatusCode::BAD_REQUEST, codes::CSR_INVALID),
            "{problem}"
        );
    }
    hub.try_enrol(&token, &device).await.unwrap();
}

#[tokio::test]
async fn an_unknown_major_version_is_refused_by_name_and_a_newer_minor_one_is_read() {
    let site = Site::new();
    let hub = site.start().await;
    let token = hub.token(CreateToken::default()).await;
    let device = Device::new();
    let mut request = device.request(&token);
    request.schema.major = 2;
    let (status, problem) = hub.try_enrol_request(&request).await.unwrap_err();
    assert_eq!(
        (status.as_u16(), problem.code.as_ref()),
        (400, codes::SCHEMA_UNSUPPORTED)
    );
    assert!(problem.message.contains("2.0"), "{problem}");
    request.schema.major = 1;
    request.schema.minor = 9;
    request.extra.insert("fromTheFuture".into(), json!({ "a": 1 }));
    hub.try_enrol_request(&request).await.unwrap();
}

#[tokio::test]
async fn boxes_that_wish_for_the_same_name_get_names_of_their_own() {
    let site = Site::new();
    let hub = site.start().await;
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        let mut device = Device::new();
        device.wish = Some("raspberrypi".parse().unwrap());
        let token = hub.token(CreateToken::default()).await;
        names.insert(hub.try_enrol(&token, &device).await.unwrap().node.to_string());
    }
    assert_eq!(names.len(), 3);
    assert!(
        names.iter().all(|name| name.starts_with("raspberrypi")),
        "{names:?}"
    );
    assert!(names.contains("raspberrypi"));
    // The same box with a new token keeps its name.
    let node = hub.node("kept").await;
    let token = hub.token(named("kept")).await;
    let again = hub.try_enrol(&token, &node.device).await.unwrap();
    assert_eq!(again.node.as_str(), "kept");
}

#[tokio::test]
async fn guessing_tokens_is_slowed_down_and_does_not_keep_others_out() {
    let site = Site::new();
    let hub = site.start_with(&[("enrolment", "attempts = 3")]).await;
    let good = hub.token(CreateToken::default()).await;
    let mut guess = good.clone();
    guess.secret = [7; 32];
    let device = Device::new();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && statuses.len() < 60 {
        statuses.push(hub.try_enrol(&guess, &device).await.unwrap_err().0.as_u16());
    }
    assert_eq!((statuses[0], statuses.last()), (403, Some(&429)), "{statuses:?}");
    hub.try_enrol(&good, &device).await.unwrap();
}
