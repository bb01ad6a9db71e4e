//! The search finds what a message says now, in every script, and nothing else.

use serde_json::json;

use super::{edit, send, text};
use crate::support::{
    derived::assert_derived,
    homeserver::{ALICE, BOB},
    stage::Stage,
};

async fn found(stage: &Stage, query: &str) -> String {
    stage
        .database
        .value(&format!("select coalesce(string_agg(event_id, ' '), '') from search('{query}')"))
        .await
}

/// Words, phrases, exclusions, scripts with and without spaces, files and polls.
#[tokio::test]
async fn words_of_every_script_are_found() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    let say = |body: &str| send(&stage, &room, ALICE, "m.room.message", &text(body));
    let cases = [
        (
            "The Quick brown fox",
            &["quick", "QUICK", "fox", "\"quick brown\"", "brown the"][..],
            &["quic", "\"brown quick\"", "quick -fox"][..],
        ),
        ("Grüße aus Köln, naïve Straße", &["köln", "koln", "KÖLN", "strasse", "naive"], &["kol"]),
        ("Привет, Москва! Ёлка", &["привет", "МОСКВА", "елка"], &["моск"]),
        ("今日は天気がいいですね", &["天気", "今日", "気", "\"天気がいい\""], &["気天"]),
        ("我们明天去北京看长城", &["北京", "长城", "\"去北京\""], &["京北"]),
        ("오늘 학교에서 만나요", &["학교", "학교에서"], &["교학"]),
        ("สวัสดีครับ ไปเที่ยวกัน", &["สวัสดี", "เที่ยว"], &["ดีสวัส"]),
        ("مرحبا بالعالم", &["مرحبا"], &["مرح"]),
        ("我住在山東。京 都", &["山東", "京都", "東。京", "我住　山東", "山東\u{a0}京都"], &["東京"]),
        ("கொடி കൊല്ലം কোলাহল 한국어 がぎ", &["கொடி", "കൊല്ലം", "কোলাহল", "한국", "がぎ"], &["கொட"]),
        ("ㅎㅎㅠㅠ 갃", &["ㅎㅎ", "ㅠㅠ", "ㅎㅠ", "갃"], &["휴", "ㅠㅎ"]),
        ("ꦲꦏ꧀ꦱꦫꦗꦮ ᬅᬓ᭄ᬱᬭᬩᬮᬶ", &["ꦗꦮ", "ᬩᬮᬶ"], &["ꦮꦗ"]),
        (
            "Windows™ пʼять Hawaiʻi Երևան STRAẞENBAHN",
            &["windows", "пʼять", "п’ять", "hawai’i", "ԵՐԵՎԱՆ", "straßenbahn"],
            &["windowstm"],
        ),
        (
            "see https://matrix.example.org/a_b?c=1 and don't 🎉 it",
            &["matrix.example.org", "a_b", "🎉", "\"don't\""],
            &["🎊"],
        ),
    ];
    let sent: Vec<String> = cases.iter().map(|(body, ..)| say(body)).collect();
    let file = json!({ "msgtype": "m.file", "body": "the plan", "filename": "Bauplan_2024.pdf", "url": "mxc://hs/a" });
    let file = send(&stage, &room, ALICE, "m.room.message", &file);
    let poll = json!({ "org.matrix.msc3381.poll.start": { "question": { "org.matrix.msc1767.text": "Which cake?" },
        "answers": [{ "id": "1", "org.matrix.msc1767.text": "Marzipan" }] }, "org.matrix.msc1767.text": "Which cake? 1. Marzipan" });
    let poll = send(&stage, &room, ALICE, "org.matrix.msc3381.poll.start", &poll);
    stage.once().await;
    for ((body, hits, misses), event_id) in cases.iter().zip(&sent) {
        for query in *hits {
            let quoted = query.replace('\'', "''");
            assert_eq!(found(&stage, &quoted).await, *event_id, "{query:?} in {body:?}");
        }
        for query in *misses {
            assert!(found(&stage, query).await.is_empty(), "{query:?} not in {body:?}");
        }
    }
    assert_eq!(found(&stage, "bauplan").await, file);
    assert_eq!(found(&stage, "cake").await, poll);
    assert_eq!(found(&stage, "marzipan").await, poll);
    // In a database of a Turkish locale, the small letter of I would be another.
    let folded = "select archive.search_words('TITLE ICON' collate \"tr-x-icu\")";
    assert_eq!(stage.database.value(folded).await, " title icon ");
    let most = "select count(*) from search('koln', max_results => null)";
    assert_eq!(stage.database.value(most).await, "1");
    let marked = "select marked from search('東。京')";
    assert_eq!(stage.database.value(marked).await, "我住在山«東。京» 都");
    let marked = "select marked from search('koln strasse')";
    assert_eq!(stage.database.value(marked).await, "Grüße aus «Köln», naïve «Straße»");
    assert_derived(stage.database.url()).await;
    // Hostile questions are answered, too.
    for query in ["", "\"", "-", "''''", "%", "\\\\", "-a", "\"\"", "a\" b"] {
        found(&stage, query).await;
    }
}

/// An edit, a redaction and an erasure change what is found; a live message is found soon.
#[tokio::test]
async fn what_changes_is_found_as_it_is_now() {
    let stage = Stage::new().await;
    let room = stage.room(40);
    let message = send(&stage, &room, ALICE, "m.room.message", &text("apricot"));
    stage.once().await;
    assert_eq!(found(&stage, "apricot").await, message);

    let mut daemon = stage.followed(&room).await;
    let live = send(&stage, &room, BOB, "m.room.message", &text("blueberry"));
    daemon.until("it is found", async || found(&stage, "blueberry").await == live).await;
    send(&stage, &room, ALICE, "m.room.message", &edit(&message, "cherry"));
    daemon.until("the edit is found", async || found(&stage, "cherry").await == message).await;
    assert!(found(&stage, "apricot").await.is_empty());
    stage.server.redact(&room, &message);
    daemon.until("the redaction counts", async || found(&stage, "cherry").await.is_empty()).await;
    // Others of the same row of the index are found all the time.
    assert_eq!(found(&stage, "blueberry").await, live);
    daemon.stop().await;
    assert_derived(stage.database.url()).await;
    let erased = stage.backscroll.run(&["erase", "--user", BOB, "--yes"]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    assert!(found(&stage, "blueberry").await.is_empty());
    assert_derived(stage.database.url()).await;
}

#[tokio::test]
async fn the_command_shows_what_was_found() {
    let stage = Stage::new().await;
    let room = stage.room(2);
    let first = send(&stage, &room, ALICE, "m.room.message", &text("the ferry leaves at nine"));
    let second = send(&stage, &room, BOB, "m.room.message", &text("Ferry? I take the bus\u{1b}[2J"));
    stage.once().await;
    let search = async |arguments: &[&str]| stage.backscroll.run(&[&["search"], arguments].concat()).await;
    let shown = search(&["ferry"]).await.stdout;
    assert!(
        shown.contains("the «ferry» leaves at nine") && shown.contains("«Ferry»? I take the bus\\u{1b}[2J"),
        "{shown}"
    );
    assert!(shown.find(&second) < shown.find(&first), "the newest first: {shown}");
    let found = async |arguments: &[&str]| -> String {
        let outcome = search(&[arguments, &["--json"]].concat()).await;
        let found: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        let ids = found.as_array().unwrap().iter().map(|hit| hit["event_id"].as_str().unwrap());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found(&["ferry", "nine"]).await, first);
    assert_eq!(found(&["ferry", "--sender", BOB]).await, second);
    assert_eq!(found(&["ferry -nine"]).await, second);
    let excluded = search(&["--json", "--", "ferry", "-nine"]).await.stdout;
    assert!(excluded.contains(&second) && !excluded.contains(&first), "{excluded}");
    // An argument of several words is a phrase.
    assert_eq!(found(&["ferry leaves"]).await, first);
    assert_eq!(found(&["leaves at", "ferry"]).await, first);
    assert!(found(&["nine leaves"]).await.is_empty());
    assert_eq!(found(&["nine", "leaves"]).await, first);
    assert_eq!(found(&["\"ferry leaves\" nine"]).await, first);
    assert_eq!(found(&["ferry", "--room", &room, "--limit", "1"]).await, second);
    assert!(found(&["ferry", "--room", "!elsewhere:hs"]).await.is_empty());
    assert!(found(&["ferry", "--until", "1990-01-01"]).await.is_empty());
    let odd = search(&["ferry", "--since", "the day before"]).await;
    assert_eq!(odd.status.code(), Some(64), "{}", odd.stderr);
}

/// A message that the search cannot read keeps nothing else from being archived or found.
#[tokio::test]
async fn what_cannot_be_searched_holds_up_nothing() {
    let stage = Stage::new().await;
    stage
        .database
        .run(
            "create or replace function archive.lower_case(value text) returns text language plpgsql immutable as $$
             begin
                 if value like '%яд%' then raise exception 'cannot be read'; end if;
                 return lower(value);
             end $$",
        )
        .await;
    let (bad, good) = (stage.room(3), stage.room(3));
    send(&stage, &bad, ALICE, "m.room.message", &text("это яд"));
    let message = send(&stage, &good, ALICE, "m.room.message", &text("a remedy"));
    let outcome = stage.once().await;
    assert!(outcome.stderr.contains("cannot be made searchable"), "{}", outcome.stderr);
    assert_eq!(found(&stage, "remedy").await, message);
    let mut daemon = stage.followed(&good).await;
    let live = send(&stage, &good, ALICE, "m.room.message", &text("another remedy"));
    daemon.until("it is found", async || found(&stage, "another").await == live).await;
    daemon.stop().await;
}

/// Edits and new messages come in all parts of a room, while the search has little of its history. What it does for them
/// is no more because they are far apart.
#[tokio::test]
async fn a_new_message_waits_for_no_history() {
    let stage = Stage::new().await;
    let room = stage.room(1);
    stage.once().await;
    // Four messages, each five thousand events from the next.
    let insert = format!(
        "insert into archive.events (position, origin_server_ts, room_id, event_id, type, sender, stable_sha256, content)
         select 65536::bigint * (1000 + n), 1500000000000 + n, '{room}', '$far' || n, 'm.room.message', '{ALICE}', '',
                jsonb_build_object('msgtype', 'm.text', 'body', 'step ' || n)
         from generate_series(1, 15001) n;
         insert into archive.search_queue (room_id, lower, upper, is_live)
         select '{room}', 65536::bigint * (1001 + n), 65536::bigint * (1001 + n), true
         from unnest(array[0, 5000, 10000, 15000]) n"
    );
    stage.database.run(&insert).await;
    let fill = "select archive.fill_search(n.room_id, n.ranges, 100, true) from archive.next_search_ranges(true, true) n";
    stage.database.run(fill).await;
    let filled = format!(
        "select coalesce(sum(cardinality(message_offsets)), 0) from archive.search_blocks
         where room_id = '{room}' and first_position > 65536 * 1000"
    );
    assert_eq!(stage.database.value(&filled).await, "4");
    assert_eq!(stage.database.value("select count(*) from archive.search_queue").await, "0");
    // And once more, beside what it has now.
    let again = format!(
        "insert into archive.search_queue (room_id, lower, upper, is_live)
         values ('{room}', 65536::bigint * 6002, 65536::bigint * 6002, true)"
    );
    stage.database.run(&again).await;
    stage.database.run(fill).await;
    // Both are within the reach of one row.
    assert_eq!(stage.database.value(&filled).await, "5");
    for n in [1, 5001, 5002, 10001, 15001] {
        let found = format!("select event_id from search('\"step {n}\"')");
        assert_eq!(stage.database.column(&found).await, [format!("$far{n}")]);
    }
}

/// Servers can say any time. Times that go back and forth make no row of the search for each message, and a search until a
/// time finds them all the same.
#[tokio::test]
async fn times_that_alternate_make_no_rows_of_their_own() {
    let stage = Stage::new().await;
    let room = stage.room(1);
    stage.once().await;
    let insert = format!(
        "insert into archive.events (position, origin_server_ts, room_id, event_id, type, sender, stable_sha256, content)
         select 1000 + n, 1500000000000 + n + case n % 2 when 0 then 5000000000 * (n % 5) else 0 end, '{room}', '$odd' || n,
                'm.room.message', '{ALICE}', '', jsonb_build_object('msgtype', 'm.text', 'body', 'tick ' || n)
         from generate_series(1, 400) n"
    );
    stage.database.run(&insert).await;
    let queue =
        format!("insert into archive.search_queue (room_id, lower, upper) values ('{room}', 1001, 1400)");
    stage.database.run(&queue).await;
    let fill = "select archive.fill_search(n.room_id, n.ranges) from archive.next_search_ranges(true) n";
    stage.database.run(fill).await;
    let blocks = format!("select count(*) <= 5 from archive.search_blocks where room_id = '{room}'");
    assert_eq!(stage.database.value(&blocks).await, "t");
    for place in ["null", &format!("'{room}'")] {
        let until = format!(
            "select count(*) from search('tick', {place}, until => timestamptz '2017-07-14 02:40:01Z', max_results => 1000)"
        );
        assert_eq!(stage.database.value(&until).await, "240", "{place}");
    }
}
