//! A small HTTP/1.1 client for content: `GET` with a range, over TLS, through a proxy where one is set.
//!
//! In: an address, trust, the byte to begin at. Out: the head of the answer and its body as it streams. It guarantees that memory does not grow
//! with the body, that redirects never lead from `https` to `http`, and that credentials go to the host they are for and to no other.

use crate::enrol::tls;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Most bytes of a connection that wait to be taken.
const BUFFER: usize = 64 * 1024;
/// Most bytes of a proxy's answer.
const MAX_PROXY_HEAD: usize = 8 * 1024;
/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 8;

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl Address {
    /// Takes an `https://` address apart; one of `http://` where `plain` allows it.
    pub fn parse(text: &str, plain: bool) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if plain => false,
            _ => return Err(format!("{text:?} is not an https:// address")),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(format!("{text:?} names no host"));
        }
        let path = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
            .to_owned();
        Ok(Self {
            secure,
            host,
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            path,
        })
    }

    /// Where a `Location` leads from here.
    fn follow(&self, location: &str) -> Result<Self, String> {
        if location.contains("://") {
            return Self::parse(location, !self.secure);
        }
        let path = if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.secure { "https" } else { "http" };
            return Self::parse(&format!("{scheme}://{rest}"), !self.secure);
        } else if location.starts_with('/') {
            location.to_owned()
        } else {
            let here = self.path.split('?').next().unwrap_or_default();
            let directory = here.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{location}")
        };
        Ok(Self { path, ..self.clone() })
    }

    /// Another path of the same host.
    pub fn at(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn same_host(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    /// `host:port`, with brackets around an IPv6 address; the port only where it is not the usual one.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == if self.secure { 443 } else { 80 } {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// Without path and query: a query may hold a signature that is a password for a while.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.authority())
    }
}

/// A proxy that connects to others by `CONNECT`.
#[derive(Clone, Debug)]
pub struct Proxy {
    host: String,
    port: u16,
    authorization: Option<String>,
}

impl Proxy {
    /// Takes `http://[user:password@]host[:port]` apart.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "a proxy is given as http://[user:password@]host[:port]".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || !matches!(uri.path(), "" | "/") {
            return Err(wrong());
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        let authorization = authority
            .as_str()
            .rsplit_once('@')
            .map(|(user, _)| format!("Basic {}", STANDARD.encode(user)));
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(3128),
            authorization,
        })
    }

    async fn connect(&self, to: &Address) -> Result<TcpStream, String> {
        let through = format!("the proxy {}:{}", self.host, self.port);
        let mut stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| format!("cannot connect to {through}: {error}"))?;
        let host = if to.host.contains(':') {
            format!("[{}]:{}", to.host, to.port)
        } else {
            format!("{}:{}", to.host, to.port)
        };
        let authorization = self
            .authorization
            .as_ref()
            .map(|value| format!("Proxy-Authorization: {value}\r\n"))
            .unwrap_or_default();
        let head = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n");
        let broken = |error: std::io::Error| format!("{through} broke off: {error}");
        stream.write_all(head.as_bytes()).await.map_err(broken)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_PROXY_HEAD {
                return Err(format!("{through} answers with something else than a proxy does"));
            }
            // Byte by byte: what follows the head belongs to the other side.
            answer.push(stream.read_u8().await.map_err(broken)?);
        }
        let line = String::from_utf8_lossy(&answer);
        let line = line.lines().next().unwrap_or_default();
        if line.split(' ').nth(1) != Some("200") {
            return Err(format!("{through} answers {line:?}"));
        }
        Ok(stream)
    }
}

/// What is taken: anything, and manifests of images in all their forms, which a registry hides from those who do not name them.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How to reach a source.
#[derive(Clone)]
pub struct Client {
    /// Whom to believe, and the certificate to show.
    pub tls: Arc<ClientConfig>,
    /// The way there, where it is not straight.
    pub proxy: Option<Proxy>,
    /// Longest time for connecting, and again for the head of the answer.
    pub limit: Duration,
}

/// Part of a content that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub from: u64,
    /// The byte after its last one; to the end of the content where absent.
    pub to: Option<u64>,
}

impl Span {
    /// From this byte to the end.
    pub const fn from(from: u64) -> Self {
        Self { from, to: None }
    }

    /// As HTTP writes it.
    fn header(self) -> String {
        match self.to {
            Some(to) => format!("bytes={}-{}", self.from, to.saturating_sub(1)),
            None => format!("bytes={}-", self.from),
        }
    }
}

/// The head of an answer, and the body to come.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body. Its connection lives as long as this.
    pub body: Incoming,
    /// Where it came from, after redirects.
    pub from: Address,
    _connection: AbortOnDropHandle<()>,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Client {
    /// Asks for what is at `address`, or for a part of it, and follows redirects. The authorization goes to the first host only.
    pub async fn get(
        &self,
        address: &Address,
        span: Option<Span>,
        authorization: Option<&str>,
    ) -> Result<Answer, String> {
        let mut here = address.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| here.same_host(address));
            let answer = self.once(&here, span, authorization).await?;
            if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer
                .header(header::LOCATION)
                .ok_or_else(|| format!("{here} answers {} and names no place", answer.status))?;
            here = here.follow(location)?;
        }
        Err(format!(
            "{address} leads on and on, more than {MAX_REDIRECTS} times"
        ))
    }

    async fn once(
        &self,
        address: &Address,
        span: Option<Span>,
        authorization: Option<&str>,
    ) -> Result<Answer, String> {
        let stream = self
            .in_time(self.connect(address), || format!("connecting to {address}"))
            .await?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a source ended");
            }
        }));
        let mut request = Request::get(&address.path)
            .header(header::HOST, address.authority())
            .header(
                header::USER_AGENT,
                concat!("holdfast/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, ACCEPT)
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(span) = span {
            request = request.header(header::RANGE, span.header());
        }
        if let Some(authorization) = authorization {
            let mut value = HeaderValue::from_str(authorization).map_err(|_| {
                format!("the credentials for {address} hold a character that HTTP does not take")
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| format!("{address}: {error}"))?;
        let answering = async {
            sender
                .send_request(request)
                .await
                .map_err(|error| format!("{address}: {error}"))
        };
        let answer = self
            .in_time(answering, || format!("the answer of {address}"))
            .await?;
        let (head, body) = answer.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            from: address.clone(),
            _connection: connection,
        })
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, String>>,
        what: impl Fn() -> String,
    ) -> Result<T, String> {
        timeout(self.limit, work)
            .await
            .map_err(|_| format!("{} took longer than {} s", what(), self.limit.as_secs()))?
    }

    async fn connect(&self, address: &Address) -> Result<Box<dyn Stream>, String> {
        let stream = match &self.proxy {
            Some(proxy) => proxy.connect(address).await?,
            None => TcpStream::connect((address.host.as_str(), address.port))
                .await
                .map_err(|error| format!("cannot connect to {}:{}: {error}", address.host, address.port))?,
        };
        if !address.secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| format!("{:?} is not a name for TLS", address.host))?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|error| format!("no TLS with {address}: {error}"))?;
        Ok(Box::new(stream))
    }
}

/// Trust in the public roots of the system and in further CA certificates (PEM).
pub fn trust(further: &str) -> Result<Arc<ClientConfig>, String> {
    let of = |trust: &tls::Trust| tls::anonymous(trust).map_err(|error| error.to_string());
    if further.is_empty() {
        return of(&tls::Trust::Public).map(Arc::new);
    }
    let with = |public_roots| tls::Trust::Hub {
        ca_certificates: further.to_owned(),
        public_roots,
    };
    // A box without any public roots still has the one that was given.
    of(&with(true)).or_else(|_| of(&with(false))).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_where_a_browser_would_go_but_never_out_of_tls() {
        let here = Address::parse("https://example.com/a/b?c=d", false).unwrap();
        let to = |location: &str| here.follow(location).map(|there| (there.authority(), there.path));
        let host = || "example.com".to_owned();
        assert_eq!(to("/x?y"), Ok((host(), "/x?y".into())));
        assert_eq!(to("x"), Ok((host(), "/a/x".into())));
        assert_eq!(to("//other:8443/x"), Ok(("other:8443".into(), "/x".into())));
        assert_eq!(to("https://other/"), Ok(("other".into(), "/".into())));
        assert!(to("http://example.com/a").is_err());
        assert!(Address::parse("http://example.com/", false).is_err());
        assert!(Address::parse("https:///x", false).is_err());
    }

    #[test]
    fn a_proxy_is_read_with_its_credentials() {
        let proxy = Proxy::parse("http://user:word@proxy.example:8080").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 8080));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjp3b3Jk"));
        assert_eq!(Proxy::parse("http://proxy").unwrap().port, 3128);
        for wrong in [
            "proxy:3128",
            "socks5://proxy",
            "https://proxy",
            "http://proxy/path",
        ] {
            assert!(Proxy::parse(wrong).is_err(), "{wrong}");
        }
    }
}
