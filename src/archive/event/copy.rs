//! Encodes rows for `COPY … (format binary)` (PostgreSQL manual, "COPY", "Binary Format").

use sqlx::{PgConnection, postgres::PgCopyIn};

/// The signature, the flags, and an empty header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The version of the binary form of `jsonb`.
const JSONB: u8 = 1;
/// About how many bytes are sent at once. The server reads one piece while the next is written, and needs memory for
/// one.
const PIECE: usize = 64 << 10;

/// Encoded rows that are not sent yet.
#[derive(Debug, Default)]
pub(in crate::archive) struct Rows {
    buffer: Vec<u8>,
}

/// The rows of one `COPY` under way. They are only stored by [`finish`](Self::finish).
pub(in crate::archive) struct CopyIn<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    /// The rows that are not sent yet.
    pub(in crate::archive) rows: Rows,
}

impl<'c> CopyIn<'c> {
    /// `statement`: a `COPY … FROM STDIN (FORMAT binary)`.
    pub(in crate::archive) async fn begin(
        connection: &'c mut PgConnection,
        statement: &str,
    ) -> Result<Self, sqlx::Error> {
        let copy = connection.copy_in_raw(statement).await?;
        let mut buffer = Vec::with_capacity(2 * PIECE);
        buffer.extend_from_slice(HEADER);
        Ok(Self { copy, rows: Rows { buffer } })
    }

    /// Sends the rows if there are enough for a piece.
    pub(in crate::archive) async fn send_much(&mut self) -> Result<(), sqlx::Error> {
        if self.rows.buffer.len() >= PIECE {
            self.send().await?;
        }
        Ok(())
    }

    /// Sends the trailer and waits until the rows are in the table.
    pub(in crate::archive) async fn finish(mut self) -> Result<(), sqlx::Error> {
        self.rows.buffer.extend((-1_i16).to_be_bytes());
        self.send().await?;
        self.copy.finish().await?;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), sqlx::Error> {
        send(&mut self.copy, &self.rows.buffer).await?;
        self.rows.buffer.clear();
        Ok(())
    }
}

async fn send(copy: &mut PgCopyIn<&mut PgConnection>, bytes: &[u8]) -> Result<(), sqlx::Error> {
    // A single row may be much larger than a piece.
    for piece in bytes.chunks(PIECE) {
        copy.send(piece).await?;
    }
    Ok(())
}

impl Rows {
    pub(in crate::archive) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Their size in bytes.
    pub(in crate::archive) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Writes the rows with one `COPY`, and clears them.
    pub(in crate::archive) async fn write(
        &mut self,
        connection: &mut PgConnection,
        statement: &str,
    ) -> Result<(), sqlx::Error> {
        let mut copy = CopyIn::begin(connection, statement).await?;
        copy.send().await?;
        send(&mut copy.copy, &self.buffer).await?;
        self.buffer.clear();
        copy.finish().await
    }

    /// Begins a row. Exactly `columns` fields must follow.
    pub(in crate::archive) fn row(&mut self, columns: i16) {
        self.buffer.extend(columns.to_be_bytes());
    }

    pub(in crate::archive) fn int8(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.field(&[&value.to_be_bytes()]),
            None => self.null(),
        }
    }

    pub(in crate::archive) fn bytes(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.field(&[value]),
            None => self.null(),
        }
    }

    pub(in crate::archive) fn text(&mut self, value: Option<&str>) {
        self.bytes(value.map(str::as_bytes));
    }

    pub(in crate::archive) fn jsonb(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.field(&[&[JSONB], value.as_bytes()]),
            None => self.null(),
        }
    }

    fn null(&mut self) {
        self.buffer.extend((-1_i32).to_be_bytes());
    }

    fn field(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = i32::try_from(length).expect("a field is part of an answer of less than 1 GiB");
        self.buffer.extend(length.to_be_bytes());
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
    }
}
