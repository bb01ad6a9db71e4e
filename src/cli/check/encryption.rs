//! Checks what encrypted rooms need: the archive's own device, and the account's key backup.

use super::{Report, patience::patiently};
use crate::{
    Error, Exit,
    archive::inspect::FoundAccount,
    config::Config,
    daemon::KeyBackupOpener,
    matrix::{Client, Whoami},
};

const DEVICE: &str = "device";
const KEY_BACKUP: &str = "key backup";

pub(super) async fn check(
    config: &Config,
    client: &Client,
    whoami: &Whoami,
    account: Option<&FoundAccount>,
    report: &mut Report,
) {
    if config.encryption.device {
        device(client, whoami, account, report).await;
    }
    key_backup(config, client, whoami, report).await;
}

/// Whether the token's device is free for Backscroll, or has its keys.
async fn device(client: &Client, whoami: &Whoami, account: Option<&FoundAccount>, report: &mut Report) {
    let login = "`backscroll login` gets a token of a device of its own";
    let Some(device_id) = &whoami.device_id else {
        report.fail(
            Exit::Configuration,
            DEVICE,
            "the token belongs to no device, so nobody can send keys to it",
            &[login],
        );
        return;
    };
    let served =
        patiently("/keys/query", async || client.served_device(whoami.user_id.as_str(), device_id).await);
    let served = match served.await {
        Ok(served) => served,
        Err(error) => {
            report.warn(DEVICE, &format!("failed to {error}"), &[]);
            return;
        }
    };
    let ours =
        account.and_then(|account| account.device.as_ref()).filter(|ours| ours.device_id == *device_id);
    match (&served.object, ours) {
        (None, _) => report.ok(DEVICE, &format!("{device_id} has no keys yet; run publishes them")),
        (Some(_), Some(ours)) if ours.are_those_of(&served) => {
            let signed = served.self_signing_key.as_ref();
            let signed = signed.is_some_and(|key| served.is_signed_by(whoami.user_id.as_str(), key));
            let signed = if signed { "signed by the account" } else { "not signed by the account" };
            report.ok(DEVICE, &format!("other devices send keys to {device_id}, which is {signed}"));
        }
        (Some(_), _) => {
            let problem = format!("another client has published keys for the device {device_id}");
            report.fail(Exit::Configuration, DEVICE, &problem, &[login]);
        }
    }
}

/// Whether the recovery key opens the backup.
async fn key_backup(config: &Config, client: &Client, whoami: &Whoami, report: &mut Report) {
    let Some(source) = &config.encryption.recovery_key else { return };
    let version = match patiently("/room_keys/version", async || client.backup_version().await).await {
        Ok(Some(version)) => version,
        Ok(None) => {
            let remedy = "set one up in a client, or remove encryption.recovery_key_file";
            report.warn(KEY_BACKUP, "the account has none", &[remedy]);
            return;
        }
        Err(error) => {
            report.fail(Error::from(error).exit_code(), KEY_BACKUP, "failed to ask for its version", &[]);
            return;
        }
    };
    match KeyBackupOpener::new(client, whoami.user_id.as_str(), source).open(&version).await {
        Ok(_) => report.ok(KEY_BACKUP, &format!("version {}, which the recovery key opens", version.version)),
        Err(problem) => report.fail(Exit::Configuration, KEY_BACKUP, &problem, &[]),
    }
}
