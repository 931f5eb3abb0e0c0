//! `holdfastctl` as an operator uses it, on a real hub: what it trusts, what it answers, how it fails.

use anyhow::{Context as _, Result};
use holdfast_harness::Hub;
use holdfast_protocol::{Digest, Problem, enrol::key_pin, report::Phase, token::EnrolmentToken};
use holdfast_web_tests::{operator::Operator, reporter::Reporter};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt as _;

async fn start() -> Result<(Hub, Operator, TempDir)> {
    let directory = tempfile::tempdir()?;
    let hub = Hub::start(&directory.path().join("hub")).await?;
    let operator = Operator::of(&hub, directory.path());
    Ok((hub, operator, directory))
}

/// A directory with one app of one object, named after the app.
fn app(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::create_dir_all(&path)?;
    let mut file = fs::File::create(path.join("page.yaml"))?;
    let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n");
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(path)
}

#[tokio::test]
async fn an_unknown_ca_is_shown_and_trusted_only_when_confirmed() -> Result<()> {
    let (hub, operator, _directory) = start().await?;
    let file = operator.token_file.to_string_lossy().into_owned();
    let url = hub.ready.api.as_str();

    let problem = operator.fail(5, &["login", url, "--token-file", &file]).await?;
    assert_eq!(problem.code, "hub-unknown");
    assert!(
        !operator.config.exists(),
        "nothing may be kept of a hub nobody confirmed"
    );

    // The pin that is shown is that of the CA key: the one that enrolment tokens carry.
    operator.log_in(&hub).await?;
    let token: EnrolmentToken = operator
        .succeed(&["token", "create", "--quiet"])
        .await?
        .trim()
        .parse()?;
    let pin = token.ca_pin.context("the token carries no pin")?;
    assert!(problem.message.contains(&pin.to_string()), "{problem}");
    assert!(problem.action.contains(&pin.to_string()), "{problem}");

    let login = ["login", url, "--token-file", &file, "--name", "pinned", "--pin"];
    let wrong = Digest::of(b"another key").to_string();
    let problem = operator.fail(5, &[&login[..], &[&wrong]].concat()).await?;
    assert_eq!(problem.code, "hub-identity-mismatch");
    operator
        .succeed(&[&login[..], &[&pin.to_string()]].concat())
        .await?;
    assert!(operator.succeed(&["whoami"]).await?.contains("admin"));

    let ca = hub.directory.join("data/keys/ca.pem");
    let ca = ca.to_string_lossy();
    operator
        .succeed(&[
            "login",
            url,
            "--token-file",
            &file,
            "--name",
            "by-file",
            "--ca",
            &ca,
        ])
        .await?;
    assert!(operator.succeed(&["whoami"]).await?.contains("admin"));
    let contexts = operator.config.join("holdfast/contexts.toml");
    assert_eq!(fs::metadata(contexts)?.permissions().mode() & 0o777, 0o600);
    let listed = operator.succeed(&["context", "list", "-o", "json"]).await?;
    assert!(
        listed.contains("by-file") && !listed.contains("hfop_"),
        "{listed}"
    );
    Ok(())
}

#[tokio::test]
async fn a_stranger_with_the_same_address_gets_no_token() -> Result<()> {
    // A pin that no hub has: the key is made here and now.
    let (hub, operator, _directory) = start().await?;
    let key = KeyPair::generate()?;
    let pin = key_pin(&key.subject_public_key_info()).to_string();
    let file = operator.token_file.to_string_lossy().into_owned();
    operator
        .fail(
            5,
            &["login", &hub.ready.api, "--token-file", &file, "--pin", &pin],
        )
        .await?;
    let audit: Vec<Value> = hub.get("/api/v1/audit").await?;
    assert!(
        !audit.iter().any(|event| event["actor"] == "operator/admin"),
        "{audit:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_machine_without_any_roots_can_log_in_too() -> Result<()> {
    let (hub, operator, _directory) = start().await?;
    let file = operator.token_file.to_string_lossy().into_owned();
    let login = async |url: &str| {
        let mut command = operator.command(&["login", url, "--token-file", &file, "-o", "json"])?;
        command
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent");
        anyhow::Ok(command.output().await?)
    };
    let refused = login(&hub.ready.api).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("hub-unknown") && said.contains("sha256:"), "{said}");
    let plain = login(hub.plain_url()?).await?;
    assert!(
        plain.status.success(),
        "{}",
        String::from_utf8_lossy(&plain.stderr)
    );
    Ok(())
}

#[tokio::test]
async fn every_list_answers_as_table_json_and_yaml() -> Result<()> {
    let (hub, operator, directory) = start().await?;
    operator.log_in(&hub).await?;
    let path = app(directory.path(), "hello")?;
    operator
        .succeed(&["release", "create", "hello-1", "-f", &path.to_string_lossy()])
        .await?;
    operator
        .succeed(&["token", "create", "--name", "shop-17", "--label", "site=berlin"])
        .await?;
    let mut node = Reporter::enrol(&hub, "shop-18", &[("site", "berlin")]).await?;
    let report = node.healthy(None);
    node.report(&report).await?;
    for (arguments, word) in [
        (["token", "list"], "shop-17"),
        (["node", "list"], "shop-18"),
        (["release", "list"], "hello-1"),
        (["operator", "list"], "admin"),
        (["audit", "--limit=20"], "release.create"),
    ] {
        for format in ["table", "wide", "json", "yaml"] {
            let mut all = arguments.to_vec();
            all.extend(["-o", format]);
            let answer = operator.succeed(&all).await?;
            assert!(answer.contains(word), "{all:?}: {answer}");
            if format == "json" {
                serde_json::from_str::<Vec<Value>>(&answer)?;
            }
        }
    }
    let labelled = operator
        .succeed(&["node", "label", "shop-18", "tier=till", "site-"])
        .await?;
    assert_eq!(labelled, "shop-18: tier=till\n");
    let none = operator
        .succeed(&["node", "list", "-l", "site=berlin", "-o", "json"])
        .await?;
    assert_eq!(none.trim(), "[]");
    assert_eq!(
        operator.fail(4, &["node", "show", "nobody"]).await?.code,
        "not-found"
    );
    assert_eq!(
        operator.fail(2, &["node", "delete", "shop-18"]).await?.code,
        "not-confirmed"
    );
    operator.succeed(&["node", "delete", "shop-18", "--yes"]).await?;
    operator.fail(4, &["node", "show", "shop-18"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_viewer_sees_all_and_changes_nothing() -> Result<()> {
    let (hub, operator, directory) = start().await?;
    operator.log_in(&hub).await?;
    let token = operator
        .succeed(&["operator", "create", "ada", "--quiet"])
        .await?;
    let viewer = Operator {
        config: directory.path().join("viewer"),
        token_file: directory.path().join("viewer.token"),
    };
    std::io::Write::write_all(&mut fs::File::create(&viewer.token_file)?, token.as_bytes())?;
    viewer.log_in(&hub).await?;
    viewer.succeed(&["node", "list"]).await?;
    assert_eq!(viewer.fail(3, &["token", "create"]).await?.code, "forbidden");
    operator.succeed(&["operator", "delete", "ada", "--yes"]).await?;
    assert_eq!(viewer.fail(3, &["node", "list"]).await?.code, "unauthenticated");
    Ok(())
}

#[tokio::test]
async fn an_assignment_is_followed_until_it_is_proven() -> Result<()> {
    let (hub, operator, directory) = start().await?;
    operator.log_in(&hub).await?;
    for name in ["hello-1", "hello-2", "hello-3"] {
        let path = app(directory.path(), name)?;
        operator
            .succeed(&["release", "create", name, "-f", &path.to_string_lossy()])
            .await?;
    }
    let mut node = Reporter::enrol(&hub, "shop-17", &[]).await?;

    // The node proves it: the command ends well, having told each step.
    let mut command = operator
        .command(&["release", "assign", "hello-1", "--node", "shop-17", "--wait=60s"])?
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut progress = tokio::io::BufReader::new(command.stderr.take().context("no standard error")?).lines();
    let mut next = async || anyhow::Ok(progress.next_line().await?.unwrap_or_default());
    let sent = next().await?;
    assert!(
        sent.contains("shop-17: ") && sent.contains("not accepted yet"),
        "{sent}"
    );
    let generation = hub.node("shop-17").await?.wanted;
    let mut report = node.healthy(generation);
    report.generation.proven = None;
    report.generation.phase = Phase::Applying;
    node.report(&report).await?;
    let applying = next().await?;
    assert!(applying.contains("applying"), "{applying}");
    let report = node.healthy(generation);
    node.report(&report).await?;
    let proven = next().await?;
    assert!(proven.contains("proven"), "{proven}");
    assert!(command.wait().await?.success());

    // The node fails: the command ends with that, and with the node's own cause.
    let mut command = operator
        .command(&["release", "assign", "hello-2", "--node", "shop-17", "--wait=60s"])?
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut progress = tokio::io::BufReader::new(command.stderr.take().context("no standard error")?).lines();
    let sent = progress.next_line().await?.unwrap_or_default();
    assert!(sent.contains("not accepted yet"), "{sent}");
    let mut report = node.healthy(hub.node("shop-17").await?.wanted);
    report.generation.proven = generation;
    report.generation.phase = Phase::Failed;
    report.generation.cause = Some(Problem::new("apply-refused", "the API server refused it", ""));
    node.report(&report).await?;
    let failed = progress.next_line().await?.unwrap_or_default();
    assert!(failed.contains("the API server refused it"), "{failed}");
    assert_eq!(command.wait().await?.code(), Some(6));

    // Nobody answers: the command ends when its time is over.
    node.vanish();
    let problem = operator
        .fail(
            6,
            &["release", "assign", "hello-3", "--node", "shop-17", "--wait=2s"],
        )
        .await?;
    assert_eq!(problem.code, "wait-timed-out");
    assert!(problem.message.contains("shop-17"), "{problem}");
    Ok(())
}

#[tokio::test]
async fn a_large_app_is_uploaded_before_its_release() -> Result<()> {
    let (hub, operator, directory) = start().await?;
    operator.log_in(&hub).await?;
    let path = directory.path().join("large.yaml");
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: large\ndata:\n  text: {}\n",
        "x".repeat(100_000)
    );
    std::io::Write::write_all(&mut fs::File::create(&path)?, text.as_bytes())?;
    operator
        .succeed(&["release", "create", "large-1", "-f", &path.to_string_lossy()])
        .await?;
    let shown = operator.succeed(&["release", "show", "large-1"]).await?;
    assert!(shown.contains("bytes of manifests, sha256:"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn completion_and_pages_need_no_hub() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let operator = Operator {
        config: directory.path().to_owned(),
        token_file: PathBuf::new(),
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = operator.succeed(&["completion", shell]).await?;
        assert!(script.contains("holdfastctl"), "{shell}");
    }
    assert!(
        operator
            .succeed(&["docs", "cli"])
            .await?
            .starts_with("## `holdfastctl`")
    );
    assert_eq!(operator.fail(3, &["node", "list"]).await?.code, "not-logged-in");
    Ok(())
}

#[tokio::test]
async fn a_release_with_variables_is_rendered_given_and_deleted_when_no_node_uses_it() -> Result<()> {
    let (hub, operator, directory) = start().await?;
    operator.log_in(&hub).await?;
    let release = directory.path().join("shop");
    fs::create_dir_all(release.join("till"))?;
    let write = |name: &str, text: &str| -> Result<()> {
        Ok(std::io::Write::write_all(
            &mut fs::File::create(release.join(name))?,
            text.as_bytes(),
        )?)
    };
    write(
        "release.yaml",
        "variables: {replicas: {type: integer, default: 2}}\nvalues: [{selector: site=berlin, set: {replicas: 3}}]\n",
    )?;
    write(
        "till/a.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: till, labels: {site: \"${node.labels.site}\"}}\nspec:\n  replicas: ${variables.replicas}\n",
    )?;
    let path = release.to_string_lossy().into_owned();
    let offline = operator
        .succeed(&["release", "render", "-f", &path, "--label", "site=berlin"])
        .await?;
    assert!(
        offline.contains("replicas: 3") && offline.contains("# app till"),
        "{offline}"
    );

    let _node = Reporter::enrol(&hub, "shop-17", &[("site", "hamburg")]).await?;
    let known = operator
        .succeed(&[
            "release", "render", "-f", &path, "--node", "shop-17", "-o", "json",
        ])
        .await?;
    let known: Value = serde_json::from_str(&known)?;
    assert_eq!(known["variables"]["replicas"], 2);

    operator
        .succeed(&["release", "create", "shop-1", "-f", &path])
        .await?;
    let shown = operator.succeed(&["release", "show", "shop-1"]).await?;
    assert!(
        shown.contains("replicas: integer, 2 where nothing says it"),
        "{shown}"
    );
    operator
        .succeed(&["release", "assign", "shop-1", "--node", "shop-17"])
        .await?;
    let problem = operator
        .fail(1, &["release", "delete", "shop-1", "--yes"])
        .await?;
    assert_eq!(problem.code, "conflict");
    operator.succeed(&["node", "delete", "shop-17", "--yes"]).await?;
    operator
        .succeed(&["release", "delete", "shop-1", "--yes"])
        .await?;
    let list = operator.succeed(&["release", "list"]).await?;
    assert!(!list.contains("shop-1"), "{list}");

    write("release.yaml", "variables: {replicas: {tpye: integer}}\n")?;
    let problem = operator
        .fail(1, &["release", "create", "shop-2", "-f", &path])
        .await?;
    assert!(problem.message.contains("release.yaml:1:24"), "{problem}");
    assert!(problem.action.contains("did you mean \"type\"?"), "{problem}");
    Ok(())
}
