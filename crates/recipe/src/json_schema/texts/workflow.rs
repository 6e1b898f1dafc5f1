//! Texts of workflow documents.

use super::{Texts, of_definition};

const INSTANCE: (&str, &str) = (
    "instanceId",
    "The instance, as a rule `$.stepOutputs.<launch step>.instanceId`.",
);

const fn on_instance(action: &'static str) -> Texts {
    of_definition(action, "", &[INSTANCE])
}

pub(super) static TEXTS: &[Texts] = &[
    of_definition(
        "workflow-document",
        "What the service does around a build, a test or a distribution. amiforge checks it and does not run it.",
        &[
            ("schemaVersion", "The version of the format: 1.0."),
            (
                "parameters",
                "Values that a pipeline can give; `$.parameters.<name>` stands for one.",
            ),
            ("steps", "In running order: 1 to 15."),
            ("outputs", "Values that later workflows can read."),
        ],
    ),
    of_definition(
        "workflow-parameter",
        "A value that a pipeline can give.",
        &[
            ("type", "What it is."),
            ("default", "Its value when none is given."),
            ("name", "Once in the document."),
            (
                "value",
                "Its values: a list, of one text unless the type is a list.",
            ),
        ],
    ),
    of_definition(
        "workflow-step",
        "One action of the service.",
        &[
            (
                "name",
                "Once in the document: 3 to 128 letters, digits and `_`.",
            ),
            ("action", "What the step does."),
            ("if", "Whether the step runs."),
            (
                "onFailure",
                "Abort ends the workflow (default), Continue goes on.",
            ),
            (
                "rollbackEnabled",
                "Whether what the step made is removed when the workflow fails.",
            ),
            (
                "timeoutSeconds",
                "When the step is ended; how much it can be depends on the action.",
            ),
            (
                "inputs",
                "What the action takes. `<name>.$` gives a path to the value instead of the value.",
            ),
        ],
    ),
    of_definition(
        "workflow-output",
        "A value for later workflows.",
        &[
            ("name", "Once in the document."),
            ("value", "The value, or a path to it."),
            ("value.$", "A path to the value."),
        ],
    ),
    of_definition(
        "ApplyImageConfigurations",
        "",
        &[
            (
                "distributedImages",
                "Images, as `DistributeImage` left them.",
            ),
            ("configurations", "What is set on them."),
        ],
    ),
    on_instance("BootstrapInstanceForContainer"),
    on_instance("CollectImageMetadata"),
    on_instance("CollectImageScanFindings"),
    on_instance("CreateImage"),
    on_instance("CreateImageFromIso"),
    on_instance("DistributeContainerImage"),
    of_definition(
        "DistributeImage",
        "",
        &[(
            "distributions",
            "Where to; the distribution configuration when left out.",
        )],
    ),
    on_instance("ExecuteComponents"),
    of_definition(
        "ExecuteStateMachine",
        "",
        &[
            ("stateMachineArn", "The state machine of Step Functions."),
            ("input", "What it gets."),
        ],
    ),
    of_definition(
        "LaunchInstance",
        "",
        &[
            ("waitFor", "What has to answer before the step is done."),
            (
                "imageIdOverride",
                "The AMI to start instead of the recipe's parent.",
            ),
            (
                "instanceTypesOverride",
                "Instance types instead of those of the infrastructure configuration.",
            ),
            ("healthCheck", "What the instance has to reach."),
        ],
    ),
    of_definition(
        "ModifyImageAttributes",
        "",
        &[
            (
                "distributedImages",
                "Images, as `DistributeImage` left them.",
            ),
            ("attributes", "What is changed of them."),
        ],
    ),
    of_definition(
        "RegisterImage",
        "",
        &[
            ("architecture", "`x86_64` or `arm64`."),
            ("blockDeviceMapping", "The volumes, as EC2 takes them."),
            ("blockDeviceMappings", "The volumes, as EC2 takes them."),
            ("bootMode", "`legacy-bios`, `uefi` or `uefi-preferred`."),
            ("enaSupport", "Enhanced networking."),
            (
                "imageLocation",
                "The manifest in S3, of an image with an instance store.",
            ),
            ("imdsSupport", "`v2.0`: instances take tokens only."),
            (
                "includeSnapshotTags",
                "Tags of the snapshots become the image's.",
            ),
            ("kernelId", "A kernel, of paravirtual images."),
            ("ramdiskId", "A RAM disk, of paravirtual images."),
            ("rootDeviceName", "The device of the root volume."),
            (
                "sriovNetSupport",
                "`simple`: the older form of enhanced networking.",
            ),
            ("tpmSupport", "`v2.0`: instances have a TPM."),
            ("uefiData", "Variables of UEFI in base64."),
            ("virtualizationType", "`hvm` or `paravirtual`."),
        ],
    ),
    of_definition(
        "RunCommand",
        "",
        &[
            INSTANCE,
            ("documentName", "The document of Systems Manager."),
            ("parameters", "Lists of values by name."),
            ("documentVersion", "Its version."),
        ],
    ),
    on_instance("RunSysPrep"),
    on_instance("SanitizeInstance"),
    of_definition(
        "TerminateInstance",
        "",
        &[
            INSTANCE,
            (
                "waitForTermination",
                "Whether the step lasts until the instance is gone.",
            ),
        ],
    ),
    of_definition(
        "WaitForAction",
        "",
        &[
            (
                "snsTopicArn",
                "The topic that is told; an alternative to `lambdaFunctionName`.",
            ),
            (
                "lambdaFunctionName",
                "The function that is called; an alternative to `snsTopicArn`.",
            ),
            ("payload", "What is sent along, up to 16 KiB."),
        ],
    ),
    on_instance("WaitForSSMAgent"),
];
