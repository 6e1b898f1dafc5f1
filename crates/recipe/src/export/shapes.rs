//! The fields of every resource, each with its word in the API, in CloudFormation and in Terraform: one
//! table, from which all three are written.
//!
//! Sources: the API's model of 2019-12-02; CloudFormation's resource schemas `AWS::ImageBuilder::*`; the schema of
//! Terraform's provider hashicorp/aws 6.62.0, and its documentation, `website/docs/r/imagebuilder_*.html.markdown`.

use crate::decode::capitalized;
use crate::resources::ResourceKind;

/// The fields of a mapping, in the order in which they are written.
pub(super) struct Shape {
    pub(super) fields: &'static [Field],
}

/// One field.
pub(super) struct Field {
    /// The word of the API, in camelCase.
    pub(super) api: &'static str,
    /// False when the call that creates the resource does not take it.
    in_call: bool,
    cfn: Word,
    terraform: Word,
    pub(super) kind: Kind,
}

/// A word beside that of the API.
enum Word {
    /// The same words, spelled as usual there.
    Same,
    /// Another one.
    Is(&'static str),
    /// There is no such field.
    Absent,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Bool,
    Int,
    Texts,
    /// Names that are the user's own, with texts.
    Tags,
    /// A mapping.
    One(&'static Shape),
    /// A mapping whose fields Terraform has one level higher.
    Merged(&'static Shape),
    /// A list of mappings; a block that is repeated in Terraform.
    Many(&'static Shape),
    /// The ARN of a resource.
    Arn(ResourceKind),
    /// A document, in a file of its own where there are several files.
    Document,
    /// A list with one text; the text alone in Terraform.
    Single,
    /// The empty text, `true` in Terraform.
    Mark,
}

const fn field(api: &'static str, kind: Kind) -> Field {
    Field {
        api,
        in_call: true,
        cfn: Word::Same,
        terraform: Word::Same,
        kind,
    }
}

const fn text(api: &'static str) -> Field {
    field(api, Kind::Text)
}

impl Field {
    const fn cfn(self, word: &'static str) -> Self {
        Self {
            cfn: Word::Is(word),
            ..self
        }
    }

    const fn terraform(self, word: &'static str) -> Self {
        Self {
            terraform: Word::Is(word),
            ..self
        }
    }

    const fn not_cfn(self) -> Self {
        Self {
            cfn: Word::Absent,
            ..self
        }
    }

    const fn not_terraform(self) -> Self {
        Self {
            terraform: Word::Absent,
            ..self
        }
    }

    const fn not_call(self) -> Self {
        Self {
            in_call: false,
            ..self
        }
    }

    /// The word of the API, where the call takes the field.
    pub(super) fn call_word(&self) -> Option<String> {
        self.in_call.then(|| self.api.to_owned())
    }

    /// CloudFormation's word.
    pub(super) fn cfn_word(&self) -> Option<String> {
        match self.cfn {
            Word::Same => Some(capitalized(self.api)),
            Word::Is(word) => Some(word.to_owned()),
            Word::Absent => None,
        }
    }

    /// Terraform's word.
    pub(super) fn terraform_word(&self) -> Option<String> {
        match self.terraform {
            Word::Same => Some(snake(self.api)),
            Word::Is(word) => Some(word.to_owned()),
            Word::Absent => None,
        }
    }

    /// True when a document may have spelled the field so.
    pub(super) fn is_spelled(&self, key: &str) -> bool {
        key == self.api
            || key == capitalized(self.api)
            || self.cfn_word().is_some_and(|word| key == word)
    }
}

/// `blockDeviceMappings` → `block_device_mappings`.
fn snake(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 4);
    for c in word.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

const NAME: Field = text("name");
const DESCRIPTION: Field = text("description");
const CHANGE_DESCRIPTION: Field = text("changeDescription");
const KMS_KEY: Field = text("kmsKeyId");
const TAGS: Field = field("tags", Kind::Tags);
const EXECUTION_ROLE: Field = text("executionRole");
const STATUS: Field = text("status");
const DATA: Field = field("data", Kind::Document);
const URI: Field = text("uri");
const WORKING_DIRECTORY: Field = text("workingDirectory");
const PARENT_IMAGE: Field = text("parentImage");
const VERSION: Field = text("semanticVersion").cfn("Version").terraform("version");
/// Makes a call that is repeated the same call.
const CLIENT_TOKEN: Field = text("clientToken").not_cfn().not_terraform();
/// Would make nothing.
const DRY_RUN: Field = field("dryRun", Kind::Bool)
    .not_call()
    .not_cfn()
    .not_terraform();

/// Of the call that updates a resource: which one.
const fn updated(api: &'static str) -> Field {
    text(api).not_call().not_cfn().not_terraform()
}

static COMPONENT: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        VERSION,
        CHANGE_DESCRIPTION,
        text("platform"),
        field("supportedOsVersions", Kind::Texts),
        KMS_KEY,
        TAGS,
        URI,
        DATA,
        // Of `ImportComponent`, which is refused; the service derives the type of all others.
        text("format").not_call().not_cfn().not_terraform(),
        text("type").not_call().not_cfn().not_terraform(),
        CLIENT_TOKEN,
        DRY_RUN,
    ],
};

static WORKFLOW: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        VERSION,
        CHANGE_DESCRIPTION,
        text("type"),
        KMS_KEY,
        TAGS,
        URI,
        DATA,
        CLIENT_TOKEN,
        DRY_RUN,
    ],
};

static COMPONENT_PARAMETER: Shape = Shape {
    fields: &[NAME, field("value", Kind::Single)],
};

static COMPONENT_USE: Shape = Shape {
    fields: &[
        field("componentArn", Kind::Arn(ResourceKind::Component)),
        field("parameters", Kind::Many(&COMPONENT_PARAMETER)).terraform("parameter"),
    ],
};

static EBS: Shape = Shape {
    fields: &[
        field("volumeSize", Kind::Int),
        text("volumeType"),
        field("iops", Kind::Int),
        field("throughput", Kind::Int),
        field("deleteOnTermination", Kind::Bool),
        field("encrypted", Kind::Bool),
        KMS_KEY,
        text("snapshotId"),
    ],
};

static BLOCK_DEVICE: Shape = Shape {
    fields: &[
        text("deviceName"),
        field("ebs", Kind::One(&EBS)),
        text("virtualName"),
        field("noDevice", Kind::Mark),
    ],
};

const COMPONENTS: Field = field("components", Kind::Many(&COMPONENT_USE)).terraform("component");
const BLOCK_DEVICES: Field =
    field("blockDeviceMappings", Kind::Many(&BLOCK_DEVICE)).terraform("block_device_mapping");

static SYSTEMS_MANAGER_AGENT: Shape = Shape {
    fields: &[field("uninstallAfterBuild", Kind::Bool)],
};

static ADDITIONAL: Shape = Shape {
    fields: &[
        field("systemsManagerAgent", Kind::One(&SYSTEMS_MANAGER_AGENT)),
        text("userDataOverride").terraform("user_data_base64"),
    ],
};

static IMAGE_RECIPE: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        VERSION,
        PARENT_IMAGE,
        COMPONENTS,
        BLOCK_DEVICES,
        WORKING_DIRECTORY,
        field("additionalInstanceConfiguration", Kind::Merged(&ADDITIONAL)),
        field("amiTags", Kind::Tags),
        field("amiWatermarks", Kind::Texts)
            .not_cfn()
            .not_terraform(),
        TAGS,
        CLIENT_TOKEN,
    ],
};

static TARGET_REPOSITORY: Shape = Shape {
    fields: &[text("service"), text("repositoryName")],
};

static INSTANCE_CONFIGURATION: Shape = Shape {
    fields: &[text("image"), BLOCK_DEVICES],
};

static CONTAINER_RECIPE: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        VERSION,
        text("containerType"),
        PARENT_IMAGE,
        text("platformOverride"),
        text("imageOsVersionOverride").not_terraform(),
        COMPONENTS,
        text("dockerfileTemplateUri"),
        text("dockerfileTemplateData"),
        field("targetRepository", Kind::One(&TARGET_REPOSITORY)),
        field("instanceConfiguration", Kind::One(&INSTANCE_CONFIGURATION)),
        WORKING_DIRECTORY,
        KMS_KEY,
        TAGS,
        CLIENT_TOKEN,
    ],
};

static S3_LOGS: Shape = Shape {
    fields: &[text("s3BucketName"), text("s3KeyPrefix")],
};

static LOGGING: Shape = Shape {
    fields: &[field("s3Logs", Kind::One(&S3_LOGS))],
};

static METADATA_OPTIONS: Shape = Shape {
    fields: &[
        text("httpTokens"),
        field("httpPutResponseHopLimit", Kind::Int),
    ],
};

static PLACEMENT: Shape = Shape {
    fields: &[
        text("availabilityZone"),
        text("tenancy"),
        text("hostId"),
        text("hostResourceGroupArn"),
    ],
};

static INFRASTRUCTURE: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        text("instanceProfileName"),
        field("instanceTypes", Kind::Texts),
        field("securityGroupIds", Kind::Texts),
        text("subnetId"),
        text("keyPair"),
        field("terminateInstanceOnFailure", Kind::Bool),
        text("snsTopicArn"),
        field("logging", Kind::One(&LOGGING)),
        field("instanceMetadataOptions", Kind::One(&METADATA_OPTIONS)),
        field("placement", Kind::One(&PLACEMENT)),
        field("resourceTags", Kind::Tags),
        TAGS,
        updated("infrastructureConfigurationArn"),
        CLIENT_TOKEN,
    ],
};

static LAUNCH_PERMISSION: Shape = Shape {
    fields: &[
        field("userIds", Kind::Texts),
        field("userGroups", Kind::Texts),
        field("organizationArns", Kind::Texts),
        field("organizationalUnitArns", Kind::Texts),
    ],
};

static AMI_DISTRIBUTION: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        KMS_KEY,
        field("targetAccountIds", Kind::Texts),
        field("launchPermission", Kind::One(&LAUNCH_PERMISSION))
            .cfn("LaunchPermissionConfiguration"),
        field("amiTags", Kind::Tags),
    ],
};

static CONTAINER_DISTRIBUTION: Shape = Shape {
    fields: &[
        DESCRIPTION,
        field("containerTags", Kind::Texts),
        field("targetRepository", Kind::One(&TARGET_REPOSITORY)),
    ],
};

static LAUNCH_TEMPLATE: Shape = Shape {
    fields: &[
        text("launchTemplateId"),
        text("accountId"),
        field("setDefaultVersion", Kind::Bool).terraform("default"),
    ],
};

static FAST_LAUNCH_SNAPSHOTS: Shape = Shape {
    fields: &[field("targetResourceCount", Kind::Int)],
};

static FAST_LAUNCH_TEMPLATE: Shape = Shape {
    fields: &[
        text("launchTemplateId"),
        text("launchTemplateName"),
        text("launchTemplateVersion"),
    ],
};

static FAST_LAUNCH: Shape = Shape {
    fields: &[
        field("enabled", Kind::Bool),
        text("accountId"),
        field("maxParallelLaunches", Kind::Int),
        field("snapshotConfiguration", Kind::One(&FAST_LAUNCH_SNAPSHOTS)),
        field("launchTemplate", Kind::One(&FAST_LAUNCH_TEMPLATE)),
    ],
};

static S3_EXPORT: Shape = Shape {
    fields: &[
        text("roleName"),
        text("diskImageFormat"),
        text("s3Bucket"),
        text("s3Prefix"),
    ],
};

static SSM_PARAMETER: Shape = Shape {
    fields: &[
        text("parameterName"),
        text("amiAccountId"),
        text("dataType"),
    ],
};

static DISTRIBUTION_ENTRY: Shape = Shape {
    fields: &[
        text("region"),
        field("amiDistributionConfiguration", Kind::One(&AMI_DISTRIBUTION)),
        field(
            "containerDistributionConfiguration",
            Kind::One(&CONTAINER_DISTRIBUTION),
        ),
        field("launchTemplateConfigurations", Kind::Many(&LAUNCH_TEMPLATE))
            .terraform("launch_template_configuration"),
        field("fastLaunchConfigurations", Kind::Many(&FAST_LAUNCH))
            .terraform("fast_launch_configuration"),
        field("s3ExportConfiguration", Kind::One(&S3_EXPORT)).not_cfn(),
        field("ssmParameterConfigurations", Kind::Many(&SSM_PARAMETER))
            .terraform("ssm_parameter_configuration"),
        field("licenseConfigurationArns", Kind::Texts),
    ],
};

static DISTRIBUTION: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        field("distributions", Kind::Many(&DISTRIBUTION_ENTRY)).terraform("distribution"),
        TAGS,
        updated("distributionConfigurationArn"),
        CLIENT_TOKEN,
    ],
};

static IMAGE_TESTS: Shape = Shape {
    fields: &[
        field("imageTestsEnabled", Kind::Bool),
        field("timeoutMinutes", Kind::Int),
    ],
};

static AUTO_DISABLE: Shape = Shape {
    fields: &[field("failureCount", Kind::Int)],
};

static SCHEDULE: Shape = Shape {
    fields: &[
        text("scheduleExpression"),
        text("timezone").not_cfn(),
        text("pipelineExecutionStartCondition"),
        field("autoDisablePolicy", Kind::One(&AUTO_DISABLE)).not_terraform(),
    ],
};

static ECR_CONFIGURATION: Shape = Shape {
    fields: &[text("repositoryName"), field("containerTags", Kind::Texts)],
};

static IMAGE_SCANNING: Shape = Shape {
    fields: &[
        field("imageScanningEnabled", Kind::Bool),
        field("ecrConfiguration", Kind::One(&ECR_CONFIGURATION)),
    ],
};

static WORKFLOW_PARAMETER: Shape = Shape {
    fields: &[NAME, field("value", Kind::Single)],
};

static WORKFLOW_USE: Shape = Shape {
    fields: &[
        field("workflowArn", Kind::Arn(ResourceKind::Workflow)),
        field("parameters", Kind::Many(&WORKFLOW_PARAMETER)).terraform("parameter"),
        text("parallelGroup"),
        text("onFailure"),
    ],
};

const WORKFLOWS: Field = field("workflows", Kind::Many(&WORKFLOW_USE)).terraform("workflow");

static PIPELINE_LOGGING: Shape = Shape {
    fields: &[text("imageLogGroupName"), text("pipelineLogGroupName")],
};

static IMAGE_LOGGING: Shape = Shape {
    fields: &[text("logGroupName")],
};

const IMAGE_RECIPE_ARN: Field = field("imageRecipeArn", Kind::Arn(ResourceKind::ImageRecipe));
const CONTAINER_RECIPE_ARN: Field = field(
    "containerRecipeArn",
    Kind::Arn(ResourceKind::ContainerRecipe),
);
const INFRASTRUCTURE_ARN: Field = field(
    "infrastructureConfigurationArn",
    Kind::Arn(ResourceKind::InfrastructureConfiguration),
);
const DISTRIBUTION_ARN: Field = field(
    "distributionConfigurationArn",
    Kind::Arn(ResourceKind::DistributionConfiguration),
);
const IMAGE_TESTS_CONFIGURATION: Field = field("imageTestsConfiguration", Kind::One(&IMAGE_TESTS));
const ENHANCED_METADATA: Field = field("enhancedImageMetadataEnabled", Kind::Bool);
const SCANNING: Field = field("imageScanningConfiguration", Kind::One(&IMAGE_SCANNING));

static PIPELINE: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        IMAGE_RECIPE_ARN,
        CONTAINER_RECIPE_ARN,
        INFRASTRUCTURE_ARN,
        DISTRIBUTION_ARN,
        STATUS,
        field("schedule", Kind::One(&SCHEDULE)),
        IMAGE_TESTS_CONFIGURATION,
        ENHANCED_METADATA,
        SCANNING,
        WORKFLOWS,
        EXECUTION_ROLE,
        field("loggingConfiguration", Kind::One(&PIPELINE_LOGGING)),
        field("imageTags", Kind::Tags).not_cfn().not_terraform(),
        TAGS,
        updated("imagePipelineArn"),
        CLIENT_TOKEN,
    ],
};

static DELETION_SETTINGS: Shape = Shape {
    fields: &[EXECUTION_ROLE],
};

static PIPELINE_EXECUTION: Shape = Shape {
    fields: &[text("deploymentId"), field("onUpdate", Kind::Bool)],
};

static IMAGE: Shape = Shape {
    fields: &[
        IMAGE_RECIPE_ARN,
        CONTAINER_RECIPE_ARN,
        INFRASTRUCTURE_ARN,
        DISTRIBUTION_ARN,
        IMAGE_TESTS_CONFIGURATION,
        ENHANCED_METADATA,
        SCANNING,
        WORKFLOWS,
        EXECUTION_ROLE,
        field("loggingConfiguration", Kind::One(&IMAGE_LOGGING)),
        field("deletionSettings", Kind::One(&DELETION_SETTINGS))
            .not_call()
            .not_terraform(),
        field(
            "imagePipelineExecutionSettings",
            Kind::One(&PIPELINE_EXECUTION),
        )
        .not_call()
        .not_terraform(),
        TAGS,
        CLIENT_TOKEN,
    ],
};

static INCLUDE_RESOURCES: Shape = Shape {
    fields: &[
        field("amis", Kind::Bool),
        field("snapshots", Kind::Bool),
        field("containers", Kind::Bool),
    ],
};

static POLICY_ACTION: Shape = Shape {
    fields: &[
        text("type"),
        field("includeResources", Kind::One(&INCLUDE_RESOURCES)),
    ],
};

static POLICY_FILTER: Shape = Shape {
    fields: &[
        text("type"),
        field("value", Kind::Int),
        text("unit"),
        field("retainAtLeast", Kind::Int),
    ],
};

static LAST_LAUNCHED: Shape = Shape {
    fields: &[field("value", Kind::Int), text("unit")],
};

static EXCLUDED_AMIS: Shape = Shape {
    fields: &[
        field("isPublic", Kind::Bool),
        field("regions", Kind::Texts),
        field("sharedAccounts", Kind::Texts),
        field("lastLaunched", Kind::One(&LAST_LAUNCHED)),
        field("tagMap", Kind::Tags),
    ],
};

static EXCLUSION_RULES: Shape = Shape {
    fields: &[
        field("tagMap", Kind::Tags),
        field("amis", Kind::One(&EXCLUDED_AMIS)),
    ],
};

static POLICY_DETAIL: Shape = Shape {
    fields: &[
        field("action", Kind::One(&POLICY_ACTION)),
        field("filter", Kind::One(&POLICY_FILTER)),
        field("exclusionRules", Kind::One(&EXCLUSION_RULES)),
    ],
};

static SELECTED_RECIPE: Shape = Shape {
    fields: &[NAME, text("semanticVersion")],
};

static RESOURCE_SELECTION: Shape = Shape {
    fields: &[
        field("recipes", Kind::Many(&SELECTED_RECIPE)).terraform("recipe"),
        field("tagMap", Kind::Tags),
    ],
};

static LIFECYCLE_POLICY: Shape = Shape {
    fields: &[
        NAME,
        DESCRIPTION,
        STATUS,
        EXECUTION_ROLE,
        text("resourceType"),
        field("policyDetails", Kind::Many(&POLICY_DETAIL)).terraform("policy_detail"),
        field("resourceSelection", Kind::One(&RESOURCE_SELECTION)),
        TAGS,
        updated("lifecyclePolicyArn"),
        CLIENT_TOKEN,
    ],
};

/// The fields of a type of resource.
pub(super) const fn of(kind: ResourceKind) -> &'static Shape {
    match kind {
        ResourceKind::Component => &COMPONENT,
        ResourceKind::ImageRecipe => &IMAGE_RECIPE,
        ResourceKind::ContainerRecipe => &CONTAINER_RECIPE,
        ResourceKind::InfrastructureConfiguration => &INFRASTRUCTURE,
        ResourceKind::DistributionConfiguration => &DISTRIBUTION,
        ResourceKind::ImagePipeline => &PIPELINE,
        ResourceKind::Image => &IMAGE,
        ResourceKind::Workflow => &WORKFLOW,
        ResourceKind::LifecyclePolicy => &LIFECYCLE_POLICY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::capitalized;
    use crate::resources::schema::{Cfn, Object, Rule};

    /// Every field that a document may have is written, or left out with a note: the table here has it too.
    #[test]
    fn every_field_that_is_read_has_its_words() {
        for kind in ResourceKind::ALL {
            if let Some(object) = kind.table() {
                covers(kind.cfn_name(), object, of(kind));
            }
        }
        covers(
            "additionalInstanceConfiguration",
            &crate::resources::tables::ADDITIONAL_INSTANCE_CONFIGURATION,
            &ADDITIONAL,
        );
    }

    fn covers(path: &str, object: &Object, shape: &Shape) {
        // Our own settings are no field of AWS: an export has its own place for them.
        let fields = || {
            object
                .fields
                .iter()
                .filter(|field| field.name != "amiforge")
        };
        let mut names: Vec<&str> = fields().map(|field| field.name).collect();
        let mut have: Vec<&str> = shape.fields.iter().map(|field| field.api).collect();
        names.sort_unstable();
        have.sort_unstable();
        assert_eq!(have, names, "{path}");
        for read in fields() {
            let written = shape.fields.iter().find(|f| f.api == read.name).unwrap();
            let path = format!("{path}.{}", read.name);
            let word = match read.cfn {
                Cfn::Same => Some(capitalized(read.name)),
                Cfn::Word(word) => Some(word.to_owned()),
                Cfn::Absent => None,
            };
            assert_eq!(written.cfn_word(), word, "{path}");
            match (&read.rule, written.kind) {
                (Rule::Object(inner) | Rule::FreeCase(inner), Kind::One(shape) | Kind::Merged(shape))
                | (Rule::List(_, _, Rule::Object(inner)), Kind::Many(shape)) => {
                    covers(&path, inner, shape);
                }
                (Rule::Text(_) | Rule::Choice(_) | Rule::Form(_), Kind::Text)
                | (Rule::Bool, Kind::Bool)
                | (Rule::Int(..), Kind::Int)
                | (Rule::Any, Kind::Document)
                | (Rule::List(_, _, Rule::Text(_) | Rule::Form(_)), Kind::Texts)
                | (Rule::List(_, _, Rule::Is(_)), Kind::Single)
                // Checked by functions of their own.
                | (Rule::Is(_), Kind::Text | Kind::Tags | Kind::Arn(_) | Kind::Many(_)) => {}
                _ => panic!("{path} is read as one thing and written as another"),
            }
        }
    }

    #[test]
    fn words_are_spelled_as_usual() {
        let words = |field: &Field| {
            (
                field.call_word().unwrap_or_default(),
                field.cfn_word().unwrap_or_default(),
                field.terraform_word().unwrap_or_default(),
            )
        };
        let expect = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            words(&VERSION),
            expect("semanticVersion", "Version", "version")
        );
        assert_eq!(
            words(&BLOCK_DEVICES),
            expect(
                "blockDeviceMappings",
                "BlockDeviceMappings",
                "block_device_mapping"
            )
        );
        assert_eq!(
            words(&S3_LOGS.fields[0]),
            expect("s3BucketName", "S3BucketName", "s3_bucket_name")
        );
        assert_eq!(words(&DRY_RUN), expect("", "", ""));
    }
}
