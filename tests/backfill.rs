//! History, walked backwards on the model homeserver.

mod access;
mod ahead;
mod new_rooms;
mod operator;
mod pagination;

use crate::support::{archive::updated_rows, stage::Stage};

#[tokio::test]
async fn archiving_again_changes_no_row() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    stage.once().await;
    stage.is_archived(&room).await;
    let before = updated_rows(&stage.database).await;
    let again = stage.backscroll.run(&["backfill", &room]).await;
    assert!(again.status.success(), "{}", again.stderr);
    stage.is_archived(&room).await;
    assert_eq!(updated_rows(&stage.database).await, before);
}

#[tokio::test]
async fn a_walk_goes_on_where_it_was_cut_off() {
    let stage = Stage::new().await;
    let room = stage.room(46);
    stage.once_for_pages(2).await;
    assert_eq!(stage.history(&room).await, "walking");
    let asked = stage.server.requests("/messages").len();
    stage.once().await;
    stage.is_archived(&room).await;
    // Twenty of fifty events were there: three full pages follow, and an empty one without an `end`.
    assert_eq!(stage.server.requests("/messages").len() - asked, 4);
}
