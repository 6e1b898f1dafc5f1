//! The database file: opening, its tables, and who uses which connection.
//!
//! ```text
//! records(kind, id, json)           the state, one row for each image, snapshot, …
//! packs(id, name)                   pack files
//! blocks(address, pack, slot, seal) where each block lies
//! data_keys(id, key, version, wrapped)
//! ```
//!
//! `user_version` is the version of the format. Journal mode `DELETE`, `synchronous = EXTRA`: with `FULL` the removal of the journal,
//! which *is* the commit, could be undone by a power cut, and the collection of garbage punches holes on the strength of a commit.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::Ec2Error;
use super::files::make_file;

/// Version of the tables.
const VERSION: i64 = 1;
/// How long one process waits for the transactions of others.
const BUSY: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
CREATE TABLE records(kind TEXT NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY(kind, id)) STRICT, WITHOUT ROWID;
CREATE TABLE packs(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE blocks(address BLOB PRIMARY KEY NOT NULL, pack INTEGER NOT NULL, slot INTEGER NOT NULL, seal BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE data_keys(id BLOB NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY(id, key)) STRICT, WITHOUT ROWID;
";

thread_local! {
    /// Whether this thread is inside the closure of a writing transaction: a second one would wait for the first for ever.
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

/// The database of one store, shared between threads: each transaction has a connection for itself.
#[derive(Debug)]
pub(super) struct Db {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// Ends [`WRITING`], also when the closure panics.
struct Mark;

impl Drop for Mark {
    fn drop(&mut self) {
        WRITING.set(false);
    }
}

impl Db {
    /// Opens the database, making it when it is not there.
    pub(super) fn open(path: PathBuf) -> Result<Self, Ec2Error> {
        // Never opened by our own hand when it is there: closing it would drop the locks that SQLite holds on it in this process.
        make_file(&path)?;
        let db = Self {
            path,
            idle: Mutex::default(),
        };
        let mut connection = db.connect()?;
        let version = db.version(&connection)?;
        if version == 0 {
            db.refuse_lost()?;
            db.make_tables(&mut connection)?;
        }
        db.give_back(connection);
        Ok(db)
    }

    /// A database without tables is a new one only where there is nothing yet: beside blocks, volumes or keys it was lost, and a
    /// collection of garbage would take all of them for dead.
    fn refuse_lost(&self) -> Result<(), Ec2Error> {
        let root = self.path.parent().unwrap_or(Path::new("."));
        for name in ["packs", "maps", "volumes", "keys", "bundles"] {
            let dir = root.join(name);
            let mut entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Ec2Error::io("list", dir)(e)),
            };
            // Another process may have made the tables meanwhile, and what comes with them.
            if entries.next().is_some() && self.version(&self.connect()?)? == 0 {
                return Err(Ec2Error::damaged(
                    &self.path,
                    format!(
                        "it is empty or was lost, while {} is not: bring it back from a copy, or move {} away to begin anew",
                        dir.display(),
                        root.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Turns an error of SQLite into ours.
    pub(super) fn error(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Ec2Error {
        move |source| Ec2Error::Database {
            path: self.path.clone(),
            action,
            source,
        }
    }

    fn connect(&self) -> Result<Connection, Ec2Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(self.error("open"))?;
        connection
            .busy_timeout(BUSY)
            .and_then(|()| {
                connection.execute_batch(
                    "PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;",
                )
            })
            .map_err(self.error("open"))?;
        Ok(connection)
    }

    fn version(&self, connection: &Connection) -> Result<i64, Ec2Error> {
        let found: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(self.error("read"))?;
        if found == 0 || found == VERSION {
            return Ok(found);
        }
        Err(Ec2Error::Version {
            path: self.path.clone(),
            found: found.unsigned_abs(),
            known: VERSION.unsigned_abs(),
        })
    }

    fn make_tables(&self, connection: &mut Connection) -> Result<(), Ec2Error> {
        let fail = self.error("make the tables of");
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&fail)?;
        // Another process may have been first.
        if self.version(&transaction)? == 0 {
            transaction.execute_batch(SCHEMA).map_err(&fail)?;
            transaction
                .pragma_update(None, "user_version", VERSION)
                .map_err(&fail)?;
        }
        transaction.commit().map_err(&fail)
    }

    fn take(&self) -> Result<Connection, Ec2Error> {
        let idle = self.lock().pop();
        idle.map_or_else(|| self.connect(), Ok)
    }

    fn give_back(&self, connection: Connection) {
        self.lock().push(connection);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a reading transaction: one view of everything, whatever others commit meanwhile.
    pub(super) fn read<T>(
        &self,
        run: impl FnOnce(&Transaction<'_>) -> Result<T, Ec2Error>,
    ) -> Result<T, Ec2Error> {
        let mut connection = self.take()?;
        let result = {
            let transaction = connection.transaction().map_err(self.error("read"))?;
            run(&transaction)?
        };
        self.give_back(connection);
        Ok(result)
    }

    /// Runs a writing transaction, which begins when nobody else writes. An error or a panic of `run` undoes it.
    pub(super) fn write<T, E: From<Ec2Error>>(
        &self,
        run: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if WRITING.get() {
            return Err(Ec2Error::Nested(self.path.clone()).into());
        }
        let mut connection = self.take()?;
        let result = {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(self.error("lock"))?;
            WRITING.set(true);
            let mark = Mark;
            let result = run(&transaction)?;
            drop(mark);
            transaction.commit().map_err(self.error("write"))?;
            result
        };
        self.give_back(connection);
        Ok(result)
    }
}
