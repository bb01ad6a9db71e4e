//! A real `export-data` of a real Synapse.

use serde_json::json;

use super::{archive, assert_imported, conversation, directory, imported, marks, served, text};
use crate::support::{
    agreement::{assert_agrees, assert_settled},
    archive::{dump, timeline},
    derived::assert_derived,
    synapse::Synapse,
};

const KIND: &str = "synapse-export";

/// Each way in which room versions name and hash events.
#[tokio::test]
async fn an_export_is_what_the_homeserver_shows() {
    let mut synapse = Synapse::start().await;
    for version in ["1", "3", "6", "10", "11", "12"] {
        let (alice, room) = conversation(&synapse, version).await;
        let export = directory();
        synapse.export_data(&alice, export.path()).await;
        let served = served(&synapse, &alice, &room).await;

        let (database, backscroll) = archive(&synapse, &alice).await;
        let said = imported(&backscroll, KIND, export.path()).await;
        assert_imported(&database, &room, version, &served).await;
        assert!(said.contains("0 known already, 0 set aside"), "{said}");
        let before = dump(database.url()).await;
        let said = imported(&backscroll, KIND, export.path()).await;
        assert!(said.contains("0 stored") && said.contains("0 set aside"), "{said}");
        assert_eq!(dump(database.url()).await, before, "nothing is done twice");

        // The homeserver's word replaces it.
        backscroll.once().await;
        assert_eq!(marks(&database).await, "0", "{version}");
        assert_agrees(database.url(), &synapse, &alice, &room).await;
        assert_settled(database.url()).await;

        let (fresh, backscroll) = archive(&synapse, &alice).await;
        backscroll.once().await;
        let theirs = dump(fresh.url()).await;
        assert_eq!(dump(database.url()).await, theirs, "{version}");
        imported(&backscroll, KIND, export.path()).await;
        assert_eq!(dump(fresh.url()).await, theirs, "the homeserver's events stay as they are");
        assert_eq!(marks(&fresh).await, "0");
    }
}

/// Where the user may not see the beginning, the export has the state at that place. It gets no positions.
#[tokio::test]
async fn state_before_what_the_user_may_see_has_no_position() {
    let mut synapse = Synapse::start().await;
    let [alice, bob] = [synapse.register("alice").await, synapse.register("bob").await];
    let visible =
        json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let body = json!({ "preset": "public_chat", "name": "Hidden", "initial_state": [visible] });
    let room = synapse.create_room(&alice, "11", body).await;
    synapse.send(&alice, &room, "m.room.message", text("hidden")).await;
    synapse.join(&bob, &room).await;
    for number in 0..5 {
        synapse.send(&alice, &room, "m.room.message", text(&format!("seen {number}"))).await;
    }
    let export = directory();
    synapse.export_data(&bob, export.path()).await;
    assert!(export.path().join("rooms").join(&room).join("state").is_dir(), "there is such state");

    let (database, backscroll) = archive(&synapse, &bob).await;
    imported(&backscroll, KIND, export.path()).await;
    let ids: Vec<_> = served(&synapse, &bob, &room).await.into_iter().map(|event| event.event_id).collect();
    assert_eq!(timeline(&database, &room).await, ids);
    let unplaced = "select count(*) from archive.events where position is null and type = 'm.room.name'";
    assert_eq!(database.value(unplaced).await, "1");
    assert_derived(database.url()).await;

    backscroll.once().await;
    assert_eq!(marks(&database).await, "0");
    let (fresh, backscroll) = archive(&synapse, &bob).await;
    backscroll.once().await;
    assert_eq!(dump(database.url()).await, dump(fresh.url()).await);
}
