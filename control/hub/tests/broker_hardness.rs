//! Garbage, floods and dawdlers: whatever one connection does, the others do not notice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod broker_support;

use broker_support::{
    Kind, Rig,
    client::{Client, Options, Refused, tls},
    within,
};
use bytes::{Bytes, BytesMut};
use holdfast_hub::broker::embedded::Limits;
use holdfast_protocol::topic::Up;
use rmqtt::codec::{
    types::{Publish, QoS},
    v5::{
        Auth, Codec, Connect, ConnectAckReason, DisconnectReasonCode, Packet, PublishAck, PublishAckReason,
        Subscribe, SubscriptionOptions, Unsubscribe,
    },
    version::VersionCodec,
};
use std::{num::NonZeroU16, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::codec::{Decoder, Encoder};

/// A stream of bytes that looks random and is the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn encoded(packet: Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    Codec::new(0, 0).encode(packet, &mut bytes).unwrap();
    bytes.to_vec()
}

fn connect(name: &str) -> Vec<u8> {
    encoded(Packet::Connect(Box::new(Connect {
        client_id: name.to_owned().into(),
        keep_alive: 60,
        ..Connect::default()
    })))
}

fn status(name: &str) -> Vec<u8> {
    encoded(Packet::Publish(Box::new(Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: format!("hf/v1/{name}/up/status").into(),
        packet_id: NonZeroU16::new(1),
        payload: Bytes::from_static(b"{}"),
        properties: None,
    })))
}

/// A packet of each kind that a client may send.
fn packets() -> Vec<Vec<u8>> {
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: NonZeroU16::MIN,
        id: None,
        user_properties: vec![("name".into(), "value".into())],
        topic_filters: vec![(
            "hf/v1/attacker/down/desired".into(),
            SubscriptionOptions::default(),
        )],
    });
    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        packet_id: NonZeroU16::MIN,
        user_properties: Vec::new(),
        topic_filters: vec!["hf/v1/attacker/down/desired".into()],
    });
    let ack = Packet::PublishAck(PublishAck {
        packet_id: NonZeroU16::MIN,
        reason_code: PublishAckReason::UnspecifiedError,
        properties: Vec::new(),
        reason_string: Some("reason".into()),
    });
    let auth = Packet::Auth(Auth::default());
    [subscribe, unsubscribe, ack, auth, Packet::PingRequest]
        .map(encoded)
        .into_iter()
        .chain([connect("attacker"), status("attacker")])
        .collect()
}

// The hub may be built so that a panic ends it: rmqtt's reader of packets must have none in it.
#[test]
fn no_bytes_make_the_reader_of_packets_panic() {
    let mut random = Random(4);
    let packets = packets();
    let mut read = 0;
    for round in 0..200_000 {
        let mut bytes = packets[round % packets.len()].clone();
        for _ in 0..=random.next() % 4 {
            let place = random.next() as usize % bytes.len();
            bytes[place] = random.next() as u8;
        }
        if random.next().is_multiple_of(8) {
            bytes.truncate(random.next() as usize % bytes.len() + 1);
        }
        let mut bytes = BytesMut::from(&bytes[..]);
        let _ = VersionCodec.decode(&mut bytes.clone());
        let mut codec = Codec::new(65_536, 65_536);
        while let Ok(Some(_)) = codec.decode(&mut bytes) {
            read += 1;
        }
    }
    assert!(read > 10_000, "nothing was ever near enough to a packet");
}

both! {
    async fn garbage_before_tls_disturbs_nobody(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let mut random = Random(1);
        for length in [0, 1, 5, 100, 20_000] {
            let mut tcp = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
            let _ = tcp.write_all(&random.bytes(length)).await;
            let _ = tcp.shutdown().await;
            let mut answer = Vec::new();
            let _ = within("the end", tcp.read_to_end(&mut answer)).await;
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn garbage_instead_of_a_connect_disturbs_nobody(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let identity = rig.authority.node("attacker");
        let mut random = Random(2);
        let good = connect("attacker");
        let mut attempts: Vec<Vec<u8>> = (0..20).map(|round| random.bytes(round * 7)).collect();
        // A good CONNECT with one byte wrong, or cut short.
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1 << (random.next() % 8);
            attempts.push(bad);
        }
        attempts.extend((0..good.len()).map(|length| good[..length].to_vec()));
        // The longest length that MQTT can say, and nothing behind it.
        attempts.push(vec![0x10, 0xff, 0xff, 0xff, 0x7f]);
        attempts.push(status("attacker"));
        for attempt in attempts {
            let mut stream = tls(rig.port, &rig.authority, Some(&identity)).await.unwrap();
            let _ = stream.write_all(&attempt).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = within("the end", stream.read_to_end(&mut answer)).await;
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn garbage_in_a_session_ends_only_that_session(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let identity = rig.authority.node("attacker");
        let mut random = Random(3);
        let packets = packets();
        for round in 0..140 {
            let options = Options { will: None, ..Options::node("attacker") };
            let mut attacker = rig.connect(&identity, options).await.unwrap();
            let garbage = if round % 2 == 0 {
                random.bytes(200)
            } else {
                let mut bad = packets[round / 2 % packets.len()].clone();
                let place = random.next() as usize % bad.len();
                bad[place] = random.next() as u8;
                bad
            };
            attacker.raw(&garbage).await;
            drop(attacker);
        }
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn a_packet_that_is_too_large_ends_only_its_session(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let mut attacker = rig.node("attacker").await;
        let answer = attacker.say(Up::Status, vec![b'x'; 2 * holdfast_protocol::MAX_ENVELOPE_BYTES]).await;
        assert_eq!(answer, None);
        rig.hub.until_online("attacker", false).await;
        assert!(rig.hub.said("attacker", Up::Status).is_empty());
        rig.assert_untouched(&mut victim, "after").await;
    }

    async fn a_client_that_reads_nothing_holds_nobody_up(rig: Rig) {
        let mut victim = rig.node("victim").await;
        let attacker = rig.node("attacker").await;
        let large: &'static str = Box::leak("x".repeat(holdfast_protocol::MAX_ENVELOPE_BYTES).into_boxed_str());
        for _ in 0..20 {
            rig.desire(&attacker.id, large).await;
        }
        rig.assert_untouched(&mut victim, "after").await;
    }
}

/// Few places for those who have not said who they are, for this long. A node gets through in it on the busiest machine.
fn few_places(handshake_timeout: Duration) -> Limits {
    Limits {
        handshake_timeout,
        handshakes: 16,
        handshakes_per_address: 8,
        ..Limits::default()
    }
}

const SHORT: Duration = Duration::from_secs(5);
/// Longer than any test waits.
const ENDLESS: Duration = Duration::from_hours(1);

async fn dawdlers(rig: &Rig) -> Vec<TcpStream> {
    let mut dawdlers = Vec::new();
    for _ in 0..64 {
        dawdlers.push(TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap());
    }
    dawdlers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dawdlers_before_tls_keep_nobody_out() {
    let rig = Rig::with_limits(Kind::Embedded, few_places(ENDLESS)).await;
    let mut victim = rig.node("victim").await;
    let _dawdlers = dawdlers(&rig).await;
    // Far more than there is room for, from the same address as the new node. It is sent away for a moment, and gets in long
    // before they time out.
    let identity = rig.authority.node("newcomer");
    let newcomer = within("a place", async {
        loop {
            match rig.connect(&identity, Options::node("newcomer")).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    drop(newcomer);
    rig.assert_untouched(&mut victim, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dawdlers_before_tls_are_closed() {
    let rig = Rig::with_limits(Kind::Embedded, few_places(SHORT)).await;
    let mut victim = rig.node("victim").await;
    for mut dawdler in dawdlers(&rig).await {
        let mut nothing = [0; 1];
        assert!(!matches!(
            within("the end", dawdler.read(&mut nothing)).await,
            Ok(1..)
        ));
    }
    rig.assert_untouched(&mut victim, "at the end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dawdlers_with_a_certificate_are_closed_too() {
    let rig = Rig::with_limits(Kind::Embedded, few_places(SHORT)).await;
    let mut victim = rig.node("victim").await;
    let identity = rig.authority.node("attacker");
    let good = connect("attacker");
    // All beside each other: each takes as long as it may.
    let attacks = [0, 1, 4, good.len() - 1].map(async |sent| {
        let mut stream = tls(rig.port, &rig.authority, Some(&identity)).await.unwrap();
        // On a machine that has other things to do it may be closed before this arrives.
        let _ = stream.write_all(&good[..sent]).await;
        let mut answer = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());
    });
    futures::future::join_all(attacks).await;
    rig.assert_untouched(&mut victim, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_answering_is_offline_after_its_keep_alive() {
    let rig = Rig::start(Kind::Embedded).await;
    let identity = rig.authority.node("shop-17");
    let options = Options {
        keep_alive: 1,
        ..Options::node("shop-17")
    };
    let mut client = rig.connect(&identity, options).await.unwrap();
    rig.hub.until_online("shop-17", true).await;
    assert_eq!(client.ended().await, Some(DisconnectReasonCode::KeepAliveTimeout));
    rig.hub.until_online("shop-17", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_keep_alive_is_refused_and_a_long_one_shortened() {
    let rig = Rig::start(Kind::Embedded).await;
    let identity = rig.authority.node("shop-17");
    let with = |keep_alive| Options {
        keep_alive,
        ..Options::node("shop-17")
    };
    assert!(matches!(
        rig.connect(&identity, with(0)).await,
        Err(Refused::Answer(ConnectAckReason::ImplementationSpecificError))
    ));
    let (_client, ack) = Client::connect(rig.port, &rig.authority, Some(&identity), with(60_000))
        .await
        .unwrap();
    assert_eq!(ack.server_keepalive_sec, Some(1200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_is_refused_by_name() {
    let rig = Rig::start(Kind::Embedded).await;
    let identity = rig.authority.node("shop-17");
    let mut stream = tls(rig.port, &rig.authority, Some(&identity)).await.unwrap();
    stream
        .write_all(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x3c\x00\x07shop-17")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = within("the answer", stream.read_to_end(&mut answer)).await;
    // CONNACK of MQTT 3.1.1, return code 1: unacceptable protocol version.
    assert_eq!(answer, [0x20, 2, 0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_broker_says_so_and_keeps_a_place_for_who_has_one() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let rig = Rig::with_limits(Kind::Embedded, limits).await;
    let one = rig.node("one").await;
    let mut two = rig.node("two").await;
    let three = rig.authority.node("three");
    assert!(matches!(
        rig.connect(&three, Options::node("three")).await,
        Err(Refused::Answer(ConnectAckReason::ServerBusy))
    ));
    let identity = one.identity.clone();
    let mut one_again = rig.node_with("one", identity).await;
    rig.assert_untouched(&mut one_again, "after").await;
    rig.assert_untouched(&mut two, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inner_port_takes_nobody_who_did_not_come_through_the_front() {
    let rig = Rig::start(Kind::Embedded).await;
    let mut victim = rig.node("victim").await;
    let mut refused = 0;
    for port in inner_ports(rig.port) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(&connect("victim")).await.unwrap();
        let mut answer = [0; 4];
        // A front answers with a TLS alert, or not at all.
        if within("an answer", stream.read_exact(&mut answer)).await.is_ok() && answer[0] == 0x20 {
            assert_eq!(answer[3], u8::from(ConnectAckReason::NotAuthorized));
            refused += 1;
        }
    }
    assert!(refused > 0, "rmqtt's own port was not found");
    rig.assert_untouched(&mut victim, "after").await;
}

/// Ports on which this process listens on the loopback interface, but for the one of this front. Other tests of this process
/// may run their brokers now: their inner ports are as good, and their fronts can be told from them.
fn inner_ports(front: u16) -> Vec<u16> {
    let own: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    std::fs::read_to_string("/proc/self/net/tcp")
        .unwrap()
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listening = fields[3] == "0A";
            let ours = own.contains(&format!("socket:[{}]", fields[9]));
            let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()?;
            (listening && ours && port != front).then_some(port)
        })
        .collect()
}
