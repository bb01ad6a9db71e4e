//! Roles with no more rights than they need. What they may do is in migration 0011.

use super::{Archive, Error};

impl Archive {
    /// Lets a role read the views: of all rooms, or of these only. Makes the role if need be. Granting again replaces.
    pub async fn grant_reader(&self, role: &str, rooms: Option<&[String]>) -> Result<(), Error> {
        sqlx::query!("select archive.grant_reader($1::text::name, $2)", role, rooms)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Lets a role do what the daemon does, and nothing to the tables themselves. Makes the role if need be.
    pub async fn grant_writer(&self, role: &str) -> Result<(), Error> {
        sqlx::query!("select archive.grant_writer($1::text::name)", role).execute(&self.pool).await?;
        Ok(())
    }
}
