//! Fetches the next pages of a walk while a page is stored: one page, or a few more if the server is faster than the
//! database. Several pages are then stored in one transaction, which is cheaper for the database.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use foldhash::{HashSet, HashSetExt as _};
use ruma::OwnedRoomId;
use tokio::sync::SemaphorePermit;

use crate::{
    Error,
    archive::{Walk, WalkKind},
    context::Context,
    fetch::{self, page_size::PageSize},
    matrix::{Page, Token},
};

/// The most pages in one transaction. With more of them, each page's share of the transaction's cost is hardly smaller.
const TOGETHER: usize = 4;
/// The result of a request.
pub(super) struct Fetched<'c> {
    from: Option<String>,
    /// One page, or several as one.
    pub(super) page: Result<Page, Error>,
    /// The time that the request took.
    pub(super) took: Duration,
    /// The permit for the page's memory, held until the page is stored.
    spare: Option<SemaphorePermit<'c>>,
}

/// A request under way. Its future resolves to `None` if the daemon shuts down.
struct Asked<'c> {
    from: Option<String>,
    answer: Pin<Box<dyn Future<Output = Option<Fetched<'c>>> + Send + 'c>>,
}

/// The fetched pages of one walk, and the request under way. There is no other request for the room meanwhile.
pub(super) struct Ahead<'c> {
    context: &'c Context,
    room_id: &'c OwnedRoomId,
    /// In the walk's order: each was requested from the `end` of the one before. A failure comes last.
    fetched: VecDeque<Fetched<'c>>,
    asked: Option<Asked<'c>>,
}

impl<'c> Ahead<'c> {
    pub(super) fn new(context: &'c Context, room_id: &'c OwnedRoomId) -> Self {
        Self { context, room_id, fetched: VecDeque::new(), asked: None }
    }

    /// The next page, or several as one, for `walk` to store. `None`: the daemon shuts down.
    pub(super) async fn next(&mut self, walk: &Walk, size: &mut PageSize) -> Option<Fetched<'c>> {
        let fetched = self.fetched.front().map(|fetched| &fetched.from);
        let from = fetched.or(self.asked.as_ref().map(|asked| &asked.from));
        // After a pause, or if the walk continues elsewhere, the fetched pages are dropped and requested again.
        if from != Some(&walk.cursor) || walk.due_in_s > 0.0 {
            self.finish_request().await;
            self.fetched.clear();
            self.ask(walk, walk.cursor.clone(), size, None);
        }
        if self.fetched.is_empty() {
            let fetched = self.asked.as_mut()?.answer.as_mut().await;
            self.receive(fetched, size);
        }
        let mut next = self.fetched.pop_front()?;
        let Ok(page) = &mut next.page else { return Some(next) };
        let others = self.fetched.iter().map_while(|fetched| fetched.page.as_ref().ok());
        let together =
            if self.may_have_more(walk) { go_on(std::iter::once(&*page).chain(others)) } else { 1 };
        for Fetched { page: other, took, spare, .. } in self.fetched.drain(..together.saturating_sub(1)) {
            // None of these is an error.
            let Ok(other) = other else { continue };
            page.append(other);
            next.took += took;
            match (&mut next.spare, spare) {
                (Some(held), Some(spare)) => held.merge(spare),
                (held, spare) => *held = held.take().or(spare),
            }
        }
        Some(next)
    }

    /// Fetches the pages after `page` while `store` stores it.
    pub(super) async fn during<T>(
        &mut self,
        store: impl Future<Output = T>,
        walk: &Walk,
        page: &Page,
        size: &mut PageSize,
    ) -> T {
        tokio::pin!(store);
        loop {
            self.ask_on(walk, page, size);
            let Some(asked) = &mut self.asked else { return store.await };
            tokio::select! {
                biased;
                stored = &mut store => return stored,
                fetched = asked.answer.as_mut() => self.receive(fetched, size),
            }
        }
    }

    /// Waits for the request under way, so that the next walk in the room does not send a second one.
    pub(super) async fn finish_request(&mut self) {
        if let Some(asked) = self.asked.take() {
            asked.answer.await;
        }
    }

    fn ask_on(&mut self, walk: &Walk, stored: &Page, size: &PageSize) {
        if self.asked.is_some() || self.context.shutdown.is_cancelled() {
            return;
        }
        let (from, end, spare) = match self.fetched.back() {
            None => (walk.cursor.as_deref(), stored.end.as_ref(), None),
            Some(Fetched { from, page: Ok(last), .. }) => {
                let few = self.fetched.len() < TOGETHER && self.may_have_more(walk);
                let Some(spare) = few.then(|| self.context.spare_pages.take()).flatten() else {
                    return;
                };
                (from.as_deref(), last.end.as_ref(), Some(spare))
            }
            Some(_) => return,
        };
        if let Some(end) = end.map(Token::as_str).filter(|end| Some(*end) != from) {
            self.ask(walk, Some(end.to_owned()), size, spare);
        }
    }

    fn ask(
        &mut self,
        walk: &Walk,
        from: Option<String>,
        size: &PageSize,
        spare: Option<SemaphorePermit<'c>>,
    ) {
        let (context, room_id) = (self.context, self.room_id);
        let to = walk.to().map(str::to_owned);
        let (asked_from, size) = (from.clone(), *size);
        let answer = Box::pin(async move {
            let answer =
                fetch::page::page(context, room_id, asked_from.as_deref(), to.as_deref(), size).await;
            answer.map(|(page, took)| Fetched { from: asked_from, page, took, spare })
        });
        self.asked = Some(Asked { from, answer });
    }

    fn receive(&mut self, fetched: Option<Fetched<'c>>, size: &mut PageSize) {
        self.asked = None;
        if let Some(Fetched { page: Ok(page), took, .. }) = &fetched {
            size.after_page(page, *took);
        }
        self.fetched.extend(fetched);
    }

    /// Whether several pages may be stored in one transaction. Only in a history whose events are all new, so that
    /// each page belongs below the one before; and only while no room is active, because live messages would wait for
    /// the transaction.
    fn may_have_more(&self, walk: &Walk) -> bool {
        let is_history = walk.kind == WalkKind::History && walk.is_fresh();
        is_history && walk.upper_position.is_some() && !self.context.active_rooms.is_anywhere()
    }
}

/// How many of these pages can be stored as one longer page. Each was requested from the `end` of the one before.
/// None may be empty or repeat an event, and the walk must continue after the last.
fn go_on<'p>(pages: impl Iterator<Item = &'p Page>) -> usize {
    let mut seen = HashSet::new();
    let mut from = None;
    pages
        .take_while(|page| {
            let goes_on = page.end.is_some() && page.end.as_ref() != from && !page.chunk.events.is_empty();
            from = page.end.as_ref();
            goes_on && page.chunk.events.iter().all(|event| seen.insert(event.event_id.as_str()))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(event_ids: &[&str], end: Option<&str>) -> Page {
        let event = |id| format!(r#"{{"type":"t","sender":"s","event_id":"{id}","content":{{}}}}"#);
        let chunk: Vec<_> = event_ids.iter().map(event).collect();
        let end = end.map_or_else(String::new, |end| format!(r#","end":"{end}""#));
        Page::parse("!r:hs", format!(r#"{{"chunk":[{}]{end}}}"#, chunk.join(",")).as_bytes()).expect("a page")
    }

    #[test]
    fn pages_continue_until_one_repeats_or_brings_nothing() {
        let (first, second) = (page(&["$4", "$3"], Some("t2")), page(&["$2"], Some("t1")));
        let cases = [
            (page(&["$1"], Some("t0")), 3),
            (page(&["$1", "$3"], Some("t0")), 2),
            (page(&["$1", "$1"], Some("t0")), 2),
            (page(&[], Some("t0")), 2),
            (page(&["$1"], None), 2),
            (page(&["$1"], Some("t1")), 2),
        ];
        for (third, expected) in cases {
            let pages = [&first, &second, &third];
            assert_eq!(go_on(pages.into_iter()), expected, "{third:?}");
            let joined = pages[..expected].iter().copied().cloned().reduce(|mut page, next| {
                page.append(next);
                page
            });
            let joined = joined.expect("there is a first page");
            assert_eq!((joined.answers, joined.end.as_ref()), (expected, pages[expected - 1].end.as_ref()));
        }
    }
}
