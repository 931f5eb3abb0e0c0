//! Children that must outlive the process that started them.

use std::{io, os::unix::process::CommandExt as _, process::Command};

/// Makes a command start in a session of its own: no terminal, and no signal to the group of whoever started it, reaches it.
///
/// `Command::process_group` gives it a group alone: a session's hang-up would still end it.
pub fn in_own_session(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only what is safe in a signal handler may be done: this is one system call, without memory or locks.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok::<(), io::Error>(())
        })
    }
}
