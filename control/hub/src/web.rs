//! The web page: static files of `web/`, compiled into the binary. It talks to the operator API only.

use axum::Router;

/// Routes of the page; they need no state and no authentication, for they hold no data.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
}
