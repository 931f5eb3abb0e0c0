//! The link between a box and the hub, as a TCP forwarder on loopback that can be cut and restored.

use anyhow::Result;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A forwarder from its own port to a target.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: Mutex<Option<SocketAddr>>,
    up: watch::Sender<bool>,
    bytes: AtomicU64,
    messages: AtomicU64,
    /// So many bytes are let through at the most; then the link is cut.
    most: AtomicU64,
}

impl Link {
    /// Opens a link on a free port. It is up, but refuses until it has a target: the target's own port is often known
    /// only after the link's address was written into its configuration.
    pub async fn open() -> Result<Self> {
        Self::open_at(0).await
    }

    /// Opens a link on this port of loopback; 0 takes a free one.
    pub async fn open_at(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            up: watch::Sender::new(true),
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets where connections go.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Ends all connections and refuses new ones.
    pub fn cut(&self) {
        self.shared.up.send_replace(false);
    }

    /// Cuts the link as soon as so many more bytes went through, in both directions together; of what is read at once, all goes through.
    pub fn cut_after(&self, bytes: u64) {
        self.shared
            .most
            .store(self.bytes().saturating_add(bytes), Ordering::Relaxed);
    }

    /// Waits until the link is cut.
    pub async fn until_cut(&self) {
        // An error means that the link itself is gone.
        drop(self.shared.up.subscribe().wait_for(|up| !up).await);
    }

    /// Lets connections through again.
    pub fn restore(&self) {
        self.shared.most.store(u64::MAX, Ordering::Relaxed);
        self.shared.up.send_replace(true);
    }

    /// Bytes forwarded in both directions since the start, without TCP and IP headers.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Pieces that those bytes came in; when little is sent, each was one packet.
    pub fn messages(&self) -> u64 {
        self.shared.messages.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = target.filter(|_| *shared.up.borrow()) else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut up = shared.up.subscribe();
            let Ok(server) = TcpStream::connect(target).await else {
                return;
            };
            // Small messages are what is measured here; Nagle's delay is not.
            drop((client.set_nodelay(true), server.set_nodelay(true)));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = async { tokio::join!(pump(from_client, to_server, &shared), pump(from_server, to_client, &shared)); } => {}
                // An error means that the link itself is gone.
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, shared: &Shared) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        let before = shared.bytes.fetch_add(read as u64, Ordering::Relaxed);
        if before + read as u64 >= shared.most.load(Ordering::Relaxed) {
            shared.up.send_replace(false);
            return;
        }
        shared.messages.fetch_add(1, Ordering::Relaxed);
    }
    // The other side may have gone first.
    drop(to.shutdown().await);
}
