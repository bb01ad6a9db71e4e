//! What reading an answer costs, without network or database: `cargo bench --bench parse`.

#[expect(dead_code, reason = "the other benchmark needs more of it")]
#[path = "measure/data.rs"]
mod data;

use std::fmt::Write as _;

use backscroll::matrix::Page;
use divan::{Bencher, black_box, counter::ItemsCount};

fn main() {
    divan::main();
}

/// An answer to `/messages` with so many events.
fn answer(events: u64, body_bytes: usize) -> (String, Vec<u8>) {
    let room = data::Room { events, body_bytes, ..data::Room::default() };
    let mut page = String::from(r#"{"start":"t1","end":"t0","chunk":["#);
    for index in (0..events).rev() {
        room.write_event(index, &mut page);
        let _ = write!(page, "{}", if index > 0 { "," } else { "]}" });
    }
    (room.room_id(), page.into_bytes())
}

/// A page of as many events as a server gives at most.
#[divan::bench(args = [10, 100, 1000])]
fn page(bencher: Bencher<'_, '_>, events: u64) {
    let (room_id, body) = answer(events, 0);
    bencher.counter(ItemsCount::new(events)).bench(|| Page::parse(black_box(&room_id), black_box(&body)));
}

/// Events as long as they may be: 60 KiB.
#[divan::bench]
fn page_of_long_events(bencher: Bencher<'_, '_>) {
    const EVENTS: u64 = 16;
    let (room_id, body) = answer(EVENTS, 60 << 10);
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| Page::parse(black_box(&room_id), black_box(&body)));
}
