//! Signs the archive's own device with the account's self-signing key.

use std::time::{Duration, Instant};

use super::{Reader, request_failed};
use crate::{Error, archive::OwnDevice, matrix::ServedDevice};

/// When it is looked again whether a device that could not be signed can be, and whether a signed one still is.
const LOOK_AGAIN: Duration = Duration::from_secs(6 * 3600);

impl Reader<'_> {
    /// Signs the device unless it is signed. Some clients send keys to signed devices only.
    pub(super) async fn sign_device(&mut self) -> Result<(), String> {
        let Some(own) = &self.context.own_device else { return Ok(()) };
        if self.signs_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let served = self.context.client.served_device(self.user_id, &own.device_id).await;
        self.sign(own, &served.map_err(request_failed)?).await?;
        self.signs_at = Instant::now().checked_add(LOOK_AGAIN);
        Ok(())
    }

    async fn sign(&self, own: &OwnDevice, served: &ServedDevice) -> Result<(), String> {
        let (context, user_id, device_id) = (self.context, self.user_id, &own.device_id);
        let ours = context.writer.archive().device_keys().await;
        let ours = ours.map_err(|error| Error::from(error).to_string())?;
        let (Some(object), Some(public_key), Some(ours)) = (&served.object, &served.self_signing_key, ours)
        else {
            tracing::info!("the account has no cross-signing: Backscroll's device is not signed");
            return Ok(());
        };
        if !ours.are_those_of(served) {
            return Err("the homeserver has other keys of Backscroll's device than its own".to_owned());
        }
        if served.is_signed_by(user_id, public_key) {
            return Ok(());
        }
        let key = self.opener.self_signing_key().await?;
        let signed =
            key.filter(|key| key.public_key() == *public_key).and_then(|key| key.sign(user_id, object));
        let Some(signed) = signed else {
            tracing::warn!(
                "the recovery key does not give the account's self-signing key: verify Backscroll's device in another \
                 client, or clients that send keys to verified devices only leave it out"
            );
            return Ok(());
        };
        context.client.upload_signature(user_id, device_id, &signed).await.map_err(request_failed)?;
        tracing::info!(
            device.id = device_id,
            "signed Backscroll's device with the account's self-signing key"
        );
        Ok(())
    }
}
