//! Detects events that may have been served with the content of an edit.

use super::json::Json;

/// Whether `content` may be that of an edit. A server older than specification v1.7 replaces the content with the
/// newest edit's `m.new_content`, keeps the event's own `m.relates_to`, and bundles only the edit's id and sender in
/// `m.relations`. A newer server leaves the content unchanged and bundles the whole edit (P60).
pub(super) fn may_stand_in(content: &Json<'_>, relations: &Json<'_>) -> bool {
    let Some(edit @ Json::Object(_)) = relations.get("m.replace") else { return false };
    match edit.get("content") {
        Some(edit) => edit.get("m.new_content").is_some_and(|edited| own(edited) == own(content)),
        None => true,
    }
}

/// The canonical JSON of a content without its relation.
fn own(content: &Json<'_>) -> String {
    let mut content = content.clone();
    content.remove("m.relates_to");
    let mut text = String::new();
    content.write_canonical(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_shows_by_its_bundle() {
        let may =
            |content: &str, relations: &str| may_stand_in(&Json::parse(content), &Json::parse(relations));
        let content = r#"{"body":"new","m.relates_to":{"m.in_reply_to":{"event_id":"$0"}}}"#;
        assert!(!may(content, "{}"));
        assert!(!may(content, r#"{"m.thread":{"count":1}}"#));
        assert!(!may(content, r#"{"m.replace":"$1"}"#));
        assert!(may(content, r#"{"m.replace":{"event_id":"$1","sender":"@a:hs","origin_server_ts":1}}"#));
        let bundled = |edit: &str| format!(r#"{{"m.replace":{{"event_id":"$1","content":{edit}}}}}"#);
        assert!(may(content, &bundled(r#"{"body":"* new","m.new_content":{"body":"new"}}"#)));
        assert!(!may(content, &bundled(r#"{"body":"* newer","m.new_content":{"body":"newer"}}"#)));
        // An encrypted edit, which no server can put anywhere.
        assert!(!may(content, &bundled(r#"{"ciphertext":"x"}"#)));
    }
}
