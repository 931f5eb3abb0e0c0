//! Names of the problems of brokers. Each is a heading in `docs/troubleshooting.md`.

/// A connection to the broker's port did not begin with an MQTT CONNECT; it was closed without an answer.
pub const BROKER_NOT_MQTT: &str = "broker-not-mqtt";
/// A client speaks MQTT 3; Holdfast needs MQTT 5.
pub const BROKER_MQTT_VERSION: &str = "broker-mqtt-version";
/// A node tried to connect with a client id that is not the common name of its certificate.
pub const BROKER_FOREIGN_CLIENT_ID: &str = "broker-foreign-client-id";
/// A node tried to connect with a user name that is not the common name of its certificate.
pub const BROKER_FOREIGN_USER_NAME: &str = "broker-foreign-user-name";
/// A node tried to leave a last will on a topic that is not its own presence.
pub const BROKER_FOREIGN_LAST_WILL: &str = "broker-foreign-last-will";
/// A node tried MQTT's enhanced authentication; nodes are known by their certificates alone.
pub const BROKER_AUTHENTICATION_METHOD: &str = "broker-authentication-method";
/// A node asked for no keep-alive, so that a lost link would never be noticed.
pub const BROKER_KEEP_ALIVE: &str = "broker-keep-alive";
/// The hub does not know the node, or the certificate names none.
pub const BROKER_NOT_AUTHORISED: &str = "broker-not-authorised";
/// The broker has as many connections as it may have.
pub const BROKER_BUSY: &str = "broker-busy";
/// A node published or subscribed to a topic that is not its own.
pub const BROKER_FOREIGN_TOPIC: &str = "broker-foreign-topic";
