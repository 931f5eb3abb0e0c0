//! The places that content can be had from over a network, and how each is asked.

use super::{
    Fetcher, Item,
    http::{Address, Answer, Client, Proxy, Span, trust},
    oci::{self, Repository},
    registry::{Access, read_certificates},
    transfer::Outcome,
};
use crate::enrol::tls;
use holdfast_protocol::{
    Digest, MAX_ENVELOPE_BYTES, Problem, codes as protocol_codes, document::ArtifactSource,
};
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use std::{fmt, sync::Arc};

/// A place, with all that is needed to ask it.
pub struct Source {
    client: Client,
    place: Place,
}

enum Place {
    /// The hub's node API; the address ends before `/v1`.
    Hub(String),
    Oci(Repository, Access),
    Url(Address),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Hub(_) => formatter.write_str("the hub"),
            Place::Oci(repository, _) => write!(formatter, "{}/{}", repository.registry, repository.name),
            Place::Url(address) => address.fmt(formatter),
        }
    }
}

impl Fetcher {
    /// All places for this content, in order; for one that cannot even be asked its name and why.
    pub(super) fn sources(&self, item: &Item) -> Vec<Result<Source, (String, String)>> {
        let hub = self.hub().map_err(|reason| ("the hub".to_owned(), reason));
        let named = item.sources.iter().map(|source| match source {
            ArtifactSource::Oci(text) => self.registry(text).map_err(|reason| (text.clone(), reason)),
            // An address may hold a password; its host is name enough.
            ArtifactSource::Url(text) => {
                let host = Address::parse(text, true).map_or_else(|_| "a URL".into(), |it| it.to_string());
                self.url(text).map_err(|reason| (host, reason))
            }
        });
        std::iter::once(hub).chain(named).collect()
    }

    fn hub(&self) -> Result<Source, String> {
        let identity = self.identity.borrow().clone();
        let tls = tls::authenticated(&identity).map_err(|error| error.to_string())?;
        Ok(Source {
            client: Client {
                tls: Arc::new(tls),
                // The hub is reached as for enrolment: straight.
                proxy: None,
                limit: self.settings.enrolment.request_timeout,
            },
            place: Place::Hub(identity.hub_url.trim_end_matches('/').to_owned()),
        })
    }

    fn registry(&self, text: &str) -> Result<Source, String> {
        let repository = Repository::parse(text)?;
        let access = Access::of(&self.settings.artifacts.registries, &repository.registry)?;
        let host = repository
            .registry
            .rsplit_once(':')
            .map_or(repository.registry.as_str(), |(host, _)| host)
            .to_owned();
        let mut client = self.client(&host, &access.ca_certificates()?)?;
        if access.http {
            client.proxy = None;
        }
        Ok(Source {
            client,
            place: Place::Oci(repository, access),
        })
    }

    /// Whether a registry says that it has no such image. False where that is not certain: it does not answer, or wants credentials that the
    /// settings do not hold.
    pub async fn lacks_image(&self, registry: &str, repository: &str, reference: &str) -> bool {
        let host = if registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            registry
        };
        let Ok(source) = self.registry(&format!("{host}/{repository}")) else {
            return false;
        };
        match &source.place {
            Place::Oci(repository, access) => {
                oci::lacks_manifest(&source.client, access, repository, reference)
                    .await
                    .unwrap_or(false)
            }
            Place::Hub(_) | Place::Url(_) => false,
        }
    }

    fn url(&self, text: &str) -> Result<Source, String> {
        let address = Address::parse(text, false)?;
        Ok(Source {
            client: self.client(address.host(), "")?,
            place: Place::Url(address),
        })
    }

    fn client(&self, host: &str, ca_certificates: &str) -> Result<Client, String> {
        let settings = &self.settings.artifacts;
        let further = read_certificates(settings.ca_file.as_ref())? + ca_certificates;
        let proxy = match &settings.proxy {
            Some(proxy) if !is_exempt(&settings.no_proxy, host) => Some(Proxy::parse(proxy)?),
            _ => None,
        };
        Ok(Client {
            tls: trust(&further)?,
            proxy,
            limit: settings.request_timeout,
        })
    }
}

/// Whether a host is one of those, or below one of them: `.example.com` and `example.com` both mean `a.example.com`.
fn is_exempt(exempt: &[String], host: &str) -> bool {
    exempt.iter().any(|name| {
        let name = name.trim_start_matches('.');
        host == name
            || host
                .strip_suffix(name)
                .is_some_and(|rest| !name.is_empty() && rest.ends_with('.'))
    })
}

impl Source {
    /// Asks for a part of the content. An answer has a status of success, or says that there is no such part.
    pub(super) async fn ask(&self, digest: Digest, span: Span) -> Result<Answer, Outcome> {
        let answer = match &self.place {
            Place::Hub(hub) => {
                let address = Address::parse(&format!("{hub}/v1/blobs/{digest}"), false)
                    .map_err(Outcome::Unavailable)?;
                self.client.get(&address, Some(span), None).await
            }
            Place::Oci(repository, access) => oci::get(&self.client, access, repository, digest, span).await,
            Place::Url(address) => self.client.get(address, Some(span), None).await,
        }
        .map_err(Outcome::Unavailable)?;
        if answer.status.is_success() || answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(answer);
        }
        Err(match &self.place {
            Place::Hub(_) => refused(digest, answer).await,
            _ => Outcome::Unavailable(format!("{} answers {}", answer.from, answer.status)),
        })
    }
}

/// The hub says why in its own words.
async fn refused(digest: Digest, answer: Answer) -> Outcome {
    let status = answer.status;
    let told = match Limited::new(answer.body, MAX_ENVELOPE_BYTES).collect().await {
        Ok(body) => serde_json::from_slice::<Problem>(&body.to_bytes()).ok(),
        Err(_) => None,
    };
    match told {
        Some(problem) => Outcome::Refused(problem),
        None if status == StatusCode::NOT_FOUND => Outcome::Refused(Problem::new(
            protocol_codes::BLOB_UNKNOWN,
            format!("the hub answers {status} for blob {digest}"),
            "upload the release again with holdfastctl",
        )),
        None => Outcome::Unavailable(format!("it answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exempt_from_the_proxy_by_name_and_by_domain() {
        let exempt = [".example.com".to_owned(), "10.0.0.1".to_owned()];
        for (host, is) in [
            ("example.com", true),
            ("a.example.com", true),
            ("10.0.0.1", true),
            ("badexample.com", false),
            ("110.0.0.1", false),
        ] {
            assert_eq!(is_exempt(&exempt, host), is, "{host}");
        }
    }
}
