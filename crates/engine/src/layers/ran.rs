//! How the steps of a layer ran: no input, since every way gives the same bytes, and part of what is told about it.

use amiforge_ami::LayerRun;
use amiforge_exec::{RootSpec, Sandbox, Way};
use amiforge_recipe::StepNetwork;
use amiforge_store::Store;
use amiforge_types::LayerId;
use serde::{Deserialize, Serialize};

use super::store_context;
use crate::error::{Contextual, EngineError, ErrorKind};

/// Kind of the records.
pub(crate) const RAN: &str = "ran";
const VERSION: u32 = 1;

/// How the steps of a layer ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ran {
    version: u32,
    /// The way; absent when nothing of the image was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox: Option<Way>,
    /// Whether they could reach the network of the builder.
    pub(crate) network: bool,
}

impl Ran {
    /// Files alone were made or changed.
    pub(crate) const NOTHING: Self = Self {
        version: VERSION,
        sandbox: None,
        network: false,
    };

    /// Commands ran in a root.
    pub(crate) fn commands(sandbox: &Sandbox, root: &RootSpec) -> Self {
        Self {
            version: VERSION,
            sandbox: Some(sandbox.way()),
            network: root.network,
        }
    }

    /// As the manifest has it.
    pub(crate) fn shown(&self) -> LayerRun {
        let network = match self.network {
            true => StepNetwork::Host,
            false => StepNetwork::None,
        };
        LayerRun {
            sandbox: self.sandbox.map_or("none", Way::as_str).to_owned(),
            network: network.name().to_owned(),
        }
    }

    pub(crate) fn keep(&self, store: &Store, id: LayerId) -> Result<(), EngineError> {
        let record = serde_json::to_value(self).or_fail(ErrorKind::Internal, || {
            "a record cannot be written".to_owned()
        })?;
        store
            .put_record(RAN, &id.to_string(), &record)
            .or_fail(ErrorKind::Failed, store_context)
    }

    /// Of a layer of the store; none when it was made by a release that kept no such record.
    pub(crate) fn of(store: &Store, id: LayerId) -> Option<Self> {
        let record = store.get_record(RAN, &id.to_string()).ok()??;
        let ran: Self = serde_json::from_value(record).ok()?;
        (ran.version == VERSION).then_some(ran)
    }
}
