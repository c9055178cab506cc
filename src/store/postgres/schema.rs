//! The database before it is used: can it be reached, may it be written, is it ours, is its schema this version's.
//!
//! Every refusal leaves the database as it was and names it without user or password. The schema is brought up to date
//! in one transaction under an advisory lock of that transaction, so that several nodes may start at once, also behind a
//! proxy that lends connections for a transaction only.

use std::time::Duration;

use sqlx::{
    FromRow,
    migrate::{Migration, Migrator},
    postgres::PgConnectOptions,
};

use super::{
    super::{Error, Result},
    connect::{Begin, Connections},
    db::Db,
};

/// "RJON": who holds this advisory lock brings the schema up to date.
const MIGRATION_LOCK: i64 = 0x524A_4F4E;
/// How long a migration may take.
pub(super) const MIGRATION: Duration = Duration::from_secs(3_600);
/// Servers older than this lack what the statements need.
const OLDEST_SERVER: i32 = 130_000;

/// What a database is called where people read it: its server's address and its name.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(folder) => format!("database {database:?} at {}", folder.display()),
        None => format!("database {database:?} at {}:{}", options.get_host(), options.get_port()),
    }
}

/// What is found of a database.
#[derive(Debug, FromRow)]
struct Found {
    server_version: i32,
    in_recovery: bool,
    read_only: bool,
    role: String,
    listed: bool,
    may_create: bool,
}

/// Refuses a database that this version must not or cannot use; otherwise brings its schema up to date, if `migrate`.
pub(super) async fn prepare(connections: &Connections, place: &str, migrate: bool) -> Result<()> {
    let refused = |why: String| Error::Refused { place: place.to_owned(), why };
    let (found, versions) = look(connections).await.map_err(|error| explain(error, place))?;
    let pending = examine(&found, &versions, migrate).map_err(refused)?;
    if pending {
        self::migrate(connections).await.map_err(|error| explain(error, place))?;
        tracing::info!(place, "the schema is up to date");
    }
    let role = &found.role;
    match missing_rights(connections).await.map_err(|error| explain(error, place))? {
        Some(what) => Err(refused(format!("the role {role:?} may not {what}; grant it, or connect as another role"))),
        None => Ok(()),
    }
}

/// A version that was applied, and the checksum of what was applied then.
type Applied = (i64, Vec<u8>);

async fn look(connections: &Connections) -> Result<(Found, Vec<Applied>)> {
    let mut transaction = connections.begin("looking at the database", Begin::Read).await?;
    let found = look_within(transaction.db()).await;
    transaction.end(found).await
}

async fn look_within(db: &mut Db) -> Result<(Found, Vec<Applied>)> {
    let doing = Error::in_postgres("looking at the database");
    let found: Found = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int AS server_version, pg_is_in_recovery() AS in_recovery,
             current_setting('default_transaction_read_only')::bool AS read_only, current_user::text AS role,
             to_regclass('_sqlx_migrations') IS NOT NULL AS listed,
             coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create",
    )
    .fetch_one(&mut *db)
    .await
    .map_err(&doing)?;
    let versions = if found.listed {
        let applied = "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";
        sqlx::query_as(applied).fetch_all(db).await.map_err(&doing)?
    } else {
        Vec::new()
    };
    Ok((found, versions))
}

/// Whether migrations are to be applied now, or why the database is refused.
fn examine(found: &Found, applied: &[Applied], may_migrate: bool) -> std::result::Result<bool, String> {
    if found.server_version < OLDEST_SERVER {
        let version = found.server_version / 10_000;
        return Err(format!("its server is PostgreSQL {version}; use PostgreSQL 13 or newer"));
    }
    if found.in_recovery || found.read_only {
        return Err(
            "it is read-only: a standby, or one in recovery; give the address of the primary, or promote this \
             one"
            .to_owned(),
        );
    }
    let known = newest_migration();
    let newest = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    let foreign = |(version, sum): &&Applied| {
        migrations().iter().any(|known| known.version == *version && known.checksum[..] != sum[..])
    };
    if let Some((version, _)) = applied.iter().find(foreign) {
        return Err(format!(
            "its migration {version} is not rejoin's: it belongs to another program; create a database of its own"
        ));
    }
    if newest > known {
        return Err(format!(
            "a newer version of rejoin wrote it (schema {newest}, this one knows {known}); use that version"
        ));
    }
    if newest == known {
        return Ok(false);
    }
    if !may_migrate {
        return Err(format!(
            "its schema is {newest}, this version needs {known}, and no-migrate is set; run `rejoin migrate`"
        ));
    }
    if !found.may_create {
        return Err(format!(
            "its schema is {newest}, this version needs {known}, and the role {:?} may not create tables in it; run \
             `rejoin migrate` as its owner, or GRANT CREATE ON SCHEMA public to the role",
            found.role
        ));
    }
    Ok(true)
}

async fn migrate(connections: &Connections) -> Result<()> {
    // Whoever migrates on another node may take longer than anybody waits for a lock while serving.
    let begin = Begin::Write(MIGRATION);
    let mut transaction = connections.begin("bringing the schema up to date", begin).await?;
    let migrated = migrate_within(transaction.db()).await;
    transaction.end(migrated).await
}

async fn migrate_within(db: &mut Db) -> Result<()> {
    let failed = Error::in_postgres("bringing the schema up to date");
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
    lock.execute(&mut *db).await.map_err(&failed)?;
    sqlx::query(APPLIED_TABLE).execute(&mut *db).await.map_err(&failed)?;
    // What another node has applied meanwhile is seen here, since the lock came first.
    let applied: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(&mut *db).await.map_err(&failed)?;
    for migration in migrations().iter().filter(|migration| !applied.contains(&migration.version)) {
        sqlx::raw_sql(migration.sql.clone()).execute(&mut *db).await.map_err(&failed)?;
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES ($1, $2, true, $3, 0)",
        )
        .bind(migration.version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .execute(&mut *db)
        .await
        .map_err(&failed)?;
    }
    Ok(())
}

/// As the tools of sqlx know it.
const APPLIED_TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version bigint PRIMARY KEY,
    description text NOT NULL,
    installed_on timestamptz NOT NULL DEFAULT now(),
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
)";

/// What the role lacks of the rights that a server needs, as words that follow "may not".
async fn missing_rights(connections: &Connections) -> Result<Option<String>> {
    let mut transaction = connections.begin("looking at the rights", Begin::Read).await?;
    let missing = sqlx::query_scalar(
        "SELECT format('%s %s', p, t) FROM unnest($1::text[]) t, unnest($2::text[]) p
         WHERE NOT has_table_privilege(t, p)
         UNION ALL
         SELECT 'EXECUTE ' || f FROM unnest($3::text[]) f WHERE NOT has_function_privilege(f, 'EXECUTE')
         LIMIT 1",
    )
    .bind(TABLES)
    .bind(["SELECT", "INSERT", "UPDATE", "DELETE"])
    .bind(HISTORY_FUNCTIONS)
    .fetch_optional(transaction.db())
    .await
    .map_err(Error::in_postgres("looking at the rights"));
    transaction.end(missing).await
}

const TABLES: [&str; 8] = ["meta", "nodes", "sessions", "events", "messages", "turns", "chunks", "deleted_sessions"];
/// What tells one history from another; every role may call them unless somebody has taken that away.
const HISTORY_FUNCTIONS: [&str; 3] = ["pg_control_system()", "pg_current_wal_lsn()", "pg_walfile_name(pg_lsn)"];

/// A failure that a person must mend as a refusal that says how; any other as it is.
fn explain(error: Error, place: &str) -> Error {
    let Error::Unavailable { source: Some(sqlx::Error::Database(database)), doing } = &error else { return error };
    let code = database.code().unwrap_or_default();
    let said = database.message();
    let why = match &*code {
        "28P01" | "28000" => format!("the server refuses the user or the password ({said}); check database-url"),
        "3D000" => format!("{said}; create it (CREATE DATABASE), or correct database-url"),
        "42501" => format!("the role has not the right ({said}) for {doing}; grant it, or connect as another role"),
        "25006" => format!("it is read-only ({said}); give the address of the primary"),
        "42P07" => format!(
            "another program has tables of these names in it ({said}); create a database of its own, or a schema and \
             put it first in the role's search_path"
        ),
        _ => return error,
    };
    Error::Refused { place: place.to_owned(), why }
}

/// The migrations that this version knows.
fn migrations() -> &'static [Migration] {
    static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");
    &MIGRATIONS.migrations
}

fn newest_migration() -> i64 {
    migrations().iter().map(|migration| migration.version).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found {
            server_version: 150_004,
            in_recovery: false,
            read_only: false,
            role: "app".to_owned(),
            listed: true,
            may_create: true,
        }
    }

    fn current() -> Vec<Applied> {
        migrations().iter().map(|known| (known.version, known.checksum.to_vec())).collect()
    }

    #[test]
    fn what_is_found_is_used_migrated_or_refused_with_a_reason() {
        let newer = [current(), vec![(9_999, vec![1])]].concat();
        let foreign = vec![(1, vec![1, 2, 3])];
        assert_eq!(examine(&found(), &current(), false), Ok(false));
        assert_eq!(examine(&found(), &[], true), Ok(true));
        for (found, applied, migrate, reason) in [
            (found(), vec![], false, "no-migrate is set; run `rejoin migrate`"),
            (found(), newer, true, "a newer version of rejoin wrote it (schema 9999"),
            (found(), foreign, true, "another program"),
            (Found { may_create: false, ..found() }, vec![], true, "the role \"app\" may not create tables"),
            (Found { in_recovery: true, ..found() }, current(), true, "it is read-only"),
            (Found { read_only: true, ..found() }, current(), true, "it is read-only"),
            (Found { server_version: 120_017, ..found() }, current(), true, "PostgreSQL 12; use PostgreSQL 13"),
        ] {
            let why = examine(&found, &applied, migrate).unwrap_err();
            assert!(why.contains(reason), "{why}");
        }
    }

    #[test]
    fn a_database_is_named_without_user_and_password() {
        for (url, shown) in [
            ("postgres://u:secret@h:6/d", "database \"d\" at h:6"),
            ("postgres://u:secret@%2Frun%2Fpg/d", "database \"d\" at /run/pg"),
        ] {
            assert_eq!(place(&url.parse().unwrap()), shown);
        }
    }
}
