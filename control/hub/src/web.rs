//! The web page: static files of `web/`, compiled into the binary.
//!
//! In: requests for `/` and `/assets/…`. Out: the files, each with its entity tag (so a browser that has it gets 304 and no body) and a
//! content security policy under which only the hub's own files run or load. The files hold no data: whatever the page shows it
//! reads from the operator API with the operator's session, so these routes need no authentication.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    routing::get,
};
use bytes::Bytes;
use holdfast_protocol::Digest;

/// What the page may do: its own files, its own API, nothing inline, in nobody's frame.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! assets {
    ($($path:literal, $kind:ident, $file:literal;)*) => {
        &[$(Asset { path: $path, kind: $kind, content: include_bytes!(concat!("../web/", $file)) }),*]
    };
}

/// One file of the page.
struct Asset {
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

const ASSETS: &[Asset] = assets! {
    "/", HTML, "index.html";
    "/assets/icon.svg", IMAGE, "icon.svg";
    "/assets/style.css", STYLE, "style.css";
    "/assets/app.js", SCRIPT, "app.js";
    "/assets/audit.js", SCRIPT, "audit.js";
    "/assets/dom.js", SCRIPT, "dom.js";
    "/assets/fleet.js", SCRIPT, "fleet.js";
    "/assets/login.js", SCRIPT, "login.js";
    "/assets/node.js", SCRIPT, "node.js";
    "/assets/releases.js", SCRIPT, "releases.js";
    "/assets/state.js", SCRIPT, "state.js";
    "/assets/store.js", SCRIPT, "store.js";
    "/assets/tokens.js", SCRIPT, "tokens.js";
};

/// Routes of the page; they need no state and no authentication, for they hold no data.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        // A digest is hex, so it always makes a header value.
        let tag = format!("\"{}\"", &Digest::of(asset.content).hex()[..32]);
        router.route(
            asset.path,
            get(move |headers: HeaderMap| std::future::ready(serve(asset, &tag, &headers))),
        )
    })
}

fn serve(asset: &'static Asset, tag: &str, request: &HeaderMap) -> Response<Body> {
    let known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| matches!(value.trim().trim_start_matches("W/"), value if value == tag || value == "*"));
    let body = if known {
        Body::empty()
    } else {
        Body::from(Bytes::from_static(asset.content))
    };
    let mut response = Response::new(body);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, asset.kind);
    // The files of one build belong together: ask each time, and take what is cached only while it is the same.
    set(header::CACHE_CONTROL, "no-cache");
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt as _;

    async fn get(path: &str, tag: Option<&HeaderValue>) -> Response<Body> {
        let mut request = http::Request::get(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        routes::<()>()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_page_is_served_with_a_policy_that_allows_nothing_foreign_or_inline() {
        let response = get("/", None).await;
        assert_eq!(response.status(), StatusCode::OK);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("default-src 'self'"));
        assert!(!policy.contains("unsafe"));
    }

    #[tokio::test]
    async fn a_browser_that_has_a_file_gets_no_body() {
        let first = get("/assets/app.js", None).await;
        assert_eq!(first.status(), StatusCode::OK);
        let second = get("/assets/app.js", first.headers().get(header::ETAG)).await;
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn every_file_of_the_page_is_served_and_names_only_files_that_are() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        for entry in directory.read_dir().unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" {
                "/".to_owned()
            } else {
                format!("/assets/{name}")
            };
            assert!(
                ASSETS.iter().any(|asset| asset.path == path),
                "{name} is not served: add it to ASSETS"
            );
        }
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.content).unwrap();
            for foreign in [
                "<style",
                " style=",
                " onclick=",
                "innerHTML",
                "insertAdjacentHTML",
                "eval(",
            ] {
                assert!(
                    !text.contains(foreign),
                    "{}: {foreign:?} breaks the policy",
                    asset.path
                );
            }
            for part in text.split(" from \"./").skip(1) {
                let name = part.split('"').next().unwrap();
                assert!(
                    directory.join(name).is_file(),
                    "{} imports {name}, which is not there",
                    asset.path
                );
            }
        }
    }
}
