//! The archive's own device (`encryption.device`): other devices send it the keys of encrypted rooms. It sends nothing but its
//! own public keys.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    Error,
    archive::{self, Account, OwnDevice, Writer, wrong_device_key},
    config::Config,
    context::{Context, RetryPolicy},
    encryption::{DeviceKey, FEW_ONE_TIME_KEYS},
    matrix::{self, Identity, PublishedKeys},
};

/// The file in `data_dir` with the key that encrypts what is secret of the device.
const KEY_FILE: &str = "device.key";
/// What the homeserver has while no response to `/sync` has said otherwise.
const ENOUGH: PublishedKeys = PublishedKeys { one_time: u64::MAX / 2, has_fallback: true };
const NONE: PublishedKeys = PublishedKeys { one_time: 0, has_fallback: false };

/// Makes the device of the access token ready to receive keys, where `encryption.device` is set.
///
/// # Errors
/// [`archive::Error::Device`] if the token has no device, if another client uses it, or if its key is not there; besides
/// errors that a retry cannot fix.
pub(crate) async fn open(
    config: &Config,
    client: &Identity,
    writer: &Writer,
    account: &Account,
    retries: RetryPolicy,
) -> Result<Option<OwnDevice>, Error> {
    if !config.encryption.device {
        return Ok(None);
    }
    let device_id = retries.retry(async || client.whoami().await).await?.device_id;
    let device_id = device_id.ok_or_else(|| {
        refused("the token belongs to no device; get one of its own with `backscroll login`")
    })?;
    let user_id = account.user_id.clone();
    let stored = retries.retry(async || writer.archive().device_keys().await).await?;
    let stored = stored.filter(|stored| stored.device_id == device_id);
    let served = retries.retry(async || client.served_device(&user_id, &device_id).await).await?;
    let is_ours = stored.as_ref().is_some_and(|stored| stored.are_those_of(&served));
    if served.object.is_some() && !is_ours {
        return Err(refused(&format!(
            "another client has published keys for the device {device_id}, so that the keys of rooms go to that client; \
             give Backscroll a token of its own, with `backscroll login`"
        )));
    }
    let key = device_key(config, stored.is_some())?;
    let own = OwnDevice { user_id, device_id, key };
    let has = if stored.is_some() {
        // A homeserver that was restored may have lost them.
        let is_published = served.object.is_some();
        retries.retry(async || writer.note_device_published(is_published).await).await?;
        ENOUGH
    } else {
        retries.retry(async || writer.add_device(&own).await).await?;
        NONE
    };
    retries.retry(async || publish(client, writer, &own, has).await).await?;
    tracing::info!(device.id = own.device_id, "receiving the keys of encrypted rooms");
    Ok(Some(own))
}

/// Publishes new keys where the homeserver has too few. A failure is logged, and the next response tries again.
///
/// # Errors
/// Errors of the database.
pub(super) async fn keep_up(context: &Context, published: Option<PublishedKeys>) -> Result<(), Error> {
    let (Some(own), Some(published)) = (&context.own_device, published) else { return Ok(()) };
    context.writer.note_one_time_keys(published.one_time).await?;
    if published.one_time > FEW_ONE_TIME_KEYS && published.has_fallback {
        return Ok(());
    }
    match publish(&context.client, &context.writer, own, published).await {
        Err(Error::Matrix(error)) => {
            tracing::warn!(%error, "failed to publish one-time keys; the next response to /sync tries again");
            Ok(())
        }
        other => other,
    }
}

async fn publish(
    client: &Identity,
    writer: &Writer,
    own: &OwnDevice,
    published: PublishedKeys,
) -> Result<(), Error> {
    let body = writer.replenish_keys(own, published.one_time, published.has_fallback).await?;
    let Some(body) = body else { return Ok(()) };
    match client.upload_keys(&body).await {
        Ok(()) => {}
        // It has other keys of the same names.
        Err(error) if error.is_bad_request() => tracing::warn!(
            %error,
            "the homeserver refuses new one-time keys, as after a restore of an older backup of the database; some keys of \
             rooms may not be readable, and `backscroll login` gives a device without this flaw"
        ),
        Err(error) => return Err(error.into()),
    }
    Ok(writer.keys_published(own).await?)
}

fn refused(problem: &str) -> Error {
    archive::Error::Device(problem.to_owned()).into()
}

/// The key that encrypts what is secret of the device: from the credential, or from the file in `data_dir`, which is made
/// unless the device exists already.
fn device_key(config: &Config, exists: bool) -> Result<DeviceKey, Error> {
    if let Some(source) = &config.encryption.device_key {
        let text = source.read().map_err(|error| matrix::Error::Credentials(error.to_string()))?;
        return Ok(DeviceKey::from_text(&text));
    }
    let path = config.data_dir.join(KEY_FILE);
    let text = match read_key(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && exists => {
            return Err(wrong_device_key().into());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_key(&path),
        other => other,
    };
    let text = text.map_err(|error| {
        refused(&format!(
            "its key cannot be kept in {}: {error}; let data_dir be a directory that lasts and that Backscroll may write, or \
             give it the credential `device_key`",
            path.display()
        ))
    })?;
    Ok(DeviceKey::from_text(&text))
}

fn read_key(path: &Path) -> io::Result<SecretString> {
    let text = fs::read_to_string(path)?;
    // A file that was cut would otherwise look like another key.
    if text.trim().len() < 64 {
        return Err(io::Error::other("the file is cut; restore it from a backup"));
    }
    Ok(text.trim().into())
}

/// Writes a new key, so that the file is whole or not there.
fn write_key(path: &Path) -> io::Result<SecretString> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let text = DeviceKey::new_text();
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.expose_secret().as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()?;
    Ok(text)
}
