//! What rmqtt asks while it works: sessions, subscriptions and messages in, the hub's answers out.
//!
//! Guarantees: a session opens only on a connection that the front has proven; a message is acknowledged only after the hub
//! has stored it, and a message that could not be stored ends the session without an acknowledgement, so that the node sends
//! it again; a node sees only its own topics; rmqtt keeps nothing that the hub's database does not have.

use super::{Front, registry::Connection};
use crate::broker::codes;
use async_trait::async_trait;
use holdfast_protocol::topic::{Channel, Topic, Up, may_publish, may_subscribe};
use rmqtt::{
    codec::v5::{DisconnectReasonCode, PublishAckReason, RetainHandling, SubscribeAckReason, ToReasonCode},
    fitter::{DefaultFitter, Fitter, FitterManager},
    hook::{Handler, HookManager, HookResult, Parameter, ReturnType, Type},
    retain::RetainStorage,
    session::Session,
    types::{
        AuthResult, CodecPublish, ConnectInfo, Disconnect, FitterType, FromType, Id, ListenerConfig, Publish,
        PublishAclResult, PublishResult, QoS, Reason, Retain, Subscribe, SubscribeAclResult, TopicFilter,
        TopicName,
    },
};
use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::{Arc, Weak},
    time::Duration,
};

/// Answers for one broker. Weak: rmqtt's context is never freed, the hub's side of it is.
#[derive(Clone)]
pub(super) struct Hooks(Weak<Front>);

/// Puts the answers into rmqtt's places for them.
pub(super) async fn register(hooks: &dyn HookManager, front: &Arc<Front>) {
    let register = hooks.register();
    for place in [
        Type::ClientAuthenticate,
        Type::ClientConnected,
        Type::ClientDisconnected,
        Type::ClientSubscribeCheckAcl,
        Type::SessionSubscribed,
        Type::MessagePublishCheckAcl,
        Type::MessagePublish,
    ] {
        register.add(place, Box::new(Hooks(Arc::downgrade(front)))).await;
    }
    register.start().await;
}

#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, parameter: &Parameter, earlier: Option<HookResult>) -> ReturnType {
        let front = self.0.upgrade();
        match parameter {
            Parameter::ClientAuthenticate(connect) => {
                let result = match front {
                    Some(front) if is_expected(&front, connect) => AuthResult::Allow(false, None),
                    _ => AuthResult::NotAuthorized,
                };
                (false, Some(HookResult::AuthResult(result)))
            }
            Parameter::ClientConnected(session) => {
                if let Some((front, connection)) = connection(front, &session.id) {
                    front.registry.arrived(&connection, front.ingest.as_ref()).await;
                }
                (true, earlier)
            }
            Parameter::ClientDisconnected(session, reason) => {
                if let Some((_, connection)) = connection(front, &session.id) {
                    connection.because(reason_code(reason));
                    connection.session_over.cancel();
                }
                (true, earlier)
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                let result = match connection(front, &session.id) {
                    Some((_, connection)) => may_read(&connection, subscribe),
                    None => SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized),
                };
                (false, Some(HookResult::SubscribeAclResult(result)))
            }
            Parameter::SessionSubscribed(session, subscribe) => {
                if let Some((front, connection)) = connection(front, &session.id) {
                    send_retained(&front, &connection, session, subscribe).await;
                }
                (true, earlier)
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                let result = match connection(front, &session.id) {
                    Some((front, connection)) => store(&front, &connection, publish).await,
                    None => PublishAclResult::rejected(true, None),
                };
                (false, Some(HookResult::PublishAclResult(result)))
            }
            Parameter::MessagePublish(Some(session), from, publish)
                if matches!(from.typ(), FromType::LastWill) =>
            {
                if let Some((front, connection)) = connection(front, &session.id) {
                    store_last_will(&front, &connection, publish).await;
                }
                (true, earlier)
            }
            _ => (true, earlier),
        }
    }
}

fn connection(front: Option<Arc<Front>>, id: &Id) -> Option<(Arc<Front>, Arc<Connection>)> {
    let front = front?;
    let connection = front.registry.by_inner(id.remote_addr)?;
    Some((front, connection))
}

/// Whether the connection came from the front, and for this client. Anything else on the loopback port is a stranger.
fn is_expected(front: &Front, connect: &ConnectInfo) -> bool {
    front
        .registry
        .by_inner(connect.id().remote_addr)
        .is_some_and(|connection| connection.node.as_str() == &*connect.id().client_id)
}

/// Reason that the client is told; rmqtt lists several where one led to the next.
fn reason_code(reason: &Reason) -> DisconnectReasonCode {
    match reason {
        Reason::Reasons(reasons) => reasons.first().map_or(
            DisconnectReasonCode::UnspecifiedError,
            ToReasonCode::to_reason_code,
        ),
        reason => reason.to_reason_code(),
    }
}

fn may_read(connection: &Connection, subscribe: &Subscribe) -> SubscribeAclResult {
    if may_subscribe(&connection.node, &subscribe.topic_filter) && subscribe.opts.shared_group().is_none() {
        return SubscribeAclResult::new_success(QoS::AtLeastOnce, None);
    }
    tracing::warn!(
        node = %connection.node,
        code = codes::BROKER_FOREIGN_TOPIC,
        filter = %subscribe.topic_filter,
        "subscription refused"
    );
    SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
}

async fn store(front: &Front, connection: &Arc<Connection>, publish: &Publish) -> PublishAclResult {
    let Some(channel) = may_write(connection, &publish.topic) else {
        let reason = format!("{} may publish only below its own up topics", connection.node);
        return PublishAclResult::rejected(false, Some(reason.into()));
    };
    if !front.registry.is_newest(connection) {
        return PublishAclResult::rejected(true, None);
    }
    match front
        .ingest
        .message(&connection.node, channel, publish.payload.clone())
        .await
    {
        Ok(()) => PublishAclResult::allow(),
        Err(error) => {
            tracing::error!(node = %connection.node, %error, "message not acknowledged: the session is ended, the node sends it again");
            connection.because(DisconnectReasonCode::ServerBusy);
            PublishAclResult(PublishResult::reason_code(
                PublishAckReason::ImplementationSpecificError,
                None,
                true,
            ))
        }
    }
}

async fn store_last_will(front: &Front, connection: &Arc<Connection>, publish: &Publish) {
    let Some(channel) = may_write(connection, &publish.topic) else {
        return;
    };
    // The will of a connection that was replaced says nothing about the node.
    let _turn = front.registry.presence_turn(&connection.node).await;
    if front.registry.is_newest(connection)
        && let Err(error) = front
            .ingest
            .message(&connection.node, channel, publish.payload.clone())
            .await
    {
        tracing::error!(node = %connection.node, %error, "last will not stored");
    }
}

fn may_write(connection: &Connection, topic: &str) -> Option<Up> {
    if may_publish(&connection.node, topic)
        && let Ok(Topic {
            channel: Channel::Up(channel),
            ..
        }) = topic.parse()
    {
        return Some(channel);
    }
    tracing::warn!(
        node = %connection.node,
        code = codes::BROKER_FOREIGN_TOPIC,
        topic = %topic.chars().take(120).collect::<String>(),
        "message refused"
    );
    None
}

/// Puts what the database has for a new subscription into the session's queue, behind the SUBACK and before anything newer.
async fn send_retained(
    front: &Front,
    connection: &Arc<Connection>,
    session: &Session,
    subscribe: &Subscribe,
) {
    if subscribe.opts.retain_handling() == Some(RetainHandling::NoAtSubscribe) {
        return;
    }
    let wanted = Channel::ALL.into_iter().filter_map(|channel| match channel {
        Channel::Down(down) => Some(Topic::down(&connection.node, down)),
        Channel::Up(_) => None,
    });
    let _turn = front.registry.retained_turn(&connection.node).await;
    for topic in wanted {
        let name = topic.to_string();
        if *subscribe.topic_filter != *name && !subscribe.topic_filter.ends_with('#') {
            continue;
        }
        match front.ingest.retained(&topic).await {
            Ok(None) => {}
            Ok(Some(payload)) => {
                let shared = front.context.extends.shared().await;
                let sent = shared
                    .entry(session.id.clone())
                    .publish(super::from_hub(), super::message(name, payload))
                    .await;
                if sent.is_err() {
                    connection.end(DisconnectReasonCode::ServerBusy);
                }
            }
            Err(error) => {
                tracing::error!(node = %connection.node, %error, "the retained state cannot be read: the session is ended, the node comes again");
                connection.end(DisconnectReasonCode::ServerBusy);
            }
        }
    }
}

/// Says that retained messages work, and keeps none: the hub's database does.
pub(super) struct RetainedInDatabase;

#[async_trait]
impl RetainStorage for RetainedInDatabase {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, _: &TopicName, _: Retain, _: Option<Duration>) -> rmqtt::Result<()> {
        Ok(())
    }

    async fn get(&self, _: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        Ok(Vec::new())
    }

    async fn count(&self) -> isize {
        0
    }

    async fn max(&self) -> isize {
        0
    }
}

/// Ends every session with its connection.
///
/// rmqtt keeps the socket of a stored session open for as long as the session lives, and messages for it in memory. Neither is
/// needed: what a node must get is retained in the database and sent when it subscribes, as it does on every connect.
pub(super) struct SessionsEndWithConnection;

impl FitterManager for SessionsEndWithConnection {
    fn create(&self, connect: Arc<ConnectInfo>, id: Id, listener: ListenerConfig) -> FitterType {
        Arc::new(EndsWithConnection(DefaultFitter::new(connect, id, listener)))
    }
}

struct EndsWithConnection(DefaultFitter);

impl Fitter for EndsWithConnection {
    fn keep_alive(&self, keep_alive: &mut u16) -> rmqtt::Result<u16> {
        self.0.keep_alive(keep_alive)
    }

    fn max_mqueue_len(&self) -> usize {
        self.0.max_mqueue_len()
    }

    fn mqueue_rate_limit(&self) -> (NonZeroU32, Duration) {
        self.0.mqueue_rate_limit()
    }

    fn max_inflight(&self) -> NonZeroU16 {
        self.0.max_inflight()
    }

    fn session_expiry_interval(&self, _: Option<&Disconnect>) -> Duration {
        Duration::ZERO
    }

    fn message_expiry_interval(&self, publish: &CodecPublish) -> Duration {
        self.0.message_expiry_interval(publish)
    }

    fn max_client_topic_aliases(&self) -> u16 {
        0
    }

    fn max_server_topic_aliases(&self) -> u16 {
        0
    }
}
