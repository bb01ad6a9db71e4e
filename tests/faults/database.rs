//! A database that refuses a write for a moment, just while the homeserver is in trouble too.

use crate::support::{
    homeserver::{ARCHIVER, Fault},
    stage::Stage,
};

/// `cannot_connect_now`: it passes.
const AWAY: &str = "57P03";
/// `data_exception`: no retry helps.
const WRONG: &str = "22000";
/// What becomes of a walk whose request has failed.
const FAILURE: &str = "new.last_error is not null or new.restarted";

/// The database refuses the first so many updates of a table for which `when` holds.
async fn refuse(stage: &Stage, table: &str, when: &str, code: &str, count: u32) {
    let name = format!("refusal_{code}").to_lowercase();
    let trigger = format!(
        "create sequence archive.{name};
         create function archive.{name}() returns trigger language plpgsql as $$ begin
             if nextval('archive.{name}') <= {count} then
                 raise exception 'refused' using errcode = '{code}';
             end if;
             return new;
         end $$;
         create trigger {name} before update on archive.{table}
             for each row when ({when}) execute function archive.{name}()"
    );
    stage.database.run(&trigger).await;
}

/// The database has refused as often as it was to.
async fn has_refused(stage: &Stage, code: &str, count: u32) {
    let name = format!("refusal_{code}").to_lowercase();
    let enough = format!("select is_called and last_value >= {count} from archive.{name}");
    assert_eq!(stage.database.value(&enough).await, "t", "{code}");
}

#[tokio::test]
async fn a_walk_outlives_a_homeserver_and_a_database_that_fail_together() {
    let dead = Fault::error(400, "M_UNKNOWN", "'from' parameter is invalid");
    let unknown = Fault::error(404, "M_NOT_FOUND", "No such room");
    for (fault, times) in [(Fault::bad_gateway(), 2), (dead, 2), (unknown, 1)] {
        let stage = Stage::new().await;
        let room = stage.room(45);
        stage.server.inject(fault.on("/messages").after(2).times(times));
        refuse(&stage, "walks", FAILURE, AWAY, 2).await;
        stage.once().await;
        stage.is_archived(&room).await;
        has_refused(&stage, AWAY, 2).await;
    }
}

#[tokio::test]
async fn a_room_that_is_refused_is_given_up_once_the_database_takes_it() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    stage.once_for_pages(2).await;
    stage.server.ban(&room, ARCHIVER);
    refuse(&stage, "walks", FAILURE, AWAY, 2).await;
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
    assert!(stage.reason(&room).await.contains("M_FORBIDDEN"), "{}", stage.reason(&room).await);
    has_refused(&stage, AWAY, 2).await;
}

/// The page is refused for good, and that its walk has stalled for a moment: it is then asked for again.
#[tokio::test]
async fn a_walk_that_cannot_even_be_stalled_is_taken_up_again() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    refuse(&stage, "walks", "new.pages > old.pages", WRONG, 1).await;
    refuse(&stage, "walks", FAILURE, AWAY, 1).await;
    stage.once().await;
    stage.is_archived(&room).await;
    has_refused(&stage, WRONG, 1).await;
    has_refused(&stage, AWAY, 1).await;
}

#[tokio::test]
async fn a_dead_sync_token_is_given_up_once_the_database_takes_it() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.once().await;
    stage.say(&room, "missed", 5);
    let since = stage.database.value("select since from archive.accounts").await;
    stage.server.inject(Fault::dead_token(&since).on("/sync"));
    refuse(&stage, "accounts", "new.since is null", AWAY, 2).await;
    stage.once().await;
    stage.is_archived(&room).await;
    has_refused(&stage, AWAY, 2).await;
    assert_eq!(stage.database.value("select count(*) from gaps").await, "1");
}
