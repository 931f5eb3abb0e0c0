//! Operators: who may use this API.

use super::{
    auth::{Admin, Viewer},
    body::{Body, Part},
    error::{ApiError, Result},
};
use crate::{
    database::{
        Database,
        audit::{self, Actor},
        operators,
    },
    hub::Hub,
};
use axum::{Json, extract::State};
use holdfast_protocol::{
    Digest, NodeId, Problem,
    operator::{CreateOperator, CreatedOperator, Operator, OperatorRole},
};
use http::StatusCode;
use std::sync::Arc;

/// All operators.
#[utoipa::path(get, path = "/api/v1/operators", tag = "operators", responses((status = 200, body = [Operator])))]
pub async fn list(State(hub): State<Arc<Hub>>, _viewer: Viewer) -> Result<Json<Vec<Operator>>> {
    Ok(Json(operators::list(hub.database.read()).await?))
}

/// Adds an operator; the answer holds the bearer token, which is shown this once.
#[utoipa::path(post, path = "/api/v1/operators", tag = "operators", request_body = CreateOperator,
    responses((status = 201, body = CreatedOperator), (status = 409, description = "conflict", body = Problem)))]
pub async fn create(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Body(request): Body<CreateOperator>,
) -> Result<(StatusCode, Json<CreatedOperator>)> {
    let made = add(
        &hub.database,
        &Actor::Operator(who.name),
        &request.name,
        request.role,
        new_token()?,
    )
    .await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Removes an operator with their sessions.
#[utoipa::path(delete, path = "/api/v1/operators/{name}", tag = "operators", params(("name" = String, Path)),
    responses((status = 204), (status = 404, description = "not-found", body = Problem),
        (status = 409, description = "conflict: the last administrator", body = Problem)))]
pub async fn delete(
    State(hub): State<Arc<Hub>>,
    Admin(who): Admin,
    Part(name): Part<NodeId>,
) -> Result<StatusCode> {
    let mut tx = hub.database.write().await?;
    let others = operators::other_admins(&mut tx, name.as_str()).await?;
    if !operators::delete(&mut tx, name.as_str()).await? {
        return Err(ApiError::not_found(
            "operator",
            &name,
            "`holdfastctl operator list` lists them",
        ));
    }
    if others == 0 {
        return Err(ApiError::conflict(
            format!("{name} is the last administrator"),
            "add another administrator first",
        ));
    }
    let actor = Actor::Operator(who.name);
    audit::record(
        &mut tx,
        &actor,
        "operator.delete",
        &format!("operator/{name}"),
        "",
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub use super::auth::new_bearer_token as new_token;

/// Adds an operator, here and from the command line.
pub async fn add(
    database: &Database,
    actor: &Actor,
    name: &str,
    role: OperatorRole,
    bearer_token: String,
) -> Result<CreatedOperator> {
    let name: NodeId = name
        .parse()
        .map_err(|error| ApiError::bad_request(format!("name: {error}"), "choose another name"))?;
    let operator = Operator {
        name: name.to_string(),
        role,
        created_at: crate::database::now(),
    };
    let mut tx = database.write().await?;
    if !operators::insert(&mut tx, &operator, &Digest::of(bearer_token.as_bytes())).await? {
        return Err(ApiError::conflict(
            format!("there is an operator {name} already"),
            "choose another name, or delete the old one",
        ));
    }
    let role = match role {
        OperatorRole::Admin => "admin",
        OperatorRole::Viewer => "viewer",
    };
    audit::record(
        &mut tx,
        actor,
        "operator.create",
        &format!("operator/{name}"),
        role,
    )
    .await?;
    tx.commit().await?;
    Ok(CreatedOperator {
        operator,
        bearer_token,
    })
}
