//! Actions of Windows: known, and not for this platform.

use amiforge_recipe::ActionKind;
use amiforge_recipe::actions::{ExecutePowerShell, InstallMsi, SetRegistry, UninstallMsi};

use super::{Action, Outputs, StepCx, StepError};

fn refused(kind: ActionKind) -> Result<Vec<Outputs>, StepError> {
    Err(StepError::NotThisPlatform {
        action: kind.name(),
    })
}

impl Action for ExecutePowerShell {
    fn run(&self, _cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        refused(ActionKind::ExecutePowerShell)
    }
}

impl Action for InstallMsi {
    fn run(&self, _cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        refused(ActionKind::InstallMsi)
    }
}

impl Action for Vec<SetRegistry> {
    fn run(&self, _cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        refused(ActionKind::SetRegistry)
    }
}

impl Action for UninstallMsi {
    fn run(&self, _cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        refused(ActionKind::UninstallMsi)
    }
}
