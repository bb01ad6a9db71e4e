//! Why the events of a day differ from its seal.

use std::collections::HashMap;

use super::{
    leaf_of, named,
    tree::{Hash, fingerprint},
};
use crate::{
    Error,
    archive::{Archive, seal::EventOfDay, verification::Finding},
};

/// After so many findings in a day, the others are not looked into any further.
const MANY: usize = 100;

/// What a day's newest seal says, less what was met again.
struct Leaves {
    /// How often each leaf is not met yet, by its first eight bytes.
    left: HashMap<u64, u32>,
    /// Events of the seal that are here with another leaf.
    changed: u64,
}

/// What has changed in a day since it was sealed without a known reason.
pub(super) async fn unexplained(archive: &Archive, room_id: &str, day: &str) -> Result<Vec<Finding>, Error> {
    let (sealed, since) = archive.newest_seal(room_id, day).await?;
    let mut leaves = Leaves::new(&sealed);
    let mut others = Vec::new();
    let differ = |event: EventOfDay| {
        if !leaves.meet(&event) {
            others.push(event);
        }
    };
    archive.events_of_day(room_id, day, &since, differ).await?;
    let (mut differing, mut maybe_new) = (Vec::new(), Vec::new());
    for event in others {
        let follows_another = match event.position.filter(|_| differing.len() < MANY) {
            Some(position) => {
                let before = archive.events_before(room_id, position).await?;
                leaves.meet_after(&event, &before)
            }
            None => false,
        };
        if !follows_another {
            let list = if event.may_be_new { &mut maybe_new } else { &mut differing };
            list.push(event.event_id);
        }
    }
    leaves.changed += differing.len() as u64;
    // These were stored while the seal was made, or are in it otherwise. The latter only if the seal has more than there is.
    let otherwise = maybe_new.len().min(usize::try_from(leaves.missing()).unwrap_or(usize::MAX));
    differing.extend(maybe_new.drain(..otherwise));
    leaves.changed += otherwise as u64;
    let named_day = || Some(named(day).to_owned());
    let mut found: Vec<Finding> = differing
        .iter()
        .map(|event_id| Finding::new("differs from the seal", event_id, named_day()))
        .collect();
    let missing = leaves.missing();
    if missing > 0 {
        let events = crate::text::count(missing, "event");
        found.push(Finding {
            kind: "missing since the seal".to_owned(),
            event_id: None,
            detail: Some(format!("{events} of {}", named(day))),
        });
    }
    Ok(found)
}

impl Leaves {
    fn new(sealed: &[u8]) -> Self {
        let mut left = HashMap::new();
        for leaf in sealed.as_chunks::<8>().0 {
            *left.entry(u64::from_be_bytes(*leaf)).or_default() += 1;
        }
        Self { left, changed: 0 }
    }

    /// Whether an event is as it was sealed, or differs because it was stored, placed, redacted, erased or
    /// replaced by a better copy since.
    fn meet(&mut self, event: &EventOfDay) -> bool {
        let before = event.event_before.as_deref();
        let is_placed = event.position.is_some();
        if self.take(leaf_of(is_placed, before, &event.event_id, &event.stable_sha256))
            || is_placed && self.take(leaf_of(false, None, &event.event_id, &event.stable_sha256))
        {
            return true;
        }
        if event.is_changed && !event.is_new {
            self.changed += 1;
        }
        event.is_new || event.is_changed
    }

    /// Whether an event is as it was sealed, but events were stored or placed before it since. Each of them is compared
    /// with its own seal.
    fn meet_after(&mut self, event: &EventOfDay, before: &[String]) -> bool {
        let first = std::iter::once("");
        before
            .iter()
            .map(String::as_str)
            .chain(first)
            .any(|before| self.take(leaf_of(true, Some(before), &event.event_id, &event.stable_sha256)))
    }

    fn take(&mut self, leaf: Hash) -> bool {
        match self.left.get_mut(&fingerprint(&leaf)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// How many events of the seal are here no more.
    fn missing(&self) -> u64 {
        let left: u64 = self.left.values().copied().map(u64::from).sum();
        left.saturating_sub(self.changed)
    }
}
