//! The list of nodes of a real hub, page by page.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use holdfast_protocol::operator::NodeInfo;
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use support::{Hub, Site};

/// Makes a fleet of the one node that enrolled: 300 copies of it, each third in the south.
async fn fleet(site: &Site) {
    let database = site.data_dir().join("hub.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", database.display()))
        .await
        .unwrap();
    sqlx::query(
        r#"WITH RECURSIVE each(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM each WHERE n < 300)
           INSERT INTO nodes (id, labels, hardware, enrolled_at, key_digest, certificate_expires_at)
           SELECT printf('box-%03d', n), CASE n % 3 WHEN 0 THEN '{"region":"south"}' ELSE '{}' END,
               hardware, enrolled_at, key_digest, certificate_expires_at
           FROM nodes, each WHERE id = 'first'"#,
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
}

/// Sizes of the pages from `query` on, and all names in them.
async fn pages(hub: &Hub, query: &str) -> (Vec<usize>, Vec<String>) {
    let mut address = Url::parse(&format!("{}/api/v1/nodes{query}", hub.api)).unwrap();
    let (mut sizes, mut names) = (Vec::new(), Vec::new());
    loop {
        let request = hub.client.get(address.clone()).bearer_auth(&hub.token);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{address}");
        let link = answer.headers().get("link");
        let next = link.map(|link| link.to_str().unwrap().to_owned());
        let page: Vec<NodeInfo> = answer.json().await.unwrap();
        sizes.push(page.len());
        names.extend(page.into_iter().map(|node| node.id.to_string()));
        let Some(next) = next else {
            return (sizes, names);
        };
        let (reference, relation) = next.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert_eq!(relation, "; rel=\"next\"");
        address = address.join(reference).unwrap();
    }
}

#[tokio::test]
async fn a_fleet_is_listed_page_by_page_without_a_gap_or_a_double() {
    let site = Site::new();
    let hub = site.start().await;
    hub.node("first").await;
    fleet(&site).await;

    let (sizes, all) = pages(&hub, "").await;
    assert_eq!(sizes, [301]);
    assert!(all.is_sorted());

    let (sizes, paged) = pages(&hub, "?limit=100").await;
    assert_eq!(sizes, [100, 100, 100, 1]);
    assert_eq!(paged, all);
    // A last page that is just full is the last one.
    assert_eq!(pages(&hub, "?limit=301").await.0, [301]);

    let (sizes, south) = pages(&hub, "?selector=region%3Dsouth&limit=30").await;
    assert_eq!(sizes, [30, 30, 30, 10]);
    assert!(south.is_sorted());
    assert_eq!(south.first().unwrap(), "box-003");
    assert_eq!(south.last().unwrap(), "box-300");
    assert_eq!(
        pages(&hub, "?selector=region%3Dnorth&limit=30").await,
        (vec![0], vec![])
    );

    // What comes or goes meanwhile moves nobody out of the pages behind.
    let (_, rest) = pages(&hub, "?limit=50&continue=box-250").await;
    assert_eq!(rest[0], "box-251");
    let () = hub.ask(Method::DELETE, "/api/v1/nodes/box-250", ()).await;
    assert_eq!(pages(&hub, "?limit=50&continue=box-250").await.1, rest);

    for limit in ["0", "1001"] {
        let path = format!("/api/v1/nodes?limit={limit}");
        let (status, problem) = hub.refused(Method::GET, &path, json!(null)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(problem.message.contains("1 to 1000"), "{problem:?}");
    }
}

#[tokio::test]
async fn a_parameter_that_a_route_does_not_know_is_refused_with_those_it_knows() {
    let site = Site::new();
    let hub = site.start().await;
    for (method, path, words, action) in [
        (
            Method::GET,
            "/api/v1/nodes?selektor=a",
            "knows selector, limit, continue",
            "did you mean `selector`?",
        ),
        (Method::GET, "/api/v1/releases?limit=1", "takes none", "remove it"),
        (Method::GET, "/api/v1/tokens?limit=1", "takes none", "remove it"),
        (
            Method::GET,
            "/api/v1/operators?role=admin",
            "takes none",
            "remove it",
        ),
        (Method::GET, "/api/v1/secrets?limit=1", "takes none", "remove it"),
        (Method::GET, "/api/v1/blobs?limit=1", "takes none", "remove it"),
        (
            Method::GET,
            "/api/v1/audit?limit=5&after=3",
            "knows limit, before",
            "remove it",
        ),
        // Nothing is done that was to be tried only.
        (
            Method::POST,
            "/api/v1/tokens?dryRun=true",
            "takes none",
            "remove it",
        ),
        (
            Method::GET,
            "/api/v1/nodes/box-1/events?since=1h",
            "knows limit",
            "remove it",
        ),
    ] {
        let body = (method == Method::POST).then(|| json!({}));
        let answer = hub.send(Some(&hub.token), method, path, body).await;
        let (status, problem) = support::problem(answer).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(problem.message.contains(words), "{path}: {problem:?}");
        assert!(problem.action.contains(action), "{path}: {problem:?}");
    }
    let tokens: Vec<Value> = hub.get("/api/v1/tokens").await;
    assert!(tokens.is_empty(), "{tokens:?}");
    hub.stop().await;
}
