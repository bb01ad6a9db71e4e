//! An answer to `/sync` that is read as it comes.

use std::collections::VecDeque;

use super::{Error, Token, response::Pieces, splitter::Splitter, sync_response::SyncBatch};

/// Most bytes of an answer that are in memory: only one without a `next_batch` at its beginning is kept until it ends.
const KEPT: usize = 512 << 20;

/// An answer of which the rooms are taken one portion after the other. What is not taken yet waits with the server.
#[derive(Debug)]
pub struct SyncStream {
    pieces: Pieces,
    /// `None` once the answer was read to its end.
    splitter: Option<Splitter>,
    ready: VecDeque<Vec<u8>>,
    next_batch: Option<Token>,
    /// Whether the rooms may be taken before `next_batch` is known.
    is_first: bool,
}

impl SyncStream {
    pub(super) fn new(pieces: Pieces, is_first: bool) -> Self {
        let splitter = Some(Splitter::new());
        Self { pieces, splitter, ready: VecDeque::new(), next_batch: None, is_first }
    }

    /// `since` of the next request. Known from the first [portion](Self::next) on, but for a first answer: of that it is
    /// when the [last](Self::is_done) was taken.
    pub fn next_batch(&self) -> Option<&Token> {
        self.next_batch.as_ref()
    }

    /// Whether all was taken.
    pub fn is_done(&self) -> bool {
        self.splitter.is_none() && self.ready.is_empty()
    }

    /// The next rooms, and nothing of what follows them; there may be none.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no such answer; whatever the way to the server has. What was taken before stands.
    pub async fn next(&mut self) -> Result<SyncBatch, Error> {
        while self.splitter.is_some()
            && (self.ready.is_empty() || !(self.is_first || self.next_batch.is_some()))
        {
            self.read().await?;
        }
        let portion = self.ready.pop_front().unwrap_or_default();
        // On a thread of its own: reading takes milliseconds, in which this task would store nothing.
        let batch = tokio::task::spawn_blocking(move || SyncBatch::read(&portion));
        batch.await.map_err(|_| Error::Malformed("/sync: reading it failed".to_owned()))?
    }

    /// All that is left, as one.
    ///
    /// # Errors
    /// As [`SyncStream::next`].
    pub async fn read_all(mut self) -> Result<SyncBatch, Error> {
        let mut whole = self.next().await?;
        while !self.is_done() {
            let next = self.next().await?;
            whole.rooms.extend(next.rooms);
            whole.set_aside.extend(next.set_aside);
            whole.rooms_unread |= next.rooms_unread;
        }
        whole.next_batch = self.next_batch;
        Ok(whole)
    }

    async fn read(&mut self) -> Result<(), Error> {
        let Some(splitter) = &mut self.splitter else { return Ok(()) };
        let piece = self.pieces.next().await?;
        if let Some(piece) = &piece {
            splitter.push(piece)?;
        }
        self.ready.extend(splitter.take_ready());
        for room_id in splitter.take_too_large() {
            tracing::warn!(
                room.id = room_id,
                "a room in a sync response is too large to be read; its state is asked for"
            );
        }
        // Should it come twice, the last one counts, as readers of JSON agree.
        if (self.next_batch.is_none() || piece.is_none())
            && let Some(token) = splitter.next_batch()
        {
            self.next_batch = Some(SyncBatch::read_token(token)?);
        }
        if self.ready.iter().map(Vec::len).sum::<usize>() > KEPT {
            return Err(Error::TooLarge { limit_bytes: KEPT });
        }
        if piece.is_none()
            && let Some(splitter) = self.splitter.take()
        {
            self.ready.push_back(splitter.finish()?);
            if self.next_batch.is_none() {
                return Err(Error::Malformed("/sync: no next_batch".to_owned()));
            }
        }
        Ok(())
    }
}
