//! The steps of the story, each with what must be seen.

use crate::screen::Screen;
use anyhow::{Context as _, Result, bail, ensure};
use holdfast_harness::{Node, Site, paths, process::run, site::KUBERNETES, wait};
use holdfast_protocol::{
    operator::NodeInfo,
    report::{Health, Phase},
};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// Name of the box.
const NODE: &str = "box-1";
/// Name of the release, its app and the app's namespace and workload, as `examples/hello` has them.
const APP: &str = "hello";
/// How long a step may take that needs no Kubernetes to start.
const SOON: Duration = Duration::from_secs(60);

/// The story's parts while they run.
pub struct Story {
    site: Site,
    node: Node,
    fleet: FleetCommand,
}

/// `holdfastctl` with a context of the demo's own.
struct FleetCommand {
    binary: PathBuf,
    config: PathBuf,
}

impl FleetCommand {
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("XDG_CONFIG_HOME", &self.config);
        run(command).await
    }
}

impl Story {
    /// Tells the whole story.
    pub async fn tell(directory: &Path, screen: &mut Screen) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("empty {}", directory.display()))?;
        }
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let fleet = FleetCommand {
            binary: paths::binary("holdfastctl")?,
            config: directory.join("config"),
        };

        screen.heading("A hub and a box");
        let site = screen
            .step("hub started", async {
                let site = Site::start_in(directory.clone()).await?;
                let seen = format!("web page and API at {}", site.hub.plain_url()?);
                Ok((site, seen))
            })
            .await?;
        let token = screen
            .step("token made", async {
                fleet
                    .run(&[
                        "login",
                        site.hub.plain_url()?,
                        "--token-file",
                        &site.hub.ready.admin_token_file.to_string_lossy(),
                    ])
                    .await?;
                let token = fleet
                    .run(&["token", "create", "--quiet", "--label", "site=demo"])
                    .await?
                    .trim()
                    .to_owned();
                ensure!(token.starts_with("hf1."), "not a token: {token:?}");
                let seen = format!(
                    "{}… works once, for 24 hours",
                    token.chars().take(16).collect::<String>()
                );
                Ok((token, seen))
            })
            .await?;
        let mut node = site.prepare_node(NODE)?;
        screen
            .step("node enrolled", async {
                node.start().await?;
                node.enrol(&token).await?;
                site.hub
                    .wait_for_node(NODE, "the node is online", SOON, |node| node.online)
                    .await?;
                ensure!(
                    node.enrol(&token).await.is_err(),
                    "the spent token was taken again"
                );
                Ok((
                    (),
                    format!("{NODE} has its own key and certificate; the token is spent"),
                ))
            })
            .await?;
        screen
            .step("Kubernetes up", async {
                let up = |node: &NodeInfo| {
                    node.status
                        .as_ref()
                        .is_some_and(|status| status.kubernetes.health == Health::Healthy)
                };
                let seen = site
                    .hub
                    .wait_for_node(NODE, "Kubernetes is ready", KUBERNETES, up)
                    .await?;
                let version = seen
                    .status
                    .and_then(|status| status.kubernetes.version)
                    .unwrap_or_default();
                Ok(((), version))
            })
            .await?;

        screen.heading("An app, from the hub to the box");
        screen
            .step("release published", async {
                let example = paths::repository().join("examples").join(APP);
                fleet
                    .run(&["release", "create", APP, "-f", &example.to_string_lossy()])
                    .await?;
                fleet.run(&["release", "assign", APP, "--node", NODE]).await?;
                let wanted = site
                    .hub
                    .node(NODE)
                    .await?
                    .wanted
                    .context("no generation is wanted")?;
                Ok((
                    (),
                    format!("examples/{APP} is generation {wanted} of {NODE}, signed and sent"),
                ))
            })
            .await?;
        screen
            .step("applied and ready", async {
                let proven = |node: &NodeInfo| {
                    node.proven.is_some() && node.proven == node.wanted && node.health == Health::Healthy
                };
                let seen = site
                    .hub
                    .wait_for_node(NODE, "the app is ready", KUBERNETES, proven)
                    .await?;
                Ok((
                    (),
                    format!("generation {} proven, {}", text(seen.proven), apps(&seen)),
                ))
            })
            .await?;

        screen.heading("The link goes");
        screen
            .step("link cut", async {
                site.hub.cut();
                let seen = site
                    .hub
                    .wait_for_node(NODE, "the hub notices", SOON, |node| !node.online)
                    .await?;
                Ok((
                    (),
                    format!(
                        "the hub says: offline, last proven {}, must be running {}",
                        text(seen.proven),
                        text(seen.accepted)
                    ),
                ))
            })
            .await?;
        screen
            .step("deleted by hand, put back offline", async {
                let before = uid(&node).await?.context("no workload to delete")?;
                node.kubectl
                    .run(&["-n", APP, "delete", "deployment", APP, "--wait=false"])
                    .await?;
                let after = wait::until("the deployment comes back", SOON, || async {
                    Ok(uid(&node).await?.filter(|uid| *uid != before))
                })
                .await?;
                node.kubectl
                    .wait(APP, &format!("deployment/{APP}"), "condition=Available", SOON)
                    .await?;
                Ok((
                    (),
                    format!(
                        "deployment/{APP} {} is now {}, and available",
                        &before[..8],
                        &after[..8]
                    ),
                ))
            })
            .await?;
        screen
            .step("node and Kubernetes killed, restarted offline", async {
                let process = node.process()?.id().context("the node is not running")?;
                node.kill().await?;
                let killed = node.kill_kubernetes()?;
                ensure!(killed > 0, "no Kubernetes was found to kill");
                ensure!(node.kubectl.run(&["get", "--raw", "/readyz"]).await.is_err(), "Kubernetes still answers");
                node.start().await?;
                let seen = node
                    .wait_for_status("the app returns", KUBERNETES, |status| {
                        status.kubernetes.health == Health::Healthy
                            && status.health == Health::Healthy
                            && status.generation.proven.is_some()
                            && status.generation.proven == status.generation.accepted
                    })
                    .await?;
                node.kubectl.wait(APP, &format!("deployment/{APP}"), "condition=Available", SOON).await?;
                if site.hub.node(NODE).await?.online {
                    bail!("the hub heard of the node over a cut link");
                }
                Ok(((), format!("process {process} and Kubernetes were killed; generation {} runs again from the cache", text(seen.generation.proven))))
            })
            .await?;
        screen
            .step("link back", async {
                site.hub.restore();
                let truth = |node: &NodeInfo| {
                    node.online && node.health == Health::Healthy && node.proven == node.wanted
                };
                let seen = site
                    .hub
                    .wait_for_node(NODE, "the hub shows the truth", SOON * 2, truth)
                    .await?;
                let events = wait::until("the correction is told", SOON, || async {
                    let events: Vec<Value> = site.hub.get(&format!("/api/v1/nodes/{NODE}/events")).await?;
                    let told = events.iter().any(|event| event["kind"] == "drift-corrected");
                    Ok(told.then_some(events.len()))
                })
                .await?;
                Ok((
                    (),
                    format!(
                        "generation {} proven; {events} events, the offline correction among them",
                        text(seen.proven)
                    ),
                ))
            })
            .await?;

        screen.heading("A bad version");
        screen
            .step("bad version sent, box goes back by itself", async {
                let broken = broken_version(&directory)?;
                fleet
                    .run(&["release", "create", "hello-2", "-f", &broken.to_string_lossy()])
                    .await?;
                fleet
                    .run(&["release", "assign", "hello-2", "--node", NODE])
                    .await?;
                let back = |node: &NodeInfo| {
                    let status = node.status.as_ref();
                    let generation = status.map(|status| &status.generation);
                    generation.is_some_and(|generation| {
                        generation.phase == Phase::RolledBack && generation.accepted == node.wanted
                    })
                };
                let seen = site
                    .hub
                    .wait_for_node(NODE, "the box is back at the good version", SOON * 2, back)
                    .await?;
                let generation = seen.status.context("no status")?.generation;
                let cause = generation.cause.context("no cause is told")?;
                node.kubectl
                    .wait(APP, &format!("deployment/{APP}"), "condition=Available", SOON)
                    .await?;
                let (bad, good) = (text(generation.accepted), text(generation.running));
                Ok((
                    (),
                    format!(
                        "{bad} failed, {good} runs again; cause at the hub: {}",
                        cause.message
                    ),
                ))
            })
            .await?;
        Ok(Self { site, node, fleet })
    }

    /// Prints what can be tried while everything is up.
    pub fn invite(&self, screen: &mut Screen) -> Result<()> {
        let directory = self.site.directory();
        let node = format!(
            "{} --config {}",
            paths::binary("holdfast")?.display(),
            directory.join(NODE).join("node.toml").display()
        );
        screen.heading("All of it is up. Try:");
        screen.say(&format!("  web page     {}", self.site.hub.plain_url()?));
        screen.say(&format!("  log in with  {}", self.site.hub.admin_token()));
        screen.say("");
        screen.say(&format!(
            "  export XDG_CONFIG_HOME={}",
            self.fleet.config.display()
        ));
        screen.say(&format!("  {} node show {NODE}", self.fleet.binary.display()));
        for verb in ["status", "plan", "history", "doctor"] {
            screen.say(&format!(
                "  {}",
                node.replacen(" --config", &format!(" {verb} --config"), 1)
            ));
        }
        screen.say(&format!(
            "  {} kubectl --kubeconfig {} get pods -A",
            self.node.kubectl.k3s.display(),
            self.node.kubectl.kubeconfig.display()
        ));
        screen.say("\nCtrl-C ends it.");
        Ok(())
    }

    /// Ends everything in good order.
    pub async fn end(mut self) -> Result<()> {
        self.node.stop().await
    }
}

/// `examples/hello` with an image that nobody can pull, and little patience.
fn broken_version(directory: &Path) -> Result<PathBuf> {
    let target = directory.join("bad-version").join(APP);
    fs::create_dir_all(&target)?;
    for entry in fs::read_dir(paths::repository().join("examples").join(APP))? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        let mut content = fs::read_to_string(&path)?;
        if name == "deployment.yaml" {
            content = content.replace("image: nginxinc/", "image: registry.invalid/");
            ensure!(
                content.contains("registry.invalid"),
                "the example names another image now"
            );
        } else if name == "release.yaml" {
            "policy:\n  stabilitySeconds: 0\n  readyDeadlineSeconds: 8\n".clone_into(&mut content);
        }
        fs::File::create(target.join(name))?.write_all(content.as_bytes())?;
    }
    Ok(target)
}

async fn uid(node: &Node) -> Result<Option<String>> {
    let deployment = node.kubectl.get(APP, "deployment", APP).await?;
    Ok(deployment.and_then(|object| object["metadata"]["uid"].as_str().map(str::to_owned)))
}

fn text(generation: Option<impl ToString>) -> String {
    generation.map_or_else(|| "none".to_owned(), |generation| generation.to_string())
}

fn apps(node: &NodeInfo) -> String {
    let apps = node.status.iter().flat_map(|status| &status.apps);
    apps.map(|app| format!("{} {}/{} objects ready", app.name, app.ready, app.objects))
        .collect::<Vec<_>>()
        .join(", ")
}
