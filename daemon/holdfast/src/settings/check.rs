//! What the text of a single key must be like, beyond being text. An error is one sentence: what was found, and what is allowed.

use tracing_subscriber::filter::LevelFilter;

/// Longest name of a Kubernetes node in bytes: a DNS subdomain, RFC 1123.
const NODE_NAME_MAX: usize = 253;

/// A level, or a list of levels and `part=level`.
///
/// `Targets` alone is too kind: it takes a single word that is no level for the name of a part, and the log is silent then.
pub(super) fn log_level(text: &str) -> Result<(), String> {
    // Numbers and nothing at all are levels to the parser, but not to a person.
    let is_level = |level: &str| {
        level.bytes().all(|byte| byte.is_ascii_alphabetic()) && level.parse::<LevelFilter>().is_ok()
    };
    let is_part = |part: &str| match part.split_once('=') {
        None => !part.is_empty() && is_level(part),
        Some((target, level)) => !target.is_empty() && !level.is_empty() && is_level(level),
    };
    let parses = text.parse::<tracing_subscriber::filter::Targets>().is_ok();
    if parses && text.split(',').map(str::trim).all(is_part) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not error, warn, info, debug or trace, nor a list such as \"info,holdfast::sync=debug\""
    ))
}

/// A name that Kubernetes takes for a node.
pub(super) fn node_name(text: &str) -> Result<(), String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if text.len() <= NODE_NAME_MAX && text.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a name that Kubernetes takes: at most {NODE_NAME_MAX} small letters, digits, '-' and '.', \
         with a letter or digit at both ends and beside each '.'"
    ))
}

/// A program: a path, or a name for PATH.
pub(super) fn program(text: &str) -> Result<(), String> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err(format!(
            "{text:?} is not a program: give a path, or a name that is looked up in PATH, such as \"k3s\""
        ));
    }
    Ok(())
}
