//! A Matrix client on matrix-sdk, as Element is: it sends encrypted messages, sets up cross-signing, secret storage and a
//! key backup, and says what it can read.
//!
//! `encryption-matrix-sdk URL USER PASSWORD` logs in as a new device. It reads commands from standard input, one JSON object
//! on each line, and answers each with one, as `sender.py` does.

use anyhow::{Context as _, bail};
use matrix_sdk::{
    Client, Room,
    config::SyncSettings,
    encryption::EncryptionSettings,
    room::MessagesOptions,
    ruma::{
        OwnedDeviceId, OwnedUserId, RoomId,
        api::client::uiaa::{AuthData, Password, UserIdentifier},
    },
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let [url, user, password] = [(); 3].map(|()| arguments.next().unwrap_or_default());
    let settings = EncryptionSettings::default();
    let client = Client::builder().homeserver_url(url).with_encryption_settings(settings).build().await?;
    client.matrix_auth().login_username(&user, &password).initial_device_display_name("matrix-sdk").await?;
    client.encryption().wait_for_e2ee_initialization_tasks().await;
    sync(&client).await?;
    println!("{}", json!({ "device_id": client.device_id() }));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let command = serde_json::from_str(&line)?;
        let answer = act(&client, &password, &command).await;
        println!("{}", answer.with_context(|| format!("failed: {line}"))?);
    }
    Ok(())
}

async fn act(client: &Client, password: &str, command: &Value) -> anyhow::Result<Value> {
    let text = |name: &str| command[name].as_str().with_context(|| format!("no {name}"));
    match text("do")? {
        "sync" => sync(client).await?,
        "send" => {
            let sent =
                room(client, text("room")?)?.send_raw(text("type")?, command["content"].clone()).await?;
            return Ok(json!({ "event_id": sent.response.event_id }));
        }
        "rotate" => room(client, text("room")?)?.discard_room_key().await?,
        "export" => {
            client.encryption().export_room_keys(text("file")?.into(), text("passphrase")?, |_| true).await?;
        }
        "recovery" => return recovery(client, password, command["passphrase"].as_str()).await,
        // Deletes the backup and what secret storage has.
        "forget" => client.encryption().recovery().disable().await?,
        // Until all its sessions are in the backup.
        "backup" => client.encryption().backups().wait_for_steady_state().await?,
        "device" => return device(client, text("user")?.try_into()?, text("device")?.into()).await,
        "read" => return Ok(json!({ "bodies": read(&room(client, text("room")?)?).await? })),
        other => bail!("unknown command {other}"),
    }
    Ok(json!({}))
}

async fn sync(client: &Client) -> anyhow::Result<()> {
    // The second response comes after the requests that the first one has caused.
    for _ in 0..2 {
        client.sync_once(SyncSettings::new().timeout(std::time::Duration::ZERO)).await?;
    }
    Ok(())
}

fn room(client: &Client, id: &str) -> anyhow::Result<Room> {
    client.get_room(<&RoomId>::try_from(id)?).context("the client does not know this room")
}

/// Sets up cross-signing, secret storage and a key backup, with a recovery key or a passphrase.
async fn recovery(client: &Client, password: &str, passphrase: Option<&str>) -> anyhow::Result<Value> {
    let encryption = client.encryption();
    if let Err(error) = encryption.bootstrap_cross_signing_if_needed(None).await {
        let session = error.as_uiaa_response().context("cross-signing")?.session.clone();
        let user_id = client.user_id().context("not logged in")?;
        let mut auth = Password::new(UserIdentifier::Matrix(user_id.to_owned().into()), password.to_owned());
        auth.session = session;
        encryption.bootstrap_cross_signing(Some(AuthData::Password(auth))).await?;
    }
    let recovery = encryption.recovery();
    let mut enable = recovery.enable().wait_for_backups_to_upload();
    if let Some(passphrase) = passphrase {
        enable = enable.with_passphrase(passphrase);
    }
    let key = enable.await?;
    Ok(json!({ "recovery_key": key }))
}

/// What the homeserver says of a device now.
async fn device(client: &Client, user: OwnedUserId, device: OwnedDeviceId) -> anyhow::Result<Value> {
    let encryption = client.encryption();
    let identity = encryption.request_user_identity(&user).await?;
    let device = encryption.get_device(&user, &device).await?;
    Ok(json!({
        "has_identity": identity.is_some(),
        "is_known": device.is_some(),
        "is_signed": device.is_some_and(|device| device.is_cross_signed_by_owner()),
    }))
}

/// The texts of a room, oldest first: `-` for what the client cannot decrypt.
async fn read(room: &Room) -> anyhow::Result<Vec<String>> {
    let mut bodies = Vec::new();
    let mut options = MessagesOptions::backward();
    options.limit = 200u32.into();
    loop {
        let page = room.messages(options).await?;
        for event in &page.chunk {
            let event: Value = serde_json::from_str(event.raw().json().get())?;
            if ["m.room.encrypted", "m.room.message"].iter().any(|kind| event["type"] == *kind) {
                bodies.push(event["content"]["body"].as_str().unwrap_or("-").to_owned());
            }
        }
        let Some(end) = page.end else { break };
        options = MessagesOptions::backward();
        options.limit = 200u32.into();
        options.from = Some(end);
    }
    bodies.reverse();
    Ok(bodies)
}
