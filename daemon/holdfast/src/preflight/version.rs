//! Whether k3s may go from one version to another.
//!
//! The rule is that of Kubernetes (<https://kubernetes.io/releases/version-skew-policy/>): the API server goes up by one minor version at a
//! time. It never goes down to an older minor version, as its datastore may hold what that one cannot read; the way back of a failed
//! document is another thing, as it brings the datastore's snapshot along.

use super::refused;
use crate::codes;
use holdfast_core::failure::Failure;

pub(super) fn check(running: &str, wanted: &str) -> Result<(), Box<Failure>> {
    let (Some(from), Some(to)) = (minor(running), minor(wanted)) else {
        return Ok(());
    };
    if to.0 != from.0 || to.1 > from.1 + 1 {
        return Err(Box::new(refused(
            codes::KUBERNETES_VERSION_SKIPPED,
            format!("k3s would go from {running} to {wanted} and skip minor versions"),
            "go up by one minor version at a time, each in a release of its own",
        )));
    }
    if to.1 < from.1 {
        return Err(Box::new(refused(
            codes::KUBERNETES_DOWNGRADE,
            format!("k3s would go down from {running} to {wanted}, which may not read what is stored"),
            "use a release with the running minor version; `holdfast rollback` goes back with the datastore's snapshot",
        )));
    }
    Ok(())
}

/// Major and minor version of `v1.33.4+k3s1`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::codes;

    fn code(running: &str, wanted: &str) -> Option<String> {
        check(running, wanted).err().map(|failure| {
            assert!(!failure.retryable);
            failure.problem.code.into_owned()
        })
    }

    #[test]
    fn k3s_goes_up_by_one_minor_version_at_a_time() {
        assert_eq!(code("v1.33.4+k3s1", "v1.34.0+k3s1"), None);
        assert_eq!(
            code("v1.33.4+k3s1", "v1.35.0+k3s1").as_deref(),
            Some(codes::KUBERNETES_VERSION_SKIPPED)
        );
        assert_eq!(
            code("v1.33.4+k3s1", "v2.0.0").as_deref(),
            Some(codes::KUBERNETES_VERSION_SKIPPED)
        );
    }

    #[test]
    fn k3s_goes_down_within_a_minor_version_only() {
        assert_eq!(code("v1.33.4+k3s1", "v1.33.1+k3s2"), None);
        assert_eq!(
            code("v1.33.4+k3s1", "v1.32.9+k3s1").as_deref(),
            Some(codes::KUBERNETES_DOWNGRADE)
        );
    }

    #[test]
    fn what_is_no_version_is_not_judged() {
        assert_eq!(code("unknown", "v1.33.4+k3s1"), None);
    }
}
