//! The database of gomuks, in `SQLite`. Its table `event` has the events as the homeserver gave them, and
//! beside that what was decrypted, which is not read. The table `timeline` orders those that it has seen in a
//! timeline by its row ids. The others, such as the current state, are imported without positions.

use std::path::{Path, PathBuf};

use futures_util::TryStreamExt as _;
use serde_json::value::RawValue;
use sqlx::{
    ConnectOptions as _, Row as _,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow},
};

use super::{BadInput, ForeignRoom, Input, MANY_BYTES, MOST_EVENTS, Portion, created_version, is_room_id};

/// The name of the file in gomuks's data directory.
const FILE: &str = "gomuks.db";
const ROOMS: &str = "select distinct room_id from event order by room_id";
const TABLES: &str =
    "select count(*) from sqlite_schema where type = 'table' and name in ('event', 'timeline')";
// An id with a tilde is that of a message that was not sent.
const TIMELINE: &str = "
    select t.rowid as place, e.rowid as number, e.event_id, e.sender, e.type, e.state_key, e.timestamp,
           e.content, e.unsigned, e.redacted_by
    from timeline t
    join event e on e.rowid = t.event_rowid and e.room_id = t.room_id
    where t.room_id = ? and t.rowid between ? and ? and substr(e.event_id, 1, 1) <> '~'
    order by t.rowid";
const OTHERS: &str = "
    select e.rowid as place, e.rowid as number, e.event_id, e.sender, e.type, e.state_key, e.timestamp,
           e.content, e.unsigned, e.redacted_by
    from event e
    where e.room_id = ? and e.rowid between ? and ? and substr(e.event_id, 1, 1) <> '~'
      and not exists (select 1 from timeline t where t.event_rowid = e.rowid)
    order by e.rowid";

/// Rows that follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    query: &'static str,
    first: i64,
    last: i64,
    pub(super) count: usize,
}

/// The open database. All is read in one transaction.
pub(super) struct Database {
    path: PathBuf,
    connection: SqliteConnection,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the macros check queries against the schema of the archive, and this is another database"
)]
impl Database {
    pub(super) async fn open(path: &Path) -> Result<Self, BadInput> {
        let path = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        std::fs::metadata(&path).map_err(|error| BadInput::io(&path, error))?;
        let options = SqliteConnectOptions::new().filename(&path).read_only(true).disable_statement_logging();
        let mut connection = options.connect().await.map_err(|error| unreadable(&path, &error))?;
        let tables = async {
            sqlx::query("begin").execute(&mut connection).await?;
            sqlx::query(TABLES).fetch_one(&mut connection).await?.try_get::<i64, _>(0)
        };
        if tables.await.map_err(|error| unreadable(&path, &error))? != 2 {
            let problem = "it is not gomuks's database: it lacks the tables `event` and `timeline`";
            return Err(BadInput::new(&path, None, problem));
        }
        Ok(Self { path, connection })
    }

    /// Reads and checks all of it.
    pub(super) async fn read(&mut self, input: &mut Input) -> Result<(), BadInput> {
        let rooms = sqlx::query(ROOMS).fetch_all(&mut self.connection).await;
        for row in rooms.map_err(|error| unreadable(&self.path, &error))? {
            let room_id: Option<String> = row.try_get(0).ok().filter(|room_id: &String| is_room_id(room_id));
            let Some(room_id) = room_id else {
                let place = "table event".to_owned();
                return Err(BadInput::new(&self.path, place, "a room_id is no room id"));
            };
            let mut room_version = None;
            let others = self.portions(OTHERS, &room_id, &mut room_version).await?;
            let timeline = self.portions(TIMELINE, &room_id, &mut room_version).await?;
            input.rooms.push(ForeignRoom { room_id, room_version, timeline, others });
        }
        Ok(())
    }

    /// Reads and checks the rows of a room, and divides them into portions.
    async fn portions(
        &mut self,
        query: &'static str,
        room_id: &str,
        room_version: &mut Option<String>,
    ) -> Result<Vec<Portion>, BadInput> {
        let mut portions: Vec<Rows> = Vec::new();
        let mut bytes = 0;
        let mut rows =
            sqlx::query(query).bind(room_id).bind(i64::MIN).bind(i64::MAX).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await.map_err(|error| unreadable(&self.path, &error))? {
            let event = event(&self.path, &row)?;
            let place = row.try_get("place").map_err(|error| unreadable(&self.path, &error))?;
            if room_version.is_none() {
                *room_version = created_version(&event);
            }
            let length = event.get().len();
            match portions.last_mut() {
                Some(rows) if rows.count < MOST_EVENTS && bytes < MANY_BYTES => {
                    (rows.last, rows.count) = (place, rows.count + 1);
                    bytes += length;
                }
                _ => {
                    portions.push(Rows { query, first: place, last: place, count: 1 });
                    bytes = length;
                }
            }
        }
        Ok(portions.into_iter().map(Portion::Rows).collect())
    }

    /// The events of a portion, oldest first.
    pub(super) async fn events(
        &mut self,
        room_id: &str,
        rows: &Rows,
    ) -> Result<Vec<Box<RawValue>>, BadInput> {
        let query = sqlx::query(rows.query).bind(room_id).bind(rows.first).bind(rows.last);
        let found = query.fetch_all(&mut self.connection).await;
        let found = found.map_err(|error| unreadable(&self.path, &error))?;
        found.iter().map(|row| event(&self.path, row)).collect()
    }
}

fn unreadable(path: &Path, error: &sqlx::Error) -> BadInput {
    let problem = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    };
    BadInput::new(path, None, format!("SQLite cannot read it: {problem}"))
}

/// The event of a row, in the client format.
fn event(path: &Path, row: &SqliteRow) -> Result<Box<RawValue>, BadInput> {
    let number: i64 = row.try_get("number").map_err(|error| unreadable(path, &error))?;
    let bad = |problem: String| BadInput::new(path, format!("table event, row {number}"), problem);
    let wrong =
        |column: &'static str| move |_: sqlx::Error| bad(format!("the column {column} has another type"));
    let text = |column: &'static str| row.try_get::<Option<String>, _>(column).map_err(wrong(column));
    let required =
        |column: &'static str| text(column)?.ok_or_else(|| bad(format!("the column {column} is null")));
    let json = |column: &'static str| {
        let text = required(column)?;
        RawValue::from_string(text).map_err(|_| bad(format!("the column {column} is not JSON")))
    };
    let timestamp: i64 = row.try_get("timestamp").map_err(wrong("timestamp"))?;
    let unsigned = match text("redacted_by")? {
        // What else is in `unsigned` may repeat what the redaction has removed.
        Some(redaction) => format!("{{\"redacted_by\":{}}}", string(&redaction)),
        None => json("unsigned")?.get().to_owned(),
    };
    let mut event = format!(
        "{{\"event_id\":{},\"sender\":{},\"type\":{},\"content\":{},\"origin_server_ts\":{timestamp},\
         \"unsigned\":{unsigned}",
        string(&required("event_id")?),
        string(&required("sender")?),
        string(&required("type")?),
        json("content")?.get(),
    );
    if let Some(state_key) = text("state_key")? {
        event.push_str(",\"state_key\":");
        event.push_str(&string(&state_key));
    }
    event.push('}');
    RawValue::from_string(event).map_err(|error| bad(format!("it makes no event: {error}")))
}

/// A JSON string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
