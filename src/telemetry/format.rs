//! The two formats of log lines: for a terminal ([`Pretty`]) and JSON ([`Json`]).

use std::fmt::{self, Display, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::text::{Painted, write_escaped, write_escaped_json};

/// `12:03:04 INFO  backfill room.id=!abc:hs: stored a page event_count=1000`, the time in UTC.
pub(super) struct Pretty;

impl<S, N> FormatEvent<S, N> for Pretty
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let colour = to.has_ansi_escapes();
        let level = *event.metadata().level();
        dim(&mut to, Clock)?;
        write!(to, " {} ", Painted { colour, code: code(level), text: format_args!("{level:<5}") })?;
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let fields = fields.map_or("", |fields| fields.fields.as_str());
            let gap = if fields.is_empty() { "" } else { " " };
            dim(&mut to, format_args!("{}{gap}{fields}:", span.name()))?;
            to.write_char(' ')?;
        }
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

/// The time of day of an RFC 3339 time in UTC; the date is in the journal.
struct Clock;

impl Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        f.write_str(time.get(11..19).unwrap_or(&time))
    }
}

fn dim(to: &mut Writer<'_>, text: impl Display) -> fmt::Result {
    let colour = to.has_ansi_escapes();
    write!(to, "{}", Painted { colour, code: "2", text })
}

/// The SGR code of the level's colour.
const fn code(level: Level) -> &'static str {
    match level {
        Level::ERROR => "1;31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

/// The message, then `key=value` for each field. The message and the values are escaped.
pub(super) struct Fields;

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = FieldVisitor { to: writer, first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldVisitor<'a> {
    to: Writer<'a>,
    first: bool,
    result: fmt::Result,
}

impl FieldVisitor<'_> {
    fn put(&mut self, name: &str, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.to.write_char(' ')?;
        }
        if name == "message" {
            return write_escaped(&mut self.to, value);
        }
        dim(&mut self.to, format_args!("{name}="))?;
        let delimited = value.starts_with(['"', '[', '{', '(']);
        if value.is_empty() || (value.contains([' ', '=']) && !delimited) {
            self.to.write_char('"')?;
            write_escaped(&mut self.to, value)?;
            self.to.write_char('"')
        } else {
            write_escaped(&mut self.to, value)
        }
    }
}

impl Visit for FieldVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.result = self.result.and_then(|()| self.put(field.name(), value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.record_str(field, &text);
    }
}

/// One JSON object for each line: `timestamp`, `level`, `message`, `target`, the fields, and `spans`.
///
/// Characters that could control a terminal are escaped.
pub(super) struct Json(format::Format<format::Json, SystemTime>);

impl Json {
    pub(super) fn new(of: format::Format<format::Json, SystemTime>) -> Self {
        let flat = of.flatten_event(true).with_current_span(false);
        Self(flat.with_span_list(true))
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        write_escaped_json(&mut to, line.trim_end_matches('\n'))?;
        writeln!(to)
    }
}
