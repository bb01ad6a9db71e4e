//! Checks the signatures of an event with its servers' keys.

use std::collections::BTreeSet;

use ruma::{CanonicalJsonValue, signatures::required_server_signatures_to_verify_event};

use super::{
    SignedEvent,
    hash::signed_text,
    keys::{ServerKeys, fits, signatures_of},
};

/// All servers that must have signed an event did so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Each server and the id of the key.
    pub signatures: Vec<(String, String)>,
}

/// Why the signatures of an event do not prove who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Nobody knows whose signature it needs.
    #[error("it does not say whose signature it needs: {0}")]
    NoServer(&'static str),
    /// A server that must have signed it did not.
    #[error("{server} did not sign it")]
    NotSigned {
        /// The server.
        server: String,
    },
    /// The keys are not known: nothing can be said about the signature.
    #[error("the key {} of {server} is not known, so its signature cannot be checked", .key_ids.join(", "))]
    NoKey {
        /// The server.
        server: String,
        /// The keys that it signed with.
        key_ids: Vec<String>,
    },
    /// The event is dated after the time until which the key is known to be valid. That counts from room
    /// version 5 on.
    #[error("the key {key_id} of {server} is not known to be valid at the time of the event")]
    KeyNotValid {
        /// The server.
        server: String,
        /// The key.
        key_id: String,
        /// Whether the server says that it no longer used the key then. If not, a newer list of its keys may
        /// say more; an event may also be dated into the future.
        is_expired: bool,
    },
    /// The event was changed, or is not by this server.
    #[error("the signature of {server} with the key {key_id} does not fit it")]
    Wrong {
        /// The server.
        server: String,
        /// The key.
        key_id: String,
    },
}

impl Unverified {
    /// Whether nothing can be said about the event, because a key or its validity is not known.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::NoKey { .. } | Self::KeyNotValid { is_expired: false, .. })
    }
}

impl SignedEvent {
    /// The servers that must have signed the event: the sender's. Up to room version 2 also that of the
    /// event's id, and for a join of a restricted room that of the member who let them in.
    ///
    /// # Errors
    /// If a user id in it is no user id.
    pub fn signers(&self) -> Result<BTreeSet<String>, Unverified> {
        let servers = required_server_signatures_to_verify_event(&self.object, &self.rules.signatures);
        let servers = servers.map_err(|_| Unverified::NoServer("an id in it has no server"))?;
        Ok(servers.into_iter().map(|server| server.to_string()).collect())
    }

    /// The keys with which those servers signed the event: server and key id.
    ///
    /// # Errors
    /// As [`SignedEvent::signers`].
    pub fn signing_keys(&self) -> Result<BTreeSet<(String, String)>, Unverified> {
        let mut keys = BTreeSet::new();
        for server in self.signers()? {
            let ids = signatures_of(&self.object, &server).map(|(id, _)| (server.clone(), id.clone()));
            keys.extend(ids.collect::<Vec<_>>());
        }
        Ok(keys)
    }

    /// Checks that each server that must have signed the event did so with a key that was valid then. Every
    /// signature of such a server with a known and valid key must fit.
    ///
    /// # Errors
    /// The first server whose signature does not prove anything.
    pub fn verify_signatures(&self, keys: &ServerKeys) -> Result<Verified, Unverified> {
        let text = signed_text(&self.object, Some(&self.rules.redaction), &["signatures", "unsigned"]);
        let text = text.ok_or(Unverified::NoServer("it has no type"))?;
        let mut signatures = Vec::new();
        for server in self.signers()? {
            signatures.extend(self.verify_server(&server, keys, &text)?);
        }
        Ok(Verified { signatures })
    }

    /// The signatures that [`SignedEvent::verify_signatures`] does not need: server, key id, and whether it
    /// fits. `None`: nobody can tell.
    pub(super) fn other_signatures<'e>(&'e self, keys: &ServerKeys) -> Vec<(&'e str, &'e str, Option<bool>)> {
        let text = signed_text(&self.object, Some(&self.rules.redaction), &["signatures", "unsigned"]);
        let text = text.unwrap_or_default();
        let needed = self.signers().unwrap_or_default();
        let servers = self.object.get("signatures").and_then(CanonicalJsonValue::as_object);
        let mut others = Vec::new();
        for (server, signatures) in servers.into_iter().flatten() {
            for (key_id, signature) in signatures.as_object().into_iter().flatten() {
                let key = keys.get(server, key_id);
                if needed.contains(server) && key.is_some() {
                    continue;
                }
                let fits =
                    key.map(|key| fits(&key.public_key, signature.as_str().unwrap_or_default(), &text));
                others.push((server.as_str(), key_id.as_str(), fits));
            }
        }
        others
    }

    fn verify_server(
        &self,
        server: &str,
        keys: &ServerKeys,
        text: &str,
    ) -> Result<Vec<(String, String)>, Unverified> {
        let (mut good, mut unknown, mut invalid) = (Vec::new(), Vec::new(), None);
        for (key_id, signature) in signatures_of(&self.object, server) {
            let Some(key) = keys.get(server, key_id) else {
                unknown.push(key_id.clone());
                continue;
            };
            // Before version 5 a key counts at any time (specification, room version 5, "Signing key validity
            // period").
            let is_late = self.origin_server_ts().is_none_or(|sent| sent > key.valid_until);
            if self.rules.enforce_key_validity && is_late {
                invalid = Some((key_id.clone(), key.is_expired));
            } else if fits(&key.public_key, signature, text) {
                good.push((server.to_owned(), key_id.clone()));
            } else {
                return Err(Unverified::Wrong { server: server.to_owned(), key_id: key_id.clone() });
            }
        }
        let server = server.to_owned();
        match invalid {
            _ if !good.is_empty() => Ok(good),
            _ if !unknown.is_empty() => Err(Unverified::NoKey { server, key_ids: unknown }),
            Some((key_id, is_expired)) => Err(Unverified::KeyNotValid { server, key_id, is_expired }),
            None => Err(Unverified::NotSigned { server }),
        }
    }
}
