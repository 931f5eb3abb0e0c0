//! The way of one connection: TCP in, TLS ended here, the name proven, then bytes to and from rmqtt.
//!
//! rmqtt 0.24 takes connections only from its own TCP listener, and its own TLS would bring aws-lc. So TLS ends here, and what
//! a proven client says goes on through a TCP connection on the loopback interface. rmqtt refuses every connection there that
//! is not one of these: each is noted by its source address before it is made.
//!
//! Guarantees: a connection that does not prove a name within [`Limits::handshake_timeout`](super::Limits::handshake_timeout)
//! is closed and never reaches rmqtt; a session that the hub ends is told why; nothing of a connection is left when `serve`
//! returns.

use super::{
    Front, connect,
    connect::{FirstPacket, Refusal},
    registry::Connection,
};
use crate::broker::tls;
use bytes::{Bytes, BytesMut};
use rmqtt::codec::v5::{Codec, Disconnect, DisconnectReasonCode, Packet};
use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split},
    net::{TcpSocket, TcpStream, tcp},
    select,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::codec::Encoder;

/// How long the rest of a connection may take once one side has ended it: the last message being stored, the last answer
/// being sent.
const GRACE: Duration = Duration::from_secs(10);

/// How long rmqtt may take to drop a session that is over.
const FORGET: Duration = Duration::from_secs(1);

/// How long the last packet to a client that is sent away may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bytes moved at once; one such buffer a thread, none a connection.
const CHUNK: usize = 16 * 1024;

type Tls = TlsStream<TcpStream>;

/// Serves one connection to its end.
pub(super) async fn serve(front: Arc<Front>, tcp: TcpStream, peer: SocketAddr) {
    // Boxed, so that a live connection does not carry the room that its handshake took.
    let Some((tls, first, connection)) = Box::pin(prove(&front, tcp, peer)).await else {
        return;
    };
    if let Some(before) = front.registry.take_over(&connection) {
        tracing::info!(node = %connection.node, "a newer connection takes over the session");
        // Its last message is stored before the new session begins.
        let _ = timeout(GRACE, before.gone.cancelled()).await;
    }
    if front.stopping.is_cancelled() {
        connection.end(DisconnectReasonCode::ServerShuttingDown);
    }
    let (inner, address) = match inner(&front, &connection).await {
        Ok(inner) => inner,
        Err(error) => {
            tracing::warn!(node = %connection.node, %error, "rmqtt takes no connection");
            front.registry.left(&connection, front.ingest.as_ref()).await;
            refuse(tls, connect::unavailable(&error), peer).await;
            return;
        }
    };
    let (mut to_client, client_left) = relay(&front, tls, inner, first.bytes, &connection).await;
    if connection.online.load(Ordering::Acquire) {
        let _ = timeout(GRACE, connection.session_over.cancelled()).await;
        let _ = timeout(FORGET, forgotten(&front, &connection)).await;
    }
    front.registry.forget_inner(address);
    front.registry.left(&connection, front.ingest.as_ref()).await;
    // Last, as a client that reads no more can make it long.
    let _ = timeout(FAREWELL, async {
        if !client_left && connection.online.load(Ordering::Acquire) {
            farewell(&mut to_client, connection.reason()).await?;
        }
        to_client.shutdown().await
    })
    .await;
}

/// Waits until rmqtt has dropped a session that is over: until then it would refuse the same client. It has no event for it,
/// and is at it: mostly the first look is enough.
async fn forgotten(front: &Front, connection: &Connection) {
    let mut looks = 0_u32;
    while front
        .context
        .extends
        .shared()
        .await
        .exist(connection.node.as_str())
    {
        looks += 1;
        if looks < 32 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// TLS and the first packet, within the time and the place a stranger has.
async fn prove(
    front: &Front,
    tcp: TcpStream,
    peer: SocketAddr,
) -> Option<(Tls, FirstPacket, Arc<Connection>)> {
    let Some(place) = front.handshakes.enter(peer.ip()) else {
        tracing::info!(%peer, "too many connections that have not proven a name yet: sent away");
        return None;
    };
    let steps = async {
        let mut tls = match TlsAcceptor::from(front.tls()).accept(tcp).await {
            Ok(tls) => tls,
            Err(error) => {
                tracing::info!(%peer, %error, "TLS failed");
                return None;
            }
        };
        match admit(front, &mut tls).await {
            Ok((first, connection)) => Some((tls, first, connection)),
            Err(refusal) => {
                refuse(tls, refusal, peer).await;
                None
            }
        }
    };
    select! {
        () = front.stopping.cancelled() => None,
        () = place.lost.cancelled() => {
            tracing::info!(%peer, "too many connections that prove no name: the oldest was closed");
            None
        }
        proven = timeout(front.limits.handshake_timeout, steps) => proven.unwrap_or_else(|_| {
            tracing::info!(%peer, "no name was proven in time");
            None
        }),
    }
}

async fn admit(front: &Front, tls: &mut Tls) -> Result<(FirstPacket, Arc<Connection>), Refusal> {
    let first = connect::read(tls).await?;
    let certificate = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(connect::nameless)?
        .clone();
    let node = tls::node_of(&certificate).ok_or_else(connect::nameless)?;
    connect::check(&node, &first.connect)?;
    connect::authorise(&node, &certificate, front.ingest.as_ref()).await?;
    if front.registry.count() >= front.limits.connections && front.registry.by_node(&node).is_none() {
        return Err(connect::unavailable(&io::Error::other(
            "the broker has all the connections it may have",
        )));
    }
    Ok((first, Connection::new(node)))
}

async fn refuse(mut tls: Tls, refusal: Refusal, peer: SocketAddr) {
    tracing::warn!(%peer, code = refusal.code, "client refused: {}", refusal.message);
    let answer = refusal.into_bytes();
    let _ = timeout(FAREWELL, async {
        tls.write_all(&answer).await?;
        tls.shutdown().await
    })
    .await;
}

/// A connection to rmqtt, noted by its source address before it is made.
async fn inner(front: &Front, connection: &Arc<Connection>) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    // An address of its own for every few connections, so that their number is not bounded by the ports of one.
    socket.bind(front.next_source())?;
    let address = socket.local_addr()?;
    front.registry.expect_inner(address, connection);
    match socket.connect(front.inner).await {
        Ok(stream) => {
            stream.set_nodelay(true)?;
            Ok((stream, address))
        }
        Err(error) => {
            front.registry.forget_inner(address);
            Err(error)
        }
    }
}

/// Moves bytes until one side ends, then sees to it that what is under way arrives. Returns the way to the client, and whether
/// it was the client who ended.
async fn relay(
    front: &Front,
    tls: Tls,
    inner: TcpStream,
    first: Bytes,
    connection: &Connection,
) -> (WriteHalf<Tls>, bool) {
    let (mut from_client, mut to_client) = split(tls);
    let (mut from_inner, mut to_inner) = inner.into_split();
    let up = async {
        let client_left = select! {
            _ = upwards(&mut from_client, &mut to_inner, &first) => true,
            () = connection.ending.cancelled() => false,
        };
        let _ = to_inner.shutdown().await;
        client_left
    };
    let client_left = {
        let mut down = Box::pin(downwards(&mut from_inner, &mut to_client));
        select! {
            client_left = up => {
                let _ = timeout(GRACE, &mut down).await;
                client_left
            }
            _ = &mut down => false,
            () = silent(front, connection) => false,
        }
    };
    (to_client, client_left)
}

/// Comes when rmqtt has opened no session in time.
async fn silent(front: &Front, connection: &Connection) {
    tokio::time::sleep(front.limits.handshake_timeout).await;
    if connection.online.load(Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
}

async fn upwards(
    from_client: &mut ReadHalf<Tls>,
    to_inner: &mut tcp::OwnedWriteHalf,
    first: &[u8],
) -> io::Result<()> {
    to_inner.write_all(first).await?;
    loop {
        let chunk = read_chunk(from_client).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        to_inner.write_all(&chunk).await?;
    }
}

async fn downwards(from_inner: &mut tcp::OwnedReadHalf, to_client: &mut WriteHalf<Tls>) -> io::Result<()> {
    loop {
        let chunk = read_chunk(from_inner).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        to_client.write_all(&chunk).await?;
        to_client.flush().await?;
    }
}

/// Reads what is there; empty at the end. While nothing is there, no buffer is held.
async fn read_chunk(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    thread_local! {
        static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
    }
    std::future::poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut *from).poll_read(context, &mut read) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Ok(Bytes::copy_from_slice(read.filled()))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            }
        })
    })
    .await
}

/// Tells the client why its session ends: rmqtt closes before it would say so itself.
async fn farewell(
    to_client: &mut (impl AsyncWrite + Unpin),
    reason: Option<DisconnectReasonCode>,
) -> io::Result<()> {
    let packet = Packet::Disconnect(Disconnect {
        reason_code: reason.unwrap_or(DisconnectReasonCode::UnspecifiedError),
        session_expiry_interval_secs: None,
        server_reference: None,
        reason_string: None,
        user_properties: Vec::new(),
    });
    let mut bytes = BytesMut::new();
    Codec::new(0, 0)
        .encode(packet, &mut bytes)
        .map_err(io::Error::other)?;
    to_client.write_all(&bytes).await?;
    to_client.flush().await
}
