//! The account, and the forward checkpoint `since`.

use sqlx::PgConnection;

use super::{Archive, Error, Writer, rollback_probe};

/// The account of the archive.
#[derive(Clone, Debug)]
pub struct Account {
    /// Internal key.
    pub(crate) account_key: i64,
    /// Matrix user id.
    pub(crate) user_id: String,
    /// The device of an earlier login with the password.
    pub(crate) device_id: Option<String>,
    /// The token of the next `/sync` request. `None`: an initial sync.
    pub(crate) since: Option<String>,
    /// The fingerprint of the room filter that was last applied. After a change of the choice, a text that equals no
    /// fingerprint.
    pub(crate) rooms_filter: Option<String>,
}

impl Archive {
    /// The archive's account. `None`: the archive is new.
    pub(crate) async fn account(&self) -> Result<Option<Account>, Error> {
        let account = sqlx::query_as!(
            Account,
            "select account_key, user_id, device_id, since, rooms_filter from archive.accounts order by account_key"
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(account)
    }
}

impl Writer {
    /// The account's row, which is inserted in a new archive.
    ///
    /// # Errors
    /// [`Error::AnotherAccount`] if the archive belongs to another account, which sees other events.
    pub(crate) async fn account(
        &self,
        user_id: &str,
        homeserver: &str,
        device_id: Option<&str>,
    ) -> Result<Account, Error> {
        if let Some(account) = self.archive().account().await?
            && account.user_id != user_id
        {
            return Err(Error::AnotherAccount { ours: user_id.to_owned(), theirs: account.user_id });
        }
        let mut transaction = self.begin().await?;
        let account = sqlx::query_as!(
            Account,
            "insert into archive.accounts as a (user_id, homeserver, device_id) values ($1, $2, $3)
             on conflict (user_id) do update
                 set homeserver = excluded.homeserver, device_id = coalesce(excluded.device_id, a.device_id)
             returning account_key, user_id, device_id, since, rooms_filter",
            user_id,
            homeserver,
            device_id
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(account)
    }

    /// Records why the homeserver fails. The next stored response removes this.
    pub(crate) async fn note_homeserver_fails(&self, error: &str) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.accounts
             set homeserver_error = $1, homeserver_failing_since = least(homeserver_failing_since, now())
             where homeserver_error is distinct from $1",
            error
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Drops a `since` that the server refuses (P134) or misunderstands (P23). The next response is an initial one,
    /// and opens a gap in every room that was followed. Returns the account as it is now.
    pub(crate) async fn forget_since(&self, account: &Account) -> Result<Account, Error> {
        let mut transaction = self.begin().await?;
        let forgotten = sqlx::query!(
            "update archive.accounts set since = null where account_key = $1 and since is not distinct from $2",
            account.account_key,
            account.since
        )
        .execute(&mut *transaction)
        .await?;
        if forgotten.rows_affected() != 1 {
            return Err(Error::CheckpointMoved);
        }
        rollback_probe::forget(&mut transaction).await?;
        transaction.commit().await?;
        Ok(Account { since: None, ..account.clone() })
    }
}

/// Makes the next request ask for the whole state of every room, after the choice of rooms has changed. The text is
/// different each time, so that a response to an earlier request is recognised as outdated, even if the choice was
/// changed back.
pub(super) async fn outdate_filter(connection: &mut PgConnection) -> Result<(), Error> {
    let id = sqlx::query_scalar!("select gen_random_uuid()::text").fetch_one(&mut *connection).await?;
    sqlx::query!("update archive.accounts set rooms_filter = 'outdated ' || $1", id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether the choice of rooms is still the same as when `account` was read. It cannot change until the transaction
/// ends. Call this after the rooms were locked.
pub(super) async fn is_up_to_date(connection: &mut PgConnection, account: &Account) -> Result<bool, Error> {
    let rooms_filter = sqlx::query_scalar!(
        "select rooms_filter from archive.accounts where account_key = $1 for update",
        account.account_key
    )
    .fetch_one(connection)
    .await?;
    Ok(rooms_filter == account.rooms_filter)
}

/// The `since` that is stored now.
pub(super) async fn since(connection: &mut PgConnection, account: &Account) -> Result<Option<String>, Error> {
    let since =
        sqlx::query_scalar!("select since from archive.accounts where account_key = $1", account.account_key);
    Ok(since.fetch_one(connection).await?)
}

/// Moves `since` in the transaction that stores its response.
///
/// # Errors
/// [`Error::CheckpointMoved`] if it is not where `account` says.
pub(super) async fn advance(
    connection: &mut PgConnection,
    account: &Account,
    next_batch: &str,
    rooms_filter: Option<&str>,
) -> Result<(), Error> {
    let moved = sqlx::query!(
        "update archive.accounts
         set since = $3, synced_at = now(), rooms_filter = coalesce($4, rooms_filter),
             homeserver_error = null, homeserver_failing_since = null
         where account_key = $1 and since is not distinct from $2",
        account.account_key,
        account.since,
        next_batch,
        rooms_filter
    )
    .execute(connection)
    .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(Error::CheckpointMoved) }
}
