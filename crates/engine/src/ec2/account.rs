//! Settings of an account in a region, and the policies that its launches obey.

use std::path::{Path, PathBuf};

use amiforge_ami::ec2::policy::{Policy, PolicyKind};
use amiforge_ami::ec2::{
    AllowedImagesState, ApiError, ErrorCode, ImageCriterionRequest, RegionSettings, retention,
};
use amiforge_bundle::certificate_pem;

use super::bundle::{add_signer, read};
use super::desk::Place;
use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};
use crate::settings::Engine;

/// Changes of the settings of an account in a region; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// Encrypt new volumes and copies.
    pub encryption_by_default: Option<bool>,
    /// The key for that; empty: `aws/ebs`.
    pub default_key: Option<String>,
    /// Whether images can be made public.
    pub public_images: Option<bool>,
    /// Whether snapshots cannot be made public.
    pub block_public_snapshots: Option<bool>,
    /// Whether shared images with encrypted snapshots can be copied.
    pub copy_shared_encrypted_images: Option<bool>,
    /// Whether the criteria for images of others are looked at.
    pub allowed_images: Option<AllowedImagesState>,
    /// These criteria instead of all that there were.
    pub image_criteria: Option<Vec<ImageCriterionRequest>>,
    /// Days in the recycle bin; 0: none.
    pub image_retention: Option<u16>,
    /// Days in the recycle bin; 0: none.
    pub snapshot_retention: Option<u16>,
    /// The organization; empty: none.
    pub organization: Option<String>,
    /// Its units, all of them; one empty text: none.
    pub organizational_units: Option<Vec<String>>,
    /// Policies for launches: files, kept under their names.
    pub add_policies: Vec<PathBuf>,
    /// Names of policies that go.
    pub remove_policies: Vec<String>,
    /// Certificates that bundles are signed with.
    pub add_signers: Vec<PathBuf>,
    /// Ids of such certificates that go.
    pub remove_signers: Vec<String>,
}

/// Reads a policy: its text, and what it says.
pub(super) fn read_policy(path: &Path, kind: PolicyKind) -> Result<(String, Policy), EngineError> {
    let text = crate::load::read(path)?.map_err(|report| EngineError::Documents(vec![report]))?;
    match Policy::parse(&path.display().to_string(), kind, &text) {
        Ok(policy) => Ok((text, policy)),
        Err(diagnostics) => Err(EngineError::Documents(vec![DocumentReport {
            path: path.to_owned(),
            kind: None,
            text,
            diagnostics,
        }])),
    }
}

impl Engine {
    /// The settings of the account in the region.
    pub fn account_settings(&self, place: &Place) -> Result<RegionSettings, EngineError> {
        let desk = self.desk(place)?;
        Ok(desk.read()?.settings_of(&desk.caller))
    }

    /// Changes the settings of the account in the region; gives them as they are then.
    pub fn change_account(
        &self,
        place: &Place,
        change: &AccountChange,
    ) -> Result<RegionSettings, EngineError> {
        let mut policies: Vec<(String, String)> = Vec::new();
        for path in &change.add_policies {
            let name = path
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            if policies.iter().any(|(known, _)| *known == name) {
                return Err(EngineError::new(
                    ErrorKind::Invalid,
                    format!("two of the policies are called {name}"),
                )
                .with_hint("they are kept under the names of their files: rename one"));
            }
            policies.push((name, read_policy(path, PolicyKind::Identity)?.0));
        }
        let mut signers = Vec::new();
        for path in &change.add_signers {
            let pem = certificate_pem(&read(path)?);
            signers.push(pem.or_fail(ErrorKind::Invalid, || {
                format!("{} cannot be used", path.display())
            })?);
        }
        let desk = self.desk(place)?;
        let caller = &desk.caller;
        desk.transact(|state, _| {
            if let Some(key) = &change.default_key {
                state.set_default_key(caller, Some(key.as_str()).filter(|k| !k.is_empty()))?;
            }
            let at = (caller.account.clone(), caller.region.clone());
            let mut settings = state.settings_of(caller);
            for (wanted, kept) in [
                (
                    change.encryption_by_default,
                    &mut settings.encryption_by_default,
                ),
                (change.public_images, &mut settings.allow_public_images),
                (
                    change.block_public_snapshots,
                    &mut settings.block_public_snapshots,
                ),
                (
                    change.copy_shared_encrypted_images,
                    &mut settings.copy_shared_encrypted_images,
                ),
            ] {
                *kept = wanted.unwrap_or(*kept);
            }
            if let Some(wanted) = change.allowed_images {
                settings.allowed_images.state = wanted;
            }
            if let Some(criteria) = &change.image_criteria {
                settings.allowed_images.replace_criteria(criteria)?;
            }
            if let Some(days) = change.image_retention {
                settings.image_retention_days = retention(days)?;
            }
            if let Some(days) = change.snapshot_retention {
                settings.snapshot_retention_days = retention(days)?;
            }
            if let Some(organization) = &change.organization {
                settings.set_organization(organization)?;
            }
            if let Some(units) = &change.organizational_units {
                settings.set_organizational_units(units)?;
            }
            // First, so that only what was there can be removed.
            for name in &change.remove_policies {
                settings.remove_policy(name)?;
            }
            settings.policies.extend(policies.iter().cloned());
            for id in &change.remove_signers {
                if settings.signing_certificates.remove(id).is_none() {
                    let text = format!("there is no signing certificate {id}");
                    return Err(ApiError::new(ErrorCode::InvalidParameterValue, text).into());
                }
            }
            for pem in signers {
                add_signer(&mut settings, pem);
            }
            if settings == RegionSettings::default() {
                state.settings.remove(&at);
            } else {
                state.settings.insert(at, settings.clone());
            }
            Ok(settings)
        })
    }

    /// Writes the certificate of EC2 here, PEM: bundles that are to be launched here are made for it.
    pub fn write_ec2_certificate(&self, place: &Place, out: &Path) -> Result<(), EngineError> {
        let pair = self.desk(place)?.ec2_pair()?;
        crate::files::write_target(out, pair.certificate_pem().as_bytes())
    }
}
