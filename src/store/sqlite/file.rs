//! The database file before it is opened: is it ours, is it free, may it be written.
//!
//! Every refusal leaves the file as it was. The lock is a file of its own beside the canonical path (so that a second
//! name for the same file finds the same lock); it is never deleted, since deleting it would let two servers hold it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::super::{Error, Result};

/// "RJON" in the header of the database file.
pub(super) const APPLICATION_ID: i64 = 0x524A_4F4E;

fn refused(path: &Path, why: impl Into<String>) -> Error {
    Error::Refused { place: path.display().to_string(), why: why.into() }
}

/// The one name of the file at `path`, symbolic links resolved, whether or not it exists yet.
pub(super) fn canonical(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return Err(refused(path, "this is a directory; give the path of a file"));
    }
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    if path.is_symlink() {
        return Err(refused(path, "this symbolic link leads nowhere; create its target's directory or remove it"));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent
        .canonicalize()
        .map_err(|error| refused(path, format!("its directory cannot be used ({error}); create it first")))?;
    let name = path.file_name().ok_or_else(|| refused(path, "this is not the name of a file"))?;
    Ok(parent.join(name))
}

/// The exclusive lock beside a database file, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    /// The database file itself, under whatever name it was opened: a hard link has a lock file of its own.
    database: Option<File>,
}

impl Lock {
    /// Takes the lock, or says that another server has it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock_path = PathBuf::from(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(|error| {
            refused(&lock_path, format!("the lock file cannot be opened ({error}); make its directory writable"))
        })?;
        refuse_network_file_system(&file, path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file, database: None }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => {
                Err(refused(&lock_path, format!("the file system cannot lock files ({error}); use a local disk")))
            }
        }
    }

    /// Also locks the database file, creating it if it is not there. To be called before SQLite opens it for good, and
    /// kept until SQLite has closed it: closing any handle of a file gives up SQLite's own locks on it.
    pub(super) fn take_database(&mut self, path: &Path) -> Result<()> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(|error| {
                refused(path, format!("it cannot be opened for writing ({error}); check disk and permissions"))
            })?;
        match file.try_lock() {
            Ok(()) => self.database = Some(file),
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => {
                return Err(refused(path, format!("the file system cannot lock files ({error}); use a local disk")));
            }
        }
        Ok(())
    }
}

/// Locks on network file systems do not keep other machines out, so that two servers would write one file.
fn refuse_network_file_system(file: &File, path: &Path) -> Result<()> {
    const NFS: u64 = 0x6969;
    const SMB: u64 = 0x517B;
    const CIFS: u64 = 0xFF53_4D42;
    const SMB2: u64 = 0xFE53_4D42;
    const CEPH: u64 = 0x00C3_6400;
    const AFS: u64 = 0x5346_414F;
    let Ok(stat) = rustix::fs::fstatfs(file) else { return Ok(()) };
    let kind = u64::try_from(stat.f_type).unwrap_or(0) & 0xFFFF_FFFF;
    if [NFS, SMB, CIFS, SMB2, CEPH, AFS].contains(&kind) {
        return Err(refused(path, "this is on a network file system, where a lock proves nothing; use a local disk"));
    }
    Ok(())
}

/// Looks whether the file may be opened for writing by this version, without changing it.
pub(super) async fn examine(path: &Path, may_migrate: bool) -> Result<()> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && may_migrate => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(refused(
                path,
                "there is no such file, and no-migrate forbids to make it; run `rejoin migrate`",
            ));
        }
        Err(error) => return Err(refused(path, format!("it cannot be read ({error}); check its permissions"))),
    };
    let metadata = file.metadata().map_err(|error| refused(path, format!("it cannot be examined ({error})")))?;
    if metadata.permissions().readonly() {
        return Err(refused(path, "it is read-only; make it writable (chmod u+w), or use another file"));
    }
    if metadata.len() == 0 {
        return check_version(path, 0, may_migrate);
    }
    let mut magic = [0; 16];
    if file.read_exact(&mut magic).is_err() || &magic != b"SQLite format 3\0" {
        return Err(refused(path, "this is not an SQLite database; give the path of another file"));
    }
    drop(file);
    examine_schema(path, may_migrate).await
}

async fn examine_schema(path: &Path, may_migrate: bool) -> Result<()> {
    let unreadable = |error: sqlx::Error| refused(path, format!("it cannot be read as an SQLite database ({error})"));
    // Where nothing lies beside the file the file is all there is, and looking at it leaves nothing beside it either.
    let immutable = ["-wal", "-journal"].iter().all(|suffix| !has_beside(path, suffix));
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(immutable);
    let mut connection = options.connect().await.map_err(unreadable)?;
    let found = look(&mut connection).await.map_err(unreadable)?;
    connection.close().await.map_err(unreadable)?;
    let Some(version) = found else {
        return Err(refused(path, "this is the database of another program; give the path of another file"));
    };
    check_version(path, version, may_migrate)
}

fn has_beside(path: &Path, suffix: &str) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    std::fs::metadata(name).is_ok_and(|metadata| metadata.len() > 0)
}

/// The version of the schema, 0 for none; `None` where it is another program's. A start that was killed before its
/// first migration leaves nothing, or the empty list of migrations.
async fn look(connection: &mut SqliteConnection) -> std::result::Result<Option<i64>, sqlx::Error> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let (listed, others): (bool, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE name = '_sqlx_migrations') > 0,
                count(*) FILTER (WHERE tbl_name <> '_sqlx_migrations') FROM sqlite_schema",
    )
    .fetch_one(&mut *connection)
    .await?;
    let version: i64 = if listed {
        let newest = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations");
        newest.fetch_one(&mut *connection).await?
    } else {
        0
    };
    let blank = id == 0 && others == 0 && version == 0;
    Ok((id == APPLICATION_ID || blank).then_some(version))
}

fn check_version(path: &Path, version: i64, may_migrate: bool) -> Result<()> {
    let known = newest_migration();
    if version > known {
        return Err(refused(
            path,
            format!("a newer version of rejoin wrote it (schema {version}, this one knows {known}); use that version"),
        ));
    }
    if version < known && !may_migrate {
        return Err(refused(
            path,
            format!("its schema is {version}, this version needs {known}, and no-migrate is set; run `rejoin migrate`"),
        ));
    }
    Ok(())
}

/// The migrations that this version knows.
pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}
