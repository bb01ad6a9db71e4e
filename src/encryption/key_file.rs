//! Key files, as Element and other clients export them (specification, "Key export format"): sessions, encrypted with a
//! passphrase.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretSlice, SecretString};
use serde_json::value::RawValue;
use sha2::{Sha256, Sha512};

use super::session::{Entry, Origin, Session};

const BEGIN: &str = "-----BEGIN MEGOLM SESSION DATA-----";
const END: &str = "-----END MEGOLM SESSION DATA-----";
/// The only version of the format.
const VERSION: u8 = 1;
/// The version, the salt, the initialisation vector and the number of rounds.
const HEADER: usize = 1 + 16 + 16 + 4;
const MAC: usize = 32;
/// The largest file in bytes. A session takes some 700.
const LONGEST: u64 = 64 << 20;
/// The most rounds of PBKDF2. Clients write 100,000 to 500,000. Ten million take several seconds.
pub(super) const MOST_ROUNDS: u32 = 10_000_000;

/// Base64 with or without padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a key file cannot be read. The texts contain nothing of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is larger than any key file.
    #[error("it is larger than 64 MiB: check that this is the right file")]
    TooLong,
    /// It does not begin as a key file.
    #[error(
        "it is no key file, which begins with `{BEGIN}`: export the keys with a client (in Element: All settings, \
         Encryption, Export keys)"
    )]
    NoKeyFile,
    /// It has no end.
    #[error("it is cut: its last line is not `{END}`; export or copy it again")]
    Cut,
    /// What is between the two lines is damaged.
    #[error("it is damaged: {0}; export or copy it again")]
    Damaged(&'static str),
    /// A version that does not exist yet.
    #[error("it is of version {0} of the format, and only version {VERSION} is known")]
    Version(u8),
    /// To check the passphrase would take too long.
    #[error("it asks for {0} rounds of PBKDF2, and more than {MOST_ROUNDS} are refused: export it again")]
    Rounds(u32),
    /// The authentication code does not fit.
    #[error("the passphrase is wrong, or the file was altered: give the passphrase of its export")]
    Passphrase,
}

/// What a key file contains.
#[derive(Debug, Default)]
pub(crate) struct KeyFile {
    /// Its sessions.
    pub(crate) sessions: Vec<Session>,
    /// The entries that are no sessions: how many, by the reason.
    pub(crate) unreadable: BTreeMap<&'static str, usize>,
}

impl KeyFile {
    /// Opens and decrypts a file. Takes up to some seconds of a processor's time.
    pub(crate) fn open(path: &Path, passphrase: &SecretString) -> Result<Self, Error> {
        let mut text = Vec::new();
        File::open(path)?.take(LONGEST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LONGEST {
            return Err(Error::TooLong);
        }
        Self::read(&text, passphrase)
    }

    /// Decrypts a file's content.
    pub(crate) fn read(text: &[u8], passphrase: &SecretString) -> Result<Self, Error> {
        let sealed = Sealed::parse(text)?;
        let plain = sealed.open(passphrase)?;
        let entries: Vec<&RawValue> = serde_json::from_slice(plain.expose_secret())
            .map_err(|_| Error::Damaged("what it encrypts is no list of sessions"))?;
        let mut file = Self::default();
        for entry in entries {
            let entry =
                serde_json::from_str::<Entry>(entry.get()).map_err(|_| "that lack what sessions have");
            match entry.and_then(|entry| Session::from_entry(entry, Origin::File)) {
                Ok(session) => file.sessions.push(session),
                Err(reason) => *file.unreadable.entry(reason).or_default() += 1,
            }
        }
        Ok(file)
    }
}

/// A file between its first and last line, decoded.
struct Sealed(Vec<u8>);

impl Sealed {
    fn parse(text: &[u8]) -> Result<Self, Error> {
        let text = str::from_utf8(text).map_err(|_| Error::NoKeyFile)?;
        let text = text.trim_start_matches('\u{feff}').trim();
        let text = text.strip_prefix(BEGIN).ok_or(Error::NoKeyFile)?;
        let text = text.strip_suffix(END).ok_or(Error::Cut)?;
        let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = BASE64.decode(packed).map_err(|_| Error::Damaged("it is no base64"))?;
        match bytes.first() {
            None => Err(Error::Damaged("it is empty")),
            Some(&VERSION) if bytes.len() < HEADER + MAC => Err(Error::Damaged("it is too short")),
            Some(&VERSION) => Ok(Self(bytes)),
            Some(&version) => Err(Error::Version(version)),
        }
    }

    fn open(&self, passphrase: &SecretString) -> Result<SecretSlice<u8>, Error> {
        let damaged = Error::Damaged("it is too short");
        let (signed, mac) = self.0.split_last_chunk::<MAC>().ok_or(damaged)?;
        let (header, encrypted) = signed.split_at(HEADER);
        let (salt, rest) = header[1..].split_at(16);
        let (iv, rounds) = rest.split_at(16);
        let rounds = u32::from_be_bytes(rounds.try_into().unwrap_or_default());
        if rounds == 0 || rounds > MOST_ROUNDS {
            return Err(Error::Rounds(rounds));
        }
        let mut keys: SecretSlice<u8> = vec![0; 64].into();
        let passphrase = passphrase.expose_secret().as_bytes();
        pbkdf2::pbkdf2::<Hmac<Sha512>>(passphrase, salt, rounds, keys.expose_secret_mut())
            .map_err(|_| Error::Passphrase)?;
        let (aes_key, mac_key) = keys.expose_secret().split_at(32);
        let mut authentic = Hmac::<Sha256>::new_from_slice(mac_key).map_err(|_| Error::Passphrase)?;
        authentic.update(signed);
        authentic.verify_slice(mac).map_err(|_| Error::Passphrase)?;
        let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new_from_slices(aes_key, iv)
            .map_err(|_| Error::Damaged("its header is not as it should be"))?;
        let mut plain = encrypted.to_vec();
        cipher.apply_keystream(&mut plain);
        Ok(plain.into())
    }
}

#[cfg(test)]
mod tests;
