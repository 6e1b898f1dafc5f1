//! Texts of the other resources of Image Builder.

use super::{Texts, of_definition};

pub(super) static TEXTS: &[Texts] = &[
    of_definition(
        "component",
        "A component with its document, as the API's CreateComponent has it.",
        &[
            ("semanticVersion", "`<major>.<minor>.<patch>`."),
            ("platform", "The system that it runs on."),
            ("data", "The component document itself, as a text."),
            (
                "uri",
                "Where the document is in S3; an alternative to `data`.",
            ),
            (
                "supportedOsVersions",
                "Systems and their versions, such as `Ubuntu 22`.",
            ),
            ("format", "Of imported components: SHELL."),
            ("type", "Of imported components: what they are for."),
        ],
    ),
    of_definition(
        "workflow",
        "A workflow with its document, as the API's CreateWorkflow has it.",
        &[
            ("semanticVersion", "`<major>.<minor>.<patch>`."),
            ("type", "What it is for."),
            ("data", "The workflow document itself, as a text."),
            (
                "uri",
                "Where the document is in S3; an alternative to `data`.",
            ),
        ],
    ),
    of_definition(
        "infrastructure-configuration",
        "The instances that build and test, as the API's CreateInfrastructureConfiguration has it.",
        &[
            (
                "infrastructureConfigurationArn",
                "The ARN of the one to change, in place of `name`.",
            ),
            (
                "instanceProfileName",
                "The instance profile of the build instance.",
            ),
            ("instanceTypes", "Instance types to choose from."),
            (
                "securityGroupIds",
                "Security groups; those of the subnet's VPC.",
            ),
            ("subnetId", "The subnet."),
            ("logging", "Where logs go."),
            ("keyPair", "The key pair to look into a failed build with."),
            (
                "terminateInstanceOnFailure",
                "False keeps the instance of a failed build. Default: true.",
            ),
            ("snsTopicArn", "The topic that is told of results."),
            ("resourceTags", "Tags of what a build makes."),
            (
                "instanceMetadataOptions",
                "How the instance's metadata is read.",
            ),
            ("placement", "Where the instance runs."),
            (
                "amiforge",
                "What AWS does not have. Only amiforge knows this key: take it out before the document goes to AWS.",
            ),
        ],
    ),
    of_definition("logging", "", &[("s3Logs", "Logs in S3.")]),
    of_definition(
        "s3Logs",
        "",
        &[
            ("s3BucketName", "The bucket."),
            ("s3KeyPrefix", "What keys begin with."),
        ],
    ),
    of_definition(
        "instanceMetadataOptions",
        "",
        &[
            (
                "httpTokens",
                "`required` means version 2 of the metadata service only.",
            ),
            ("httpPutResponseHopLimit", "How far a token may travel."),
        ],
    ),
    of_definition(
        "placement",
        "",
        &[
            ("availabilityZone", "The zone."),
            ("tenancy", "Whether the hardware is shared."),
            (
                "hostId",
                "The dedicated host; an alternative to `hostResourceGroupArn`.",
            ),
            (
                "hostResourceGroupArn",
                "The group of dedicated hosts; an alternative to `hostId`.",
            ),
        ],
    ),
    of_definition(
        "distribution-configuration",
        "Where images go, as the API's CreateDistributionConfiguration has it.",
        &[
            (
                "distributionConfigurationArn",
                "The ARN of the one to change, in place of `name`.",
            ),
            ("distributions", "One entry for each Region."),
        ],
    ),
    of_definition(
        "distribution",
        "What one Region gets.",
        &[
            ("region", "The Region."),
            ("amiDistributionConfiguration", "The AMI there."),
            (
                "containerDistributionConfiguration",
                "The container image there.",
            ),
            (
                "launchTemplateConfigurations",
                "Launch templates that get the new AMI.",
            ),
            (
                "fastLaunchConfigurations",
                "Snapshots made ready for Windows to start fast.",
            ),
            ("s3ExportConfiguration", "A disk image in S3."),
            (
                "ssmParameterConfigurations",
                "SSM parameters that get the AMI's id.",
            ),
            (
                "licenseConfigurationArns",
                "Licences that the AMI is tied to.",
            ),
        ],
    ),
    of_definition(
        "AMI-distribution",
        "",
        &[
            (
                "name",
                "The AMI's name; `{{ imagebuilder:buildDate }}` makes it one of its own.",
            ),
            ("amiTags", "Tags of the AMI."),
            ("targetAccountIds", "Accounts that get a copy."),
            ("launchPermission", "Who can start instances of it."),
        ],
    ),
    of_definition(
        "launch-permission",
        "",
        &[
            ("userIds", "Accounts, each of 12 digits."),
            ("userGroups", "`all` makes the AMI public."),
            ("organizationArns", "Organizations."),
            ("organizationalUnitArns", "Parts of organizations."),
        ],
    ),
    of_definition(
        "container-distribution",
        "",
        &[
            ("containerTags", "Tags of the container image."),
            ("targetRepository", "Where the image goes."),
        ],
    ),
    of_definition(
        "launch-template-configuration",
        "",
        &[
            ("launchTemplateId", "The launch template."),
            (
                "setDefaultVersion",
                "Whether the new version is the default. Default: true.",
            ),
        ],
    ),
    of_definition(
        "fast-launch-configuration",
        "",
        &[
            ("enabled", "Whether snapshots are made ready."),
            ("snapshotConfiguration", "How many."),
            ("maxParallelLaunches", "Instances at a time that make them."),
            ("launchTemplate", "The launch template of those instances."),
        ],
    ),
    of_definition(
        "snapshotConfiguration",
        "",
        &[("targetResourceCount", "Snapshots that are kept ready.")],
    ),
    of_definition(
        "launchTemplate",
        "",
        &[
            (
                "launchTemplateId",
                "Its id; an alternative to `launchTemplateName`.",
            ),
            (
                "launchTemplateName",
                "Its name; an alternative to `launchTemplateId`.",
            ),
            ("launchTemplateVersion", "Its version."),
        ],
    ),
    of_definition(
        "S3-export",
        "",
        &[
            ("roleName", "The role that may write to the bucket."),
            ("diskImageFormat", "The format."),
            ("s3Bucket", "The bucket."),
            ("s3Prefix", "What keys begin with."),
        ],
    ),
    of_definition(
        "SSM-parameter-configuration",
        "",
        &[
            ("parameterName", "The parameter."),
            ("amiAccountId", "The account whose AMI it names."),
            ("dataType", "What the parameter is. Default: aws:ec2:image."),
        ],
    ),
    of_definition(
        "image-pipeline",
        "A recipe, an infrastructure, a distribution and when, as the API's CreateImagePipeline has it.",
        &[
            (
                "imagePipelineArn",
                "The ARN of the one to change, in place of `name`.",
            ),
            ("schedule", "When it runs; only by hand when left out."),
            ("loggingConfiguration", "Log groups of CloudWatch."),
            ("imageTags", "Tags of the images that it makes."),
        ],
    ),
    of_definition(
        "schedule",
        "",
        &[
            (
                "scheduleExpression",
                "`cron(…)` with six fields, or `rate(…)`.",
            ),
            (
                "timezone",
                "A name of the IANA database, such as `Europe/Berlin`. Default: UTC.",
            ),
            (
                "pipelineExecutionStartCondition",
                "Whether it runs each time, or only when a component or the parent has a new version (default).",
            ),
            ("autoDisablePolicy", "When failures stop it."),
        ],
    ),
    of_definition(
        "autoDisablePolicy",
        "",
        &[(
            "failureCount",
            "Failures in a row after which the pipeline is disabled.",
        )],
    ),
    of_definition(
        "imageTestsConfiguration",
        "",
        &[
            ("imageTestsEnabled", "Whether tests run. Default: true."),
            ("timeoutMinutes", "How long they may take. Default: 720."),
        ],
    ),
    of_definition(
        "imageScanningConfiguration",
        "",
        &[
            ("imageScanningEnabled", "Whether findings are kept."),
            (
                "ecrConfiguration",
                "The repository that container images are scanned in.",
            ),
        ],
    ),
    of_definition(
        "ecrConfiguration",
        "",
        &[
            ("repositoryName", "The repository."),
            ("containerTags", "Tags of the image there."),
        ],
    ),
    of_definition(
        "workflow-of-the-pipeline",
        "",
        &[
            ("workflowArn", "The workflow."),
            ("parameters", "Values for its parameters."),
            (
                "parallelGroup",
                "Test workflows of the same group run at the same time.",
            ),
            (
                "onFailure",
                "Whether the other workflows go on. Default: ABORT.",
            ),
        ],
    ),
    of_definition(
        "loggingConfiguration",
        "",
        &[
            ("imageLogGroupName", "The log group of images."),
            ("pipelineLogGroupName", "The log group of the pipeline."),
            ("logGroupName", "The log group."),
        ],
    ),
    of_definition(
        "image",
        "One build of a recipe, as the API's CreateImage has it.",
        &[
            ("loggingConfiguration", "The log group of CloudWatch."),
            (
                "deletionSettings",
                "What goes with the resource when its stack is deleted.",
            ),
            (
                "imagePipelineExecutionSettings",
                "Starts a pipeline in place of a build of its own.",
            ),
        ],
    ),
    of_definition("deletionSettings", "", &[]),
    of_definition(
        "imagePipelineExecutionSettings",
        "",
        &[
            ("deploymentId", "A new value starts the pipeline again."),
            ("onUpdate", "Whether an update of the stack starts it."),
        ],
    ),
    of_definition(
        "lifecycle-policy",
        "When old images go, as the API's CreateLifecyclePolicy has it.",
        &[
            (
                "lifecyclePolicyArn",
                "The ARN of the one to change, in place of `name`.",
            ),
            ("resourceType", "AMIs or container images."),
            ("policyDetails", "What happens to which images."),
            (
                "resourceSelection",
                "The images that it is about: of recipes, or with tags.",
            ),
        ],
    ),
    of_definition(
        "policy-detail",
        "",
        &[
            ("action", "What happens."),
            ("filter", "To which images."),
            ("exclusionRules", "To which images it does not."),
        ],
    ),
    of_definition(
        "action-of-a-policy-detail",
        "",
        &[
            ("type", "What happens."),
            ("includeResources", "What else it happens to."),
        ],
    ),
    of_definition(
        "includeResources",
        "",
        &[
            ("amis", "The AMIs of the image."),
            ("snapshots", "Their snapshots."),
            ("containers", "The container images."),
        ],
    ),
    of_definition(
        "filter-of-a-policy-detail",
        "",
        &[
            ("type", "By age, or by how many there are."),
            ("value", "From this age on, or more than so many."),
            ("unit", "The unit of the age; needed with AGE."),
            (
                "retainAtLeast",
                "So many are kept whatever their age; with AGE only.",
            ),
        ],
    ),
    of_definition(
        "exclusionRules",
        "",
        &[
            ("tagMap", "Images with these tags."),
            ("amis", "AMIs of these kinds."),
        ],
    ),
    of_definition(
        "amis",
        "",
        &[
            ("isPublic", "Public AMIs."),
            ("regions", "AMIs in these Regions."),
            ("sharedAccounts", "AMIs that these accounts can use."),
            (
                "lastLaunched",
                "AMIs that an instance was started of lately.",
            ),
            ("tagMap", "AMIs with these tags."),
        ],
    ),
    of_definition(
        "lastLaunched",
        "",
        &[
            ("value", "How long ago at most."),
            ("unit", "The unit of that time."),
        ],
    ),
    of_definition(
        "resourceSelection",
        "",
        &[
            ("recipes", "Images of these recipes."),
            ("tagMap", "Images with these tags."),
        ],
    ),
    of_definition(
        "recipe-of-the-selection",
        "",
        &[("semanticVersion", "Its version; trailing parts can be `x`.")],
    ),
];
