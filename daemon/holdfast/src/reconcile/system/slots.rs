//! What the exchange of the operating system needs of the disk and of the boot loader.

use futures::future::BoxFuture;
use holdfast_core::{failure::Failure, reconcile::OsRef};

/// The system that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its version.
    pub version: String,
    /// The slot that it runs from: `a` or `b`.
    pub slot: String,
}

/// The two slots of a disk and the boot loader's entries for them. All of it may be done twice without harm, and a power cut in the middle
/// leaves what runs able to start.
pub trait Slots: Send + Sync {
    /// The system that runs.
    fn running(&self) -> &Running;

    /// Whether this start of the machine was one of its tries, and was not marked good yet. `written` is what is written down of that: it holds
    /// where the EFI system partition cannot be looked at, or is not there for a moment. A look that fails is no proof of a good start.
    fn is_on_trial(&self, written: bool) -> bool;

    /// The version that is whole in the other slot and has an entry of the boot loader or can be given one.
    fn other(&self) -> Option<String>;

    /// The version in the other slot that was started until no try was left, where there is one.
    fn spent(&self) -> Option<String>;

    /// Whether the image can be had on this box. Changes nothing.
    fn check<'a>(&'a self, os: &'a OsRef) -> BoxFuture<'a, Result<(), Failure>>;

    /// Has the image whole in the other slot, with nothing of the boot loader changed but that what was there before is not started any more.
    fn stage<'a>(&'a self, os: &'a OsRef) -> BoxFuture<'a, Result<(), Failure>>;

    /// Has the boot loader try the image in the other slot at the next start, with its counter of tries full.
    fn arm<'a>(&'a self, os: &'a OsRef) -> BoxFuture<'a, Result<(), Failure>>;

    /// Has the boot loader forget an image that was armed and has not run.
    fn disarm<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<(), Failure>>;

    /// Has the boot loader start this version, which is in the other slot and was good before, from the next start on.
    fn return_to<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<(), Failure>>;
}
