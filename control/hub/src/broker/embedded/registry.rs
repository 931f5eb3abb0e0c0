//! Who is connected: one connection a node, the newest one.
//!
//! Guarantees: a node has one live connection; a newer one ends the older one and waits for its last message to be stored; the
//! hub hears of presence in the order of what really happened, so that the end of a replaced connection never makes a live
//! node look offline.

use super::super::Ingest;
use holdfast_protocol::NodeId;
use rmqtt::codec::v5::DisconnectReasonCode;
use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::MutexGuard as Turn;
use tokio_util::sync::CancellationToken;

/// Locks for things that must happen one after the other for one node; nodes share a lock by their name's hash.
const TURNS: usize = 64;

/// All live connections.
pub(super) struct Registry {
    live: Mutex<Live>,
    presence: Vec<tokio::sync::Mutex<()>>,
    retained: Vec<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Live {
    nodes: HashMap<NodeId, Arc<Connection>>,
    inner: HashMap<SocketAddr, Arc<Connection>>,
}

/// One connection of a node that has proven its name.
pub(super) struct Connection {
    /// Who it is, from its certificate.
    pub(super) node: NodeId,
    /// Why it ends, as the client is told; the first reason wins.
    reason: OnceLock<DisconnectReasonCode>,
    /// Cancelled when the hub wants it to end.
    pub(super) ending: CancellationToken,
    /// Cancelled when rmqtt has closed its session: no message of it is in work any more.
    pub(super) session_over: CancellationToken,
    /// Cancelled when nothing of it is left and the hub knows.
    pub(super) gone: CancellationToken,
    /// Whether rmqtt has opened a session on it.
    pub(super) online: AtomicBool,
}

impl Connection {
    pub(super) fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self {
            node,
            reason: OnceLock::new(),
            ending: CancellationToken::new(),
            session_over: CancellationToken::new(),
            gone: CancellationToken::new(),
            online: AtomicBool::new(false),
        })
    }

    /// Notes why the connection ends, without ending it.
    pub(super) fn because(&self, reason: DisconnectReasonCode) {
        // An earlier reason is the cause of this one.
        let _ = self.reason.set(reason);
    }

    /// Ends the connection from the hub's side.
    pub(super) fn end(&self, reason: DisconnectReasonCode) {
        self.because(reason);
        self.ending.cancel();
    }

    pub(super) fn reason(&self) -> Option<DisconnectReasonCode> {
        self.reason.get().copied()
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        let turns = || (0..TURNS).map(|_| tokio::sync::Mutex::new(())).collect();
        Self {
            live: Mutex::default(),
            presence: turns(),
            retained: turns(),
        }
    }

    /// Makes `connection` the one of its node. The one before, if any, is told to end and returned.
    pub(super) fn take_over(&self, connection: &Arc<Connection>) -> Option<Arc<Connection>> {
        let before = self
            .live()
            .nodes
            .insert(connection.node.clone(), connection.clone());
        if let Some(before) = &before {
            before.end(DisconnectReasonCode::SessionTakenOver);
        }
        before
    }

    /// Notes from which address rmqtt will see the connection: the only address from which it takes one.
    pub(super) fn expect_inner(&self, address: SocketAddr, connection: &Arc<Connection>) {
        self.live().inner.insert(address, connection.clone());
    }

    pub(super) fn forget_inner(&self, address: SocketAddr) {
        self.live().inner.remove(&address);
    }

    pub(super) fn by_inner(&self, address: Option<SocketAddr>) -> Option<Arc<Connection>> {
        self.live().inner.get(&address?).cloned()
    }

    pub(super) fn by_node(&self, node: &NodeId) -> Option<Arc<Connection>> {
        self.live().nodes.get(node).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.live().nodes.values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.live().nodes.len()
    }

    /// Whether no newer connection of the same node has come.
    pub(super) fn is_newest(&self, connection: &Arc<Connection>) -> bool {
        self.live()
            .nodes
            .get(&connection.node)
            .is_none_or(|newest| Arc::ptr_eq(newest, connection))
    }

    /// rmqtt has opened the session: the node is online.
    pub(super) async fn arrived(&self, connection: &Arc<Connection>, ingest: &dyn Ingest) {
        let _turn = self.presence_turn(&connection.node).await;
        if self.is_newest(connection) {
            connection.online.store(true, Ordering::Release);
            ingest.presence(&connection.node, true).await;
        }
    }

    /// Nothing of the connection is left: unless a newer one has come, the node is offline.
    pub(super) async fn left(&self, connection: &Arc<Connection>, ingest: &dyn Ingest) {
        let turn = self.presence_turn(&connection.node).await;
        let was_newest = {
            let mut live = self.live();
            let newest = live
                .nodes
                .get(&connection.node)
                .is_some_and(|newest| Arc::ptr_eq(newest, connection));
            if newest {
                live.nodes.remove(&connection.node);
            }
            newest
        };
        if was_newest && connection.online.load(Ordering::Acquire) {
            ingest.presence(&connection.node, false).await;
        }
        drop(turn);
        connection.gone.cancel();
    }

    /// Held while presence of `node` changes, and while its last will is stored.
    pub(super) async fn presence_turn(&self, node: &NodeId) -> Turn<'_, ()> {
        self.presence[turn_of(node)].lock().await
    }

    /// Held while something is put into the queue towards `node`, from reading the database on.
    pub(super) async fn retained_turn(&self, node: &NodeId) -> Turn<'_, ()> {
        self.retained[turn_of(node)].lock().await
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn turn_of(node: &NodeId) -> usize {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    (hasher.finish() % TURNS as u64) as usize
}
