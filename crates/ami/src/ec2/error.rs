//! What EC2 answers when it refuses.
//!
//! Source: EC2 API reference, error codes; the mapping of rules to codes is that of the pages which the rules name.

use std::fmt;

/// A request that EC2 refuses: its error code and a message that names the resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The code.
    pub code: ErrorCode,
    /// The message.
    pub message: String,
}

impl ApiError {
    /// An error.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

macro_rules! codes {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// An error code of EC2.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $text, "`.")] $name,)*
        }

        impl ErrorCode {
            /// The code as the API writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    AttachmentLimitExceeded = "AttachmentLimitExceeded",
    AuthFailure = "AuthFailure",
    BootForVolumeTypeUnsupported = "BootForVolumeTypeUnsupported",
    DryRunOperation = "DryRunOperation",
    IdempotentParameterMismatch = "IdempotentParameterMismatch",
    IncorrectInstanceState = "IncorrectInstanceState",
    IncorrectState = "IncorrectState",
    InvalidAmiAttributeItemValue = "InvalidAMIAttributeItemValue",
    InvalidAmiIdMalformed = "InvalidAMIID.Malformed",
    InvalidAmiIdNotFound = "InvalidAMIID.NotFound",
    InvalidAmiIdUnavailable = "InvalidAMIID.Unavailable",
    InvalidAmiNameDuplicate = "InvalidAMIName.Duplicate",
    InvalidAmiNameMalformed = "InvalidAMIName.Malformed",
    InvalidAttachmentNotFound = "InvalidAttachment.NotFound",
    InvalidBlockDeviceMapping = "InvalidBlockDeviceMapping",
    InvalidFilter = "InvalidFilter",
    InvalidId = "InvalidID",
    InvalidInstanceIdMalformed = "InvalidInstanceID.Malformed",
    InvalidInstanceIdNotFound = "InvalidInstanceID.NotFound",
    InvalidInstanceType = "InvalidInstanceType",
    InvalidKernelIdMalformed = "InvalidKernelId.Malformed",
    InvalidKeyPairNotFound = "InvalidKeyPair.NotFound",
    InvalidManifest = "InvalidManifest",
    InvalidMaxResults = "InvalidMaxResults",
    InvalidNextToken = "InvalidNextToken",
    InvalidParameter = "InvalidParameter",
    InvalidParameterCombination = "InvalidParameterCombination",
    InvalidParameterDependency = "InvalidParameterDependency",
    InvalidParameterValue = "InvalidParameterValue",
    InvalidRamDiskIdMalformed = "InvalidRamDiskId.Malformed",
    InvalidRegion = "InvalidRegion",
    InvalidRequest = "InvalidRequest",
    InvalidSnapshotIdMalformed = "InvalidSnapshotID.Malformed",
    InvalidSnapshotInUse = "InvalidSnapshot.InUse",
    InvalidSnapshotNotFound = "InvalidSnapshot.NotFound",
    InvalidTagKeyMalformed = "InvalidTagKey.Malformed",
    InvalidUserDataMalformed = "InvalidUserData.Malformed",
    InvalidUserIdMalformed = "InvalidUserID.Malformed",
    InvalidVolumeIdMalformed = "InvalidVolumeID.Malformed",
    InvalidVolumeNotFound = "InvalidVolume.NotFound",
    InvalidVolumeZoneMismatch = "InvalidVolume.ZoneMismatch",
    InvalidZoneNotFound = "InvalidZone.NotFound",
    KmsAccessDenied = "AccessDeniedException",
    KmsAlreadyExists = "AlreadyExistsException",
    KmsDisabled = "DisabledException",
    KmsInvalidAlias = "InvalidAliasNameException",
    KmsInvalidState = "KMSInvalidStateException",
    KmsNotFound = "NotFoundException",
    KmsValidation = "ValidationException",
    MissingParameter = "MissingParameter",
    OperationNotPermitted = "OperationNotPermitted",
    ResourceLimitExceeded = "ResourceLimitExceeded",
    TagLimitExceeded = "TagLimitExceeded",
    UnauthorizedOperation = "UnauthorizedOperation",
    UnknownVolumeType = "UnknownVolumeType",
    UnsupportedOperation = "UnsupportedOperation",
    VolumeInUse = "VolumeInUse",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
