//! Listeners are told where new events are, and nothing of what they say.

use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::support::{homeserver::ALICE, stage::Stage};

#[tokio::test]
async fn a_listener_is_told_of_new_events() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    let mut listener = PgListener::connect(stage.database.url()).await.unwrap();
    listener.listen("backscroll").await.unwrap();
    let event_id = stage.server.message(&room, ALICE, "a secret");
    let notice = tokio::time::timeout(Duration::from_secs(60), listener.recv()).await.unwrap().unwrap();
    let new: serde_json::Value = serde_json::from_str(notice.payload()).unwrap();
    assert_eq!(new["room_id"], room.as_str());
    let told = format!(
        "select event_id from events where room_id = '{room}' and position between {} and {}",
        new["first_position"], new["last_position"]
    );
    assert_eq!(stage.database.column(&told).await, [event_id]);
    assert!(!notice.payload().contains("secret"));

    // Everybody who may connect may listen.
    stage.database.run("insert into archive.reader_rooms values ('somebody', '!other:hs')").await;
    stage.server.message(&room, ALICE, "another");
    let notice = tokio::time::timeout(Duration::from_secs(60), listener.recv()).await.unwrap().unwrap();
    assert_eq!(notice.payload(), "{}");
    daemon.settles(async || stage.difference(&room).await).await;
    daemon.stop().await;
}
