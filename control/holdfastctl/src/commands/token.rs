//! Enrolment tokens.

use crate::{
    cli::TokenCommand,
    client::{Client, encoded},
    codes,
    failure::{Failure, Result},
    output::{self, Format, Table, labels, or_dash},
};
use holdfast_protocol::operator::{CreateToken, CreatedToken, TokenInfo, TokenState};
use jiff::Timestamp;
use reqwest::Method;

/// Runs a command about tokens.
pub async fn run(client: &Client, command: TokenCommand, format: Format) -> Result<()> {
    match command {
        TokenCommand::Create {
            ttl,
            name,
            labels,
            serial,
            quiet,
        } => {
            let mut labels_by_key = std::collections::BTreeMap::new();
            for (key, value) in labels {
                if labels_by_key.insert(key.clone(), value).is_some() {
                    return Err(Failure::new(
                        codes::USAGE,
                        format!("the label {key} is given twice"),
                        "give each label once",
                    ));
                }
            }
            let request = CreateToken {
                ttl_seconds: Some(ttl.as_secs()),
                node_name: name,
                labels: labels_by_key,
                serial,
            };
            let made: CreatedToken = client.call(Method::POST, "api/v1/tokens", &request).await?;
            if quiet {
                return output::line(&made.token);
            }
            format.show(&made, |_| created(&made))
        }
        TokenCommand::List => {
            let mut tokens: Vec<TokenInfo> = client.get("api/v1/tokens").await?;
            tokens.sort_by_key(|token| std::cmp::Reverse(token.created_at));
            format.show(&tokens, |wide| list(&tokens, wide))
        }
        TokenCommand::Revoke { id } => {
            client.delete(&format!("api/v1/tokens/{}", encoded(&id))).await?;
            output::note(&format!("Token {id} is revoked."));
            Ok(())
        }
    }
}

fn created(made: &CreatedToken) -> String {
    format!(
        "{}\n\nIt is shown this once, works once, and until {}. On the box:\n  holdfast enrol {}…\n",
        made.token,
        made.info.expires_at,
        made.token.chars().take(12).collect::<String>(),
    )
}

fn list(tokens: &[TokenInfo], wide: bool) -> String {
    let now = Timestamp::now();
    let mut table = Table::new(if wide {
        ["ID", "STATE", "NODE", "EXPIRES", "CREATED BY", "LABELS", "SERIAL"]
    } else {
        ["ID", "STATE", "NODE", "EXPIRES", "CREATED BY", "", ""]
    });
    for token in tokens {
        let state = match token.state {
            TokenState::Open => "open",
            TokenState::Spent => "spent",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        };
        let left = token.expires_at.as_second() - now.as_second();
        table.row([
            token.id.clone(),
            state.to_owned(),
            or_dash(token.spent_by.as_ref().or(token.node_name.as_ref())),
            if token.state != TokenState::Open {
                "-".to_owned()
            } else if left > 0 {
                format!("in {}", output::span(left))
            } else {
                "now".to_owned()
            },
            token.created_by.clone(),
            if wide {
                labels(&token.labels)
            } else {
                String::new()
            },
            if wide {
                or_dash(token.serial.as_deref())
            } else {
                String::new()
            },
        ]);
    }
    table.render("No tokens. Make one: holdfastctl token create --name my-first-node")
}
