//! The operator API at a real hub: who may do what, and what bad requests get.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_hub::codes as hub_codes;
use holdfast_protocol::{
    Problem, codes,
    operator::{AuditEvent, CreatedOperator, NodeInfo, Operator, OperatorRole, WhoAmI},
};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use support::{Hub, Site, problem, release};

async fn viewer(hub: &Hub) -> String {
    let made: CreatedOperator = hub
        .ask(
            Method::POST,
            "/api/v1/operators",
            json!({ "name": "eve", "role": "viewer" }),
        )
        .await;
    assert!(made.bearer_token.starts_with("hfop_"));
    made.bearer_token
}

#[tokio::test]
async fn a_viewer_sees_everything_and_changes_nothing() {
    let site = Site::new();
    let hub = site.start().await;
    hub.node("shop-17").await;
    let viewer = viewer(&hub).await;
    let digest = holdfast_protocol::Digest::of(b"x").to_string();
    for (method, path) in holdfast_hub::api::routes() {
        if !path.starts_with("/api/v1/") || path.ends_with("/session") || path.ends_with("openapi.json") {
            continue;
        }
        let path = path
            .replace("{id}", "shop-17")
            .replace("{name}", "shop-17")
            .replace("{digest}", &digest);
        let method: Method = method.parse().unwrap();
        let anonymous = hub.send(None, method.clone(), &path, None).await;
        assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(anonymous.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let wrong = hub.send(Some("hfop_wrong"), method.clone(), &path, None).await;
        assert!(
            [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&wrong.status()),
            "{method} {path}"
        );
        let response = hub.send(Some(&viewer), method.clone(), &path, None).await;
        if method == Method::GET {
            assert_ne!(response.status(), StatusCode::FORBIDDEN, "{path}");
        } else {
            let (status, refused) = problem(response).await;
            assert_eq!(
                (status, refused.code.as_ref()),
                (StatusCode::FORBIDDEN, codes::FORBIDDEN),
                "{method} {path}"
            );
        }
    }
    let nodes: Vec<NodeInfo> = hub.get("/api/v1/nodes").await;
    assert_eq!(nodes.len(), 1);
}

#[tokio::test]
async fn operators_come_and_go_and_the_last_administrator_stays() {
    let site = Site::new();
    let hub = site.start().await;
    let viewer = viewer(&hub).await;
    let (status, refused) = hub
        .refused(
            Method::POST,
            "/api/v1/operators",
            json!({ "name": "eve", "role": "admin" }),
        )
        .await;
    assert_eq!(
        (status, refused.code.as_ref()),
        (StatusCode::CONFLICT, codes::CONFLICT)
    );
    let all: Vec<Operator> = hub.get("/api/v1/operators").await;
    assert_eq!(
        all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        ["admin", "eve"]
    );
    let (status, _) = hub
        .refused(Method::DELETE, "/api/v1/operators/admin", json!(null))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    let _: () = hub.ask(Method::DELETE, "/api/v1/operators/eve", ()).await;
    let (status, _) = hub
        .refused(Method::DELETE, "/api/v1/operators/eve", json!(null))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        hub.send(Some(&viewer), Method::GET, "/api/v1/whoami", None)
            .await
            .status(),
        401
    );
    let me: WhoAmI = hub.get("/api/v1/whoami").await;
    assert_eq!((me.name.as_str(), me.role), ("admin", OperatorRole::Admin));
    let audit: Vec<AuditEvent> = hub.get("/api/v1/audit?limit=2").await;
    let actions: Vec<_> = audit.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["operator.delete", "operator.create"]);
    let before: Vec<AuditEvent> = hub
        .get(&format!("/api/v1/audit?before={}", audit[1].sequence))
        .await;
    assert!(before.iter().all(|event| event.sequence < audit[1].sequence));
}

#[tokio::test]
async fn an_operator_can_be_added_on_the_command_line_while_the_hub_runs() {
    let site = Site::new();
    let hub = site.start().await;
    let output = site
        .command(&["operator", "create", "olga", "--role", "viewer"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    let response = hub
        .send(Some(token.trim()), Method::GET, "/api/v1/whoami", None)
        .await;
    let me: WhoAmI = response.json().await.unwrap();
    assert_eq!((me.name.as_str(), me.role), ("olga", OperatorRole::Viewer));
}

#[tokio::test]
async fn a_browser_session_is_strict_and_refuses_other_sites() {
    let site = Site::new();
    let hub = site.start().await;
    let login = async |base: &str| {
        hub.client
            .post(format!("{base}/api/v1/session"))
            .json(&json!({ "bearerToken": hub.token }))
            .send()
            .await
            .unwrap()
    };
    let plain = login(&hub.plain).await;
    let plain = plain.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(
        plain.contains("HttpOnly") && plain.contains("SameSite=Strict") && !plain.contains("Secure"),
        "{plain}"
    );
    let encrypted = login(&hub.api).await;
    let cookie = encrypted.headers()[header::SET_COOKIE]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();

    let host = hub.api.trim_start_matches("https://");
    let label = async |origin: Option<&str>, cookie: &str| {
        let mut request = hub
            .client
            .post(format!("{}/api/v1/tokens", hub.api))
            .header(header::COOKIE, cookie)
            .json(&json!({}));
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        request.send().await.unwrap()
    };
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let (status, refused) = problem(label(origin, &cookie).await).await;
        assert_eq!(
            (status.as_u16(), refused.code.as_ref()),
            (403, hub_codes::CROSS_SITE),
            "{origin:?}"
        );
    }
    let own = format!("https://{host}");
    assert_eq!(label(Some(&own), &cookie).await.status(), StatusCode::CREATED);
    assert_eq!(
        label(Some(&own), "holdfast_session=guessed").await.status(),
        StatusCode::UNAUTHORIZED
    );

    let out = hub
        .client
        .delete(format!("{}/api/v1/session", hub.api))
        .header(header::COOKIE, &cookie)
        .header(header::ORIGIN, &own)
        .send()
        .await
        .unwrap();
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        label(Some(&own), &cookie).await.status(),
        StatusCode::UNAUTHORIZED
    );
    let wrong = hub
        .client
        .post(format!("{}/api/v1/session", hub.api))
        .json(&json!({ "bearerToken": "hfop_wrong" }))
        .send()
        .await
        .unwrap();
    assert_eq!(problem(wrong).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn unknown_keys_are_refused_with_their_place_and_the_nearest_name() {
    let site = Site::new();
    let hub = site.start().await;
    let cases: [(&str, Value, &str, &str); 7] = [
        (
            "/api/v1/tokens",
            json!({ "ttlSecond": 5 }),
            "ttlSecond",
            "ttlSeconds",
        ),
        (
            "/api/v1/operators",
            json!({ "name": "x", "rol": "admin" }),
            "rol",
            "role",
        ),
        (
            "/api/v1/operators",
            json!({ "name": "x", "role": "amin" }),
            "role",
            "admin",
        ),
        (
            "/api/v1/releases",
            json!({ "name": "r", "content": { "aps": [] } }),
            "content.aps",
            "apps",
        ),
        (
            "/api/v1/releases",
            json!({ "name": "r", "content": { "apps": [{ "name": "a", "manifests": [], "namespce": "x" }] } }),
            "content.apps[0].namespce",
            "namespace",
        ),
        (
            "/api/v1/releases",
            json!({ "name": "r", "content": { "apps": [], "policy": { "drfit": "correct" } } }),
            "content.policy.drfit",
            "drift",
        ),
        (
            "/api/v1/releases",
            json!({ "name": "r", "content": { "apps": [], "k3s": { "verson": "v1" } } }),
            "content.k3s.verson",
            "version",
        ),
    ];
    for (path, body, place, nearest) in cases {
        let (status, refused) = hub.refused(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
        let text = refused.to_string();
        assert!(text.contains(place) && text.contains(nearest), "{place}: {text}");
    }
    let (status, refused) = hub
        .refused(Method::GET, "/api/v1/nodes?selectr=a", json!(null))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused.action.contains("selector"), "{refused}");
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_its_status() {
    let site = Site::new();
    let hub = site.start_with(&[("api", "max_body_bytes = 1000")]).await;
    let text = async |method: Method, path: &str, kind: Option<&str>, body: String| -> (u16, Problem) {
        let mut request = hub
            .client
            .request(method, format!("{}{path}", hub.api))
            .bearer_auth(&hub.token)
            .body(body);
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let (status, refused) = problem(request.send().await.unwrap()).await;
        (status.as_u16(), refused)
    };
    let json_kind = Some("application/json");
    for (method, path, kind, body, status, code) in [
        (
            "POST",
            "/api/v1/tokens",
            None,
            "{}",
            415,
            hub_codes::MEDIA_TYPE_UNSUPPORTED,
        ),
        (
            "POST",
            "/api/v1/tokens",
            Some("text/plain"),
            "{}",
            415,
            hub_codes::MEDIA_TYPE_UNSUPPORTED,
        ),
        ("POST", "/api/v1/tokens", json_kind, "{", 400, codes::BAD_REQUEST),
        ("POST", "/api/v1/tokens", json_kind, "[]", 422, codes::BAD_REQUEST),
        (
            "POST",
            "/api/v1/tokens",
            json_kind,
            "{\"ttlSeconds\":0}",
            400,
            codes::BAD_REQUEST,
        ),
        (
            "POST",
            "/api/v1/tokens",
            json_kind,
            "{\"labels\":{\"-\":\"x\"}}",
            422,
            hub_codes::LABEL_INVALID,
        ),
        (
            "POST",
            "/api/v1/tokens",
            json_kind,
            "{\"nodeName\":\"A B\"}",
            422,
            codes::BAD_REQUEST,
        ),
        (
            "PUT",
            "/api/v1/tokens",
            json_kind,
            "{}",
            405,
            hub_codes::METHOD_NOT_ALLOWED,
        ),
        ("GET", "/api/v1/node", None, "", 404, codes::NOT_FOUND),
        ("GET", "/api/v1/nodes/none", None, "", 404, codes::NOT_FOUND),
        ("GET", "/api/v1/nodes/A%20B", None, "", 400, codes::BAD_REQUEST),
        (
            "GET",
            "/api/v1/nodes?selector=%3Dx",
            None,
            "",
            400,
            hub_codes::SELECTOR_INVALID,
        ),
        ("DELETE", "/api/v1/tokens/none", None, "", 404, codes::NOT_FOUND),
        ("GET", "/v1/blobs/sha256:zz", None, "", 400, codes::BAD_REQUEST),
        ("POST", "/v1/enrol", json_kind, "{}", 422, codes::BAD_REQUEST),
    ] {
        let (found, refused) = text(method.parse().unwrap(), path, kind, body.to_owned()).await;
        assert_eq!(
            (found, refused.code.as_ref()),
            (status, code),
            "{method} {path} {body}: {refused}"
        );
        assert!(!refused.action.is_empty(), "{refused}");
    }
    let (status, refused) = text(Method::POST, "/api/v1/tokens", json_kind, " ".repeat(1001)).await;
    assert_eq!((status, refused.code.as_ref()), (413, hub_codes::BODY_TOO_LARGE));
    let (_, refused) = text(Method::GET, "/api/v1/node", None, String::new()).await;
    assert_eq!(refused.action, "did you mean /api/v1/nodes?");
}

#[tokio::test]
async fn labels_are_set_removed_and_selected_by() {
    let site = Site::new();
    let hub = site.start().await;
    for name in ["a", "b", "c"] {
        hub.node(name).await;
        let _: NodeInfo = hub
            .ask(
                Method::PATCH,
                &format!("/api/v1/nodes/{name}/labels"),
                json!({ "labels": { "site": if name == "a" { "berlin" } else { "hamburg" }, "old": "x" } }),
            )
            .await;
    }
    let patched: NodeInfo = hub
        .ask(
            Method::PATCH,
            "/api/v1/nodes/b/labels",
            json!({ "labels": { "old": null, "tier": "test" } }),
        )
        .await;
    assert_eq!(
        serde_json::to_value(&patched.labels).unwrap(),
        json!({ "site": "hamburg", "tier": "test" })
    );
    for (selector, expected) in [
        ("site=hamburg", vec!["b", "c"]),
        ("site%3Dhamburg,!old", vec!["b"]),
        ("", vec!["a", "b", "c"]),
    ] {
        let nodes: Vec<NodeInfo> = hub.get(&format!("/api/v1/nodes?selector={selector}")).await;
        assert_eq!(
            nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(),
            expected,
            "{selector}"
        );
    }
    let _: Value = hub
        .ask(Method::POST, "/api/v1/releases", release("r1", "x"))
        .await;
    let assigned: Value = hub
        .ask(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({ "nodes": ["a"], "selector": "tier=test" }),
        )
        .await;
    assert_eq!(assigned["generations"], json!({ "a": "1.1", "b": "1.1" }));
    let (status, _) = hub
        .refused(
            Method::POST,
            "/api/v1/releases/r1/assign",
            json!({ "nodes": ["nobody"] }),
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = hub
        .refused(Method::POST, "/api/v1/releases/r1/assign", json!({}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn health_and_figures_are_for_machines() {
    let site = Site::new();
    let hub = site.start().await;
    hub.node("shop-17").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            hub.send(None, Method::GET, path, None)
                .await
                .text()
                .await
                .unwrap(),
            "ok\n"
        );
    }
    let page = hub.metrics().await;
    for figure in holdfast_hub::metrics::ALL {
        assert!(
            page.contains(&format!("# TYPE {} {}\n", figure.name, figure.kind)),
            "{}",
            figure.name
        );
    }
    assert_eq!(
        hub.figure("holdfast_hub_nodes{presence=\"offline\"}").await,
        Some(1.0)
    );
    assert_eq!(
        hub.figure("holdfast_hub_enrolments_total{result=\"ok\"}").await,
        Some(1.0)
    );
    // What comes through a proxy comes from elsewhere.
    let proxied = hub
        .client
        .get(format!("{}/metrics", hub.plain))
        .header("x-forwarded-for", "192.0.2.1")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(proxied).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_was_left_empty_by_mistake_never_means_everything() {
    let site = Site::new();
    let hub = site.start().await;
    hub.node("shop-17").await;
    // A token for one machine would fit all of them.
    let (status, refusal) = hub
        .refused(Method::POST, "/api/v1/tokens", json!({ "serial": "" }))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refusal}");
    assert!(refusal.message.contains("serial"), "{refusal}");
    // A release for some nodes would go to all of them.
    let _: Value = hub.ask(Method::POST, "/api/v1/releases", release("r", "x")).await;
    let (status, refusal) = hub
        .refused(
            Method::POST,
            "/api/v1/releases/r/assign",
            json!({ "nodes": [], "selector": " , " }),
        )
        .await;
    assert_eq!(
        (status, refusal.code),
        (StatusCode::BAD_REQUEST, hub_codes::SELECTOR_INVALID.into())
    );
}
