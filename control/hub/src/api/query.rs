//! Queries of the operator API: a name that a route does not know is refused, whatever the method.
//!
//! In: a request that a route was found for. Out: the request, or a refusal that says which names there are. Guarantees: what someone asks for is done
//! or refused, never passed over in silence; the names are those of the API's description. Nodes are let be: a newer one may say more.

use super::{error::ApiError, fits, openapi};
use crate::config::nearest;
use axum::{
    extract::{Query, Request},
    middleware::Next,
    response::Response,
};
use std::{collections::BTreeMap, sync::OnceLock};

/// Known names by path and method; a fixed path sorts before one with a variable part.
type Known = BTreeMap<(String, String), Vec<String>>;

/// The names of all queries, as the description of the API has them.
fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut known = Known::new();
        // A description without paths would know no names, and refuse them all: a test sees that it has them.
        let document = serde_json::to_value(openapi::document()).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        for (path, methods) in paths {
            for (method, route) in methods.as_object().into_iter().flatten() {
                let parameters = route["parameters"].as_array().into_iter().flatten();
                let names = parameters
                    .filter(|parameter| parameter["in"] == "query")
                    .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned));
                known.insert((path.clone(), method.to_uppercase()), names.collect());
            }
        }
        known
    })
}

/// Refuses a query with a name that the route does not know.
pub async fn refuse_unknown(request: Request, next: Next) -> Result<Response, ApiError> {
    let uri = request.uri();
    if uri.path().starts_with("/api/")
        && uri.query().is_some_and(|query| !query.is_empty())
        && let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(uri)
    {
        // `HEAD` is answered by the route of `GET`.
        let method = match request.method().as_str() {
            "HEAD" => "GET",
            other => other,
        };
        let route = known()
            .iter()
            .find(|((path, of), _)| of == method && fits(path, uri.path()));
        if let Some(((path, _), names)) = route
            && let Some((name, _)) = given.iter().find(|(name, _)| !names.contains(name))
        {
            return Err(unknown(&format!("{method} {path}"), name, names));
        }
    }
    Ok(next.run(request).await)
}

fn unknown(route: &str, name: &str, names: &[String]) -> ApiError {
    let known = match names {
        [] => "takes none".to_owned(),
        names => format!("knows {}", names.join(", ")),
    };
    let action = nearest(name, names.iter().map(String::as_str)).map_or_else(
        || "remove it from the query".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    ApiError::bad_request(
        format!("query: {name:?} is no parameter of {route}, which {known}"),
        action,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_queries_are_known() {
        let known = known();
        let names = |method: &str, path: &str| known.get(&(path.to_owned(), method.to_owned()));
        assert!(
            names("GET", "/api/v1/nodes")
                .unwrap()
                .contains(&"selector".to_owned())
        );
        assert!(names("GET", "/api/v1/releases").unwrap().is_empty());
        assert!(
            names("POST", "/api/v1/releases/{name}/assign")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_mistyped_name_gets_the_nearest_one() {
        let names = ["limit".to_owned(), "before".to_owned()];
        let error = unknown("GET /api/v1/audit", "limitt", &names).problem;
        assert!(error.message.contains("knows limit, before"), "{error}");
        assert_eq!(error.action, "did you mean `limit`?");
        let error = unknown("GET /api/v1/tokens", "limit", &[]).problem;
        assert!(error.message.contains("takes none"), "{error}");
    }
}
