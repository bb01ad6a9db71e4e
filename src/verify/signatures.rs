//! The signatures of events, checked with their servers' keys. The homeserver is asked for the keys. Each list of keys
//! counts only if its server has signed it.

use std::collections::{BTreeMap, HashSet};

use super::{report::Report, room::Verifier};
use crate::{
    Error,
    archive::verification::Finding,
    matrix::proof::{ServerKeys, SignedEvent, Unverified},
};

/// The signatures seen so far.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    keys: ServerKeys,
    asked: HashSet<(String, String)>,
    /// Events that cannot be checked, by the server whose key is missing.
    undecided: BTreeMap<String, u64>,
}

impl Signatures {
    /// Checks the signatures of events.
    ///
    /// # Errors
    /// An error of the database, where the keys are kept.
    pub(super) async fn check(
        &mut self,
        verifier: &Verifier<'_>,
        events: &[SignedEvent],
        report: &mut Report,
    ) -> Result<(), Error> {
        for event in events {
            self.get_keys(verifier, event).await?;
            match event.verify_signatures(&self.keys) {
                Ok(_) => {}
                Err(
                    Unverified::NoKey { server, .. }
                    | Unverified::KeyNotValid { server, is_expired: false, .. },
                ) => {
                    *self.undecided.entry(server).or_default() += 1;
                }
                Err(error) => {
                    let detail = Some(error.to_string());
                    report.find(Finding::new("signature does not fit", &event.event_id, detail));
                }
            }
        }
        Ok(())
    }

    /// Asks for the keys that the event needs, each once. What cannot be got counts as not known.
    async fn get_keys(&mut self, verifier: &Verifier<'_>, event: &SignedEvent) -> Result<(), Error> {
        for (server, key_id) in event.signing_keys().unwrap_or_default() {
            if !self.asked.insert((server.clone(), key_id.clone())) {
                continue;
            }
            let sent_at = event.origin_server_ts().unwrap_or_default();
            match verifier.client.server_keys(&server, &[&key_id], sent_at).await {
                Ok(lists) => {
                    for list in &lists {
                        self.keys.add(list);
                    }
                    if let Some(keeper) = verifier.keeper {
                        keeper.keep_server_keys(&lists).await?;
                    }
                }
                Err(error) => tracing::warn!(%error, server, "the homeserver does not give a server's keys"),
            }
        }
        Ok(())
    }

    /// Notes what could not be checked, and begins anew for another room. Returns whether everything was checked.
    pub(super) fn conclude(&mut self, report: &mut Report) -> bool {
        let undecided = std::mem::take(&mut self.undecided);
        for (server, count) in &undecided {
            report.note(format!(
                "the signatures of {count} events cannot be checked: the homeserver does not give a valid key of {server}"
            ));
        }
        undecided.is_empty()
    }
}
