//! `GET`, at an address that the box sees or at a Service through the API server.
//!
//! A Service is asked through the API server's proxy
//! (<https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/>): that needs no route from the box into the
//! cluster's network. Certificates are not verified, as kubelet's probes do.

use super::Bad;
use crate::kubernetes::Cluster;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use kube::core::Status;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// The most that is read of an answer's reason, in bytes.
const MAX_REASON_BYTES: usize = 16 * 1024;

pub(super) async fn service(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    port: u16,
    path: &str,
    tls: bool,
) -> Result<(), Bad> {
    let scheme = if tls { "https:" } else { "" };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let place = format!("/api/v1/namespaces/{namespace}/services/{scheme}{name}:{port}/proxy{slash}{path}");
    let what = format!("the Service {namespace}/{name}, port {port}");
    let answer = cluster
        .raw(&what, Request::get(place))
        .await
        .map_err(|error| Bad::Answer(error.to_string()))?;
    let status = answer.status();
    let judged = judge(&format!("{what}, {path}"), status);
    // The API server itself says why it could not pass the question on.
    if status == StatusCode::SERVICE_UNAVAILABLE
        && let Ok(body) = Limited::new(answer.into_body(), MAX_REASON_BYTES).collect().await
        && let Ok(Status { message, .. }) = serde_json::from_slice(&body.to_bytes())
        && !message.is_empty()
    {
        return Err(Bad::Answer(format!("{what}: {message}")));
    }
    judged
}

pub(super) async fn address(address: &str, path: &str, tls: bool) -> Result<(), Bad> {
    let no_answer = |error: &dyn std::fmt::Display| Bad::Answer(format!("no answer of {address}: {error}"));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| no_answer(&error))?;
    if !tls {
        return get(stream, address, path).await;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| Bad::Probe(format!("{host:?} is no name for TLS")))?;
    let config = unverified().map_err(|error| no_answer(&error))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| no_answer(&error))?;
    get(stream, address, path).await
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: &str,
    path: &str,
) -> Result<(), Bad> {
    let no_answer = |error: hyper::Error| Bad::Answer(format!("no answer of {address}: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(no_answer)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(path)
        .header(header::HOST, address)
        .header(
            header::USER_AGENT,
            concat!("holdfast/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|error| Bad::Probe(format!("{path:?} is no path: {error}")))?;
    let answer = sender.send_request(request).await.map_err(no_answer)?;
    judge(&format!("{address}{path}"), answer.status())
}

fn judge(what: &str, status: StatusCode) -> Result<(), Bad> {
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(Bad::Answer(format!("{what} answers {status}")))
    }
}

/// TLS with whoever answers.
fn unverified() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth())
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
