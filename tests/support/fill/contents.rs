//! What the events of a filled room hold: every content and every name that Synapse takes.

use serde_json::{Value, json};

/// Content as deep as Synapse takes it. `serde_json` reads the event as a tree only just, and neither a page
/// that holds it nor a successor with it as `prev_content`.
pub(super) const DEEPEST: usize = 126;

/// The room's creation: state with names that no path can carry, and more in its create event than there
/// should be.
pub(super) fn creation() -> Value {
    let names = ["", ".", "..", "a\0b", " ", "m.room.name ", "%2e%2e"];
    let mut state =
        names.map(|name| json!({ "type": name, "state_key": name, "content": { "was": name } })).to_vec();
    state.push(json!({ "type": "com.example.wide", "state_key": "😀".repeat(63), "content": {} }));
    json!({
        "preset": "public_chat",
        "name": "Nasty \u{1b}[31mred\u{0} room",
        "topic": "it's \"quoted\"; drop table events; -- $1 \\u0000 \u{202e}",
        "initial_state": state,
        "creation_content": { "k\0": "v\0", "predecessor": { "room_id": "!none:example.org" } },
    })
}

/// JSON texts that any room takes as the content of an event of a custom type.
pub(super) fn texts() -> Vec<String> {
    let mut texts = [
        r"{}",
        r#"{"body":"a\u0000b","msgtype":"m.text"}"#,
        r#"{"k\u0000":1,"k":2,"k\\u0000":3}"#,
        r#"{"body":"a\\u0000b \\\u0000 \\\\u0000 \u005cu0000"}"#,
        r#"{"body":"\u0001\u0008\u001b[2J\u007f\u009b\u0085\u2028\u2029\ufeff\uffff\ufffd"}"#,
        r#"{"body":"😀 \ud83d\ude00 👩‍👩‍👧 é e\u0301 ﷽ \u202eabc"}"#,
        r#"{"a\/b":"<\/script>&lt;","body":"\"\\"}"#,
        r#"{"":{"":{"":null}}}"#,
        r#"{"body":7,"msgtype":5,"format":[]}"#,
        r#"{"body":null,"msgtype":true}"#,
        r#"{"a":1,"a":2,"b":{"c":1,"c":[1,1]}}"#,
        r#"{"v":9007199254740991,"w":-9007199254740991,"x":-0}"#,
        r#"{"m.relates_to":5}"#,
        r#"{"m.relates_to":{"rel_type":7,"event_id":[],"m.in_reply_to":{"event_id":{}}}}"#,
        r#"{"m.relates_to":{"m.in_reply_to":{"event_id":"$unknown"}}}"#,
        r#"{"m.new_content":{"body":"a new content with no relation"}}"#,
        r#"{"redacts":"$somebody:else","unsigned":{"age":1},"m.relations":{},"event_id":"$x","type":"y"}"#,
        r#"{"__proto__":{"x":1},"constructor":{"prototype":[]}}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push(format!(r#"{{"body":"{}"}}"#, "x".repeat(60_000)));
    texts.push(format!(r#"{{"body":"{}"}}"#, "é".repeat(32_000)));
    // Canonical JSON writes a NUL as six bytes, and so do pages: the event is near its limit.
    texts.push(format!(r#"{{"body":"{}"}}"#, r"\u0000".repeat(10_000)));
    texts
        .push(format!("{{{}}}", (0..5_000).map(|n| format!(r#""{n:x}":{n}"#)).collect::<Vec<_>>().join(",")));
    for depth in [90, DEEPEST] {
        texts.push(nested(depth, "1"));
    }
    texts.push(format!(r#"{{"a":{}{}}}"#, "[".repeat(DEEPEST - 1), "]".repeat(DEEPEST - 1)));
    texts
}

/// Texts that rooms of versions 1 to 5 take besides: canonical JSON was not enforced in them.
pub(super) const OLD_NUMBERS: [&str; 8] = [
    r#"{"v":1.5,"w":-0.0,"x":1.0,"y":1E2}"#,
    r#"{"v":0.1000000000000000055511151231257827}"#,
    r#"{"v":1e20,"w":1e300,"x":1e-7,"y":123456789.123456789}"#,
    r#"{"v":1.7976931348623157e308,"w":5e-324,"x":1e-400}"#,
    r#"{"v":9007199254740993,"w":-9007199254740993}"#,
    r#"{"v":9223372036854775807,"w":-9223372036854775808}"#,
    r#"{"v":[1.0,1,1e0,-0.0,0.0,-0]}"#,
    r#"{"v":1.0,"body":"with a \u0000"}"#,
];

pub(super) fn nested(depth: usize, leaf: &str) -> String {
    format!("{}{leaf}{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

/// Event types and state keys that a path can carry and Synapse takes.
pub(super) fn odd_names() -> Vec<String> {
    let mut names = [
        "",
        " ",
        "a\0b",
        "\0",
        "com.example/sl?sh#é y",
        "%2F%00%",
        "a\nb\r\t",
        "\u{1b}[31mred",
        "\"\\'$1;--{}",
        "...",
        "\u{202e}\u{200b}",
        "M.ROOM.TOPIC",
        "é",
        "e\u{301}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("t".repeat(255));
    names.push("é".repeat(127));
    names.push("😀".repeat(63));
    names.push("\0".repeat(255));
    names
}

pub(super) fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

pub(super) fn related(kind: &str, event_id: &str) -> Value {
    json!({ "m.relates_to": { "rel_type": kind, "event_id": event_id } })
}

pub(super) fn edit_of(event_id: &str) -> Value {
    edit(event_id, "edited")
}

pub(super) fn edit(event_id: &str, body: &str) -> Value {
    let mut content = related("m.replace", event_id);
    content["msgtype"] = json!("m.text");
    content["body"] = json!(format!("* {body}"));
    content["m.new_content"] = text(body);
    content
}

pub(super) fn reply(event_id: &str, body: &str) -> Value {
    let mut content = text(body);
    content["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": event_id } });
    content
}

pub(super) fn thread(event_id: &str, body: &str) -> Value {
    let mut content = text(body);
    content["m.relates_to"] = json!({
        "rel_type": "m.thread", "event_id": event_id, "is_falling_back": true,
        "m.in_reply_to": { "event_id": event_id },
    });
    content
}

pub(super) fn reaction(event_id: &str, key: &str) -> Value {
    let mut content = related("m.annotation", event_id);
    content["m.relates_to"]["key"] = json!(key);
    content
}
