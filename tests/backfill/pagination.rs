//! How servers page, and how they fail to (protocol, section A).

use crate::support::{
    homeserver::{ALICE, Event, Fault, Habits, LastPage},
    stage::Stage,
};

#[tokio::test]
async fn every_style_of_pagination_ends_complete() {
    type Habit = fn(&mut Habits);
    let styles: [(&str, Habit); 10] = [
        ("Synapse", |habits| *habits = Habits::synapse()),
        ("Dendrite", |habits| *habits = Habits::dendrite()),
        ("the last page holds the create event", |habits| habits.last_page = LastPage::HoldsCreate),
        ("an empty end", |habits| habits.last_page = LastPage::EmptyString),
        ("a null end", |habits| habits.last_page = LastPage::Null),
        ("short pages", |habits| habits.short_pages = Some(3)),
        ("empty pages with an end", |habits| habits.empty_pages = 3),
        ("overlapping pages", |habits| habits.overlap = 4),
        ("state beside the chunk", |habits| habits.state_in_pages = true),
        ("compressed", |habits| habits.gzip = true),
    ];
    for (style, habit) in styles {
        let stage = Stage::new().await;
        let room = stage.room(35);
        stage.server.behave(habit);
        stage.once().await;
        assert_eq!(stage.difference(&room).await, None, "{style}");
        assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room), "{style}");
        assert_eq!(stage.server.most_at_once(&room), 1, "{style}: one request a room at a time");
    }
}

#[tokio::test]
async fn late_events_stand_where_the_server_has_them() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let spoken = stage.say(&room, "in time", 25);
    for (number, earlier) in spoken.iter().step_by(4).enumerate() {
        stage.server.insert_after(&room, earlier, Event::message(&format!("late {number}")));
        stage.server.backfill_insert_after(&room, earlier, Event::message(&format!("fetched {number}")));
    }
    stage.once().await;
    stage.is_archived(&room).await;
}

/// P4: some servers answer so once and then go on.
#[tokio::test]
async fn an_end_that_repeats_for_a_while_is_asked_again() {
    let stage = Stage::new().await;
    let room = stage.room(12);
    stage.server.behave(|habits| habits.repeat_end = 1);
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn an_end_that_repeats_for_ever_stalls_its_room_alone() {
    let stage = Stage::new().await;
    let (sick, sound) = (stage.room(15), stage.room(15));
    let token = stage.server.now();
    let page = format!(r#"{{"chunk":[],"start":"{token}","end":"{token}"}}"#);
    stage.server.inject(Fault::reply(200, &[], page).on("/messages").in_room(&sick));
    let outcome = stage.once_with_stalled_rooms().await;
    assert!(outcome.stderr.contains(&format!("{sick}: ")) && !outcome.stderr.contains(&format!("{sound}: ")));
    stage.is_archived(&sound).await;
    is_stalled(&stage, &sick, "`end` equal to `from`").await;
    let asked = stage.server.requests("/messages").iter().filter(|asked| asked.room() == Some(&sick)).count();
    assert_eq!(asked, 4, "once, and three times again");

    // The server is well again: the next start goes on.
    stage.server.heal();
    stage.once().await;
    stage.is_archived(&sick).await;
}

#[tokio::test]
async fn tokens_in_a_circle_stall_the_walk() {
    for circle in [2, 5, 17] {
        let stage = Stage::new().await;
        let room = stage.room(60);
        stage.server.behave(|habits| {
            habits.short_pages = Some(2);
            habits.cycle = Some(circle);
        });
        stage.once_with_stalled_rooms().await;
        is_stalled(&stage, &room, "go in a circle").await;
        let asked = stage.server.requests("/messages").len();
        // Four more are fetched while pages are stored together.
        assert!(asked <= 4 * circle + 4, "a circle of {circle}: {asked} requests");
        assert_eq!(stage.content_difference_of_archived(&room).await, None, "what came before is kept");
    }
}

async fn is_stalled(stage: &Stage, room: &str, reason: &str) {
    assert_eq!(stage.history(room).await, "stalled");
    assert!(stage.reason(room).await.contains(reason), "{}", stage.reason(room).await);
    let shown = stage
        .database
        .rows(&format!("select state, last_error from backfill where room_id = '{room}'"))
        .await;
    assert_eq!(shown[0][0], "stalled");
    assert!(shown[0][1].contains(reason), "{shown:?}");
}

#[tokio::test]
async fn an_end_that_is_missing_too_early_is_not_believed() {
    let stage = Stage::new().await;
    let room = stage.room(35);
    stage.server.inject(Fault::without_end().on("/messages").after(1).times(2));
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_page_without_an_end_may_lack_what_comes_a_moment_later() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    stage.say(&room, "older", 10);
    let spoken = stage.say(&room, "known", 10);
    stage.say(&room, "newer", 10);
    let hidden = stage.server.insert_after(&room, &spoken[5], Event::message("not yet here"));
    stage.server.hide(&room, &hidden);
    stage.server.inject(Fault::without_end().on("/messages").after(1).times(1));
    let mut daemon = stage.backscroll.start(&["run", "--once"]);
    let asks_again = async || stage.database.value("select max(ends) from archive.walks").await == "1";
    daemon.until("the page without an end is stored", asks_again).await;
    stage.server.reveal(&room, &hidden);
    assert!(daemon.wait().await.success());
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn purged_history_is_distinguished_from_complete_history() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    let kept = stage.server.visible_ids(&room)[20].clone();
    stage.server.purge(&room, &kept);
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
    assert!(
        stage.reason(&room).await.contains("they are purged or not visible"),
        "{}",
        stage.reason(&room).await
    );
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
    assert_eq!(stage.state_difference(&room).await, None, "the state is there, the create event too");
}

/// P137: what the archive had before is not deleted.
#[tokio::test]
async fn a_purge_takes_nothing_from_the_archive() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    stage.once().await;
    let before = stage.timeline(&room).await;
    stage.server.purge(&room, &before[20]);
    let again = stage.backscroll.run(&["backfill", &room]).await;
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!(stage.timeline(&room).await, before);
}

#[tokio::test]
async fn invisible_events_neither_end_nor_hold_up_a_walk() {
    for habits in [Habits::synapse(), Habits::dendrite()] {
        let stage = Stage::new().await;
        let room = stage.server.create_room("10");
        for id in stage.say(&room, "secret", 24) {
            stage.server.conceal(&room, &id);
        }
        stage.server.message(&room, ALICE, "open");
        stage.server.behave(|now| *now = habits);
        stage.once().await;
        // Dendrite ends at its first page of invisible events (P4): the server then gives no more.
        let expected = if habits.hides_truncation { "truncated" } else { "complete" };
        assert_eq!(stage.history(&room).await, expected);
        if expected == "complete" {
            stage.is_archived(&room).await;
        }
    }
}
