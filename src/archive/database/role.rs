//! Creates roles with no more rights than they need. Migrations 0011, 0030 and 0031 define the rights.

use sqlx::{Executor as _, PgConnection};

use crate::archive::{Archive, Error};

/// A reader or writer with more rights than it needs.
#[derive(Clone, Debug)]
pub(crate) struct WideRole {
    /// Its name.
    pub(crate) role: String,
    /// `reader` of all rooms, `room reader` of some, or `writer`.
    pub(crate) kind: String,
    /// The reason or the right, and what to do.
    pub(crate) problem: String,
    /// Whether a new role of this kind would be refused.
    pub(crate) unlimited: bool,
}

impl Archive {
    /// Lets a role read the views: of all rooms, or only of these. Creates the role if necessary. Granting again
    /// replaces the earlier grant. Returns the rights that could not be revoked.
    pub(crate) async fn grant_reader(
        &self,
        role: &str,
        rooms: Option<&[String]>,
    ) -> Result<Vec<String>, Error> {
        let mut transaction = self.pool.begin().await?;
        be_silent(&mut transaction).await?;
        sqlx::query!("select archive.grant_reader($1::text::name, $2)", role, rooms)
            .execute(&mut *transaction)
            .await?;
        let kind = if rooms.is_some() { "room reader" } else { "reader" };
        let left = left_open(&mut transaction, role, kind).await?;
        transaction.commit().await?;
        Ok(left)
    }

    /// Lets a role run the daemon, but not change the tables themselves. Creates the role if necessary. Returns the
    /// rights that could not be revoked.
    pub(crate) async fn grant_writer(&self, role: &str) -> Result<Vec<String>, Error> {
        let mut transaction = self.pool.begin().await?;
        be_silent(&mut transaction).await?;
        sqlx::query!("select archive.grant_writer($1::text::name)", role).execute(&mut *transaction).await?;
        let left = left_open(&mut transaction, role, "writer").await?;
        transaction.commit().await?;
        Ok(left)
    }
}

/// The functions raise warnings for a caller in psql. Here their findings are queried instead.
async fn be_silent(connection: &mut PgConnection) -> Result<(), Error> {
    connection.execute("set local client_min_messages = error").await?;
    Ok(())
}

async fn left_open(connection: &mut PgConnection, role: &str, kind: &str) -> Result<Vec<String>, Error> {
    let left = sqlx::query_scalar!(r#"select archive.left_open($1::text::name, $2) as "left!""#, role, kind);
    Ok(left.fetch_all(connection).await?)
}

/// The readers and writers that have too many rights now. None if this role may not query it.
pub(in crate::archive) async fn wide_roles(connection: &mut PgConnection) -> Result<Vec<WideRole>, Error> {
    let may_ask = sqlx::query_scalar!(
        r#"select exists (
               select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
               where n.nspname = 'archive' and p.proname = 'wide_roles'
                 and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')) as "may_ask!""#
    );
    if !may_ask.fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    let wide = sqlx::query_as!(
        WideRole,
        r#"select role::text as "role!", kind as "kind!", problem as "problem!", unlimited as "unlimited!"
           from archive.wide_roles() order by role, kind, unlimited desc, problem"#
    );
    Ok(wide.fetch_all(connection).await?)
}
