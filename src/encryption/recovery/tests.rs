use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use super::*;
use crate::encryption::BackupPortion;

/// What matrix-sdk has made: with a recovery key, and with a passphrase.
const VECTORS: [&str; 2] = [
    include_str!("../../../tests/encryption/vectors/matrix-sdk-recovery-key.json"),
    include_str!("../../../tests/encryption/vectors/matrix-sdk-passphrase.json"),
];

fn vector(text: &str) -> (Value, AccountData, AuthData) {
    let vector: Value = serde_json::from_str(text).unwrap();
    let data = &vector["account_data"];
    let id = data["m.secret_storage.default_key"]["key"].as_str().unwrap().to_owned();
    let key = SecretStorageKey::deserialize(&data[format!("m.secret_storage.key.{id}")]).unwrap();
    let secret = StoredSecret::deserialize(&data[SECRET_NAME]).unwrap();
    let auth = AuthData::deserialize(&vector["version"]["auth_data"]).unwrap();
    let self_signing = StoredSecret::deserialize(&data[SELF_SIGNING]).unwrap();
    let data = AccountData { secret, self_signing, keys: vec![(id, key)] };
    (vector, data, auth)
}

fn open(text: &str, data: &AccountData, auth: &AuthData) -> Result<BackupKey, String> {
    RecoveryKey::new(text.into()).open(data, auth)
}

/// Every session that matrix-sdk has backed up is read, with its recovery key and with its passphrase.
#[test]
fn what_matrix_sdk_made_is_read() {
    for text in VECTORS {
        let (vector, data, auth) = vector(text);
        let words = [&vector["recovery_key"], &vector["passphrase"]];
        for word in words.into_iter().filter_map(Value::as_str) {
            let self_signing = RecoveryKey::new(word.into()).self_signing_key(&data).unwrap();
            assert!(vector["keys_query"].to_string().contains(&self_signing.public_key()));
            let key = open(word, &data, &auth).unwrap();
            let portion = BackupPortion::read(vector["keys"].to_string().as_bytes(), &key);
            let rooms = vector["keys"]["rooms"].as_object().unwrap().values();
            let sessions: usize = rooms.map(|room| room["sessions"].as_object().unwrap().len()).sum();
            assert!(sessions > 0);
            assert_eq!((portion.sessions.len(), portion.unreadable.len()), (sessions, 0));
        }
    }
}

#[test]
fn a_wrong_key_opens_nothing_and_says_what_was_tried() {
    let (_, data, auth) = vector(VECTORS[0]);
    let (other, ..) = vector(VECTORS[1]);
    let error = open(other["recovery_key"].as_str().unwrap(), &data, &auth).err().unwrap();
    assert_eq!(error, "secret storage has another key; it is not the backup's own key either");
    let error = open("a passphrase", &data, &auth).err().unwrap();
    assert!(error.starts_with("secret storage has a key without a passphrase"), "{error}");
    let error = open("a passphrase", &AccountData::default(), &auth).err().unwrap();
    assert!(error.starts_with("secret storage has no secret"), "{error}");
}

/// A key of secret storage that opens the secret of an older backup does not open this one.
#[test]
fn the_key_must_be_that_of_the_backup() {
    let (vector_, data, _) = vector(VECTORS[0]);
    let (_, _, auth) = vector(VECTORS[1]);
    let error = open(vector_["recovery_key"].as_str().unwrap(), &data, &auth).err().unwrap();
    assert!(error.starts_with("secret storage has the key of another backup"), "{error}");
}

#[test]
fn the_backups_own_key_opens_it_without_secret_storage() {
    let (vector_, data, auth) = vector(VECTORS[0]);
    let recovery = RecoveryKey::new(vector_["recovery_key"].as_str().unwrap().into());
    let (id, description) = &data.keys[0];
    let key = data.secret.decrypt(SECRET_NAME, id, &recovery.storage_key(description).unwrap()).unwrap();
    let mut bytes = [&PREFIX, key.expose_secret()].concat();
    bytes.push(bytes.iter().fold(0, |parity, byte| parity ^ byte));
    let own = bs58::encode(bytes).into_string();
    assert!(open(&own, &AccountData::default(), &auth).is_ok());
}

/// As older clients did: the backup's key is derived from a passphrase, with the salt in `auth_data`.
#[test]
fn the_passphrase_of_an_older_backup_opens_it() {
    let key = derive(&"pass".into(), "salt", 10).unwrap();
    let secret = vodozemac::Curve25519SecretKey::from_slice(key.expose_secret().try_into().unwrap());
    let public_key = vodozemac::Curve25519PublicKey::from(&secret).to_base64();
    let auth = json!({ "public_key": public_key, "private_key_salt": "salt", "private_key_iterations": 10 });
    let auth = AuthData::deserialize(auth).unwrap();
    assert!(open("pass", &AccountData::default(), &auth).is_ok());
    assert!(open("past", &AccountData::default(), &auth).is_err());
}

#[test]
fn a_mistyped_recovery_key_is_none() {
    let (vector_, ..) = vector(VECTORS[0]);
    let key = vector_["recovery_key"].as_str().unwrap();
    assert_eq!(RecoveryKey::new(key.into()).describe(), "recovery key");
    assert_eq!(RecoveryKey::new(key.replace(' ', "").into()).describe(), "recovery key");
    let swapped: String = key.chars().rev().collect();
    for text in [&key[1..], &swapped, "", "Es", &key.replace('r', "s")] {
        assert_ne!(RecoveryKey::new((*text).into()).describe(), "recovery key", "{text}");
    }
    let mistyped = RecoveryKey::new(key.replace('r', "s").into());
    assert!(mistyped.describe().contains("a mistake in it"));
    assert_eq!(RecoveryKey::new("Especially long passphrase".into()).describe(), "passphrase");
}

/// Each damage leaves out the one entry, for its reason, and the other is read.
#[test]
fn damaged_and_forged_entries_are_counted_and_the_rest_is_read() {
    let (vector_, data, auth) = vector(VECTORS[0]);
    let key = open(vector_["recovery_key"].as_str().unwrap(), &data, &auth).unwrap();
    let (room_id, room) = vector_["keys"]["rooms"].as_object().unwrap().iter().next().unwrap();
    let (session_id, entry) = room["sessions"].as_object().unwrap().iter().next().unwrap();
    let changed = |name: &str, value: Value| {
        let mut entry = entry.clone();
        entry["session_data"][name] = value;
        entry
    };
    let mac = entry["session_data"]["mac"].clone();
    let ciphertext = entry["session_data"]["ciphertext"].as_str().unwrap();
    let damaged = format!("{}{}", if ciphertext.starts_with('A') { "B" } else { "A" }, &ciphertext[1..]);
    for (bad, reason) in [
        (json!(1), "that lack what sessions have"),
        (json!({}), "that lack what sessions have"),
        (changed("mac", json!("?")), "whose encryption is damaged"),
        (changed("ephemeral", json!("AAAA")), "whose encryption is damaged"),
        (changed("ephemeral", json!("Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZSBvZiA")), "decrypt"),
        (changed("ciphertext", json!(damaged)), ""),
        (changed("ciphertext", mac), ""),
        (entry.clone(), "whose id is not that of its key"),
    ] {
        let body = json!({ "rooms": { room_id: { "sessions": { session_id: entry, "other": bad } } } });
        let portion = BackupPortion::read(body.to_string().as_bytes(), &key);
        assert_eq!(portion.sessions.len(), 1, "{reason}");
        let reasons: Vec<_> = portion.unreadable.into_iter().collect();
        assert!(
            matches!(&reasons[..], [(why, 1)] if why.contains(reason)),
            "{reasons:?} instead of {reason}"
        );
    }
    let body = json!({ "rooms": { "!a:hs": false, "no room": room, room_id: room } });
    let portion = BackupPortion::read(body.to_string().as_bytes(), &key);
    assert_eq!(
        (portion.sessions.len(), portion.unreadable.len()),
        (room["sessions"].as_object().unwrap().len(), 2)
    );
}

proptest! {
    /// A part of a backup that was altered at random gives sessions and reasons, and does not panic.
    #[test]
    fn no_alteration_of_a_backup_panics(alterations in vec((any::<Index>(), any::<Option<u8>>()), 1..6)) {
        let (vector, data, auth) = vector(VECTORS[0]);
        let key = open(vector["recovery_key"].as_str().unwrap(), &data, &auth).unwrap();
        let mut body = vector["keys"].to_string().into_bytes();
        let all = BackupPortion::read(&body, &key).sessions.len();
        for (place, byte) in alterations {
            let place = place.index(body.len());
            match byte {
                Some(byte) => body[place] = byte,
                None => drop(body.remove(place)),
            }
        }
        prop_assert!(BackupPortion::read(&body, &key).sessions.len() <= all);
    }

    #[test]
    fn no_text_is_too_strange(text in ".{0,80}", iv in ".{0,30}", ciphertext in "[A-Za-z0-9+/=]{0,90}") {
        let (_, mut data, auth) = vector(VECTORS[0]);
        let key = data.keys[0].1.clone();
        let recovery = RecoveryKey { key: Some(vec![1; 32].into()), text: text.as_str().into() };
        let _ = RecoveryKey::new(text.as_str().into()).describe();
        data.keys = vec![("k".to_owned(), SecretStorageKey { iv: Some(iv.clone()), ..key.clone() }),
                         ("l".to_owned(), SecretStorageKey { iv: None, ..key })];
        for id in ["k", "l"] {
            let stored = json!({ "iv": iv, "ciphertext": ciphertext, "mac": ciphertext });
            data.secret.encrypted.insert(id.to_owned(), stored);
        }
        prop_assert!(recovery.open(&data, &auth).is_err());
    }
}
