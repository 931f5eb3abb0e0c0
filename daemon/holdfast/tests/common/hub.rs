//! A hub of one listener: a real CA, real TLS 1.3, and for each request what the test wants done with it.

use bytes::Bytes;
use holdfast_protocol::{
    Digest, Problem, SchemaVersion,
    enrol::{EnrolAnswer, EnrolRequest, RenewAnswer, RenewRequest, key_pin},
    envelope::{Envelope, TIME_TYPE, TimeStatement},
    token::EnrolmentToken,
    trust::{Role, TrustPolicy, TrustedKey},
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyPair, PublicKeyData as _, date_time_ymd,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::Map;
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the hub does with a request.
pub enum Deed {
    /// Answers as a right hub does.
    Answer,
    /// Does its work, and cuts the connection instead of answering.
    LoseTheAnswer,
    /// Answers after the test has changed the answer.
    Forge(Box<dyn FnOnce(&mut EnrolAnswer) + Send>),
    /// As `Forge`, for a renewal.
    ForgeRenewal(Box<dyn FnOnce(&mut RenewAnswer) + Send>),
    /// Refuses.
    Refuse(StatusCode, Problem),
    /// Sends these bytes with success.
    Bytes(Vec<u8>),
}

/// A certificate authority.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: Vec<u8>,
    pub pin: Digest,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = common_name(name);
        let pin = key_pin(&key.subject_public_key_info());
        let certificate = params.clone().self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            pin,
            issuer: Issuer::new(params, key),
        }
    }

    /// A node's certificate for a request.
    pub fn sign_request(&self, csr: &str, name: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params.distinguished_name = common_name(name);
        request.params.not_before = date_time_ymd(2026, 1, 1);
        request.params.not_after = date_time_ymd(2026, 1, 31);
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// How the server's own certificate is made.
pub struct ServerCertificate {
    pub host: &'static str,
    pub not_before: (i32, u8, u8),
    pub not_after: (i32, u8, u8),
    /// Whether the CA's certificate is sent along.
    pub with_ca: bool,
}

impl Default for ServerCertificate {
    fn default() -> Self {
        Self {
            host: "127.0.0.1",
            not_before: (2026, 1, 1),
            not_after: (2099, 1, 1),
            with_ca: true,
        }
    }
}

/// The broker that enrolled boxes are told of. Nothing listens there, whatever else runs on the machine.
pub const BROKER: &str = "mqtts://127.0.0.1:1";

/// The running hub.
pub struct TestHub {
    pub authority: Authority,
    pub url: String,
    pub signer: Ed25519KeyPair,
    pub time: Mutex<Timestamp>,
    pub deeds: Mutex<VecDeque<Deed>>,
    pub enrolments: Mutex<Vec<EnrolRequest>>,
    pub renewals: Mutex<Vec<RenewRequest>>,
}

impl TestHub {
    pub async fn start() -> Arc<Self> {
        Self::start_with(Authority::new("hub CA"), ServerCertificate::default()).await
    }

    pub async fn start_with(authority: Authority, certificate: ServerCertificate) -> Arc<Self> {
        Self::start_signed_by(authority, None, certificate).await
    }

    /// A hub that says it has `authority`, while its server's certificate is signed by `signed_by`.
    pub async fn start_signed_by(
        authority: Authority,
        signed_by: Option<&Authority>,
        certificate: ServerCertificate,
    ) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&authority, signed_by, &certificate)));
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let hub = Arc::new(Self {
            authority,
            url: format!("https://{}", listener.local_addr().unwrap()),
            signer: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(),
            time: Mutex::new("2026-06-01T00:00:00Z".parse().unwrap()),
            deeds: Mutex::default(),
            enrolments: Mutex::default(),
            renewals: Mutex::default(),
        });
        let serving = hub.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, hub) = (acceptor.clone(), serving.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(|request| hub.answer(request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        hub
    }

    /// A token of this hub.
    pub fn token(&self, id: &str) -> EnrolmentToken {
        EnrolmentToken {
            hub_url: self.url.clone(),
            ca_pin: Some(self.authority.pin),
            id: id.into(),
            secret: [7; 32],
        }
    }

    /// What the hub is to do with the next requests; after these, it answers.
    pub fn next(&self, deed: Deed) {
        self.deeds.lock().unwrap().push_back(deed);
    }

    pub fn trust(&self) -> TrustPolicy {
        TrustPolicy {
            keys: vec![TrustedKey::ed25519(
                self.signer.public_key().as_ref(),
                vec![Role::DesiredState, Role::Time],
            )],
            ..TrustPolicy::default()
        }
    }

    pub fn signed_time(&self, time: Timestamp) -> Envelope {
        let payload = serde_json::to_vec(&TimeStatement { time }).unwrap();
        Envelope::sign(TIME_TYPE, payload, &[&self.signer])
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
        let path = request.uri().path().to_owned();
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        let deed = self.deeds.lock().unwrap().pop_front().unwrap_or(Deed::Answer);
        let mut answer = match path.as_str() {
            "/v1/enrol" => serde_json::to_vec(&self.enrol(serde_json::from_slice(&body)?)),
            "/v1/renew" => serde_json::to_vec(&self.renew(serde_json::from_slice(&body)?)),
            other => panic!("{other} is not of the node API"),
        }?;
        let mut status = StatusCode::OK;
        match deed {
            Deed::Answer => {}
            Deed::LoseTheAnswer => return Err(io::Error::other("the answer is lost")),
            Deed::Forge(forge) => {
                let mut forged = serde_json::from_slice(&answer)?;
                forge(&mut forged);
                answer = serde_json::to_vec(&forged)?;
            }
            Deed::ForgeRenewal(forge) => {
                let mut forged = serde_json::from_slice(&answer)?;
                forge(&mut forged);
                answer = serde_json::to_vec(&forged)?;
            }
            Deed::Refuse(code, problem) => {
                status = code;
                answer = serde_json::to_vec(&problem)?;
            }
            Deed::Bytes(bytes) => answer = bytes,
        }
        let mut response = Response::new(Full::new(Bytes::from(answer)));
        *response.status_mut() = status;
        Ok(response)
    }

    fn enrol(&self, request: EnrolRequest) -> EnrolAnswer {
        let answer = EnrolAnswer {
            schema: SchemaVersion::CURRENT,
            node: "shop-17".parse().unwrap(),
            certificate: self.authority.sign_request(&request.csr, "shop-17"),
            ca_certificates: self.authority.pem.clone(),
            hub_url: self.url.clone(),
            brokers: vec![BROKER.into()],
            trust: self.trust(),
            signed_time: self.signed_time(*self.time.lock().unwrap()),
            desired: None,
            extra: Map::new(),
        };
        self.enrolments.lock().unwrap().push(request);
        answer
    }

    fn renew(&self, request: RenewRequest) -> RenewAnswer {
        let answer = RenewAnswer {
            schema: SchemaVersion::CURRENT,
            certificate: self.authority.sign_request(&request.csr, "shop-17"),
            ca_certificates: self.authority.pem.clone(),
            brokers: vec!["mqtts://127.0.0.1:8884".into()],
            trust: self.trust(),
            signed_time: self.signed_time(*self.time.lock().unwrap()),
        };
        self.renewals.lock().unwrap().push(request);
        answer
    }
}

fn server_config(
    authority: &Authority,
    signed_by: Option<&Authority>,
    certificate: &ServerCertificate,
) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([certificate.host.to_owned()]).unwrap();
    let date = |(year, month, day)| date_time_ymd(year, month, day);
    params.not_before = date(certificate.not_before);
    params.not_after = date(certificate.not_after);
    let leaf = params
        .signed_by(&key, &signed_by.unwrap_or(authority).issuer)
        .unwrap();
    let mut chain = vec![leaf.der().clone()];
    if certificate.with_ca {
        chain.push(authority.der.clone().into());
    }
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}
