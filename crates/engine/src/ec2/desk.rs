//! Where requests are made: who asks, the state, and the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use amiforge_ami::InstanceId;

use amiforge_ami::ec2::{
    AccountId, ApiError, Caller, Effects, Encryption, ErrorCode, KeyId, Region, State,
};
use amiforge_store::Store;
use amiforge_store::ec2::{DataKey, Ec2, Ec2Error};
use amiforge_types::{Digest, Timestamp};

use crate::error::{EngineError, ErrorKind};
use crate::settings::Engine;

/// Who asks, and where; absent values are those of the environment.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The account, 12 digits.
    pub account: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// Only say whether the request would be granted.
    pub dry_run: bool,
}

/// The state of EC2 on this host, opened for one caller.
pub(super) struct Desk<'e> {
    pub(super) engine: &'e Engine,
    pub(super) store: Store,
    pub(super) ec2: Ec2,
    pub(super) caller: Caller,
    pub(super) dry_run: bool,
}

/// Clock and chance of this host.
pub(super) struct Now(());

impl Now {
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Effects for Now {
    fn now(&self) -> Timestamp {
        Engine::wall_clock()
    }

    fn random(&mut self) -> u128 {
        // The kernel has always some; ids need no secret, only no repetition.
        amiforge_store::ec2::random_u128().unwrap_or_else(|_| {
            let now = std::time::SystemTime::now();
            let text = format!(
                "{now:?} {} {:?}",
                std::process::id(),
                std::thread::current().id()
            );
            u128::from_le_bytes(std::array::from_fn(|i| {
                Digest::of(text.as_bytes()).as_bytes()[i]
            }))
        })
    }
}

/// What ends a transaction without a change.
#[derive(Debug)]
pub(super) enum Refused {
    Api(ApiError),
    Store(Ec2Error),
    /// The folder of an instance cannot be used.
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Another process is just starting the instance, or ending it.
    Busy(InstanceId),
    /// A port of this host that is to lead into the instance is another program's.
    Port {
        id: InstanceId,
        port: u16,
    },
}

impl Refused {
    pub(super) fn folder(path: &Path, source: std::io::Error) -> Self {
        Self::Folder {
            path: path.to_owned(),
            source,
        }
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<Ec2Error> for Refused {
    fn from(error: Ec2Error) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for EngineError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Api(error) => refusal(error),
            Refused::Store(error) => broken(error),
            Refused::Folder { path, source } => EngineError::wrap(
                ErrorKind::Failed,
                format!("cannot use {}", path.display()),
                source,
                None::<String>,
            ),
            Refused::Busy(id) => EngineError::new(
                ErrorKind::Failed,
                format!("{id} is just being started or ended"),
            )
            .with_hint("try again in a moment"),
            Refused::Port { id, port } => EngineError::new(
                ErrorKind::Failed,
                format!("{id} does not start: port {port} of 127.0.0.1, which is to lead into it, is in use"),
            )
            .with_hint("end the program that listens there, or launch an instance with another --port"),
        }
    }
}

/// The answer to a request that is only tried. Requests do not say so themselves here: each is done as far as the state goes, then
/// thrown away, so that it is looked at whole.
pub(super) fn tried() -> ApiError {
    ApiError::new(
        ErrorCode::DryRunOperation,
        "Request would have succeeded, but DryRun flag is set.",
    )
}

/// What EC2 answers, as the end of an operation: requests that cannot be meant so are usage (2), the rest failed (1).
pub(super) fn refusal(error: ApiError) -> EngineError {
    let code = error.code.as_str();
    let usage = code.ends_with(".Malformed")
        || code.starts_with("InvalidParameter")
        || matches!(
            error.code,
            ErrorCode::MissingParameter | ErrorCode::InvalidFilter | ErrorCode::InvalidRegion
        );
    let kind = if usage {
        ErrorKind::Invalid
    } else {
        ErrorKind::Failed
    };
    EngineError::new(kind, error.to_string())
}

/// A failure of the store below.
pub(super) fn broken(error: Ec2Error) -> EngineError {
    let hint = match &error {
        Ec2Error::NoMaterial { .. } => {
            Some("bring the file of the key back; without it what it encrypts cannot be read")
        }
        Ec2Error::Damaged { .. } | Ec2Error::BadBlock { .. } => {
            Some("`amiforge snapshot verify` says what is whole")
        }
        error if error.is_disk_full() => Some("make room; nothing was changed"),
        _ => None,
    };
    EngineError::wrap(
        ErrorKind::Failed,
        "the store of images and volumes",
        error,
        hint,
    )
}

impl Engine {
    /// Opens the state for who asks.
    pub(super) fn desk(&self, place: &Place) -> Result<Desk<'_>, EngineError> {
        let bad = |what: &str, e: amiforge_ami::ec2::TextError| {
            EngineError::new(ErrorKind::Invalid, format!("--{what}: {e}"))
        };
        let account = place.account.as_ref().or(self.settings.account.as_ref());
        let account = account.map_or_else(|| Ok(AccountId::local()), |text| text.parse());
        let region = place.region.as_ref().or(self.settings.region.as_ref());
        let region = region.map_or_else(|| Ok(Region::local()), |text| text.parse());
        let caller = Caller {
            account: account.map_err(|e| bad("account", e))?,
            region: region.map_err(|e| bad("region", e))?,
        };
        let store = self.open_store()?;
        let ec2 = store.ec2().map_err(broken)?;
        Ok(Desk {
            engine: self,
            store,
            ec2,
            caller,
            dry_run: place.dry_run,
        })
    }
}

impl Desk<'_> {
    /// The state at one point in time. What nobody makes any more has failed in it; the next transaction writes that down.
    pub(super) fn read(&self) -> Result<State, EngineError> {
        let mut state = self.ec2.read().map_err(broken)?;
        self.abandon(&mut state);
        Ok(state)
    }

    /// Fails what is pending and has no maker: its process was killed, or this machine went down.
    fn abandon(&self, state: &mut State) {
        for work in state.pending_works() {
            // Of one that cannot be looked at nobody knows better.
            if matches!(self.ec2.is_being_made(work.id()), Ok(false)) {
                state.abandon(&work);
            }
        }
    }

    /// One request: what it changes is written whole, or nothing is; a trial changes nothing.
    pub(super) fn transact<T>(
        &self,
        request: impl FnOnce(&mut State, &mut Now) -> Result<T, Refused>,
    ) -> Result<T, EngineError> {
        self.change(self.dry_run, request)
    }

    /// What is written whatever was asked for: how things are.
    pub(super) fn record<T>(
        &self,
        change: impl FnOnce(&mut State, &mut Now) -> Result<T, Refused>,
    ) -> Result<T, EngineError> {
        self.change(false, change)
    }

    fn change<T>(
        &self,
        trial: bool,
        request: impl FnOnce(&mut State, &mut Now) -> Result<T, Refused>,
    ) -> Result<T, EngineError> {
        let done = self.ec2.transact(|state| {
            let mut fx = Now::new();
            let known: BTreeSet<KeyId> = state.keys.keys().cloned().collect();
            let expired = state.expire(fx.now());
            self.abandon(state);
            let result = request(state, &mut fx)?;
            if trial {
                return Err(tried().into());
            }
            // A key is nothing without its material. Of a transaction that fails behind this, a file is left that no record names.
            for key in state.keys.keys().filter(|key| !known.contains(*key)) {
                self.ec2.keys().create(key)?;
            }
            for key in &expired.keys {
                self.ec2.keys().destroy(key)?;
            }
            for instance in &expired.instances {
                let _ = self.folder(instance).remove();
            }
            Ok::<T, Refused>(result)
        })?;
        Ok(done)
    }

    /// Gives the room of blocks back that nothing refers to. What cannot be collected now is the next time.
    pub(super) fn collect(&self) {
        if let Err(error) = self.ec2.gc() {
            self.engine.warn(format!(
                "not all room was given back: {}",
                crate::error::chain(&error)
            ));
        }
    }

    /// The data key of what is encrypted.
    pub(super) fn data_key(
        &self,
        encryption: Option<&Encryption>,
    ) -> Result<Option<DataKey>, EngineError> {
        encryption
            .map(|e| self.ec2.open_data_key(e))
            .transpose()
            .map_err(broken)
    }
}
