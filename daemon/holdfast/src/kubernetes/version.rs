//! Versions of k3s: how they are asked for, and which may follow which.
//!
//! In: a program, or two versions. Out: what `--version` says, or how far apart they are. It guarantees that a program which does not
//! answer is ended.

use std::{fmt, path::Path, process::Stdio, str::FromStr, time::Duration};

/// How long k3s may take to print its version: it unpacks itself the first time, on slow cards for many seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// A version, `v1.36.3+k3s1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// 1 for as long as Kubernetes is.
    pub major: u32,
    /// Kubernetes's minor version.
    pub minor: u32,
    /// Kubernetes's patch.
    pub patch: u32,
    /// What follows: `+k3s1`, `-rc1+k3s1`.
    pub rest: String,
}

/// How one version follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// The same, or another patch of the same minor version: each reads what the other wrote.
    SameMinor,
    /// The next minor version.
    NextMinor,
    /// Newer by more than one minor version. Kubernetes does not support that.
    Skips,
    /// An older minor version. It may not read what the newer one wrote.
    Older,
}

/// Not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version of the form v1.36.3+k3s1")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let wrong = || NotAVersion(text.to_owned());
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let end = numbers.find(['+', '-']).unwrap_or(numbers.len());
        let (numbers, rest) = numbers.split_at(end);
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or_else(wrong);
        let version = Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
            rest: rest.to_owned(),
        };
        if numbers.next().is_some() {
            return Err(wrong());
        }
        Ok(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}{}", self.major, self.minor, self.patch, self.rest)
    }
}

impl Version {
    /// How `next` follows this one.
    pub fn skew(&self, next: &Self) -> Skew {
        let (from, to) = ((self.major, self.minor), (next.major, next.minor));
        if to == from {
            Skew::SameMinor
        } else if to < from {
            Skew::Older
        } else if to == (self.major, self.minor + 1) {
            Skew::NextMinor
        } else {
            Skew::Skips
        }
    }
}

/// What the program says of itself: `k3s version v1.36.3+k3s1 (…)`.
///
/// # Errors
/// In words, why it could not be had.
pub async fn ask(program: &Path) -> Result<Version, String> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(PATIENCE, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("it ended with {}", output.status));
    }
    text.split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)
        .ok_or_else(|| format!("it says {:?}", text.chars().take(100).collect::<String>()))?
        .parse()
        .map_err(|error: NotAVersion| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_store::fs::write_atomic;

    #[test]
    fn versions_are_read_and_compared() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(version("v1.36.3+k3s1").to_string(), "v1.36.3+k3s1");
        assert_eq!(version("1.36.0-rc1+k3s1").to_string(), "v1.36.0-rc1+k3s1");
        for wrong in ["", "v1", "v1.36", "v1.x.3", "v1.2.3.4", "k3s"] {
            wrong.parse::<Version>().unwrap_err();
        }
        let now = version("v1.36.3+k3s1");
        assert_eq!(now.skew(&version("v1.36.1+k3s2")), Skew::SameMinor);
        assert_eq!(now.skew(&version("v1.37.0+k3s1")), Skew::NextMinor);
        assert_eq!(now.skew(&version("v1.38.0+k3s1")), Skew::Skips);
        assert_eq!(now.skew(&version("v1.35.9+k3s1")), Skew::Older);
    }

    #[tokio::test]
    async fn a_program_is_asked_and_one_that_says_something_else_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let said = async |script: &str| {
            let path = directory.path().join("k3s");
            write_atomic(&path, script.as_bytes(), 0o755).unwrap();
            ask(&path).await.map(|version| version.to_string())
        };
        let good = "#!/bin/sh\necho 'k3s version v1.37.0+k3s1 (abc)'\necho go version go1.26\n";
        assert_eq!(said(good).await.as_deref(), Ok("v1.37.0+k3s1"));
        assert!(
            said("#!/bin/sh\necho hello\n")
                .await
                .unwrap_err()
                .contains("hello")
        );
        assert!(said("#!/bin/sh\nexit 3\n").await.unwrap_err().contains('3'));
        ask(Path::new("/nowhere/k3s")).await.unwrap_err();
    }
}
