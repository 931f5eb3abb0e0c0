//! What `holdfast doctor` finds.

use super::*;

#[tokio::test]
async fn doctor_examines_a_bare_box_and_an_enrolled_one() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    let outcome = |examined: &Value, name: &str| {
        let checks = examined["checks"].as_array().unwrap();
        let check = checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {examined}"));
        check["outcome"].as_str().unwrap().to_owned()
    };
    let bare = run(&node, &["doctor", "-o", "json"]).await;
    assert_eq!(code(&bare), 1, "without k3s there is something to do");
    let bare = json(&bare.stdout);
    assert_eq!(outcome(&bare, "settings"), "ok");
    assert_eq!(outcome(&bare, "identity"), "warn");
    assert_eq!(outcome(&bare, "kubernetes-program"), "fail");
    assert!(!node.path("state").exists(), "doctor changes nothing");

    put(
        &node.path("k3s"),
        "#!/bin/sh\necho 'testcluster version v1.36.0'\n",
    );
    fs::set_permissions(node.path("k3s"), fs::Permissions::from_mode(0o755)).unwrap();
    *hub.time.lock().unwrap() = "2060-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(
        code(&run(&node, &["enrol", &hub.token("one").to_string()]).await),
        0
    );
    let enrolled = run(&node, &["doctor", "-o", "json"]).await;
    assert_eq!(
        code(&enrolled),
        0,
        "{}",
        String::from_utf8_lossy(&enrolled.stdout)
    );
    let examined = json(&enrolled.stdout);
    assert_eq!(outcome(&examined, "identity"), "ok");
    assert_eq!(outcome(&examined, "hub"), "ok");
    assert_eq!(
        outcome(&examined, "broker"),
        "warn",
        "nothing listens there, which costs only the link"
    );
    assert_eq!(outcome(&examined, "kubernetes-program"), "ok");
    assert_eq!(outcome(&examined, "clock"), "warn", "the hub's time is later");
    assert_eq!(
        outcome(&examined, "certificate"),
        "warn",
        "over by the hub's time"
    );
    let text = run(&node, &["doctor"]).await;
    assert!(String::from_utf8_lossy(&text.stdout).contains("do: "));

    let broken = TestBox::new("nonsense = 1\n");
    let examined = run(&broken, &["doctor", "-o", "json"]).await;
    assert_eq!(code(&examined), 1);
    assert_eq!(outcome(&json(&examined.stdout), "settings"), "fail");
}

#[tokio::test]
async fn doctor_takes_in_what_the_running_daemon_knows() {
    let hub = TestHub::start().await;
    let node = TestBox::new("");
    put(
        &node.path("k3s"),
        "#!/bin/sh\necho 'testcluster version v1.36.0'\n[ \"$1\" = --version ]\n",
    );
    fs::set_permissions(node.path("k3s"), fs::Permissions::from_mode(0o755)).unwrap();
    let check = |examined: &Value, name: &str| {
        let checks = examined["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).cloned()
    };
    let without = json(&run(&node, &["doctor", "-o", "json"]).await.stdout);
    let found = check(&without, "daemon").unwrap();
    assert_eq!(found["outcome"], "warn");
    assert_eq!(found["code"], "daemon-unreachable");

    assert_eq!(
        code(&run(&node, &["enrol", &hub.token("one").to_string()]).await),
        0
    );
    let (child, _notify) = daemon(&node).await;
    common::until("the end of Kubernetes is a failure", async || {
        let examined = json(&run(&node, &["doctor", "-o", "json"]).await.stdout);
        assert_eq!(check(&examined, "daemon").unwrap()["outcome"], "ok");
        assert_eq!(check(&examined, "kubernetes-program").unwrap()["outcome"], "ok");
        check(&examined, "kubernetes").is_some_and(|found| {
            found["outcome"] == "fail"
                && found["code"] == "kubernetes-exited"
                && found["action"].as_str().is_some_and(|action| !action.is_empty())
                && examined["outcome"] == "fail"
        })
    })
    .await;
    assert_eq!(end(child, Signal::SIGTERM).await, 0);
}

#[tokio::test]
async fn a_factory_reset_that_waits_for_a_restart_is_shown_until_its_order_is_taken_back() {
    let node = TestBox::new("");
    let told = async || {
        let examined = json(&run(&node, &["doctor", "-o", "json"]).await.stdout);
        let checks = examined["checks"].as_array().unwrap().clone();
        checks
            .into_iter()
            .find(|check| check["name"] == "factory-reset")
            .map(|check| check["outcome"].as_str().unwrap().to_owned())
    };
    fs::create_dir(node.path("state")).unwrap();
    fs::set_permissions(node.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(told().await, None);
    let ordered = run(&node, &["factory-reset", "--yes", "--no-restart"]).await;
    assert_eq!(code(&ordered), 0, "{}", String::from_utf8_lossy(&ordered.stderr));
    assert_eq!(told().await.as_deref(), Some("warn"));
    let take_back = async || {
        let done = run(&node, &["factory-reset", "--cancel"]).await;
        assert_eq!(code(&done), 0, "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    assert!(take_back().await.contains("taken back"));
    assert_eq!(told().await, None);
    put(&node.path("state/factory-reset.json"), "torn");
    assert_eq!(told().await.as_deref(), Some("fail"));
    assert!(take_back().await.contains("taken back"));
    assert_eq!(told().await, None);
    assert!(take_back().await.contains("No factory reset"));
}
