//! The local API over a real socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

mod common;

use common::{TestBox, hub::TestHub, put};
use futures::future::BoxFuture;
use holdfast::{
    codes,
    daemon::Daemon,
    local_api::{
        self, SocketError,
        client::{LocalError, ask},
        view::{EnrolOrder, EnrolResult, LocalStatus},
    },
};
use holdfast_protocol::{Problem, codes as shared};
use http::Method;
use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

async fn get(socket: &Path, path: &str) -> Result<bytes::Bytes, Problem> {
    ask(socket, Method::GET, path, Vec::new())
        .await
        .map_err(|error| Problem::from(&error))
}

async fn status(socket: &Path) -> LocalStatus {
    serde_json::from_slice(&get(socket, "/v1/status").await.unwrap()).unwrap()
}

fn enrol<'a>(socket: &'a Path, token: &str) -> BoxFuture<'a, Result<EnrolResult, Problem>> {
    let order = serde_json::to_vec(&EnrolOrder { token: token.into() }).unwrap();
    Box::pin(async move {
        let answer = ask(socket, Method::POST, "/v1/enrol", order).await;
        answer
            .map(|body| serde_json::from_slice(&body).unwrap())
            .map_err(|error| Problem::from(&error))
    })
}

#[tokio::test]
async fn a_box_without_a_name_answers_what_it_can_and_says_what_to_do_for_the_rest() {
    let node = TestBox::new("");
    let settings = node.settings();
    let running = Daemon::build(Arc::new(settings.clone())).await.unwrap().spawn();
    let socket = &settings.socket;

    let mode = fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "only the owner may talk to the daemon");
    let seen = status(socket).await;
    assert!(!seen.enrolled && seen.node.is_none() && seen.report.is_none());
    for path in ["/v1/plan", "/v1/history"] {
        assert_eq!(
            get(socket, path).await.unwrap_err().code,
            codes::NOT_ENROLLED,
            "{path}"
        );
    }
    assert_eq!(
        get(socket, "/v1/nonsense").await.unwrap_err().code,
        shared::NOT_FOUND
    );
    let metrics = get(socket, "/v1/metrics").await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains("\nholdfast_link_connected 0\n"), "{metrics}");
    let examination: serde_json::Value =
        serde_json::from_slice(&get(socket, "/v1/doctor").await.unwrap()).unwrap();
    assert_eq!(examination["checks"][0]["name"], "settings");
    assert_eq!(
        enrol(socket, "hf1.nonsense").await.unwrap_err().code,
        shared::TOKEN_TRUNCATED
    );
    let bad = ask(
        socket,
        Method::POST,
        "/v1/enrol",
        b"{\"tokn\": \"hf1.secret\"}".to_vec(),
    )
    .await
    .unwrap_err();
    let bad = Problem::from(&bad);
    assert_eq!(bad.code, shared::BAD_REQUEST);
    assert!(
        !bad.message.contains("secret"),
        "an answer never repeats a token: {bad}"
    );

    running.drain().await.unwrap();
    assert!(!socket.exists());
    assert!(matches!(
        ask(socket, Method::GET, "/v1/status", Vec::new()).await,
        Err(LocalError::Unreachable { .. })
    ));
}

#[tokio::test]
async fn a_running_daemon_enrols_by_the_socket_and_goes_on_without_a_restart() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let settings = node.settings();
    let running = Daemon::build(Arc::new(settings.clone())).await.unwrap().spawn();
    let result = enrol(&settings.socket, &hub.token("one").to_string())
        .await
        .unwrap();
    assert_eq!(result.node.as_str(), "shop-17");
    common::until("the node runs", async || {
        status(&settings.socket).await.report.is_some()
    })
    .await;
    let seen = status(&settings.socket).await;
    assert_eq!(seen.report.unwrap().node, result.node);
    assert!(!seen.link.unwrap().enabled);
    assert_eq!(get(&settings.socket, "/v1/history").await.unwrap(), "[]");

    let again = enrol(&settings.socket, &hub.token("two").to_string())
        .await
        .unwrap_err();
    assert_eq!(again.code, codes::ALREADY_ENROLLED);
    assert_eq!(hub.enrolments.lock().unwrap().len(), 1);
    running.drain().await.unwrap();

    // An enrolled box needs nothing from outside to start again.
    drop(hub);
    let running = Daemon::build(Arc::new(settings.clone())).await.unwrap().spawn();
    common::until("the node runs again", async || {
        status(&settings.socket).await.report.is_some()
    })
    .await;
    running.drain().await.unwrap();
}

#[tokio::test]
async fn pain_17_a_token_file_is_found_used_once_and_wiped() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let settings = node.settings();
    let file = node.path("token");
    put(&file, &hub.token("one").to_string());
    let running = Daemon::build(Arc::new(settings.clone())).await.unwrap().spawn();
    common::until("enrolled", async || status(&settings.socket).await.enrolled).await;
    assert!(!file.exists(), "the spent token is gone");
    running.drain().await.unwrap();

    // A power cut between enrolment and wiping leaves the file; the next start wipes it. Another token is no one's to wipe.
    put(&file, &hub.token("one").to_string());
    Daemon::build(Arc::new(settings.clone()))
        .await
        .unwrap()
        .spawn()
        .drain()
        .await
        .unwrap();
    assert!(!file.exists());
    put(&file, &hub.token("fresh").to_string());
    Daemon::build(Arc::new(settings.clone()))
        .await
        .unwrap()
        .spawn()
        .drain()
        .await
        .unwrap();
    assert!(file.exists());
    assert_eq!(hub.enrolments.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refused_box_tells_why_and_joins_by_itself_once_the_hub_lets_it() {
    let hub = TestHub::start().await;
    for _ in 0..2 {
        let problem = Problem::new(shared::NAME_TAKEN, "another node has this name", "");
        hub.next(common::hub::Deed::Refuse(http::StatusCode::CONFLICT, problem));
    }
    let node = TestBox::new("");
    let settings = node.settings();
    put(
        &node.path("cmdline"),
        &format!("quiet holdfast.token={}", hub.token("one")),
    );
    let running = Daemon::build(Arc::new(settings.clone())).await.unwrap().spawn();
    common::until("the problem is told", async || {
        let problem = status(&settings.socket).await.enrolment_problem;
        problem.is_some_and(|problem| problem.code == shared::NAME_TAKEN)
    })
    .await;
    common::until("the box has joined", async || {
        status(&settings.socket).await.enrolled
    })
    .await;
    assert_eq!(status(&settings.socket).await.enrolment_problem, None);
    assert_eq!(
        hub.enrolments.lock().unwrap().len(),
        3,
        "it did not ask more often than it had to"
    );
    running.drain().await.unwrap();
}

#[tokio::test]
async fn another_token_need_not_wait_for_a_refused_one() {
    let hub = TestHub::start().await;
    let problem = Problem::new(shared::TOKEN_SPENT, "spent by another key", "");
    hub.next(common::hub::Deed::Refuse(http::StatusCode::CONFLICT, problem));
    // The refused one would be tried again after four hours.
    let node = TestBox::new("");
    let mut settings = node.settings();
    settings.enrolment.retry_max = std::time::Duration::from_hours(1);
    put(
        &node.path("cmdline"),
        &format!("quiet holdfast.token={}", hub.token("one")),
    );
    let running = Daemon::build(Arc::new(settings.clone())).await.unwrap().spawn();
    common::until("the problem is told", async || {
        status(&settings.socket).await.enrolment_problem.is_some()
    })
    .await;
    enrol(&settings.socket, &hub.token("two").to_string())
        .await
        .unwrap();
    let ids: Vec<_> = hub
        .enrolments
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.token_id.clone())
        .collect();
    assert_eq!(ids, ["one", "two"]);
    running.drain().await.unwrap();
}

#[tokio::test]
async fn a_second_daemon_is_refused_by_name() {
    let node = TestBox::new("");
    let settings = Arc::new(node.settings());
    let running = Daemon::build(settings.clone()).await.unwrap().spawn();
    let problem = Daemon::build(settings.clone()).await.err().unwrap();
    assert_eq!(problem.code, holdfast_store::codes::STATE_LOCKED);
    assert!(
        problem.message.contains(&std::process::id().to_string()),
        "{problem}"
    );
    running.drain().await.unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("below/socket");
    drop(local_api::bind(&path).unwrap());
    assert!(path.exists(), "as after a crash");
    let listener = local_api::bind(&path).unwrap();
    assert!(matches!(local_api::bind(&path), Err(SocketError::Taken(_))));
    drop(listener);
    fs::remove_file(&path).unwrap();
    put(&path, "precious");
    assert!(matches!(local_api::bind(&path), Err(SocketError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let long = directory.path().join("x".repeat(120));
    let problem = Problem::from(&local_api::bind(&long).unwrap_err());
    assert_eq!(problem.code, codes::SOCKET_UNUSABLE);
    assert!(problem.action.contains("107 bytes"));
}

#[tokio::test]
async fn metrics_are_answered_on_loopback_where_wanted_and_nothing_else_is() {
    let port = holdfast_harness::port::reserve_address().unwrap();
    let node = TestBox::new(&format!("[metrics]\nlisten = \"{port}\"\n"));
    let running = Daemon::build(Arc::new(node.settings())).await.unwrap().spawn();
    let answer = async |path: &str| {
        let mut stream = TcpStream::connect(port).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let metrics = answer("/metrics").await;
    assert!(
        metrics.starts_with("HTTP/1.1 200 ") && metrics.contains("\nholdfast_build_info{"),
        "{metrics}"
    );
    for path in ["/v1/status", "/v1/enrol", "/"] {
        assert!(answer(path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    running.drain().await.unwrap();
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_the_daemon_from_answering() {
    let node = TestBox::new("");
    let settings = node.settings();
    let running = Daemon::build(Arc::new(settings.clone())).await.unwrap().spawn();
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(UnixStream::connect(&settings.socket).await.unwrap());
    }
    assert!(!status(&settings.socket).await.enrolled);
    drop(silent);
    running.drain().await.unwrap();
}

#[tokio::test]
async fn a_foreign_server_at_the_socket_is_named_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = [0; 64];
        let _ = std::io::Read::read(&mut stream, &mut seen).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
    });
    assert_eq!(
        get(&path, "/v1/status").await.unwrap_err().code,
        codes::DAEMON_UNREACHABLE
    );
    server.join().unwrap();
}
