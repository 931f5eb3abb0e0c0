//! The audit log.

#![allow(
    unused_qualifications,
    reason = "the derived parameter code is fully qualified"
)]

use super::{auth::Viewer, body::Parameters, error::Result};
use crate::{database::audit, hub::Hub};
use axum::{Json, extract::State};
use holdfast_protocol::operator::AuditEvent;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Most lines that one answer holds.
const MAX_LINES: u32 = 1_000;

/// Which lines are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// The newest so many, 1 to 1,000; 100 where absent.
    pub limit: Option<u32>,
    /// Only lines with a lower sequence, to page back.
    pub before: Option<u64>,
}

/// What was done and tried, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = [AuditEvent])))]
pub async fn list(
    State(hub): State<Arc<Hub>>,
    _viewer: Viewer,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<Json<Vec<AuditEvent>>> {
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_LINES);
    let before = query
        .before
        .and_then(|before| i64::try_from(before).ok())
        .unwrap_or(i64::MAX);
    Ok(Json(audit::list(hub.database.read(), before, limit).await?))
}
