//! Restarts the machine, in good order.

use crate::{codes, settings::Settings};
use holdfast_protocol::Problem;
use zbus::{Connection, OwnedObjectPath, connection::Builder};

/// Asks systemd for a restart. Answers when it has begun.
///
/// # Errors
/// Why it has not.
pub async fn restart(settings: &Settings) -> Result<(), Problem> {
    let asked = async {
        let connection = match &settings.kubernetes.systemd_bus {
            Some(address) => Builder::address(address.as_str()).build().await?,
            None => Connection::system().await?,
        };
        // The manager's own Reboot() would end everything at once; this stops one unit after the other.
        connection
            .call_method(
                Some("org.freedesktop.systemd1"),
                "/org/freedesktop/systemd1",
                Some("org.freedesktop.systemd1.Manager"),
                "StartUnit",
                &("reboot.target", "replace-irreversibly"),
            )
            .await?
            .body()
            .deserialize::<OwnedObjectPath>()
    };
    asked.await.map(drop).map_err(|error: zbus::Error| {
        Problem::new(
            codes::OS_NO_RESTART,
            format!("systemd does not restart the machine: {error}"),
            "look at `systemctl list-jobs`; it is tried again",
        )
    })
}
