//! Restarting the machine through systemd, so that everything ends in good order.

use super::error::Fault;
use zbus::{Connection, connection::Builder};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const ROOT: &str = "/org/freedesktop/systemd1";

/// Asks systemd to restart the machine, on the system bus or on the one given. It returns when systemd has taken the request; the machine goes
/// down behind it.
pub async fn reboot(bus: Option<&str>) -> Result<(), Fault> {
    let failed = |error: zbus::Error| Fault::Reboot(error.to_string());
    let connection = match bus {
        Some(address) => Builder::address(address).build().await,
        None => Connection::system().await,
    }
    .map_err(failed)?;
    // `StartUnit` and not `Reboot`: the latter would end everything at once. Irreversibly: a unit that starts now cannot call it off.
    connection
        .call_method(
            Some(SYSTEMD),
            ROOT,
            Some(MANAGER),
            "StartUnit",
            &("reboot.target", "replace-irreversibly"),
        )
        .await
        .map_err(failed)?;
    Ok(())
}
