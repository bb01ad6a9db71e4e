//! Rows in the format of `COPY … (format binary)` (PostgreSQL manual, "COPY", "Binary Format").

/// Signature, flags, and no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Version of the binary form of `jsonb`.
const JSONB: u8 = 1;

/// Rows for one `COPY`.
#[derive(Debug)]
pub(super) struct Rows {
    buffer: Vec<u8>,
}

impl Rows {
    /// No rows yet; `bytes`: what they will take, about.
    pub(super) fn new(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADER.len() + bytes);
        buffer.extend_from_slice(HEADER);
        Self { buffer }
    }

    /// Begins a row of `columns` columns; as many fields must follow.
    pub(super) fn row(&mut self, columns: i16) {
        self.buffer.extend(columns.to_be_bytes());
    }

    pub(super) fn int4(&mut self, value: i32) {
        self.field(&[&value.to_be_bytes()]);
    }

    pub(super) fn int8(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.field(&[&value.to_be_bytes()]),
            None => self.null(),
        }
    }

    pub(super) fn bytes(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.field(&[value]),
            None => self.null(),
        }
    }

    pub(super) fn text(&mut self, value: Option<&str>) {
        self.bytes(value.map(str::as_bytes));
    }

    pub(super) fn jsonb(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.field(&[&[JSONB], value.as_bytes()]),
            None => self.null(),
        }
    }

    /// All of it, with the trailer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.buffer.extend((-1_i16).to_be_bytes());
        self.buffer
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
