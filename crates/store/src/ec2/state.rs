//! The state of all accounts and regions, one row for each record.

use std::collections::BTreeMap;

use amiforge_ami::ec2::{AccountId, Region, State};
use rusqlite::{Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Ec2, Ec2Error};

/// JSON texts by kind and id.
pub(super) type Rows = BTreeMap<(&'static str, String), String>;

/// The kinds, sorted by name.
const KINDS: &[&str] = &["image", "instance", "key", "settings", "snapshot", "volume"];

/// An id as it stands in a row.
trait RowId: Ord + Sized {
    fn text(&self) -> String;
    fn parse(text: &str) -> Option<Self>;
}

macro_rules! row_id {
    ($($id:ty),*) => {
        $(impl RowId for $id {
            fn text(&self) -> String {
                self.to_string()
            }
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })*
    };
}

row_id!(
    amiforge_ami::ImageId,
    amiforge_ami::SnapshotId,
    amiforge_ami::VolumeId,
    amiforge_ami::InstanceId,
    amiforge_ami::ec2::KeyId
);

/// Settings: `<account>/<region>`.
impl RowId for (AccountId, Region) {
    fn text(&self) -> String {
        format!("{}/{}", self.0, self.1)
    }
    fn parse(text: &str) -> Option<Self> {
        let (account, region) = text.split_once('/')?;
        Some((account.parse().ok()?, region.parse().ok()?))
    }
}

impl Ec2 {
    /// The state at one point in time.
    ///
    /// # Errors
    /// A record that is not valid is named.
    pub fn read(&self) -> Result<State, Ec2Error> {
        self.db()
            .read(|transaction| self.load(transaction).map(|(state, _)| state))
    }

    /// Changes the state: `change` sees it as it is, and what it left is written whole or, when it gives an error or panics, not
    /// at all. Transactions of all processes come one after the other; the closure should be quick, and must not call
    /// what writes to this store itself ([`Ec2Error::Nested`]).
    ///
    /// # Errors
    /// Those of `change`, and those of the database.
    pub fn transact<T, E: From<Ec2Error>>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        self.db().write(|transaction| {
            let (mut state, old) = self.load(transaction)?;
            let result = change(&mut state)?;
            self.save(transaction, &state, &old)?;
            Ok(result)
        })
    }

    /// The state and the texts that it was made of.
    pub(super) fn load(&self, transaction: &Transaction<'_>) -> Result<(State, Rows), Ec2Error> {
        let fail = self.db().error("read");
        let mut texts = Rows::new();
        let mut query = transaction
            .prepare_cached("SELECT kind, id, json FROM records")
            .map_err(&fail)?;
        let mut rows = query.query([]).map_err(&fail)?;
        while let Some(row) = rows.next().map_err(&fail)? {
            let text = |column| row.get::<_, String>(column).map_err(&fail);
            let (kind, id, json) = (text(0)?, text(1)?, text(2)?);
            match KINDS.iter().find(|known| **known == kind) {
                Some(known) => texts.insert((known, id), json),
                None => return Err(self.bad_record(&kind, &id, "an unknown kind".into())),
            };
        }
        let mut state = State::default();
        for ((kind, id), json) in &texts {
            match *kind {
                "image" => self.put(&mut state.images, kind, id, json)?,
                "instance" => self.put(&mut state.instances, kind, id, json)?,
                "key" => self.put(&mut state.keys, kind, id, json)?,
                "settings" => self.put(&mut state.settings, kind, id, json)?,
                "snapshot" => self.put(&mut state.snapshots, kind, id, json)?,
                _ => self.put(&mut state.volumes, kind, id, json)?,
            }
        }
        self.check_ids(&state)?;
        Ok((state, texts))
    }

    fn put<I: RowId, R: DeserializeOwned>(
        &self,
        records: &mut BTreeMap<I, R>,
        kind: &str,
        id: &str,
        json: &str,
    ) -> Result<(), Ec2Error> {
        let key = I::parse(id).ok_or_else(|| self.bad_record(kind, id, "a bad id".into()))?;
        let record = serde_json::from_str(json)
            .map_err(|source| self.bad_record(kind, id, source.into()))?;
        records.insert(key, record);
        Ok(())
    }

    /// Each record says its id itself, too.
    fn check_ids(&self, state: &State) -> Result<(), Ec2Error> {
        let State {
            images,
            snapshots,
            volumes,
            instances,
            keys,
            settings: _,
        } = state;
        let other = |kind: &str, id: &dyn std::fmt::Display| {
            self.bad_record(kind, &id.to_string(), "it has another id inside".into())
        };
        if let Some((id, _)) = images.iter().find(|(id, r)| **id != r.image_id) {
            return Err(other("image", id));
        }
        if let Some((id, _)) = snapshots.iter().find(|(id, r)| **id != r.snapshot_id) {
            return Err(other("snapshot", id));
        }
        if let Some((id, _)) = volumes.iter().find(|(id, r)| **id != r.volume_id) {
            return Err(other("volume", id));
        }
        if let Some((id, _)) = instances.iter().find(|(id, r)| **id != r.instance_id) {
            return Err(other("instance", id));
        }
        if let Some((id, _)) = keys.iter().find(|(id, r)| **id != r.key_id) {
            return Err(other("key", id));
        }
        Ok(())
    }

    /// Writes the rows that differ.
    fn save(
        &self,
        transaction: &Transaction<'_>,
        state: &State,
        old: &Rows,
    ) -> Result<(), Ec2Error> {
        self.check_ids(state)?;
        // A new kind of record has to come here.
        let State {
            images,
            snapshots,
            volumes,
            instances,
            keys,
            settings,
        } = state;
        let mut new = Rows::new();
        self.texts(&mut new, "image", images)?;
        self.texts(&mut new, "snapshot", snapshots)?;
        self.texts(&mut new, "volume", volumes)?;
        self.texts(&mut new, "instance", instances)?;
        self.texts(&mut new, "key", keys)?;
        self.texts(&mut new, "settings", settings)?;
        let fail = self.db().error("write");
        for (at, json) in &new {
            if old.get(at) != Some(json) {
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO records(kind, id, json) VALUES (?1, ?2, ?3)",
                    )
                    .and_then(|mut put| put.execute(params![at.0, at.1, json]))
                    .map_err(&fail)?;
            }
        }
        for at in old.keys().filter(|at| !new.contains_key(at)) {
            transaction
                .prepare_cached("DELETE FROM records WHERE kind = ?1 AND id = ?2")
                .and_then(|mut delete| delete.execute(params![at.0, at.1]))
                .map_err(&fail)?;
        }
        Ok(())
    }

    fn texts<I: RowId, R: Serialize>(
        &self,
        rows: &mut Rows,
        kind: &'static str,
        records: &BTreeMap<I, R>,
    ) -> Result<(), Ec2Error> {
        for (id, record) in records {
            let id = id.text();
            let json = serde_json::to_string(record)
                .map_err(|source| self.bad_record(kind, &id, source.into()))?;
            rows.insert((kind, id), json);
        }
        Ok(())
    }

    fn bad_record(
        &self,
        kind: &str,
        id: &str,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> Ec2Error {
        Ec2Error::Record {
            path: self.db().path().to_owned(),
            kind: kind.chars().take(40).collect(),
            id: id.chars().take(80).collect(),
            source,
        }
    }
}
