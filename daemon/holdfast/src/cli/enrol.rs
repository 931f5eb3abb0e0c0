//! `holdfast enrol`: by the running daemon, or by itself where none runs.

use super::{
    Common, EnrolArguments, Exit, Output,
    exit::say,
    query::{Done, show},
};
use crate::{
    codes,
    enrol::{
        client::enrol,
        token::{self, FoundToken, TokenSource, Wiped},
    },
    identity::{self, clock::TimeFloor},
    local_api::{
        client::{LocalError, ask},
        view::{EnrolOrder, EnrolResult},
    },
    settings::Settings,
};
use holdfast_protocol::{Problem, codes as shared};
use holdfast_store::StateLock;
use http::Method;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
};

pub(super) async fn run(arguments: EnrolArguments, common: &Common) -> Done {
    let settings = common.settings()?;
    let found = find(&arguments, &settings)?;
    let order = EnrolOrder {
        token: found.token.to_string(),
    };
    let body =
        serde_json::to_vec(&order).map_err(|error| Problem::new(shared::INTERNAL, error.to_string(), ""))?;
    let mut result = match ask(&settings.socket, Method::POST, "/v1/enrol", body).await {
        Ok(answer) => serde_json::from_slice::<EnrolResult>(&answer).map_err(|error| {
            Problem::new(
                shared::INTERNAL,
                format!("the daemon's answer cannot be read: {error}"),
                "",
            )
        })?,
        Err(LocalError::Unreachable { source, .. })
            if source.kind() != std::io::ErrorKind::PermissionDenied =>
        {
            without_daemon(&settings, &found).await?
        }
        Err(error) => return Err((&error).into()),
    };
    if let Wiped::Left(note) = found.source.wipe() {
        result.notes.push(note);
    }
    show(common.output, &result, |result| {
        let notes = result.notes.iter().map(|note| ["\nnote: ", note].concat());
        format!(
            "enrolled as {} at {}{}\n",
            result.node,
            result.hub_url,
            notes.collect::<String>()
        )
    })?;
    if common.output == Output::Text && found.source == TokenSource::Given {
        say("the token is spent; it is of no use to anyone any more\n")?;
    }
    Ok(Exit::Done)
}

fn find(arguments: &EnrolArguments, settings: &Settings) -> Result<FoundToken, Problem> {
    match (arguments.token.as_deref(), &arguments.token_file) {
        (_, Some(path)) => token::from_file(path),
        (Some("-"), None) => token::from_stdin(),
        (Some(text), None) if text.starts_with('@') => token::from_file(Path::new(&text[1..])),
        (Some(text), None) => Ok(FoundToken {
            token: token::parse(text)?,
            source: TokenSource::Given,
        }),
        (None, None) => token::find(&settings.enrolment).unwrap_or_else(|| {
            Err(Problem::new(
                codes::TOKEN_MISSING,
                "no token was given, and none was found in token file, systemd credential and kernel command line",
                "make one on the hub (holdfastctl token create) and run: holdfast enrol TOKEN",
            ))
        }),
    }
}

async fn without_daemon(settings: &Settings, found: &FoundToken) -> Result<EnrolResult, Problem> {
    identity::prepare_state_dir(&settings.state_dir).map_err(|error| Problem::from(&error))?;
    // A daemon that runs with another socket has the lock; the key must have one owner.
    let _lock = StateLock::acquire(&settings.state_dir).map_err(|error| error.problem())?;
    let floor = TimeFloor::open(&settings.identity_dir()).map_err(|error| Problem::from(&error))?;
    let enrolled = enrol(settings, &found.token, &floor)
        .await
        .map_err(|error| Problem::from(&error));
    // Also after a failure: the key that was made must be readable for the daemon.
    let given = give_to_owner(&settings.state_dir);
    let identity = enrolled?;
    given.map_err(|error| {
        Problem::new(
            codes::STATE_UNUSABLE,
            format!("enrolled, but the files cannot be given to the owner of the state directory: {error}"),
            format!("run: chown -R --reference={0} {0}", settings.state_dir.display()),
        )
    })?;
    Ok(EnrolResult {
        node: identity.node,
        hub_url: identity.hub_url,
        notes: vec!["no daemon runs; start it: systemctl start holdfast, or holdfast run".into()],
    })
}

/// Gives what root made in the state directory to the directory's owner, who is the daemon's user.
fn give_to_owner(state_dir: &Path) -> std::io::Result<()> {
    let owner = fs::metadata(state_dir)?;
    if !nix::unistd::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let give = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid()));
    give(&state_dir.join("lock"))?;
    let identity = state_dir.join("identity");
    give(&identity)?;
    for entry in fs::read_dir(identity)? {
        give(&entry?.path())?;
    }
    Ok(())
}
