//! What the service manager is told, by the protocol of sd_notify(3): one datagram to the socket in `NOTIFY_SOCKET`.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// The service manager, where one listens.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Finds the service manager by the environment of the process.
    pub fn from_environment() -> Self {
        let watchdog = env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Duration::from_micros);
        // The watchdog may be meant for another process that shares the environment.
        let own = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let notifier = env::var("NOTIFY_SOCKET").ok().map(|path| Self::to(&path));
        Self {
            socket: notifier.and_then(Result::ok),
            watchdog: watchdog.filter(|interval| own && !interval.is_zero()),
        }
    }

    fn to(path: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        Ok((UnixDatagram::unbound()?, address))
    }

    /// Says that the service has started.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Says that the service is ending.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Says in one line what the service is doing; `systemctl status` shows it.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, message, "the service manager was not reached");
        }
    }

    /// Tells the watchdog, at half its interval, that this event loop turns; for ever, where one is set.
    pub async fn keep_watchdog(&self) {
        let Some(limit) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut ticks = interval(limit / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.send("WATCHDOG=1");
        }
    }
}
