//! The files of k3s's datastore, kine's SQLite database: where they are, how they are kept small, and how they come back.
//!
//! In: the wanted place, the live database. Out: a database that k3s opens as always, snapshots of one in memory, problems with its size.
//! It guarantees that a file is put in place whole or not at all, and that nothing here runs while k3s is about to open it.
//!
//! Without a change of an object there is no snapshot, and so an idle box with its datastore in memory writes nothing.

pub mod database;
mod error;
pub mod growth;
pub mod place;
pub mod snapshots;

pub use error::DatastoreError;
pub use place::Place;
pub use snapshots::Snapshots;
