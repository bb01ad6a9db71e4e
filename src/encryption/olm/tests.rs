use serde_json::{Value, json};
use vodozemac::{
    megolm::{GroupSession, SessionConfig as MegolmConfig},
    olm::Account,
};

use super::*;
use crate::encryption::{Batch, Decryption, EncryptedEvent, Origin, SessionCopy};

const ROOM: &str = "!room:hs";
const BOB: &str = "@bob:hs";

/// Another user's device, with an Olm session to the archive's own one.
struct Sender {
    account: Account,
    session: Ratchet,
    megolm: GroupSession,
}

fn device() -> Device {
    let mut device = Device::new("@archive:hs", "DEV");
    device.replenish(0, false);
    device
}

impl Sender {
    fn new(device: &Device) -> Self {
        let account = Account::new();
        let one_time_key = *device.account.one_time_keys().values().next().unwrap();
        let identity = device.account.curve25519_key();
        let session =
            account.create_outbound_session(SessionConfig::version_1(), identity, one_time_key).unwrap();
        Self { account, session, megolm: GroupSession::new(MegolmConfig::version_1()) }
    }

    fn room_key(&self) -> Value {
        json!({
            "algorithm": "m.megolm.v1.aes-sha2",
            "room_id": ROOM,
            "session_id": self.megolm.session_id(),
            "session_key": self.megolm.session_key().to_base64(),
        })
    }

    fn payload(&self, device: &Device, kind: &str, content: &Value) -> Value {
        json!({
            "type": kind, "content": content, "sender": BOB, "recipient": "@archive:hs",
            "recipient_keys": { "ed25519": device.ed25519() },
            "keys": { "ed25519": self.account.ed25519_key().to_base64() },
        })
    }

    /// A to-device event that encrypts this.
    fn send(&mut self, device: &Device, payload: &Value) -> Value {
        let (kind, body) = self.session.encrypt(payload.to_string()).unwrap().to_parts();
        let ciphertext =
            json!({ device.curve25519(): { "type": kind, "body": STANDARD_NO_PAD.encode(body) } });
        json!({ "type": "m.room.encrypted", "sender": BOB, "content": {
            "algorithm": OLM, "sender_key": self.account.curve25519_key().to_base64(),
            "ciphertext": ciphertext } })
    }

    fn send_key(&mut self, device: &Device) -> Value {
        let payload = self.payload(device, "m.room_key", &self.room_key());
        self.send(device, &payload)
    }
}

fn receive(device: &mut Device, sessions: &mut OlmSessions, event: &Value) -> Brought {
    let Some(event) = ToDeviceEvent::parse(&event.to_string()) else { return Brought::Unusable("no event") };
    match event.message(device) {
        None => event.read_clear(),
        Some(Err(reason)) => Brought::Unusable(reason),
        Some(Ok(message)) => device.receive(&message, sessions),
    }
}

fn reason(brought: &Brought) -> &'static str {
    match brought {
        Brought::Unusable(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// What a message of the session says, if it was sent by this user.
fn read(session: &Session, megolm: &mut GroupSession, sender: &str) -> Decryption {
    let plaintext = json!({ "type": "m.room.message", "room_id": ROOM, "content": { "body": "hello" } });
    let ciphertext = megolm.encrypt(plaintext.to_string()).to_base64();
    let copy = SessionCopy {
        key: session.key(),
        origin: session.origin.as_str().to_owned(),
        senders: session.sender.iter().cloned().collect(),
    };
    let event = EncryptedEvent {
        event_id: "$1".to_owned(),
        sender: sender.to_owned(),
        session_id: session.session_id.clone(),
        content: json!({ "ciphertext": ciphertext }).to_string(),
    };
    let sessions = [(session.session_id.clone(), vec![copy])].into();
    Batch { room_id: ROOM.to_owned(), sessions, events: vec![event] }.decrypt().remove(0).1
}

#[test]
fn keys_come_by_the_first_message_and_by_later_ones() {
    let mut device = device();
    let mut sender = Sender::new(&device);
    let mut sessions = OlmSessions::default();
    for _ in 0..3 {
        sender.megolm = GroupSession::new(MegolmConfig::version_1());
        let event = sender.send_key(&device);
        let Brought::Session(session) = receive(&mut device, &mut sessions, &event) else { panic!("no key") };
        assert_eq!((session.origin, session.sender.as_deref()), (Origin::Device, Some(BOB)));
        assert!(matches!(read(&session, &mut sender.megolm, BOB), Decryption::Ok(_)));
        let Decryption::Bad(why) = read(&session, &mut sender.megolm, "@mallory:hs") else {
            panic!("readable")
        };
        assert_eq!(why, "its sender is not the one who sent the session");
        // The homeserver sends it again if the response was not stored.
        assert!(reason(&receive(&mut device, &mut sessions, &event)).contains("repetition"));
    }
    assert_eq!(sessions.changed().count(), 1);
    let key = DeviceKey::from_text(&DeviceKey::new_text());
    let stored = OlmSession::open(&sessions.changed().next().unwrap().pickle(&key), &key).unwrap();
    let mut stored = OlmSessions::new(vec![stored]);
    let event = sender.send_key(&device);
    assert!(matches!(receive(&mut device, &mut stored, &event), Brought::Session(_)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut device = device();
    let mut sender = Sender::new(&device);
    let mut sessions = OlmSessions::default();
    for (name, value, says) in [
        ("sender", json!("@mallory:hs"), "another one than it says within"),
        ("recipient", json!("@other:hs"), "for another device"),
        ("recipient_keys", json!({ "ed25519": "AAAA" }), "for another device"),
        ("keys", json!({}), "lacks what it should have"),
        ("content", json!({}), "lacks what it should have"),
        ("type", json!("m.forwarded_room_key"), "not from another device of the account"),
    ] {
        let mut payload = sender.payload(&device, "m.room_key", &sender.room_key());
        payload[name] = value;
        let event = sender.send(&device, &payload);
        let brought = receive(&mut device, &mut sessions, &event);
        assert!(reason(&brought).contains(says), "{name}: {brought:?}");
    }
    for (name, value, says) in [
        ("algorithm", json!("m.megolm.v9"), "of another algorithm"),
        ("room_id", json!("room"), "without the id of a room"),
        ("session_id", json!("other"), "whose id is not that of its key"),
        ("session_key", json!("AgAA"), "whose key cannot be read"),
    ] {
        let mut content = sender.room_key();
        content[name] = value;
        let payload = sender.payload(&device, "m.room_key", &content);
        let event = sender.send(&device, &payload);
        let brought = receive(&mut device, &mut sessions, &event);
        assert!(reason(&brought).contains(says), "{name}: {brought:?}");
    }
    let payload = sender.payload(&device, "m.dummy", &json!({}));
    let event = sender.send(&device, &payload);
    assert!(matches!(receive(&mut device, &mut sessions, &event), Brought::Nothing));
}

#[test]
fn a_withheld_key_has_a_reason() {
    let device = &mut device();
    let notice = |content: Value| json!({ "type": "m.room_key.withheld", "sender": BOB, "content": content });
    let content = json!({ "algorithm": "m.megolm.v1.aes-sha2", "room_id": ROOM, "session_id": "s",
        "code": "m.unverified", "reason": "not\u{0} verified", "sender_key": "k" });
    let Brought::Withheld(withheld) = receive(device, &mut OlmSessions::default(), &notice(content)) else {
        panic!("no notice")
    };
    assert_eq!(withheld.reason, "m.unverified (not verified)");
    for content in
        [json!({}), json!([]), json!({ "algorithm": "x", "room_id": ROOM, "session_id": "s", "code": "c" })]
    {
        let brought = receive(device, &mut OlmSessions::default(), &notice(content));
        assert!(matches!(brought, Brought::Unusable(_)), "{brought:?}");
    }
    let no_olm = json!({ "algorithm": "m.olm.v1.curve25519-aes-sha2", "code": "m.no_olm" });
    assert!(matches!(receive(device, &mut OlmSessions::default(), &notice(no_olm)), Brought::Nothing));
}

/// Events that were altered at random give a reason and nothing else, and later keys still come.
#[test]
fn altered_events_do_no_harm() {
    let mut random = fastrand::Rng::new();
    eprintln!("SEED={}", random.get_seed());
    let mut device = device();
    let mut sender = Sender::new(&device);
    let mut sessions = OlmSessions::default();
    for _ in 0..3000 {
        let event = sender.send_key(&device).to_string();
        let mut bytes = event.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let place = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[place] = random.u8(32..127),
                1 => bytes.truncate(place.max(1)),
                _ => {
                    bytes.remove(place);
                    bytes.push(b' ');
                }
            }
        }
        if let Some(parsed) = ToDeviceEvent::parse(&String::from_utf8_lossy(&bytes)) {
            match parsed.message(&device) {
                None => drop(parsed.read_clear()),
                Some(Err(_)) => {}
                Some(Ok(message)) => drop(device.receive(&message, &mut sessions)),
            }
        }
    }
    let event = sender.send_key(&device);
    assert!(matches!(receive(&mut device, &mut sessions, &event), Brought::Session(_)));
}
