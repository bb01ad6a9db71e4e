//! `backscroll search`

use ruma::OwnedRoomOrAliasId;

use crate::{
    Error, Exit, archive,
    archive::{Archive, Found, SearchQuery},
    config::Config,
    daemon::Store,
    text::{Canvas, escape, print, thousands},
};

/// Find messages.
///
/// All words must occur in the message: in its text as last edited, in the name of its file, or in its poll.
/// Capitals and accents do not matter. An argument of several words is a phrase: backscroll search "see you"
/// lisbon. With double quotes or a minus sign in it, an argument may hold phrases, words, and words to
/// exclude: backscroll search '"see you" lisbon -berlin'. After two minus signs, all arguments are words, also
/// those that begin with one: backscroll search -- lisbon -berlin. The newest messages come first. Redacted and
/// encrypted messages are not found.
#[derive(Debug, clap::Args)]
pub(super) struct Search {
    /// Words, phrases, and words to exclude after a minus sign
    #[arg(required = true)]
    words: Vec<String>,
    /// Only in this room: its id or alias
    #[arg(long)]
    room: Option<OwnedRoomOrAliasId>,
    /// Only by this user
    #[arg(long, value_name = "USER_ID")]
    sender: Option<String>,
    /// Not before this time, such as 2024-05-01 or '2024-05-01 12:00+02'
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not after this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The best of the newest matches first
    #[arg(long)]
    rank: bool,
    /// The most messages to show
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
    /// Print a JSON array, for scripts
    #[arg(long)]
    json: bool,
}

/// Marks that no text of a message contains: PostgreSQL cannot store U+0000, and these are noncharacters.
const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];
/// Marks for people and scripts.
const SHOWN_MARKS: [&str; 2] = ["«", "»"];

impl Search {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let store = Store::open_archive(config).await?;
        let done = self.answer(&store.archive).await;
        store.close().await?;
        done
    }

    async fn answer(self, archive: &Archive) -> anyhow::Result<Exit> {
        let room_id = match &self.room {
            None => None,
            Some(room) => Some(super::archived_room(archive, room).await?),
        };
        let marks =
            if self.json { SHOWN_MARKS.map(str::to_owned) } else { MARKS.map(|mark| mark.to_string()) };
        let query = SearchQuery {
            words: self.words.iter().map(|argument| as_query(argument)).collect::<Vec<_>>().join(" "),
            room_id,
            sender: self.sender,
            since: self.since,
            until: self.until,
            by_rank: self.rank,
            limit: self.limit,
            marks,
        };
        let found = match archive.search(&query).await {
            Ok(found) => found,
            Err(error) if is_bad_time(&error) => {
                eprintln!(
                    "backscroll: --since or --until is no time: write it like 2024-05-01 or '2024-05-01 12:00+02'"
                );
                return Ok(Exit::Usage);
            }
            Err(error) => return Err(Error::from(error).into()),
        };
        if self.json {
            print(&(serde_json::to_string(&found)? + "\n"))?;
        } else {
            print(&page(&found, Canvas::stdout()))?;
        }
        // A reader's role may not read it.
        let queued = archive.search_lag().await.map_or(0, |lag| lag.queued);
        if queued > 0 {
            eprintln!(
                "backscroll: {} parts of the archive cannot be searched yet; a running Backscroll is at it",
                thousands(queued)
            );
        }
        Ok(Exit::Success)
    }
}

/// The shell has removed the quotes around an argument. Several words in one were quoted, so they are a
/// phrase, unless the argument says itself what is a phrase and what is to be excluded.
fn as_query(argument: &str) -> String {
    let is_query = argument.contains(['"', '“', '”', '„', '«', '»'])
        || argument.split_whitespace().any(|word| word.starts_with('-'));
    let is_phrase = !is_query && argument.split_whitespace().nth(1).is_some();
    if is_phrase { format!("\"{argument}\"") } else { argument.to_owned() }
}

fn is_bad_time(error: &archive::Error) -> bool {
    let archive::Error::Database(sqlx::Error::Database(error)) = error else { return false };
    // Invalid syntax, or out of range.
    matches!(error.code().as_deref(), Some("22007" | "22008"))
}

fn page(found: &[Found], canvas: Canvas) -> String {
    if found.is_empty() {
        return "Nothing was found.\n".to_owned();
    }
    let mut page = String::new();
    for message in found {
        let sent_at = message.sent_at.as_deref().map_or_else(
            || "at an unknown time".to_owned(),
            |sent_at| sent_at.replace('T', " ").replace('Z', " UTC"),
        );
        let sender = escape(message.sender_name.as_deref().unwrap_or(&message.sender));
        let room = escape(message.room_name.as_deref().unwrap_or(&message.room_id));
        let head = format!(
            "{}  {}  {}\n",
            canvas.paint("1", &sender),
            canvas.paint("2", &sent_at),
            canvas.paint("36", &room)
        );
        page.push_str(&head);
        for line in message.marked.as_deref().unwrap_or_default().lines() {
            page.push_str("  ");
            page.push_str(&line_of(line, canvas));
            page.push('\n');
        }
        page.push_str("  ");
        page.push_str(&canvas.paint("2", &escape(&message.event_id)));
        page.push_str("\n\n");
    }
    page.pop();
    page
}

/// A line with what was found in bold or, without colours, between marks.
fn line_of(line: &str, canvas: Canvas) -> String {
    let mut text = String::new();
    for (n, piece) in line.split(MARKS).enumerate() {
        let piece = escape(piece);
        if n % 2 == 0 {
            text.push_str(&piece);
        } else if canvas.colour {
            text.push_str(&canvas.paint("1;33", &piece));
        } else {
            text.push_str(&[SHOWN_MARKS[0], &piece, SHOWN_MARKS[1]].concat());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_marks_what_was_found_and_is_harmless() {
        let found = [Found {
            room_id: "!r:hs".to_owned(),
            room_name: Some("Ga\u{1b}[31mrden".to_owned()),
            event_id: "$e".to_owned(),
            position: 1,
            sender: "@a:hs".to_owned(),
            sender_name: Some("Ann".to_owned()),
            sent_at: Some("2024-05-01T12:00:00Z".to_owned()),
            marked: Some("the \u{fdd0}tree\u{fdd1} is\n\u{fdd0}green\u{fdd1}\u{1b}[2J".to_owned()),
            rank: 1.0,
        }];
        let page = |colour| page(&found, Canvas { columns: 80, colour });
        assert_eq!(
            page(false),
            "Ann  2024-05-01 12:00:00 UTC  Ga\\u{1b}[31mrden\n  the «tree» is\n  «green»\\u{1b}[2J\n  $e\n"
        );
        assert!(page(true).contains("the \u{1b}[1;33mtree\u{1b}[0m is"), "{:?}", page(true));
    }
}
