//! Who stores and fetches when: `/sync` goes before the pages, of which fewer are stored at once while people talk.

pub(crate) mod active_rooms;
pub(crate) mod spare_pages;
pub(crate) mod write_slots;
