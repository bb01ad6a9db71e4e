//! The search: brings its index up to date behind the writer, and answers `backscroll search`.

use super::{Archive, Error, Writer};

/// A question to the search.
#[derive(Clone, Debug, Default)]
pub(crate) struct SearchQuery {
    /// Words, phrases in double quotes, and words to exclude after a minus sign.
    pub(crate) words: String,
    /// Only this room.
    pub(crate) room_id: Option<String>,
    /// Only this sender.
    pub(crate) sender: Option<String>,
    /// Not before this time, as PostgreSQL reads it.
    pub(crate) since: Option<String>,
    /// Not after this time.
    pub(crate) until: Option<String>,
    /// The best first, instead of the newest.
    pub(crate) by_rank: bool,
    /// The most results.
    pub(crate) limit: i32,
    /// The texts around each matching part.
    pub(crate) marks: [String; 2],
}

/// A message that was found.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Found {
    /// The room.
    pub(crate) room_id: String,
    /// The room's name, as a client shows it.
    pub(crate) room_name: Option<String>,
    /// The message.
    pub(crate) event_id: String,
    /// Its position in the room's order.
    pub(crate) position: i64,
    /// The sender's user id.
    pub(crate) sender: String,
    /// The sender's name, as a client shows it.
    pub(crate) sender_name: Option<String>,
    /// When it was sent, in UTC, RFC 3339.
    pub(crate) sent_at: Option<String>,
    /// Its text, with marks.
    pub(crate) marked: Option<String>,
    /// How well it matches.
    pub(crate) rank: f32,
}

/// How far the search is behind the archive.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct SearchLag {
    /// Ranges of messages that cannot be found yet.
    pub(crate) queued: i64,
    /// The age of the oldest of them in seconds.
    pub(crate) oldest_s: Option<f64>,
}

impl Archive {
    /// Answers a question.
    pub(crate) async fn search(&self, query: &SearchQuery) -> Result<Vec<Found>, Error> {
        let [mark_start, mark_end] = &query.marks;
        let found = sqlx::query_as!(
            Found,
            r#"select f.room_id as "room_id!", r.display_name as room_name, f.event_id as "event_id!", f.position as "position!",
                      f.sender as "sender!", f.sender_name,
                      to_char(f.sent_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as sent_at,
                      f.marked, f.rank as "rank!"
               from public.search($1, $2, $3, $4::text::timestamptz, $5::text::timestamptz, $6, $7, $8, $9)
                    with ordinality as f (room_id, event_id, position, sender, sender_name, sent_at, body, marked, rank, place)
               left join public.rooms r on r.room_id = f.room_id
               order by f.place"#,
            query.words,
            query.room_id,
            query.sender,
            query.since,
            query.until,
            query.by_rank,
            query.limit,
            mark_start,
            mark_end
        );
        Ok(found.fetch_all(&self.pool).await?)
    }

    /// How far the search is behind the archive.
    pub(crate) async fn search_lag(&self) -> Result<SearchLag, Error> {
        let lag = sqlx::query_as!(
            SearchLag,
            r#"select count(*) as "queued!", extract(epoch from now() - min(queued_at))::float8 as oldest_s
               from archive.search_queue"#
        );
        Ok(lag.fetch_one(&self.pool).await?)
    }
}

/// What the queue of the search has next, all of one room.
#[derive(Clone, Debug)]
pub(crate) struct SearchRanges {
    room_id: String,
    /// Their ids in `archive.search_queue`.
    ranges: Vec<i64>,
}

impl Writer {
    /// What is to be made searchable next, of new messages or of history. `with_failed`: also what has failed alone before.
    pub(crate) async fn next_search_ranges(
        &self,
        with_failed: bool,
        is_live: bool,
    ) -> Result<Option<SearchRanges>, Error> {
        let next = sqlx::query_as!(
            SearchRanges,
            r#"select room_id as "room_id!", ranges as "ranges!" from archive.next_search_ranges($1, $2)
               where room_id is not null"#,
            with_failed,
            is_live
        );
        Ok(next.fetch_optional(&self.archive().pool).await?)
    }

    /// Makes queued messages searchable: reads at most `events` for each run of ranges, and queues the rest again.
    /// `is_live`: they are new messages.
    pub(crate) async fn fill_search(
        &self,
        next: &SearchRanges,
        events: i32,
        is_live: bool,
    ) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "select archive.fill_search($1, $2, $3, $4)",
            next.room_id,
            &next.ranges,
            events,
            is_live
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Sorts what new messages have left into the index of the search.
    pub(crate) async fn sort_search(&self) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!("select archive.sort_search()").execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Puts off what [`fill_search`](Self::fill_search) has failed with. Ranges that failed together are next one by one.
    pub(crate) async fn put_off_search(&self, failed: &SearchRanges) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!("select archive.put_off_search($1, $2)", failed.room_id, &failed.ranges)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}
