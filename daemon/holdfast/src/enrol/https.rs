//! A small HTTPS client for the hub's node API: one request, one connection, JSON in and out, all of it within one time limit.
//!
//! Redirects are not followed and proxies are not used: the token or the signed request goes to the named hub or nowhere.

use super::tls::TlsError;
use crate::{codes, http_exchange::exchange};
use bytes::Bytes;
use holdfast_protocol::{MAX_ENVELOPE_BYTES, Problem};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The largest answer: a document of the largest size in base64, and room for all else.
const MAX_ANSWER_BYTES: usize = 2 * MAX_ENVELOPE_BYTES;

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The address is not one of HTTPS.
    #[error("{url:?} is not an https:// address")]
    Address {
        /// The address.
        url: String,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection.
    #[error("cannot connect to {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// Why.
        source: io::Error,
    },
    /// The other side is not the hub it should be.
    #[error("{authority} does not prove to be the hub: {reason}")]
    Identity {
        /// Host and port.
        authority: String,
        /// What its certificate lacks.
        reason: CertificateError,
    },
    /// The TLS handshake failed otherwise.
    #[error("no TLS with {authority}: {source}")]
    Handshake {
        /// Host and port.
        authority: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {authority} broke: {reason}")]
    Broken {
        /// Host and port.
        authority: String,
        /// How.
        reason: String,
    },
    /// No answer in time.
    #[error("{authority} did not answer within {} s", after.as_secs())]
    Timeout {
        /// Host and port.
        authority: String,
        /// The limit.
        after: Duration,
    },
    /// The hub refused, with its own words.
    #[error("{problem}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What it says.
        problem: Problem,
    },
    /// The answer is none.
    #[error("{authority} answered with something else than a hub does: {reason}")]
    Answer {
        /// Host and port.
        authority: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl HttpsError {
    /// Whether the same request may succeed later without anyone doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Tls(_) => false,
            Self::Refused { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            // A wrong identity may be another box on the address for a while, or a captive portal.
            _ => true,
        }
    }
}

impl From<&HttpsError> for Problem {
    fn from(error: &HttpsError) -> Self {
        let (code, action) = match error {
            HttpsError::Refused { problem, .. } => return problem.clone(),
            HttpsError::Identity { .. } => (
                holdfast_protocol::codes::HUB_IDENTITY_MISMATCH,
                "check that the address leads to the hub that made the token, and that nothing on the way opens TLS",
            ),
            HttpsError::Answer { .. } | HttpsError::Address { .. } => (
                codes::HUB_ANSWER_INVALID,
                "check that the address is the hub's node API and that hub and node have versions that fit",
            ),
            HttpsError::Tls(_) => (codes::HUB_UNREACHABLE, "see the message"),
            HttpsError::Connect { .. }
            | HttpsError::Handshake { .. }
            | HttpsError::Broken { .. }
            | HttpsError::Timeout { .. } => (
                codes::HUB_UNREACHABLE,
                "check network, name server and firewall; holdfast doctor tells which of them it is",
            ),
        };
        Self::new(code, error.to_string(), action)
    }
}

/// An address of HTTPS, taken apart.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path before that of the request; empty mostly.
    prefix: String,
}

impl Target {
    /// A host and port without any path.
    pub const fn new(host: String, port: u16) -> Self {
        Self {
            host,
            port,
            prefix: String::new(),
        }
    }

    /// Takes an `https://` URL apart.
    pub fn parse(url: &str) -> Result<Self, HttpsError> {
        let wrong = || HttpsError::Address { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(443),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// A path below that of the address.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Connects and does the TLS handshake.
    pub async fn connect(&self, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, HttpsError> {
        let authority = self.authority();
        let name = ServerName::try_from(self.host.clone()).map_err(|_| HttpsError::Address {
            url: authority.clone(),
        })?;
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|source| HttpsError::Connect {
                authority: authority.clone(),
                source,
            })?;
        TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(|source| {
                let reason = source
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                    .and_then(|error| match error {
                        rustls::Error::InvalidCertificate(reason) => Some(reason.clone()),
                        _ => None,
                    });
                match reason {
                    Some(reason) => HttpsError::Identity { authority, reason },
                    None => HttpsError::Handshake { authority, source },
                }
            })
    }

    /// `POST`s `body` as JSON and reads the answer as JSON.
    pub async fn post<A: DeserializeOwned>(
        &self,
        tls: Arc<ClientConfig>,
        path: &str,
        body: &(impl Serialize + ?Sized),
        limit: Duration,
    ) -> Result<A, HttpsError> {
        timeout(limit, self.ask(tls, path, body))
            .await
            .map_err(|_| HttpsError::Timeout {
                authority: self.authority(),
                after: limit,
            })?
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        tls: Arc<ClientConfig>,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<A, HttpsError> {
        let authority = self.authority();
        let answer = |reason: String| HttpsError::Answer {
            authority: self.authority(),
            reason,
        };
        let broken = |reason: String| HttpsError::Broken {
            authority: self.authority(),
            reason,
        };
        let json = serde_json::to_vec(body).map_err(|error| answer(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.prefix))
            .header(header::HOST, &authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, application/problem+json")
            .body(Full::new(Bytes::from(json)))
            .map_err(|error| answer(error.to_string()))?;

        let stream = self.connect(tls).await?;
        let (status, body) = exchange(stream, request, MAX_ANSWER_BYTES)
            .await
            .map_err(|error| broken(error.to_string()))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| answer(error.to_string()));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(HttpsError::Refused { status, problem }),
            Err(_) => Err(answer(format!("HTTP status {status} without a problem"))),
        }
    }
}
