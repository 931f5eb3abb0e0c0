//! Calls of the hub's operator API: JSON in, JSON out, and every failure a [`Problem`].

use crate::{
    codes,
    contexts::{Context, Contexts},
    failure::{Failure, Result},
    trust::{self, Trust},
};
use holdfast_protocol::{Problem, codes as shared};
use reqwest::{
    Method, Url,
    header::{HeaderMap, LINK},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{error::Error as _, net::IpAddr, path::Path, time::Duration};

/// Entries of a list that are asked for at once.
const PAGE: u32 = 500;

/// A hub, as one operator.
pub struct Client {
    base: Url,
    token: String,
    http: reqwest::Client,
}

/// Checks the hub's address: HTTPS, or plain HTTP on this very machine, where nobody listens in.
pub fn address(text: &str) -> Result<Url> {
    let refuse = |reason: &str, action: &str| {
        Failure::new(
            codes::HUB_ADDRESS,
            format!("{text:?} cannot be used as the hub's address: {reason}"),
            action,
        )
    };
    let example = "write it like https://hub.example:8443";
    let mut url = Url::parse(text).map_err(|error| refuse(&error.to_string(), example))?;
    let Some(host) = url.host_str() else {
        return Err(refuse("it names no host", example));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        "http" => {
            return Err(refuse(
                "plain http would show your token to everyone on the way",
                "use https",
            ));
        }
        other => return Err(refuse(&format!("{other} is not http(s)"), example)),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "it holds a user name or password",
            "give the token with --token-file",
        ));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

impl Client {
    /// A client for the hub at `hub`.
    pub fn new(hub: &str, token: &str, trust: &Trust) -> Result<Self> {
        let base = address(hub)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("holdfastctl/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            // A redirect could lead the token elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        // Plain HTTP needs no roots, and must work on a machine that has none.
        let config = match base.scheme() {
            "https" => trust::config(trust)?,
            _ => Some(trust::nobody()?),
        };
        if let Some(config) = config {
            builder = builder.tls_backend_preconfigured(config);
        }
        let http = builder.build().map_err(|error| {
            Failure::new(
                shared::HUB_IDENTITY_MISMATCH,
                format!(
                    "the system's roots, which alone could vouch for {base}, cannot be used: {}",
                    cause(&error)
                ),
                "install the package ca-certificates, or log in again and confirm the hub with --pin or --ca",
            )
        })?;
        Ok(Self {
            base,
            token: token.trim().to_owned(),
            http,
        })
    }

    /// A client for a context.
    pub fn of(context: &Context) -> Result<Self> {
        let trust = match (&context.pin, &context.ca) {
            (Some(pin), _) => Trust::Pin(*pin),
            (None, Some(ca)) => Trust::Certificates(ca.clone()),
            (None, None) => Trust::System,
        };
        Self::new(&context.hub, &context.token, &trust)
    }

    /// The client that the environment and the contexts say: `HOLDFAST_HUB` with `HOLDFAST_TOKEN` goes before any context, and
    /// trusts what a context of the same hub trusts.
    pub fn from_environment(file: &Path, context: Option<&str>) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(hub), None) = (variable("HOLDFAST_HUB"), context) else {
            let contexts = Contexts::read(file)?;
            let mut context = contexts.find(context)?.1.clone();
            if let Some(token) = variable("HOLDFAST_TOKEN") {
                context.token = token;
            }
            return Self::of(&context);
        };
        let base = address(&hub)?;
        let known = Contexts::read(file).ok().and_then(|contexts| {
            contexts
                .contexts
                .into_values()
                .find(|context| address(&context.hub).is_ok_and(|known| known == base))
        });
        let Some(token) =
            variable("HOLDFAST_TOKEN").or_else(|| known.as_ref().map(|known| known.token.clone()))
        else {
            return Err(Failure::new(
                codes::NOT_LOGGED_IN,
                "HOLDFAST_HUB is set, but no token for it is known",
                "set HOLDFAST_TOKEN too",
            ));
        };
        let pin =
            match variable("HOLDFAST_PIN") {
                Some(text) => Some(text.parse().map_err(|error| {
                    Failure::new(codes::USAGE, format!("HOLDFAST_PIN: {error}"), "mend it")
                })?),
                None => known.as_ref().and_then(|known| known.pin),
            };
        Self::of(&Context {
            hub,
            token,
            operator: None,
            pin,
            ca: known.and_then(|known| known.ca),
        })
    }

    /// The hub's address.
    pub fn hub(&self) -> &Url {
        &self.base
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder> {
        let url = self.base.join(path).map_err(|error| {
            Failure::new(
                codes::USAGE,
                format!("{path:?} is no path: {error}"),
                "use plain names",
            )
        })?;
        Ok(self.http.request(method, url).bearer_auth(&self.token))
    }

    /// Sends a request, and answers the response if it says yes.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        Err(serde_json::from_slice::<Problem>(&body).map_or_else(
            |_| {
                Failure::new(
                    codes::HUB_ANSWER_UNREADABLE,
                    format!("{} answered {status} without saying why", self.base),
                    "check that the address is that of the hub itself, and look at the hub's log",
                )
            },
            Failure,
        ))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut reason = error.to_string();
        let mut source = error.source();
        let mut untrusted = false;
        while let Some(cause) = source {
            reason = cause.to_string();
            untrusted |= reason.contains("UnknownIssuer") || reason.contains("invalid peer certificate");
            source = cause.source();
        }
        if untrusted {
            return Failure::new(
                shared::HUB_IDENTITY_MISMATCH,
                format!(
                    "what answers at {} does not prove to be the hub: {reason}",
                    self.base
                ),
                "check the address; if the hub was given a new CA, confirm its pin and log in again",
            );
        }
        Failure::new(
            codes::HUB_UNREACHABLE,
            format!("the hub at {} does not answer: {reason}", self.base),
            "check the address, the network and that the hub runs",
        )
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T> {
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        // `DELETE` answers nothing, which is the JSON `null` here.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| {
            Failure::new(
                codes::HUB_ANSWER_UNREADABLE,
                format!("the hub's answer cannot be read: {error}"),
                "use a holdfastctl of the hub's version: holdfastctl version",
            )
        })
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        self.read(response).await
    }

    /// `GET` of a list, page after page. `query` begins with `?`, or is empty.
    pub async fn get_pages<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<Vec<T>> {
        let start = if query.is_empty() { '?' } else { '&' };
        let mut page = format!("{path}{query}{start}limit={PAGE}");
        let mut all = Vec::new();
        loop {
            let response = self.send(self.request(Method::GET, &page)?).await?;
            let next = next_page(response.headers());
            let items: Vec<T> = self.read(response).await?;
            // An empty page with another behind it would have no end.
            let is_empty = items.is_empty();
            all.extend(items);
            match next {
                Some(query) if !is_empty => page = format!("{path}{query}"),
                _ => return Ok(all),
            }
        }
    }

    /// Any method with a JSON body.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let response = self.send(self.request(method, path)?.json(body)).await?;
        self.read(response).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, path)?).await.map(|_| ())
    }

    /// `PUT` of raw bytes.
    pub async fn put(&self, path: &str, body: Vec<u8>) -> Result<()> {
        let request = self
            .request(Method::PUT, path)?
            .header("content-type", "application/octet-stream")
            .body(body);
        self.send(request).await.map(|_| ())
    }

    /// Opens a stream of server-sent events.
    pub async fn stream(&self, path: &str) -> Result<reqwest::Response> {
        let request = self
            .request(Method::GET, path)?
            .header("accept", "text/event-stream");
        self.send(request).await
    }
}

/// The query of the page after this one, as the header `Link` says it: `<?continue=…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (address, rest) = link.strip_prefix('<')?.split_once('>')?;
    (address.starts_with('?') && rest.contains("rel=\"next\"")).then(|| address.to_owned())
}

/// What is at the bottom of an error.
fn cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// A part of a path or query in which only letters, digits and a few signs stand for themselves.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        use std::fmt::Write as _;
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_where_the_hub_says_there_is_one() {
        let next = |link: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, link.parse().unwrap());
            next_page(&headers)
        };
        assert_eq!(
            next("<?limit=500&continue=box-500>; rel=\"next\"").as_deref(),
            Some("?limit=500&continue=box-500")
        );
        assert_eq!(next("<?limit=500>; rel=\"prev\""), None);
        // The token goes nowhere but to the list that was asked for.
        assert_eq!(next("<https://example.net/?limit=500>; rel=\"next\""), None);
        assert_eq!(next_page(&HeaderMap::new()), None);
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in [
            "https://hub.example",
            "http://127.0.0.1:8080",
            "http://[::1]:80",
            "http://localhost",
        ] {
            address(good).unwrap();
        }
        for bad in [
            "http://hub.example",
            "http://127.0.0.1.hub.example",
            "http://localhost.hub.example",
            "ftp://127.0.0.1",
            "hub.example:8443",
            "https://a:b@hub.example",
        ] {
            assert_eq!(address(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_hub_below_a_path_keeps_the_path() {
        let url = address("https://example.net/holdfast?x=1#y").unwrap();
        assert_eq!(
            url.join("api/v1/nodes").unwrap().as_str(),
            "https://example.net/holdfast/api/v1/nodes"
        );
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(encoded("../a b&c=d"), "..%2Fa%20b%26c%3Dd");
    }
}
