//! Where a token comes from, and how it is wiped once it is spent.

use crate::{codes, settings::Enrolment};
use holdfast_protocol::{Problem, token::EnrolmentToken};
use std::{
    env, fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// The most bytes that are read of a token's source. A token has about 300.
const MAX_SOURCE_BYTES: u64 = 64 * 1024;

/// Name of the kernel's argument that carries a token.
pub const KERNEL_ARGUMENT: &str = "holdfast.token=";

/// Where a token came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// An argument of the command, or the body of a request to the local API.
    Given,
    /// A file, which is wiped.
    File(PathBuf),
    /// A systemd credential.
    Credential(PathBuf),
    /// The kernel command line.
    KernelCommandLine(PathBuf),
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("the given text"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Credential(path) => write!(f, "the systemd credential {}", path.display()),
            Self::KernelCommandLine(path) => write!(f, "the kernel command line {}", path.display()),
        }
    }
}

/// A token and where it came from.
#[derive(Clone, Debug)]
pub struct FoundToken {
    /// The token.
    pub token: EnrolmentToken,
    /// Its source.
    pub source: TokenSource,
}

/// Reads a token from text; a wrong one is a problem with its own code.
pub fn parse(text: &str) -> Result<EnrolmentToken, Problem> {
    text.parse()
        .map_err(|error: holdfast_protocol::token::InvalidToken| {
            Problem::new(
                error.code(),
                error.to_string(),
                "copy the token again, whole, or make a new one: holdfastctl token create",
            )
        })
}

/// Reads a token from a file that a person named.
pub fn from_file(path: &Path) -> Result<FoundToken, Problem> {
    let text = read(path).map_err(|error| unreadable(path, &error))?;
    Ok(FoundToken {
        token: parse(&text)?,
        source: TokenSource::File(path.to_owned()),
    })
}

/// Reads a token from the standard input of the command.
pub fn from_stdin() -> Result<FoundToken, Problem> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(MAX_SOURCE_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(Path::new("standard input"), &error))?;
    Ok(FoundToken {
        token: parse(&text)?,
        source: TokenSource::Given,
    })
}

/// Looks where an unattended box may find its token: the file of the settings, the systemd credential, the kernel command line. The
/// first that holds anything counts, right or wrong; `None` where nothing is anywhere.
pub fn find(settings: &Enrolment) -> Option<Result<FoundToken, Problem>> {
    find_in(
        settings,
        env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).as_deref(),
    )
}

fn find_in(settings: &Enrolment, credentials: Option<&Path>) -> Option<Result<FoundToken, Problem>> {
    if let Some(path) = &settings.token_file
        && let Some(found) = look(path, |text| Some(text.to_owned()), TokenSource::File)
    {
        return Some(found);
    }
    if let Some(directory) = credentials
        && !settings.credential.is_empty()
        && let Some(found) = look(
            &directory.join(&settings.credential),
            |text| Some(text.to_owned()),
            TokenSource::Credential,
        )
    {
        return Some(found);
    }
    look(
        &settings.kernel_command_line,
        kernel_argument,
        TokenSource::KernelCommandLine,
    )
}

fn look(
    path: &Path,
    pick: impl Fn(&str) -> Option<String>,
    source: impl Fn(PathBuf) -> TokenSource,
) -> Option<Result<FoundToken, Problem>> {
    let text = match read(path) {
        Ok(text) => pick(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(unreadable(path, &error))),
    };
    // An emptied file is what is left of a spent token where it could not be removed.
    if text.trim().is_empty() {
        return None;
    }
    Some(parse(&text).map(|token| FoundToken {
        token,
        source: source(path.to_owned()),
    }))
}

fn kernel_argument(command_line: &str) -> Option<String> {
    command_line
        .split_ascii_whitespace()
        .find_map(|word| word.trim_matches('"').strip_prefix(KERNEL_ARGUMENT))
        .map(str::to_owned)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_SOURCE_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        codes::TOKEN_UNREADABLE,
        format!("cannot read a token from {}: {error}", path.display()),
        "check that it is there, readable, and holds nothing but the token",
    )
}

/// What became of a spent token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wiped {
    /// Nothing is left of it, or there never was anything to wipe.
    Gone,
    /// Something is left; the text says what a person should do. The token is of no use to anyone any more: it is spent.
    Left(String),
}

impl TokenSource {
    /// Wipes a spent token: its file is emptied, synced and removed.
    pub fn wipe(&self) -> Wiped {
        match self {
            Self::Given => Wiped::Gone,
            Self::File(path) => wipe_file(path),
            Self::Credential(path) => Wiped::Left(format!(
                "the spent token stays in the systemd credential {}; remove it from where the unit loads it",
                path.display()
            )),
            Self::KernelCommandLine(_) => Wiped::Left(format!(
                "the spent token stays on the kernel command line; remove {KERNEL_ARGUMENT}… from the boot configuration"
            )),
        }
    }
}

fn wipe_file(path: &Path) -> Wiped {
    let emptied = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(0)?;
        file.sync_all()
    });
    let removed = fs::remove_file(path).and_then(|()| {
        let directory = match path.parent() {
            // A bare file name is in the working directory.
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("/"),
        };
        File::open(directory)?.sync_all()
    });
    match (emptied, removed) {
        (_, Ok(())) => Wiped::Gone,
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Wiped::Gone,
        (Ok(()), Err(error)) => Wiped::Left(format!(
            "the token file {} was emptied but cannot be removed: {error}",
            path.display()
        )),
        (Err(error), Err(_)) => Wiped::Left(format!(
            "the spent token in {} cannot be wiped: {error}; remove it by hand",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::{Digest, codes as shared};
    use std::os::unix::fs::PermissionsExt as _;

    fn token(id: &str) -> String {
        EnrolmentToken {
            hub_url: "https://hub.example:8443".into(),
            ca_pin: Some(Digest::of(b"key")),
            id: id.into(),
            secret: [7; 32],
        }
        .to_string()
    }

    fn put(path: &Path, text: &str) {
        File::create(path)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
            .unwrap();
    }

    fn nowhere(directory: &Path) -> Enrolment {
        Enrolment {
            kernel_command_line: directory.join("cmdline"),
            token_file: Some(directory.join("token")),
            ..Enrolment::default()
        }
    }

    #[test]
    fn each_source_is_found_and_the_file_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let credentials = directory.path().join("credentials");
        fs::create_dir(&credentials).unwrap();
        let settings = nowhere(directory.path());
        let found = || find_in(&settings, Some(&credentials));
        assert!(found().is_none(), "nothing is anywhere");

        put(
            &settings.kernel_command_line,
            &format!("quiet root=/dev/sda1 holdfast.token={} ro\n", token("kernel")),
        );
        let kernel = found().unwrap().unwrap();
        assert_eq!(kernel.token.id, "kernel");
        assert!(matches!(kernel.source.wipe(), Wiped::Left(text) if text.contains("boot configuration")));

        put(&credentials.join("holdfast.token"), &token("credential"));
        let credential = found().unwrap().unwrap();
        assert_eq!(credential.token.id, "credential");
        assert!(matches!(credential.source, TokenSource::Credential(_)));

        put(
            settings.token_file.as_ref().unwrap(),
            &format!("{}\n", token("file")),
        );
        assert_eq!(found().unwrap().unwrap().token.id, "file");
    }

    #[test]
    fn a_spent_token_file_is_gone_and_does_not_hide_other_sources() {
        let directory = tempfile::tempdir().unwrap();
        let settings = nowhere(directory.path());
        let path = settings.token_file.clone().unwrap();
        put(&path, &token("file"));
        let found = find_in(&settings, None).unwrap().unwrap();
        assert_eq!(found.source.wipe(), Wiped::Gone);
        assert!(!path.exists());
        assert_eq!(found.source.wipe(), Wiped::Gone, "wiping twice is fine");
        put(&path, "\n");
        assert!(find_in(&settings, None).is_none(), "an emptied file is no token");
    }

    #[test]
    fn a_token_file_in_the_working_directory_is_wiped_as_any_other() {
        // In the package's directory, where tests run: what names a file without a directory cannot be elsewhere.
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        let name = Path::new(file.path().file_name().unwrap());
        assert_eq!(wipe_file(name), Wiped::Gone);
        assert!(!file.path().exists());
    }

    #[test]
    fn a_token_file_that_cannot_be_removed_is_emptied_and_named() {
        if nix::unistd::geteuid().is_root() {
            // Root removes files from read-only directories; a directory in place of the file cannot be wiped by anyone.
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("token");
            fs::create_dir(&path).unwrap();
            assert!(matches!(wipe_file(&path), Wiped::Left(text) if text.contains("by hand")));
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        put(&path, &token("file"));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
        assert!(matches!(wipe_file(&path), Wiped::Left(text) if text.contains("emptied")));
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn a_wrong_token_is_named_by_what_is_wrong_with_it() {
        let whole = token("file");
        let code = |text: &str| parse(text).unwrap_err().code;
        assert_eq!(code(&whole[..whole.len() - 3]), shared::TOKEN_TRUNCATED);
        assert_eq!(code("hf9.abc"), shared::TOKEN_MALFORMED);
        assert_eq!(code("not a token"), shared::TOKEN_MALFORMED);
        let directory = tempfile::tempdir().unwrap();
        let settings = nowhere(directory.path());
        put(&settings.kernel_command_line, "holdfast.token=nonsense");
        assert!(
            find_in(&settings, None).unwrap().is_err(),
            "a wrong token is said, not passed over"
        );
        let missing = from_file(&directory.path().join("missing")).unwrap_err();
        assert_eq!(missing.code, codes::TOKEN_UNREADABLE);
    }
}
