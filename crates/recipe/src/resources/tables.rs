//! The fields of every resource of Image Builder, as tables.
//! Source: the API's model of 2019-12-02; CloudFormation's words where they differ.

use super::schema::{Cfn, Field, Object, Relation, Rule, UNLIMITED, api_only, may, must};
use super::{arn, checks, forms, schedule, timezone};
use crate::image_recipe::{
    block_device_mappings, component_refs, container_settings, infrastructure_settings,
};

const NAME: Field = must("name", Rule::Is(forms::resource_name));
const DESCRIPTION: Field = may("description", Rule::Text(1024));
const CHANGE_DESCRIPTION: Field = may("changeDescription", Rule::Text(1024));
const KMS_KEY: Field = may("kmsKeyId", Rule::Text(1024));
const TAGS: Field = may("tags", Rule::Is(forms::tags));
/// Of resources that the API also updates: the call to do so names the resource by its ARN instead.
const NAME_OF_UPDATED: Field = may("name", Rule::Is(forms::resource_name));
/// Of the call, not of the resource.
const CLIENT_TOKEN: Field = api_only("clientToken", Rule::Text(64));
const DRY_RUN: Field = api_only("dryRun", Rule::Bool);
const EXECUTION_ROLE: Field = may("executionRole", Rule::Form(&forms::ROLE));

const VERSION: Field = Field {
    cfn: Cfn::Word("Version"),
    ..must("semanticVersion", Rule::Is(forms::version))
};
const VERSION_PATTERN: Field = Field {
    cfn: Cfn::Word("Version"),
    ..must("semanticVersion", Rule::Is(forms::version_pattern))
};

const PLATFORMS: &[&str] = &["Linux", "Windows", "macOS"];
const STATUS: Field = may("status", Rule::Choice(&["ENABLED", "DISABLED"]));

/// A text that is not empty, of a list.
static WORD: Rule = Rule::Text(1024);
static ACCOUNT: Rule = Rule::Form(&forms::ACCOUNT_ID);

/// `data` is read apart, since a document stands in it.
const DATA: Field = may("data", Rule::Any);
const URI: Field = may("uri", Rule::Form(&forms::S3_URI));
const ONE_SOURCE: Relation = Relation::ExactlyOne(&["data", "uri"]);

pub(crate) static COMPONENT: Object = Object {
    what: "a component",
    fields: &[
        NAME,
        VERSION,
        must("platform", Rule::Choice(PLATFORMS)),
        DATA,
        URI,
        DESCRIPTION,
        CHANGE_DESCRIPTION,
        may(
            "supportedOsVersions",
            Rule::List(1, 25, &Rule::Text(UNLIMITED)),
        ),
        KMS_KEY,
        TAGS,
        // Of `ImportComponent`, whose data is a script.
        api_only("format", Rule::Choice(&["SHELL"])),
        api_only("type", Rule::Choice(&["BUILD", "TEST"])),
        CLIENT_TOKEN,
        DRY_RUN,
    ],
    relations: &[ONE_SOURCE],
};

pub(crate) static WORKFLOW: Object = Object {
    what: "a workflow",
    fields: &[
        NAME,
        VERSION,
        must("type", Rule::Choice(&["BUILD", "TEST", "DISTRIBUTION"])),
        DATA,
        URI,
        DESCRIPTION,
        CHANGE_DESCRIPTION,
        KMS_KEY,
        TAGS,
        CLIENT_TOKEN,
        DRY_RUN,
    ],
    relations: &[ONE_SOURCE],
};

static TARGET_REPOSITORY: Object = Object {
    what: "a target repository",
    fields: &[
        must("service", Rule::Choice(&["ECR"])),
        must("repositoryName", Rule::Text(1024)),
    ],
    relations: &[],
};

static INSTANCE_CONFIGURATION: Object = Object {
    what: "`instanceConfiguration`",
    fields: &[
        may("image", Rule::Text(1024)),
        may("blockDeviceMappings", Rule::Is(block_device_mappings)),
    ],
    relations: &[],
};

pub(crate) static CONTAINER_RECIPE: Object = Object {
    what: "a container recipe",
    fields: &[
        NAME,
        VERSION_PATTERN,
        must("containerType", Rule::Choice(&["DOCKER"])),
        must("parentImage", Rule::Text(1024)),
        may("components", Rule::Is(component_refs)),
        must("targetRepository", Rule::Object(&TARGET_REPOSITORY)),
        may("dockerfileTemplateData", Rule::Text(16_000)),
        may("dockerfileTemplateUri", Rule::Form(&forms::S3_URI)),
        may(
            "instanceConfiguration",
            Rule::Object(&INSTANCE_CONFIGURATION),
        ),
        may("platformOverride", Rule::Choice(PLATFORMS)),
        may("imageOsVersionOverride", Rule::Text(1024)),
        may("workingDirectory", Rule::Text(1024)),
        // Ours.
        may("amiforge", Rule::Is(container_settings)),
        DESCRIPTION,
        KMS_KEY,
        TAGS,
        CLIENT_TOKEN,
    ],
    relations: &[Relation::ExactlyOne(&[
        "dockerfileTemplateData",
        "dockerfileTemplateUri",
    ])],
};

static SYSTEMS_MANAGER_AGENT: Object = Object {
    what: "`systemsManagerAgent`",
    fields: &[may("uninstallAfterBuild", Rule::Bool)],
    relations: &[],
};

/// Of image recipes.
pub(crate) static ADDITIONAL_INSTANCE_CONFIGURATION: Object = Object {
    what: "`additionalInstanceConfiguration`",
    fields: &[
        may("systemsManagerAgent", Rule::Object(&SYSTEMS_MANAGER_AGENT)),
        may("userDataOverride", Rule::Form(&forms::USER_DATA)),
    ],
    relations: &[],
};

/// Of image recipes.
pub(crate) static AMI_WATERMARKS: Rule = Rule::List(1, 5, &Rule::Form(&forms::WATERMARK));

static S3_LOGS: Object = Object {
    what: "`s3Logs`",
    fields: &[
        may("s3BucketName", Rule::Text(1024)),
        may("s3KeyPrefix", Rule::Text(1024)),
    ],
    relations: &[],
};

static LOGGING: Object = Object {
    what: "`logging`",
    fields: &[may("s3Logs", Rule::Object(&S3_LOGS))],
    relations: &[],
};

static METADATA_OPTIONS: Object = Object {
    what: "`instanceMetadataOptions`",
    fields: &[
        may("httpTokens", Rule::Choice(&["optional", "required"])),
        may("httpPutResponseHopLimit", Rule::Int(1, 64)),
    ],
    relations: &[],
};

static PLACEMENT: Object = Object {
    what: "`placement`",
    fields: &[
        may("availabilityZone", Rule::Text(1024)),
        may("tenancy", Rule::Choice(&["default", "dedicated", "host"])),
        may("hostId", Rule::Text(1024)),
        may("hostResourceGroupArn", Rule::Text(1024)),
    ],
    relations: &[Relation::AtMostOne(&["hostId", "hostResourceGroupArn"])],
};

pub(crate) static INFRASTRUCTURE: Object = Object {
    what: "an infrastructure configuration",
    fields: &[
        NAME_OF_UPDATED,
        api_only(
            "infrastructureConfigurationArn",
            Rule::Is(arn::infrastructure),
        ),
        must("instanceProfileName", Rule::Is(forms::instance_profile)),
        DESCRIPTION,
        may(
            "instanceTypes",
            Rule::List(0, UNLIMITED, &Rule::Form(&forms::INSTANCE_TYPE)),
        ),
        may("securityGroupIds", Rule::List(0, UNLIMITED, &WORD)),
        may("subnetId", Rule::Text(1024)),
        may("logging", Rule::Object(&LOGGING)),
        may("keyPair", Rule::Text(1024)),
        may("terminateInstanceOnFailure", Rule::Bool),
        may("snsTopicArn", Rule::Form(&arn::SNS_TOPIC)),
        may("resourceTags", Rule::Is(forms::resource_tags)),
        may("instanceMetadataOptions", Rule::Object(&METADATA_OPTIONS)),
        may("placement", Rule::Object(&PLACEMENT)),
        // Ours.
        api_only("amiforge", Rule::Is(infrastructure_settings)),
        TAGS,
        CLIENT_TOKEN,
    ],
    relations: &[Relation::NamedUnless("infrastructureConfigurationArn")],
};

static LAUNCH_PERMISSION: Object = Object {
    what: "a launch permission",
    fields: &[
        may("userIds", Rule::List(1, 1536, &ACCOUNT)),
        may("userGroups", Rule::List(0, UNLIMITED, &WORD)),
        may(
            "organizationArns",
            Rule::List(1, 25, &Rule::Form(&arn::ORGANIZATION)),
        ),
        may(
            "organizationalUnitArns",
            Rule::List(1, 25, &Rule::Form(&arn::ORGANIZATIONAL_UNIT)),
        ),
    ],
    relations: &[],
};

static AMI_DISTRIBUTION: Object = Object {
    what: "an AMI distribution",
    fields: &[
        may("name", Rule::Form(&forms::AMI_NAME)),
        DESCRIPTION,
        may("amiTags", Rule::Is(forms::tags)),
        KMS_KEY,
        may("targetAccountIds", Rule::List(1, 1536, &ACCOUNT)),
        Field {
            cfn: Cfn::Word("LaunchPermissionConfiguration"),
            ..may("launchPermission", Rule::FreeCase(&LAUNCH_PERMISSION))
        },
    ],
    relations: &[],
};

static CONTAINER_DISTRIBUTION: Object = Object {
    what: "a container distribution",
    fields: &[
        DESCRIPTION,
        may("containerTags", Rule::List(0, UNLIMITED, &WORD)),
        must("targetRepository", Rule::FreeCase(&TARGET_REPOSITORY)),
    ],
    relations: &[],
};

static LAUNCH_TEMPLATE: Object = Object {
    what: "a launch template configuration",
    fields: &[
        must("launchTemplateId", Rule::Form(&forms::LAUNCH_TEMPLATE_ID)),
        may("accountId", Rule::Form(&forms::ACCOUNT_ID)),
        may("setDefaultVersion", Rule::Bool),
    ],
    relations: &[],
};

static FAST_LAUNCH_SNAPSHOTS: Object = Object {
    what: "`snapshotConfiguration`",
    fields: &[may("targetResourceCount", Rule::Int(1, 10_000))],
    relations: &[],
};

static FAST_LAUNCH_TEMPLATE: Object = Object {
    what: "`launchTemplate`",
    fields: &[
        may("launchTemplateId", Rule::Form(&forms::LAUNCH_TEMPLATE_ID)),
        may("launchTemplateName", Rule::Text(1024)),
        may("launchTemplateVersion", Rule::Text(1024)),
    ],
    relations: &[Relation::AtMostOne(&[
        "launchTemplateId",
        "launchTemplateName",
    ])],
};

static FAST_LAUNCH: Object = Object {
    what: "a fast launch configuration",
    fields: &[
        must("enabled", Rule::Bool),
        may(
            "snapshotConfiguration",
            Rule::Object(&FAST_LAUNCH_SNAPSHOTS),
        ),
        may("maxParallelLaunches", Rule::Int(1, 1_000_000)),
        may("launchTemplate", Rule::Object(&FAST_LAUNCH_TEMPLATE)),
        may("accountId", Rule::Form(&forms::ACCOUNT_ID)),
    ],
    relations: &[],
};

static S3_EXPORT: Object = Object {
    what: "an S3 export",
    fields: &[
        must("roleName", Rule::Text(1024)),
        must("diskImageFormat", Rule::Choice(&["VMDK", "RAW", "VHD"])),
        must("s3Bucket", Rule::Text(1024)),
        may("s3Prefix", Rule::Text(1024)),
    ],
    relations: &[],
};

static SSM_PARAMETER: Object = Object {
    what: "an SSM parameter configuration",
    fields: &[
        must("parameterName", Rule::Form(&forms::SSM_NAME)),
        may("amiAccountId", Rule::Form(&forms::ACCOUNT_ID)),
        may("dataType", Rule::Choice(&["text", "aws:ec2:image"])),
    ],
    relations: &[],
};

static DISTRIBUTION_ENTRY: Object = Object {
    what: "a distribution",
    fields: &[
        must("region", Rule::Text(1024)),
        may(
            "amiDistributionConfiguration",
            Rule::FreeCase(&AMI_DISTRIBUTION),
        ),
        may(
            "containerDistributionConfiguration",
            Rule::FreeCase(&CONTAINER_DISTRIBUTION),
        ),
        may(
            "launchTemplateConfigurations",
            Rule::List(1, 100, &Rule::Object(&LAUNCH_TEMPLATE)),
        ),
        may(
            "fastLaunchConfigurations",
            Rule::List(1, 1000, &Rule::Object(&FAST_LAUNCH)),
        ),
        api_only("s3ExportConfiguration", Rule::Object(&S3_EXPORT)),
        may(
            "ssmParameterConfigurations",
            Rule::List(0, UNLIMITED, &Rule::Object(&SSM_PARAMETER)),
        ),
        may(
            "licenseConfigurationArns",
            Rule::List(1, 50, &Rule::Form(&arn::LICENSE_CONFIGURATION)),
        ),
    ],
    relations: &[Relation::UsuallyOne(&[
        "amiDistributionConfiguration",
        "containerDistributionConfiguration",
    ])],
};

pub(crate) static DISTRIBUTION: Object = Object {
    what: "a distribution configuration",
    fields: &[
        NAME_OF_UPDATED,
        api_only("distributionConfigurationArn", Rule::Is(arn::distribution)),
        DESCRIPTION,
        must(
            "distributions",
            Rule::List(0, UNLIMITED, &Rule::Object(&DISTRIBUTION_ENTRY)),
        ),
        TAGS,
        CLIENT_TOKEN,
    ],
    relations: &[
        Relation::NamedUnless("distributionConfigurationArn"),
        Relation::Check(checks::regions_once),
    ],
};

static IMAGE_TESTS: Object = Object {
    what: "`imageTestsConfiguration`",
    fields: &[
        may("imageTestsEnabled", Rule::Bool),
        may("timeoutMinutes", Rule::Int(60, 1440)),
    ],
    relations: &[],
};

static AUTO_DISABLE: Object = Object {
    what: "`autoDisablePolicy`",
    fields: &[must("failureCount", Rule::Int(1, 10))],
    relations: &[],
};

static SCHEDULE: Object = Object {
    what: "`schedule`",
    fields: &[
        may("scheduleExpression", Rule::Is(schedule::expression)),
        api_only("timezone", Rule::Is(timezone::timezone)),
        may(
            "pipelineExecutionStartCondition",
            Rule::Choice(&[
                "EXPRESSION_MATCH_ONLY",
                "EXPRESSION_MATCH_AND_DEPENDENCY_UPDATES_AVAILABLE",
            ]),
        ),
        may("autoDisablePolicy", Rule::Object(&AUTO_DISABLE)),
    ],
    relations: &[],
};

static ECR_CONFIGURATION: Object = Object {
    what: "`ecrConfiguration`",
    fields: &[
        may("repositoryName", Rule::Text(1024)),
        may("containerTags", Rule::List(0, UNLIMITED, &WORD)),
    ],
    relations: &[],
};

static IMAGE_SCANNING: Object = Object {
    what: "`imageScanningConfiguration`",
    fields: &[
        may("imageScanningEnabled", Rule::Bool),
        may("ecrConfiguration", Rule::Object(&ECR_CONFIGURATION)),
    ],
    relations: &[],
};

static WORKFLOW_PARAMETER: Object = Object {
    what: "a workflow parameter",
    fields: &[
        must("name", Rule::Text(128)),
        must(
            "value",
            Rule::List(0, UNLIMITED, &Rule::Is(checks::any_text)),
        ),
    ],
    relations: &[],
};

static WORKFLOW_CONFIGURATION: Object = Object {
    what: "a workflow of the pipeline",
    fields: &[
        must("workflowArn", Rule::Is(arn::workflow)),
        may(
            "parameters",
            Rule::List(1, UNLIMITED, &Rule::Object(&WORKFLOW_PARAMETER)),
        ),
        may("parallelGroup", Rule::Form(&forms::PARALLEL_GROUP)),
        may("onFailure", Rule::Choice(&["CONTINUE", "ABORT"])),
    ],
    relations: &[Relation::Check(checks::parallel_tests_only)],
};

static ONE_WORKFLOW: Rule = Rule::Object(&WORKFLOW_CONFIGURATION);
const WORKFLOWS: Field = may("workflows", Rule::List(0, UNLIMITED, &ONE_WORKFLOW));

static PIPELINE_LOGGING: Object = Object {
    what: "`loggingConfiguration`",
    fields: &[
        may("imageLogGroupName", Rule::Form(&forms::LOG_GROUP)),
        may("pipelineLogGroupName", Rule::Form(&forms::LOG_GROUP)),
    ],
    relations: &[],
};

static IMAGE_LOGGING: Object = Object {
    what: "`loggingConfiguration`",
    fields: &[may("logGroupName", Rule::Form(&forms::LOG_GROUP))],
    relations: &[],
};

const IMAGE_RECIPE_ARN: Field = may("imageRecipeArn", Rule::Is(arn::image_recipe));
const CONTAINER_RECIPE_ARN: Field = may("containerRecipeArn", Rule::Is(arn::container_recipe));
const INFRASTRUCTURE_ARN: Field = must(
    "infrastructureConfigurationArn",
    Rule::Is(arn::infrastructure),
);
const DISTRIBUTION_ARN: Field = may("distributionConfigurationArn", Rule::Is(arn::distribution));
const IMAGE_TESTS_CONFIGURATION: Field = may("imageTestsConfiguration", Rule::Object(&IMAGE_TESTS));
const ENHANCED_METADATA: Field = may("enhancedImageMetadataEnabled", Rule::Bool);
const SCANNING: Field = may("imageScanningConfiguration", Rule::Object(&IMAGE_SCANNING));
const ONE_RECIPE: Relation = Relation::ExactlyOne(&["imageRecipeArn", "containerRecipeArn"]);

pub(crate) static PIPELINE: Object = Object {
    what: "an image pipeline",
    fields: &[
        NAME_OF_UPDATED,
        api_only("imagePipelineArn", Rule::Is(arn::pipeline)),
        IMAGE_RECIPE_ARN,
        CONTAINER_RECIPE_ARN,
        INFRASTRUCTURE_ARN,
        DISTRIBUTION_ARN,
        DESCRIPTION,
        IMAGE_TESTS_CONFIGURATION,
        ENHANCED_METADATA,
        may("schedule", Rule::Object(&SCHEDULE)),
        STATUS,
        SCANNING,
        WORKFLOWS,
        EXECUTION_ROLE,
        may("loggingConfiguration", Rule::Object(&PIPELINE_LOGGING)),
        api_only("imageTags", Rule::Is(forms::tags)),
        TAGS,
        CLIENT_TOKEN,
    ],
    relations: &[
        Relation::NamedUnless("imagePipelineArn"),
        ONE_RECIPE,
        Relation::Check(checks::role_of_workflows),
    ],
};

static DELETION_SETTINGS: Object = Object {
    what: "`deletionSettings`",
    fields: &[must("executionRole", Rule::Form(&forms::ROLE))],
    relations: &[],
};

static PIPELINE_EXECUTION: Object = Object {
    what: "`imagePipelineExecutionSettings`",
    fields: &[
        may("deploymentId", Rule::Text(1024)),
        may("onUpdate", Rule::Bool),
    ],
    relations: &[],
};

/// `CreateImage`, and CloudFormation's `AWS::ImageBuilder::Image`, which may also start a pipeline.
pub(crate) static IMAGE: Object = Object {
    what: "an image",
    fields: &[
        IMAGE_RECIPE_ARN,
        CONTAINER_RECIPE_ARN,
        may(
            "infrastructureConfigurationArn",
            Rule::Is(arn::infrastructure),
        ),
        DISTRIBUTION_ARN,
        IMAGE_TESTS_CONFIGURATION,
        ENHANCED_METADATA,
        SCANNING,
        WORKFLOWS,
        EXECUTION_ROLE,
        may("loggingConfiguration", Rule::Object(&IMAGE_LOGGING)),
        may("deletionSettings", Rule::Object(&DELETION_SETTINGS)),
        may(
            "imagePipelineExecutionSettings",
            Rule::Object(&PIPELINE_EXECUTION),
        ),
        TAGS,
        CLIENT_TOKEN,
    ],
    relations: &[
        Relation::Check(checks::image_source),
        Relation::Check(checks::role_of_workflows),
    ],
};

const TIME_UNITS: &[&str] = &["DAYS", "WEEKS", "MONTHS", "YEARS"];

static INCLUDE_RESOURCES: Object = Object {
    what: "`includeResources`",
    fields: &[
        may("amis", Rule::Bool),
        may("snapshots", Rule::Bool),
        may("containers", Rule::Bool),
    ],
    relations: &[],
};

static POLICY_ACTION: Object = Object {
    what: "the action of a policy detail",
    fields: &[
        must("type", Rule::Choice(&["DELETE", "DEPRECATE", "DISABLE"])),
        may("includeResources", Rule::Object(&INCLUDE_RESOURCES)),
    ],
    relations: &[],
};

static POLICY_FILTER: Object = Object {
    what: "the filter of a policy detail",
    fields: &[
        must("type", Rule::Choice(&["AGE", "COUNT"])),
        must("value", Rule::Int(1, 1000)),
        may("unit", Rule::Choice(TIME_UNITS)),
        may("retainAtLeast", Rule::Int(1, 10)),
    ],
    relations: &[Relation::Check(checks::filter_by_age)],
};

static LAST_LAUNCHED: Object = Object {
    what: "`lastLaunched`",
    fields: &[
        must("value", Rule::Int(1, 365)),
        must("unit", Rule::Choice(TIME_UNITS)),
    ],
    relations: &[],
};

static EXCLUDED_AMIS: Object = Object {
    what: "`amis`",
    fields: &[
        may("isPublic", Rule::Bool),
        may("regions", Rule::List(0, UNLIMITED, &WORD)),
        may("sharedAccounts", Rule::List(1, 1536, &ACCOUNT)),
        may("lastLaunched", Rule::Object(&LAST_LAUNCHED)),
        may("tagMap", Rule::Is(forms::tags)),
    ],
    relations: &[],
};

static EXCLUSION_RULES: Object = Object {
    what: "`exclusionRules`",
    fields: &[
        may("tagMap", Rule::Is(forms::tags)),
        may("amis", Rule::Object(&EXCLUDED_AMIS)),
    ],
    relations: &[],
};

static POLICY_DETAIL: Object = Object {
    what: "a policy detail",
    fields: &[
        must("action", Rule::Object(&POLICY_ACTION)),
        must("filter", Rule::Object(&POLICY_FILTER)),
        may("exclusionRules", Rule::Object(&EXCLUSION_RULES)),
    ],
    relations: &[Relation::Check(checks::count_deletes)],
};

static SELECTED_RECIPE: Object = Object {
    what: "a recipe of the selection",
    fields: &[
        NAME,
        must("semanticVersion", Rule::Is(forms::version_pattern)),
    ],
    relations: &[],
};

static RESOURCE_SELECTION: Object = Object {
    what: "`resourceSelection`",
    fields: &[
        may(
            "recipes",
            Rule::List(1, 50, &Rule::Object(&SELECTED_RECIPE)),
        ),
        may("tagMap", Rule::Is(forms::tags)),
    ],
    relations: &[Relation::ExactlyOne(&["recipes", "tagMap"])],
};

pub(crate) static LIFECYCLE_POLICY: Object = Object {
    what: "a lifecycle policy",
    fields: &[
        NAME_OF_UPDATED,
        api_only("lifecyclePolicyArn", Rule::Is(arn::lifecycle_policy)),
        must("executionRole", Rule::Form(&forms::ROLE)),
        must(
            "resourceType",
            Rule::Choice(&["AMI_IMAGE", "CONTAINER_IMAGE"]),
        ),
        must(
            "policyDetails",
            Rule::List(1, 3, &Rule::Object(&POLICY_DETAIL)),
        ),
        must("resourceSelection", Rule::Object(&RESOURCE_SELECTION)),
        STATUS,
        DESCRIPTION,
        TAGS,
        CLIENT_TOKEN,
    ],
    relations: &[Relation::NamedUnless("lifecyclePolicyArn")],
};
