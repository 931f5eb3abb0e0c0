//! The seed: the one document that does not come from a hub, but from the image that the box was flashed with.
//!
//! In: the release that the image holds, and a key that is made for it, signs it once and is dropped. Out: a verified document like any other,
//! which the store takes and a restart checks again. Guarantees: it has [`SEED_GENERATION`], below every one that a hub gives, so it is taken
//! only where no document was accepted before, and the first one of a hub replaces it; it has a payload type of its own, so nothing that comes
//! over a link can pass for it, and its key can vouch for nothing else.

use super::{Admission, Highest, Rejection, VerifiedDocument, in_order, open};
use holdfast_protocol::{
    Generation, NodeId,
    document::{DesiredState, InvalidDocument},
    envelope::Envelope,
    trust::{Role, TrustPolicy, TrustedKey},
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};

/// Payload type of a seed.
pub const SEED_TYPE: &str = "application/vnd.holdfast.seed.v1+json";
/// The generation of every seed. Those of hubs begin with 1.1.
pub const SEED_GENERATION: Generation = Generation { epoch: 0, counter: 1 };

/// What vouches for the seed of this box, kept beside its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedTrust {
    /// The name that the box gave itself for it.
    pub node: NodeId,
    /// The public half of the key that signed it.
    pub key: TrustedKey,
}

impl SeedTrust {
    fn policy(&self) -> TrustPolicy {
        TrustPolicy {
            keys: vec![self.key.clone()],
            ..TrustPolicy::default()
        }
    }
}

/// Signs a seed with a key that was made for it. It is given away here, so that nothing else is signed by it.
///
/// # Errors
/// Where the state cannot be written as JSON.
#[allow(clippy::needless_pass_by_value)]
pub fn sign(state: &DesiredState, key: Ed25519KeyPair) -> Result<(Vec<u8>, SeedTrust), serde_json::Error> {
    let payload = serde_json::to_vec(state)?;
    let trust = SeedTrust {
        node: state.node.clone(),
        key: TrustedKey::ed25519(key.public_key().as_ref(), vec![Role::DesiredState]),
    };
    Ok((Envelope::sign(SEED_TYPE, payload, &[&key]).to_json(), trust))
}

/// Decides on a seed: it is taken where no document was accepted before, or where it is the one that was and the store lost it.
pub fn admit(bytes: &[u8], trust: &SeedTrust, highest: Option<Highest>) -> Result<Admission, Box<Rejection>> {
    in_order(readmit(bytes, trust)?, highest)
}

/// Checks a stored seed again, as [`super::readmit`] does with documents of a hub.
pub fn readmit(bytes: &[u8], trust: &SeedTrust) -> Result<VerifiedDocument, Box<Rejection>> {
    open(bytes, SEED_TYPE, &trust.policy(), &trust.node)
}

/// The rules of documents, with the generation of seeds.
pub(super) fn validate(state: &DesiredState) -> Result<(), InvalidDocument> {
    if state.generation != SEED_GENERATION {
        return Err(InvalidDocument {
            place: "generation".to_owned(),
            reason: format!("{} is not that of a seed, {SEED_GENERATION}", state.generation),
        });
    }
    let first = DesiredState {
        generation: Generation { epoch: 1, counter: 1 },
        ..state.clone()
    };
    first.validate()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission;
    use holdfast_protocol::codes;
    use serde_json::json;

    fn state(generation: &str) -> DesiredState {
        serde_json::from_value(json!({
            "schema": "1.0", "node": "shop-17", "generation": generation, "issuedAt": "1970-01-01T00:00:00Z",
            "apps": [{"name": "till", "manifests": [{"inline": [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "till"}}
            ]}]}]
        }))
        .unwrap()
    }

    fn sign(state: &DesiredState, seed: u8) -> (Vec<u8>, SeedTrust) {
        super::sign(state, Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()).unwrap()
    }

    fn code(answer: Result<Admission, Box<Rejection>>) -> String {
        answer.unwrap_err().problem.code.into_owned()
    }

    #[test]
    fn a_seed_is_taken_only_where_no_document_was_accepted_before() {
        let (bytes, trust) = sign(&state("0.1"), 1);
        let Ok(Admission::Accept(seed)) = admit(&bytes, &trust, None) else {
            panic!("it is the first");
        };
        assert_eq!(seed.generation(), SEED_GENERATION);
        let highest = |generation: &str, stored| {
            Some(Highest {
                generation: generation.parse().unwrap(),
                digest: seed.digest(),
                stored,
            })
        };
        assert!(matches!(
            admit(&bytes, &trust, highest("0.1", true)),
            Ok(Admission::Duplicate { .. })
        ));
        // The store lost it: the same one again, though by another key.
        let (again, new_trust) = sign(&state("0.1"), 2);
        assert!(matches!(
            admit(&again, &new_trust, highest("0.1", false)),
            Ok(Admission::Accept(_))
        ));
        assert_eq!(
            code(admit(&bytes, &trust, highest("1.1", true))),
            codes::GENERATION_OLDER
        );
        assert_eq!(readmit(&bytes, &trust).unwrap(), seed);
    }

    #[test]
    fn nothing_but_the_seed_itself_passes_for_one_and_it_passes_for_nothing_else() {
        let (bytes, trust) = sign(&state("0.1"), 1);
        // By its own key, it is still no document of a hub.
        assert_eq!(
            code(admission::admit(&bytes, &trust.policy(), &trust.node, None)),
            codes::PAYLOAD_TYPE_UNKNOWN
        );
        let (_, other) = sign(&state("0.1"), 2);
        assert_eq!(code(admit(&bytes, &other, None)), codes::SIGNATURE_INVALID);
        let (higher, trust) = sign(&state("1.9"), 3);
        assert_eq!(code(admit(&higher, &trust, None)), codes::DOCUMENT_INVALID);
        let mut changed = Envelope::from_json(&bytes).unwrap();
        changed.payload = serde_json::to_vec(&state("0.1")).unwrap();
        changed.payload.push(b' ');
        assert_eq!(
            code(admit(&changed.to_json(), &trust, None)),
            codes::SIGNATURE_INVALID
        );
    }
}
