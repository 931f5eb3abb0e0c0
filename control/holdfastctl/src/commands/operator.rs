//! Operators.

use crate::{
    cli::OperatorCommand,
    client::{Client, encoded},
    failure::Result,
    output::{self, Format, Table},
};
use holdfast_protocol::operator::{CreateOperator, CreatedOperator, Operator};
use jiff::Timestamp;
use reqwest::Method;

/// Runs a command about operators.
pub async fn run(client: &Client, command: OperatorCommand, format: Format) -> Result<()> {
    match command {
        OperatorCommand::Create { name, role, quiet } => {
            let request = CreateOperator {
                name: name.to_string(),
                role,
            };
            let made: CreatedOperator = client.call(Method::POST, "api/v1/operators", &request).await?;
            if quiet {
                return output::line(&made.bearer_token);
            }
            format.show(&made, |_| {
                format!(
                    "{}\n\nThe token of {} ({}), shown this once. They log in with it on the web page, or:\n  holdfastctl login {} --token-file FILE\n",
                    made.bearer_token,
                    made.operator.name,
                    super::role_word(made.operator.role),
                    client.hub(),
                )
            })
        }
        OperatorCommand::List => {
            let operators: Vec<Operator> = client.get("api/v1/operators").await?;
            format.show(&operators, |_| {
                let now = Timestamp::now();
                let mut table = Table::new(["NAME", "ROLE", "AGE"]);
                for operator in &operators {
                    table.row([
                        operator.name.clone(),
                        super::role_word(operator.role).to_owned(),
                        output::age(operator.created_at, now),
                    ]);
                }
                table.render("No operators.")
            })
        }
        OperatorCommand::Delete { name, yes } => {
            super::confirm(
                &format!("Remove the operator {name}? Their token stops working at once."),
                yes,
            )?;
            client
                .delete(&format!("api/v1/operators/{}", encoded(&name)))
                .await?;
            output::note(&format!("Operator {name} is removed."));
            Ok(())
        }
    }
}
