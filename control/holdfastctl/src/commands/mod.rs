//! What each command does: one function each, from the command line to the answer.

mod artifact;
mod login;
mod node;
mod operator;
mod os;
mod release;
mod secret;
mod state;
mod token;
mod wait;

use crate::{
    cli::{self, Cli, Command, Docs, ReleaseCommand},
    client::Client,
    codes, contexts, docs,
    failure::{Failure, Result},
    output::{self, Format, Table},
};
use holdfast_protocol::operator::{AuditEvent, OperatorRole, WhoAmI};
use jiff::Timestamp;
use std::io::{IsTerminal as _, Write as _};

/// Runs the command.
pub async fn run(cli: Cli) -> Result<()> {
    let format = cli.global.output;
    let context = cli.global.context.as_deref();
    match cli.command {
        Command::Completion { shell } => completion(shell),
        Command::Docs(Docs::Cli) => output::print(&docs::markdown(cli::command())),
        Command::Version => format.show(
            &serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }),
            |_| concat!("holdfastctl ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
        ),
        Command::Login(options) => login::login(options, format).await,
        Command::Context(command) => login::context(command, format),
        // With labels given, no hub is needed.
        Command::Release(ReleaseCommand::Render {
            source,
            labels,
            seed: Some(out),
            ..
        }) => release::seed(&source, &labels.into_iter().collect(), &out, format),
        Command::Release(ReleaseCommand::Render {
            source, node, labels, ..
        }) if !labels.is_empty() => release::render(&source, node, &labels.into_iter().collect(), format),
        command => {
            let client = Client::from_environment(&contexts::path()?, context)?;
            match command {
                Command::Token(command) => token::run(&client, command, format).await,
                Command::Node(command) => node::run(&client, command, format).await,
                Command::Release(command) => release::run(&client, command, format).await,
                Command::Artifact(command) => artifact::run(&client, command, format).await,
                Command::Os(command) => os::run(&client, command, format).await,
                Command::Secret(command) => secret::run(&client, command, format).await,
                Command::Operator(command) => operator::run(&client, command, format).await,
                Command::Audit { limit } => audit(&client, limit, format).await,
                _ => whoami(&client, format).await,
            }
        }
    }
}

fn completion(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "holdfastctl", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

async fn whoami(client: &Client, format: Format) -> Result<()> {
    let who: WhoAmI = client.get("api/v1/whoami").await?;
    format.show(&who, |_| {
        format!("{} ({}) at {}\n", who.name, role_word(who.role), client.hub())
    })
}

async fn audit(client: &Client, limit: u32, format: Format) -> Result<()> {
    let mut events: Vec<AuditEvent> = client.get(&format!("api/v1/audit?limit={limit}")).await?;
    events.sort_by_key(|event| std::cmp::Reverse(event.sequence));
    format.show(&events, |wide| {
        let now = Timestamp::now();
        let mut table = Table::new(["AGE", "ACTOR", "ACTION", "SUBJECT", "DETAIL"]);
        for event in &events {
            table.row([
                if wide {
                    event.at.to_string()
                } else {
                    output::age(event.at, now)
                },
                event.actor.clone(),
                event.action.clone(),
                event.subject.clone(),
                event.detail.clone(),
            ]);
        }
        table.render("Nothing was done yet.")
    })
}

/// The role as people write it.
fn role_word(role: OperatorRole) -> &'static str {
    match role {
        OperatorRole::Admin => "admin",
        OperatorRole::Viewer => "viewer",
    }
}

/// Asks before what cannot be undone; where nobody can be asked, `--yes` must have been given.
fn confirm(question: &str, yes: bool) -> Result<()> {
    let refuse = |message: &str, action: &str| Err(Failure::new(codes::NOT_CONFIRMED, message, action));
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return refuse(
            "this cannot be undone, and nobody can be asked",
            "add --yes if you mean it",
        );
    }
    let mut error = std::io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(error, "{question} [y/N] ")
        .and_then(|()| error.flush())
        .and_then(|()| std::io::stdin().read_line(&mut answer));
    if asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        refuse("not confirmed; nothing was changed", "")
    }
}
