//! The datastore of the box's Kubernetes, read from the disk of a box that is off.
//!
//! In: the disk as a raw file. Out: what kine's SQLite holds. The state partition is read with debugfs, so that nothing has to be mounted.

use crate::images;
use anyhow::{Context as _, Result, ensure};
use holdfast_harness::process::run;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;

/// Where k3s has it.
const PLACE: &str = "/var/lib/rancher/k3s/server/db/state.db";

/// A copy of the datastore.
pub struct Datastore {
    connection: Connection,
    _directory: TempDir,
}

impl Datastore {
    /// The one on the partition `state` of `raw`.
    pub async fn of(raw: &Path) -> Result<Self> {
        let partition = images::labelled(raw, "state")?;
        let directory = tempfile::tempdir()?;
        let copy = directory.path().join("state.db");
        // Where k3s was ended cleanly there is no log beside it.
        for ending in ["", "-wal"] {
            let mut dump = Command::new("/usr/sbin/debugfs");
            dump.arg("-R")
                .arg(format!("dump {PLACE}{ending} {}{ending}", copy.display()))
                .arg(format!("{}?offset={}", raw.display(), partition.offset));
            let said = run(dump).await?;
            ensure!(
                !ending.is_empty() || copy.exists(),
                "debugfs found no {PLACE} on the box's disk: {said}"
            );
        }
        let connection = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .context("the box's datastore")?;
        Ok(Self {
            connection,
            _directory: directory,
        })
    }

    /// The newest content of an object by its key, such as `/registry/configmaps/default/page`; nothing where it never was or is deleted.
    pub fn object(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let mut newest = self
            .connection
            .prepare("SELECT deleted, value FROM kine WHERE name = ?1 ORDER BY id DESC LIMIT 1")?;
        let mut rows = newest.query([key])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let deleted: bool = row.get(0)?;
        Ok(if deleted { None } else { row.get(1)? })
    }
}
