//! Shares the database and the memory between `/sync` and the walks. A `/sync` response is stored before the next
//! page is begun. While rooms are active, fewer pages are stored at once.

pub(crate) mod active_rooms;
pub(crate) mod spare_pages;
pub(crate) mod write_slots;
