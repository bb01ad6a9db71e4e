use super::*;
use crate::encryption::{Batch, Decryption, EncryptedEvent, SessionCopy, is_better};

/// Written by matrix-nio 0.26 and vodozemac's binding for Python: two copies of one session, and six entries that are no
/// sessions.
const NIO: &str = include_str!("nio.txt");
/// That session's id, and messages that it encrypts.
const MESSAGES: &str = include_str!("nio.json");
const PASSPHRASE: &str = "pässword 1";
const ROOM: &str = "!room:hs";

fn read(text: impl AsRef<[u8]>, passphrase: &str) -> Result<KeyFile, String> {
    KeyFile::read(text.as_ref(), &passphrase.into()).map_err(|error| error.to_string())
}

#[derive(serde::Deserialize)]
struct Messages {
    session_id: String,
    messages: Vec<String>,
}

fn messages() -> Messages {
    serde_json::from_str(MESSAGES).unwrap()
}

#[test]
fn a_file_of_another_implementation_is_read() {
    let file = read(NIO, PASSPHRASE).unwrap();
    let session_id = messages().session_id;
    let found: Vec<_> =
        file.sessions.iter().map(|it| (&*it.room_id, &*it.session_id, it.first_index())).collect();
    assert_eq!(found, [(ROOM, &*session_id, 0), (ROOM, &*session_id, 1)]);
    assert!(file.sessions[0].sender_key.is_some() && file.sessions[0].sender_ed25519.is_some());
    assert_eq!(file.unreadable.values().sum::<usize>(), 6);
    assert_eq!(file.unreadable["that lack what sessions have"], 2);
    assert_eq!(file.unreadable["whose id is not that of its key"], 1);
    let shown = format!("{file:?} {:?}", file.sessions[0].key());
    assert!(
        !shown.contains("ratchet") && shown.contains(&session_id) && shown.contains("REDACTED"),
        "{shown}"
    );
}

#[test]
fn its_sessions_decrypt_what_they_have_encrypted() {
    let Messages { session_id, messages } = messages();
    let mut file = read(NIO, PASSPHRASE).unwrap();
    let later = file.sessions.pop().unwrap();
    let copy = |session: &Session| SessionCopy {
        key: session.key(),
        origin: "file".to_owned(),
        senders: Vec::new(),
    };
    let event = |(n, ciphertext): (usize, &String)| EncryptedEvent {
        event_id: n.to_string(),
        sender: "@alice:hs".to_owned(),
        session_id: session_id.clone(),
        content: format!(r#"{{"ciphertext":"{ciphertext}"}}"#),
    };
    for (session, first) in [(&file.sessions[0], 0), (&later, 1)] {
        let batch = Batch {
            room_id: ROOM.to_owned(),
            sessions: [(session_id.clone(), vec![copy(session)])].into(),
            events: messages.iter().enumerate().map(event).collect(),
        };
        let mut decrypted = batch.decrypt();
        decrypted.sort_by(|(one, _), (other, _)| one.event_id.cmp(&other.event_id));
        for (n, (_, result)) in decrypted.iter().enumerate() {
            match result {
                Decryption::Ok(plain) if n >= first => {
                    assert_eq!(
                        (plain.index as usize, &*plain.event_type, &*plain.origin),
                        (n, "m.room.message", "file")
                    );
                    assert!(plain.content.contains(&format!("message {n}")), "{}", plain.content);
                }
                Decryption::NoKey(reason) if n < first => {
                    assert_eq!(reason, "the session is known from its message 1 on, and this is message 0");
                }
                result => panic!("{n} from {first} on: {result:?}"),
            }
        }
    }
}

#[test]
fn of_two_copies_the_one_that_reaches_further_back_is_better() {
    let mut file = read(NIO, PASSPHRASE).unwrap();
    let (mut later, mut first) = (file.sessions.pop().unwrap(), file.sessions.pop().unwrap());
    assert_eq!(is_better(&mut first, &later.key()), Some(true));
    assert_eq!(is_better(&mut later, &first.key()), Some(false));
    let same = first.key();
    assert_eq!(is_better(&mut first, &same), Some(false));
    // Another ratchet under the same id.
    let mut forged = first.key().expose_secret().to_vec();
    forged[20] ^= 1;
    assert_eq!(is_better(&mut first, &forged.into()), None);
}

#[test]
fn what_cannot_be_read_says_why() {
    let flipped = |at: usize| {
        let mut text = NIO.as_bytes().to_vec();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        text
    };
    let rounds = {
        let mut bytes =
            BASE64.decode(NIO.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
        bytes[33] = 0xff;
        format!("{BEGIN}\n{}\n{END}\n", BASE64.encode(bytes))
    };
    let version = format!("{BEGIN}\n{}\n{END}\n", BASE64.encode([9; 100]));
    for (text, says) in [
        (b"".to_vec(), "it is no key file"),
        (b"[]".to_vec(), "it is no key file"),
        (vec![0xff; 100], "it is no key file"),
        (NIO.as_bytes()[..NIO.len() / 2].to_vec(), "it is cut"),
        (format!("{BEGIN}\n{END}").into_bytes(), "it is damaged: it is empty"),
        (format!("{BEGIN}\nAQ\n{END}").into_bytes(), "it is damaged: it is too short"),
        (format!("{BEGIN}\n!\n{END}").into_bytes(), "it is damaged: it is no base64"),
        (version.into_bytes(), "it is of version 9"),
        (rounds.into_bytes(), "rounds of PBKDF2"),
        (flipped(NIO.len() / 2), "the passphrase is wrong, or the file was altered"),
    ] {
        let error = read(&text, PASSPHRASE).unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
    }
    let error = read(NIO, "another").unwrap_err();
    assert!(error.contains("the passphrase is wrong") && !error.contains("another"), "{error}");
    assert_eq!(read(NIO.replace('\n', "\r\n"), PASSPHRASE).unwrap().sessions.len(), 2);
}

/// Whatever is done to a file, it is read or refused.
#[test]
fn no_damage_panics() {
    let mut random = fastrand::Rng::with_seed(25);
    for _ in 0..300 {
        let mut text = NIO.as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..text.len());
            match random.u8(..3) {
                0 => text[at] = random.u8(..),
                1 => text.truncate(at.max(1)),
                _ => drop(text.remove(at)),
            }
        }
        if let Ok(file) = read(&text, PASSPHRASE) {
            assert_eq!(file.sessions.len(), 2);
        }
    }
}
