//! A `/sync` response that is read while it arrives.

use std::collections::VecDeque;

use super::{Error, Token, response::Pieces, splitter::Splitter, sync_response::SyncBatch};

/// The most bytes of a response in memory. A response is kept until its end only if `next_batch` is not at its
/// beginning.
const KEPT: usize = 512 << 20;

/// A response whose rooms are read in parts. What is not read yet stays with the server.
#[derive(Debug)]
pub struct SyncStream {
    pieces: Pieces,
    /// `None` once the response was read to its end.
    splitter: Option<Splitter>,
    ready: VecDeque<Vec<u8>>,
    next_batch: Option<Token>,
    /// Whether rooms may be returned before `next_batch` is known.
    is_first: bool,
}

impl SyncStream {
    pub(super) fn new(pieces: Pieces, is_first: bool) -> Self {
        let splitter = Some(Splitter::new());
        Self { pieces, splitter, ready: VecDeque::new(), next_batch: None, is_first }
    }

    /// The `since` of the next request. It is known after the first [part](Self::next). For a first response, it is
    /// known after the [last](Self::is_done) part.
    pub fn next_batch(&self) -> Option<&Token> {
        self.next_batch.as_ref()
    }

    /// Whether all parts were returned.
    pub fn is_done(&self) -> bool {
        self.splitter.is_none() && self.ready.is_empty()
    }

    /// The next part, which may have no rooms.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not such a response, or an error of the connection. Earlier parts stay valid.
    pub async fn next(&mut self) -> Result<SyncBatch, Error> {
        while self.splitter.is_some()
            && (self.ready.is_empty() || !(self.is_first || self.next_batch.is_some()))
        {
            self.read().await?;
        }
        let portion = self.ready.pop_front().unwrap_or_default();
        // Parsed on another thread: it takes milliseconds, in which this task would do nothing else.
        let batch = tokio::task::spawn_blocking(move || SyncBatch::read(&portion));
        batch.await.map_err(|_| Error::Malformed("/sync: reading it failed".to_owned()))?
    }

    /// All remaining parts as one.
    ///
    /// # Errors
    /// As [`SyncStream::next`].
    pub async fn read_all(mut self) -> Result<SyncBatch, Error> {
        let mut whole = self.next().await?;
        while !self.is_done() {
            let next = self.next().await?;
            whole.rooms.extend(next.rooms);
            whole.set_aside.extend(next.set_aside);
            whole.rooms_unreadable |= next.rooms_unreadable;
            whole.to_device.extend(next.to_device);
            whole.published_keys = whole.published_keys.or(next.published_keys);
        }
        whole.next_batch = self.next_batch;
        Ok(whole)
    }

    /// Reads ahead to the end of the response, or until so many bytes wait to be taken.
    ///
    /// # Errors
    /// As [`SyncStream::next`].
    pub(crate) async fn read_ahead(&mut self, most_bytes: usize) -> Result<(), Error> {
        while self.splitter.is_some() && self.waiting_bytes() < most_bytes {
            self.read().await?;
        }
        Ok(())
    }

    fn waiting_bytes(&self) -> usize {
        self.ready.iter().map(Vec::len).sum()
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
                "a room in a sync response is too large; requesting its state instead"
            );
        }
        // If it occurs twice, the last one counts, as in most JSON parsers.
        if (self.next_batch.is_none() || piece.is_none())
            && let Some(token) = splitter.next_batch()
        {
            self.next_batch = Some(SyncBatch::read_token(token)?);
        }
        if self.waiting_bytes() > KEPT {
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
