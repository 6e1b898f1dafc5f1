//! The actions of workflow steps, as a table.
//! Source: Image Builder user guide, supported step actions for workflow documents.

use super::Stage;

/// What the value of an input must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Bool,
    List,
    Map,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Whatever EC2 takes there.
    Any,
}

pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) kind: Kind,
}

pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) inputs: &'static [Input],
    pub(crate) outputs: &'static [&'static str],
    /// The longest time a step may get, in minutes.
    pub(crate) most_minutes: i64,
    /// Where it runs; empty is everywhere.
    pub(crate) stages: &'static [Stage],
}

const fn must(name: &'static str, kind: Kind) -> Input {
    Input {
        name,
        required: true,
        kind,
    }
}

const fn may(name: &'static str, kind: Kind) -> Input {
    Input {
        name,
        required: false,
        kind,
    }
}

const INSTANCE: Input = must("instanceId", Kind::Text);
const COMMAND: &[&str] = &["runCommandId", "status", "output"];
const DISTRIBUTION: &[Stage] = &[Stage::Distribution];

const fn on_instance(
    name: &'static str,
    most_minutes: i64,
    outputs: &'static [&'static str],
) -> Action {
    Action {
        name,
        inputs: &[INSTANCE],
        outputs,
        most_minutes,
        stages: &[],
    }
}

/// All actions, in the order of their names.
pub(crate) static ACTIONS: &[Action] = &[
    Action {
        name: "ApplyImageConfigurations",
        inputs: &[
            must("distributedImages", Kind::List),
            may("configurations", Kind::Any),
        ],
        outputs: &["configuredImages"],
        most_minutes: 720,
        stages: DISTRIBUTION,
    },
    on_instance("BootstrapInstanceForContainer", 720, COMMAND),
    on_instance("CollectImageMetadata", 720, &["osVersion", "associationId"]),
    Action {
        stages: &[Stage::Test],
        ..on_instance("CollectImageScanFindings", 720, COMMAND)
    },
    on_instance("CreateImage", 3 * 24 * 60, &["imageId"]),
    on_instance(
        "CreateImageFromIso",
        720,
        &["amiName", "snapshotId", "architecture"],
    ),
    Action {
        stages: DISTRIBUTION,
        ..on_instance(
            "DistributeContainerImage",
            720,
            &["status", "succeededRegions", "failedRegions"],
        )
    },
    Action {
        name: "DistributeImage",
        inputs: &[may("distributions", Kind::Any)],
        outputs: &["distributedImages"],
        most_minutes: 720,
        stages: DISTRIBUTION,
    },
    on_instance("ExecuteComponents", 24 * 60, COMMAND),
    Action {
        name: "ExecuteStateMachine",
        inputs: &[must("stateMachineArn", Kind::Text), may("input", Kind::Any)],
        outputs: &["executionArn", "output"],
        most_minutes: 24 * 60,
        stages: &[],
    },
    Action {
        name: "LaunchInstance",
        inputs: &[
            must("waitFor", Kind::Choice(&["ssmAgent"])),
            may("imageIdOverride", Kind::Text),
            may("instanceTypesOverride", Kind::List),
            may(
                "healthCheck",
                Kind::Choice(&["RUNNING", "STATUS_CHECK_PASSED"]),
            ),
        ],
        outputs: &["instanceId"],
        most_minutes: 720,
        stages: &[],
    },
    Action {
        name: "ModifyImageAttributes",
        inputs: &[
            must("distributedImages", Kind::List),
            may("attributes", Kind::Any),
        ],
        outputs: &["modifiedImages"],
        most_minutes: 180,
        stages: DISTRIBUTION,
    },
    Action {
        name: "RegisterImage",
        inputs: &[
            may("architecture", Kind::Text),
            may("blockDeviceMapping", Kind::List),
            may("blockDeviceMappings", Kind::List),
            may("bootMode", Kind::Text),
            may("description", Kind::Text),
            may("enaSupport", Kind::Bool),
            may("imageLocation", Kind::Text),
            may("imdsSupport", Kind::Text),
            may("includeSnapshotTags", Kind::Bool),
            may("kernelId", Kind::Text),
            may("ramdiskId", Kind::Text),
            may("rootDeviceName", Kind::Text),
            may("sriovNetSupport", Kind::Text),
            may("tpmSupport", Kind::Text),
            may("uefiData", Kind::Text),
            may("virtualizationType", Kind::Text),
        ],
        outputs: &["imageId"],
        most_minutes: 720,
        stages: &[],
    },
    Action {
        name: "RunCommand",
        inputs: &[
            INSTANCE,
            must("documentName", Kind::Text),
            may("parameters", Kind::Map),
            may("documentVersion", Kind::Text),
        ],
        outputs: COMMAND,
        most_minutes: 720,
        stages: &[],
    },
    on_instance("RunSysPrep", 720, COMMAND),
    on_instance("SanitizeInstance", 720, COMMAND),
    Action {
        name: "TerminateInstance",
        inputs: &[INSTANCE, may("waitForTermination", Kind::Bool)],
        outputs: &[],
        most_minutes: 720,
        stages: &[],
    },
    Action {
        name: "WaitForAction",
        inputs: &[
            may("snsTopicArn", Kind::Text),
            may("lambdaFunctionName", Kind::Text),
            may("payload", Kind::Any),
        ],
        outputs: &["action", "reason"],
        most_minutes: 7 * 24 * 60,
        stages: &[],
    },
    // The guide spells its output in both ways.
    on_instance("WaitForSSMAgent", 180, &["status", "Status"]),
];

/// What `$.imagebuilder.` holds.
pub(crate) const SYSTEM_VARIABLES: &[&str] = &[
    "cloudWatchLogGroup",
    "cloudWatchLogStream",
    "collectImageMetadata",
    "collectImageScanFindings",
    "dateTime",
    "imageBuildNumber",
    "imageId",
    "imageName",
    "imageType",
    "imageVersionNumber",
    "instanceProfileName",
    "platform",
    "s3Logs",
    "securityGroups",
    "sourceImageARN",
    "subnetId",
    "terminateInstanceOnFailure",
    "workflowPhase",
    "workingDirectory",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_sorted_and_none_is_there_twice() {
        assert!(ACTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(SYSTEM_VARIABLES.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
