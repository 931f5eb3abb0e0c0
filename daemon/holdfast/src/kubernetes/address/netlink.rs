//! The few questions and orders to the kernel that an interface of our own needs, over a routing netlink socket (rtnetlink(7)).
//!
//! In: one request. Out: what the kernel answered, when it has answered in full. The kernel answers at once, so nothing here waits for
//! anybody else.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{io, net::IpAddr};

/// Metric of our routes: whatever else leads to the same place comes first.
const METRIC: u32 = 4096;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Whether it is of a kind that [`Netlink::add_link`] makes.
    pub own_kind: bool,
    /// Whether it is up.
    pub up: bool,
}

/// A connection to the kernel of the network namespace that this thread is in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Connects.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The interface of that name.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answers = match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(None),
            other => other?,
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Link {
                index: link.header.index,
                own_kind: is_own_kind(&link),
                up: link.header.flags.contains(LinkFlags::Up),
            }),
            _ => None,
        }))
    }

    /// Makes an interface that leads nowhere: a dummy, or, where the kernel has none, a bridge without ports, which every kernel that
    /// runs containers has. One that is there already is no error.
    pub fn add_link(&mut self, name: &str) -> io::Result<()> {
        match self.add_link_of(name, InfoKind::Dummy) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {
                self.add_link_of(name, InfoKind::Bridge)
            }
            other => other,
        }
    }

    fn add_link_of(&mut self, name: &str, kind: InfoKind) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
        ];
        let made = self.ask(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        );
        there_already(made, nix::libc::EEXIST)
    }

    /// Removes an interface.
    pub fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.ask(RouteNetlinkMessage::DelLink(message), NLM_F_ACK)
            .map(drop)
    }

    /// Takes an interface into operation.
    pub fn bring_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
    }

    /// The addresses of an interface with the lengths of their prefixes; those that the kernel gives to itself are left out.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<(IpAddr, u8)>> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask(question, NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(found)
                    if found.header.index == index && found.header.scope != AddressScope::Link =>
                {
                    let address = found.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Address(address) => Some(*address),
                        _ => None,
                    })?;
                    Some((address, found.header.prefix_len))
                }
                _ => None,
            })
            .collect())
    }

    /// Gives an interface an address; one that it has already is no error.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, address, prefix));
        let made = self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        there_already(made, nix::libc::EEXIST)
    }

    /// Takes an address from an interface; one that it has not got is no error.
    pub fn remove_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address, prefix));
        there_already(self.ask(message, NLM_F_ACK), nix::libc::EADDRNOTAVAIL)
    }

    /// Leads a network to an interface, after every other way to it.
    pub fn add_route(&mut self, index: u32, network: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(network);
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Destination(network.into()),
            RouteAttribute::Oif(index),
            RouteAttribute::Priority(METRIC),
        ];
        let message = RouteNetlinkMessage::NewRoute(message);
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages begin at multiples of four bytes.
                let length = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn there_already(made: io::Result<Vec<RouteNetlinkMessage>>, code: i32) -> io::Result<()> {
    match made {
        Err(error) if error.raw_os_error() == Some(code) => Ok(()),
        other => other.map(drop),
    }
}

fn is_own_kind(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos
            .iter()
            .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Dummy | InfoKind::Bridge))),
        _ => false,
    })
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    message
}
