use secrecy::SecretSlice;
use vodozemac::megolm::{GroupSession, SessionConfig};

use super::*;

const ROOM: &str = "!room:hs";

fn copies(session: &GroupSession) -> Vec<SessionCopy> {
    let inbound = InboundGroupSession::new(&session.session_key(), SessionConfig::version_1());
    let key: SecretSlice<u8> = inbound.export_at_first_known_index().to_bytes().into();
    vec![SessionCopy { key, origin: "file".to_owned(), senders: Vec::new() }]
}

fn event(session: &GroupSession, content: &str) -> EncryptedEvent {
    EncryptedEvent {
        event_id: "$e".to_owned(),
        sender: "@alice:hs".to_owned(),
        session_id: session.session_id(),
        content: content.to_owned(),
    }
}

fn decrypt_one(copies: Vec<SessionCopy>, event: EncryptedEvent) -> Decryption {
    let sessions = [(event.session_id.clone(), copies)].into();
    let batch = Batch { room_id: ROOM.to_owned(), sessions, events: vec![event] };
    batch.decrypt().pop().unwrap().1
}

/// What becomes of an event that encrypts this.
fn said(plaintext: &[u8]) -> Decryption {
    let mut session = GroupSession::new(SessionConfig::version_1());
    let copies = copies(&session);
    let ciphertext = session.encrypt(plaintext).to_base64();
    decrypt_one(copies, event(&session, &format!(r#"{{"ciphertext":"{ciphertext}"}}"#)))
}

#[test]
fn a_plaintext_is_stored_as_content_is() {
    let plaintext = r#"{"type":"a\u0000b","room_id":"!room:hs",
        "content":{"body":"x\u0000y","n":1e400,"m.relates_to":{"event_id":"$other"}}}"#;
    let Decryption::Ok(plain) = said(plaintext.as_bytes()) else { panic!("not read") };
    assert_eq!((plain.index, &*plain.event_type), (0, "a\u{f8fe}0b"));
    assert_eq!(plain.content, "{\"body\":\"x\u{fffd}y\",\"n\":\"1e400\"}");
    let raw = String::from_utf8(plain.raw.unwrap()).unwrap();
    assert!(raw.contains("1e400") && raw.contains("$other"), "{raw}");
}

#[test]
fn a_plaintext_that_is_no_event_of_the_room_is_refused() {
    for (plaintext, says) in [
        (&b"\xff"[..], "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "is no JSON object"),
        (br#"{"type":"m","content":{}}"#, "does not name its room"),
        (br#"{"type":"m","content":{},"room_id":7}"#, "does not name its room"),
        (br#"{"type":"m","content":{},"room_id":"!other:hs"}"#, "for another room"),
        (br#"{"type":"m","content":{},"room_id":"!room:hs","room_id":"!other:hs"}"#, "for another room"),
        (br#"{"content":{},"room_id":"!room:hs"}"#, "has no type"),
        (br#"{"type":"m","room_id":"!room:hs"}"#, "has no content"),
        (br#"{"type":"m","content":[],"room_id":"!room:hs"}"#, "is no object"),
        (br#"{"type":"m.room.encrypted","content":{},"room_id":"!room:hs"}"#, "an encrypted event"),
    ] {
        let result = said(plaintext);
        assert!(matches!(&result, Decryption::Bad(reason) if reason.contains(says)), "{says}: {result:?}");
    }
}

#[test]
fn the_copy_that_decrypts_wins() {
    let mut session = GroupSession::new(SessionConfig::version_1());
    let [genuine] = copies(&session).try_into().unwrap();
    let mut forged = secrecy::ExposeSecret::expose_secret(&genuine.key).to_vec();
    forged[50] ^= 1;
    let forged = SessionCopy { key: forged.into(), origin: "backup".to_owned(), senders: Vec::new() };
    let plaintext = br#"{"type":"m","content":{},"room_id":"!room:hs"}"#;
    let content = format!(r#"{{"ciphertext":"{}"}}"#, session.encrypt(plaintext).to_base64());
    let with = |copies: Vec<SessionCopy>| decrypt_one(copies, event(&session, &content));
    for copies in [vec![forged.clone(), genuine.clone()], vec![genuine, forged.clone()]] {
        assert!(matches!(with(copies), Decryption::Ok(plain) if plain.origin == "file"));
    }
    assert!(matches!(with(vec![forged]), Decryption::Bad(reason) if reason.contains("MAC")));
}

/// Whatever a ciphertext is, it is decrypted or refused.
#[test]
fn no_ciphertext_panics() {
    let mut random = fastrand::Rng::with_seed(26);
    let mut session = GroupSession::new(SessionConfig::version_1());
    let copies = copies(&session);
    let genuine = session.encrypt(br#"{"type":"m","content":{},"room_id":"!room:hs"}"#).to_base64();
    let mut refused = 0;
    for _ in 0..300 {
        let mut text: Vec<char> = genuine.chars().collect();
        for _ in 0..random.usize(1..3) {
            let at = random.usize(..text.len());
            match random.u8(..3) {
                0 => text[at] = random.alphanumeric(),
                1 => text.truncate(at),
                _ => text.insert(at, random.alphanumeric()),
            }
            if text.is_empty() {
                text.push('A');
            }
        }
        let altered: String = text.iter().collect();
        let content = format!(r#"{{"ciphertext":"{altered}"}}"#);
        let result = decrypt_one(copies.clone(), event(&session, &content));
        assert!(altered == genuine || matches!(result, Decryption::Bad(_)), "{altered}: {result:?}");
        refused += u32::from(altered != genuine);
    }
    assert!(refused > 250, "{refused}");
    let result = decrypt_one(copies, event(&session, r#"{"ciphertext":7}"#));
    assert_eq!(result, Decryption::Bad("it has no ciphertext".to_owned()));
}
