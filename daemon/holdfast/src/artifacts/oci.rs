//! Blobs of an OCI registry by digest: addresses, and the ways a registry asks for credentials.
//!
//! In: `harbor.example.com/edge/k3s` and a digest. Out: an answer with the blob. It follows the distribution specification's
//! `GET /v2/<name>/blobs/<digest>` and the token protocol (`WWW-Authenticate: Bearer realm=…,service=…,scope=…`), both as Harbor and
//! Distribution speak them. Credentials go to the registry, or to the token service that the registry itself names over TLS.

use super::{
    http::{Address, Answer, Client, Span},
    registry::Access,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_protocol::Digest;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tokio::time::timeout;

/// Most bytes of a token service's answer.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Host, with the port where it is not the usual one.
    pub registry: String,
    /// Path of the repository.
    pub name: String,
}

impl Repository {
    /// Takes `harbor.example.com[:port]/edge/k3s` apart.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a repository such as \"harbor.example.com/edge/k3s\"");
        let (registry, name) = text.split_once('/').ok_or_else(wrong)?;
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
                })
                && !part.starts_with('.')
        };
        if registry.is_empty() || !name.split('/').all(is_part) {
            return Err(wrong());
        }
        Ok(Self {
            registry: registry.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Asks for a part of a blob, with credentials where the registry wants some.
pub async fn get(
    client: &Client,
    access: &Access,
    repository: &Repository,
    digest: Digest,
    span: Span,
) -> Result<Answer, String> {
    ask(client, access, repository, &format!("blobs/{digest}"), Some(span)).await
}

/// Whether a repository says that it has no manifest of this tag or digest. Anything else, and an answer that is none of a registry, is no.
pub async fn lacks_manifest(
    client: &Client,
    access: &Access,
    repository: &Repository,
    reference: &str,
) -> Result<bool, String> {
    let answer = ask(
        client,
        access,
        repository,
        &format!("manifests/{reference}"),
        None,
    )
    .await?;
    if answer.status != StatusCode::NOT_FOUND {
        return Ok(false);
    }
    // The codes of the distribution specification; the last one is Harbor's.
    let body = timeout(client.limit, Limited::new(answer.body, MAX_TOKEN_BYTES).collect()).await;
    let body = body
        .ok()
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    Ok(["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"]
        .iter()
        .any(|code| text.contains(&format!("\"{code}\""))))
}

async fn ask(
    client: &Client,
    access: &Access,
    repository: &Repository,
    path: &str,
    span: Option<Span>,
) -> Result<Answer, String> {
    let scheme = if access.http { "http" } else { "https" };
    let address = Address::parse(&format!("{scheme}://{}/", repository.registry), access.http)?
        .at(format!("/v2/{}/{path}", repository.name));
    let answer = client.get(&address, span, None).await?;
    if answer.status != StatusCode::UNAUTHORIZED {
        return Ok(answer);
    }
    let challenge = answer.header(header::WWW_AUTHENTICATE).unwrap_or_default();
    let basic = access
        .credentials()?
        .map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    let authorization = match Challenge::parse(challenge) {
        Some(Challenge::Basic) => basic
            .ok_or_else(|| format!("{address} asks for credentials, and the settings hold none for it"))?,
        Some(Challenge::Bearer {
            realm,
            service,
            scope,
        }) => {
            let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", repository.name));
            let realm = Address::parse(&token_address(&realm, service.as_deref(), &scope), access.http)?;
            let token = token(client, &realm, basic.as_deref()).await?;
            format!("Bearer {token}")
        }
        None => {
            return Err(format!(
                "{address} asks for credentials in an unknown way: {challenge:?}"
            ));
        }
    };
    drop(answer);
    client.get(&address, span, Some(&authorization)).await
}

/// How a registry asks for credentials.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest;
        while let Some((key, after)) = rest.split_once('=') {
            let after = after.trim_start();
            let (value, next) = match after.strip_prefix('"') {
                // A comma within quotes belongs to the value: scope="repository:edge/k3s:pull,push".
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match key.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                "scope" => scope = Some(value.to_owned()),
                _ => {}
            }
            rest = next;
        }
        Some(Self::Bearer {
            realm: realm?,
            service,
            scope,
        })
    }
}

fn token_address(realm: &str, service: Option<&str>, scope: &str) -> String {
    let mut address = realm.to_owned();
    let mut add = |key: &str, value: &str| {
        address.push(if address.contains('?') { '&' } else { '?' });
        address.push_str(key);
        address.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                address.push(byte.into());
            } else {
                address.push('%');
                address
                    .extend([byte >> 4, byte & 15].map(|digit| char::from(HEXADECIMAL[usize::from(digit)])));
            }
        }
    };
    if let Some(service) = service {
        add("service", service);
    }
    add("scope", scope);
    address
}

/// Either name is in use: <https://distribution.github.io/distribution/spec/auth/token/>.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

async fn token(client: &Client, realm: &Address, basic: Option<&str>) -> Result<String, String> {
    let answer = client.get(realm, None, basic).await?;
    if answer.status != StatusCode::OK {
        return Err(format!(
            "{realm} answers {} to the request for a token",
            answer.status
        ));
    }
    let body = timeout(client.limit, Limited::new(answer.body, MAX_TOKEN_BYTES).collect())
        .await
        .map_err(|_| format!("{realm} does not end its answer to the request for a token"))?
        .map_err(|error| format!("{realm}: {error}"))?;
    serde_json::from_slice::<TokenAnswer>(&body.to_bytes())
        .ok()
        .and_then(|answer| answer.token.or(answer.access_token))
        .ok_or_else(|| format!("{realm} answers to the request for a token without one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let harbor = r#"Bearer realm="https://harbor.example.com/service/token",service="harbor-registry",scope="repository:edge/k3s:pull,push""#;
        assert_eq!(
            Challenge::parse(harbor),
            Some(Challenge::Bearer {
                realm: "https://harbor.example.com/service/token".into(),
                service: Some("harbor-registry".into()),
                scope: Some("repository:edge/k3s:pull,push".into()),
            })
        );
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Digest realm=\"x\""), None);
        assert_eq!(Challenge::parse("Bearer service=\"x\""), None);
        assert_eq!(
            token_address("https://a/t?x=1", Some("b c"), "repository:d/e:pull"),
            "https://a/t?x=1&service=b%20c&scope=repository%3Ad%2Fe%3Apull"
        );
    }

    #[test]
    fn repositories_are_read() {
        let repository = Repository::parse("harbor.example.com:8443/edge/k3s").unwrap();
        assert_eq!(repository.registry, "harbor.example.com:8443");
        assert_eq!(repository.name, "edge/k3s");
        for wrong in [
            "harbor.example.com",
            "/edge",
            "a/",
            "a//b",
            "a/../b",
            "a/b?c",
            "a/B",
        ] {
            assert!(Repository::parse(wrong).is_err(), "{wrong}");
        }
    }
}
