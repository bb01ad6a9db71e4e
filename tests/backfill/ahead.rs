//! What is fetched while the database is slow.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::support::stage::Stage;

/// Pages that are stored together at most.
const TOGETHER: usize = 4;
/// Time for a request that should not be made.
const A_WHILE: Duration = Duration::from_millis(500);

/// Keeps events from being stored until it is closed.
async fn hold_events(stage: &Stage) -> PgConnection {
    let mut holder = PgConnection::connect(stage.database.url()).await.unwrap();
    sqlx::raw_sql("begin; lock table archive.events in exclusive mode").execute(&mut holder).await.unwrap();
    holder
}

/// Most messages that were stored at once.
async fn most_at_once(stage: &Stage) -> String {
    let most = "select max(count) from (
                    select count(*) from archive.events where type = 'm.room.message' group by received_at
                ) stored";
    stage.database.value(most).await
}

#[tokio::test]
async fn pages_that_wait_for_the_database_are_few_and_stored_together() {
    let stage = Stage::new().await;
    let room = stage.room(200);
    stage.once_for_pages(2).await;
    let holder = hold_events(&stage).await;
    let asked = stage.server.requests("/messages").len();
    let mut daemon = stage.backscroll.start(&["run", "--once"]);
    stage.server.has_been_asked("/messages", asked + 1 + TOGETHER).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(
        stage.server.requests("/messages").len(),
        asked + 1 + TOGETHER,
        "what is in memory is bounded"
    );
    holder.close().await.unwrap();
    assert!(daemon.wait().await.success(), "{}", daemon.stderr());
    stage.is_archived(&room).await;
    assert_eq!(most_at_once(&stage).await, (10 * TOGETHER).to_string());
    let pages = stage.database.value("select sum(pages) from archive.walks where kind = 'history'").await;
    assert_eq!(
        pages,
        stage.server.requests("/messages").len().saturating_sub(1).to_string(),
        "but the one cut off"
    );
}

/// A message reported meanwhile would wait for all of them.
#[tokio::test]
async fn where_people_talk_pages_are_stored_one_by_one() {
    let stage = Stage::new().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    let talk = stage.room(0);
    let mut daemon = stage.followed(&talk).await;
    // Citus allows no trigger by default, and reads it by itself.
    let slow = "set citus.enable_unsafe_triggers = on;
                create function archive.slow() returns trigger language plpgsql as
                    $$ begin perform pg_sleep(0.1); return null; end $$;
                do $$ begin
                    create trigger slow before insert on archive.events
                        for each statement execute function archive.slow();
                end $$";
    stage.database.run(slow).await;
    stage.say(&talk, "hello", 1);
    stage.agrees(&mut daemon, &talk).await;
    let room = stage.room(60);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(most_at_once(&stage).await, "10");
    daemon.stop().await;
}
