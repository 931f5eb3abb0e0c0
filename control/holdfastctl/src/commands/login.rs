//! Log-in and contexts.

use crate::{
    cli::{ContextCommand, Login},
    client::Client,
    codes,
    contexts::{self, Context, Contexts},
    failure::{Failure, Result},
    output::{self, Format, Table, or_dash},
    trust,
};
use holdfast_protocol::{codes as shared, operator::WhoAmI};
use std::{
    fs,
    io::{IsTerminal as _, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// The longest text that is taken for a token, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Logs in: finds the hub's CA confirmed, asks the hub who the token is, keeps the context and makes it the current one.
pub async fn login(options: Login, format: Format) -> Result<()> {
    let path = contexts::path()?;
    let mut contexts = Contexts::read(&path)?;
    let url = crate::client::address(&options.url)?;
    let ca = options.ca.as_deref().map(read_file).transpose()?;
    let mut context = Context {
        hub: url.to_string().trim_end_matches('/').to_owned(),
        token: String::new(),
        operator: None,
        pin: options.pin,
        ca,
    };
    // First whether it is the hub, then the token: it must not be typed for a stranger.
    check_identity(&context).await?;
    context.token = token(options.token_file.as_deref())?;
    let who: WhoAmI = Client::of(&context)?.get("api/v1/whoami").await?;
    context.operator = Some(who.name.clone());
    let hub = context.hub.clone();
    contexts.contexts.insert(options.name.clone(), context);
    contexts.current = Some(options.name.clone());
    contexts.write(&path)?;
    format.show(&who, |_| {
        format!(
            "Logged in to {hub} as {} ({}). Context {:?} is used from now on.\n",
            who.name,
            super::role_word(who.role),
            options.name
        )
    })
}

/// Reaches the hub without any credential; where its CA is unknown, shows the pin and how to confirm it.
async fn check_identity(context: &Context) -> Result<()> {
    let reached: Result<serde_json::Value> = match Client::of(context) {
        Ok(client) => client.get("api/v1/whoami").await,
        Err(failure) => Err(failure),
    };
    let Err(failure) = reached else {
        return Ok(());
    };
    match failure.0.code.as_ref() {
        codes::HUB_UNREACHABLE | codes::HUB_ANSWER_UNREADABLE => Err(failure),
        shared::HUB_IDENTITY_MISMATCH => {
            let Some(pin) = trust::look(&context.hub).await else {
                return Err(failure);
            };
            if let Some(expected) = context.pin {
                return Err(Failure::new(
                    shared::HUB_IDENTITY_MISMATCH,
                    if pin == expected {
                        format!(
                            "{} shows the right CA, but its certificate is not valid for this address or time",
                            context.hub
                        )
                    } else {
                        format!("{} shows a CA with the pin {pin}, not {expected}", context.hub)
                    },
                    if pin == expected {
                        "use an address that is in the hub's configuration (api.names), and check the clock of this machine"
                    } else {
                        "check the address and the pin; nothing was sent to it"
                    },
                ));
            }
            if context.ca.is_some() {
                return Err(failure);
            }
            Err(Failure::new(
                codes::HUB_UNKNOWN,
                format!(
                    "the hub at {} shows a CA that this machine does not know; the pin of its key is\n    {pin}",
                    context.hub
                ),
                format!(
                    "compare it with the pin of the hub's keys/ca.pem (below its data directory), on the hub's machine:\n      openssl x509 -in ca.pem -pubkey -noout | openssl pkey -pubin -outform der | sha256sum\n    if they are the same, log in with: --pin {pin}"
                ),
            ))
        }
        // It answered that we are nobody: that is the hub.
        _ => Ok(()),
    }
}

fn read_file(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        Failure::new(
            codes::FILE_UNREADABLE,
            format!("{} cannot be read: {error}", path.display()),
            "check the path and its permissions",
        )
    })
}

/// The operator token: from a file, the environment, or the person at the terminal.
fn token(file: Option<&Path>) -> Result<String> {
    let text = match file {
        Some(path) if path == Path::new("-") => from_input()?,
        Some(path) => read_file(path)?,
        None => match std::env::var("HOLDFAST_TOKEN") {
            Ok(token) if !token.is_empty() => token,
            _ if std::io::stdin().is_terminal() => ask()?,
            _ => from_input()?,
        },
    };
    let text = text.trim();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Failure::new(
            codes::USAGE,
            "there is no operator token (one word, hfop_…)",
            "give the file that holds it: --token-file FILE; a fresh hub writes the first one to admin.token in its data directory",
        ));
    }
    Ok(text.to_owned())
}

fn from_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_TOKEN_BYTES)
        .read_to_string(&mut text)
        .map_err(unreadable_input)?;
    Ok(text)
}

#[allow(clippy::needless_pass_by_value, reason = "given to map_err")]
fn unreadable_input(error: std::io::Error) -> Failure {
    Failure::new(
        codes::FILE_UNREADABLE,
        format!("the standard input cannot be read: {error}"),
        "give the token with --token-file FILE",
    )
}

/// Asks at the terminal without showing what is typed.
fn ask() -> Result<String> {
    // `stty` is on every Linux; where it is not, the token shows while it is typed.
    let echo = |on: &str| {
        Command::new("stty")
            .arg(on)
            .stdin(Stdio::inherit())
            .stderr(Stdio::null())
            .status()
    };
    let _ = write!(std::io::stderr().lock(), "Operator token: ");
    let hidden = echo("-echo").is_ok_and(|status| status.success());
    let mut text = String::new();
    let read = std::io::stdin().read_line(&mut text);
    if hidden {
        let _ = echo("echo");
        output::note("");
    }
    read.map_err(unreadable_input)?;
    Ok(text)
}

/// Lists, chooses and forgets contexts.
pub fn context(command: ContextCommand, format: Format) -> Result<()> {
    let path = contexts::path()?;
    let mut contexts = Contexts::read(&path)?;
    match command {
        ContextCommand::List => list(&contexts, format),
        ContextCommand::Use { name } => {
            contexts.find(Some(&name))?;
            contexts.current = Some(name.clone());
            contexts.write(&path)?;
            output::note(&format!("Context {name:?} is used from now on."));
            Ok(())
        }
        ContextCommand::Delete { name } => {
            contexts.find(Some(&name))?;
            contexts.contexts.remove(&name);
            if contexts.current.as_deref() == Some(&name) {
                contexts.current = None;
            }
            contexts.write(&path)?;
            output::note(&format!(
                "Context {name:?} is forgotten here; its token stays valid until the operator is deleted."
            ));
            Ok(())
        }
    }
}

fn list(contexts: &Contexts, format: Format) -> Result<()> {
    // The tokens stay in the file.
    let shown: Vec<_> = contexts
        .contexts
        .iter()
        .map(|(name, context)| {
            serde_json::json!({
                "name": name,
                "current": contexts.current.as_ref() == Some(name),
                "hub": context.hub,
                "operator": context.operator,
                "pin": context.pin,
            })
        })
        .collect();
    format.show(&shown, |_| {
        let mut table = Table::new(["", "NAME", "HUB", "OPERATOR", "TRUST"]);
        for (name, context) in &contexts.contexts {
            table.row([
                if contexts.current.as_ref() == Some(name) {
                    "*".to_owned()
                } else {
                    String::new()
                },
                name.clone(),
                context.hub.clone(),
                or_dash(context.operator.as_deref()),
                match (&context.pin, &context.ca) {
                    (Some(pin), _) => {
                        format!("pin {}…", pin.to_string().chars().take(19).collect::<String>())
                    }
                    (None, Some(_)) => "CA file".to_owned(),
                    (None, None) if context.hub.starts_with("http:") => "this machine".to_owned(),
                    (None, None) => "system".to_owned(),
                },
            ]);
        }
        table.render("No contexts. Log in: holdfastctl login https://HUB --token-file FILE")
    })
}
