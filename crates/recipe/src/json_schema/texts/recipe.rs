//! Texts of image and container recipes, and of the user's configuration.

use super::{Texts, of_definition};

pub(super) static TEXTS: &[Texts] = &[
    of_definition(
        "image-recipe",
        "A parent image and the components that run on it, as the API's CreateImageRecipe or CloudFormation's AWS::ImageBuilder::ImageRecipe has it.",
        &[
            (
                "semanticVersion",
                "`<major>.<minor>.<patch>`; trailing parts can be `x`.",
            ),
            (
                "parentImage",
                "`debian:<suite>`, `tar:<path>`, `disk:<path>`, `image:<name>/<version>`, `scratch`, or what only AWS has (an ARN, `ssm:<parameter>`, `ami-…`), for which your configuration names one under `parents`.",
            ),
            (
                "components",
                "In running order; the service takes at most 20.",
            ),
            (
                "blockDeviceMappings",
                "The volumes; one root volume when left out.",
            ),
            (
                "workingDirectory",
                "The folder that steps run in: an absolute path.",
            ),
            ("amiTags", "Tags of the resulting AMI."),
            (
                "amiforge",
                "What AWS's recipes do not have. Only amiforge knows this key: take it out before the recipe goes to AWS.",
            ),
            (
                "additionalInstanceConfiguration",
                "Of the build instance; has no effect here.",
            ),
            ("amiWatermarks", "Has no effect here."),
        ],
    ),
    of_definition(
        "component-of-the-recipe",
        "A component and its parameters.",
        &[
            (
                "componentArn",
                "A path such as `./components/web.yaml`, `<name>/<version>` of the library such as `update-linux/x.x.x`, or an ARN.",
            ),
            ("parameters", "Values for the component's parameters."),
        ],
    ),
    of_definition(
        "component-parameter",
        "A value for a parameter of the component.",
        &[
            ("name", "Which parameter."),
            ("value", "A list with one text."),
        ],
    ),
    of_definition(
        "block-device-mapping",
        "A device with exactly one of `ebs`, `virtualName` and `noDevice`.",
        &[
            (
                "deviceName",
                "`/dev/xvda` or `/dev/sda1` is the root; others are `/dev/sdb` to `/dev/sdz` or `/dev/xvdba` to `/dev/xvddx`.",
            ),
            ("ebs", "An EBS volume."),
            (
                "virtualName",
                "An instance store volume: `ephemeral0` to `ephemeral23`.",
            ),
            (
                "noDevice",
                "The empty text: the parent's mapping of this device is removed.",
            ),
        ],
    ),
    of_definition(
        "ebs",
        "An EBS volume.",
        &[
            (
                "volumeSize",
                "GiB: gp3 1 to 65536, gp2 1 to 16384, io1 4 to 16384, io2 4 to 65536, st1 and sc1 125 to 16384, standard 1 to 1024. The service itself takes up to 16000.",
            ),
            (
                "volumeType",
                "gp3, gp2, io1, io2 and standard can be the root; st1 and sc1 cannot.",
            ),
            (
                "deleteOnTermination",
                "Whether the volume goes with its instance. Default: true for the root, false for others.",
            ),
            ("encrypted", "Whether the volume is encrypted."),
            (
                "iops",
                "Operations per second: gp3 3000 to 80000, io1 100 to 64000, io2 100 to 256000; the two io types need it.",
            ),
            (
                "throughput",
                "MiB per second, gp3 only: 125 to 2000, and at most a quarter of `iops`.",
            ),
            ("kmsKeyId", "The KMS key; needs `encrypted: true`."),
            ("snapshotId", "The snapshot that the volume starts from."),
        ],
    ),
    of_definition(
        "additionalInstanceConfiguration",
        "",
        &[
            (
                "systemsManagerAgent",
                "What becomes of the Systems Manager agent.",
            ),
            (
                "userDataOverride",
                "User data of the build instance, in base64.",
            ),
        ],
    ),
    of_definition(
        "systemsManagerAgent",
        "",
        &[(
            "uninstallAfterBuild",
            "Whether the agent is removed when the build is done.",
        )],
    ),
    of_definition(
        "amiforge",
        "Settings that only amiforge knows.",
        &[
            (
                "bootMode",
                "The firmwares that the image boots under. Default: uefi-preferred, which is both.",
            ),
            (
                "formats",
                "The disk images that a build leaves. Default: raw and qcow2.",
            ),
            (
                "compression",
                "Of formats that can be compressed. Default: none.",
            ),
            (
                "rootFilesystem",
                "`ext4` (default), or a mapping with its type and profile.",
            ),
            ("seed", "Where UUIDs come from, instead of the plan's id."),
            (
                "apt",
                "How a `debian:` parent is made; what is left out comes from the host's apt.",
            ),
            ("limits", "What the commands of a component can use."),
            (
                "network",
                "What steps can reach while the image is built: the network of the builder, or none. Default: `host`.",
            ),
            (
                "secretParameters",
                "Parameters of components whose values nobody may see.",
            ),
            (
                "secrets",
                "Names of secrets that steps find as files in /run/secrets; the configuration or --secret says where their values are.",
            ),
            (
                "hygiene",
                "What is made of keys, passwords and tokens in the finished image. Default: the build fails.",
            ),
        ],
    ),
    of_definition(
        "amiforge-of-a-container-recipe",
        "Settings that only amiforge knows.",
        &[
            (
                "compression",
                "Of the layers: none, gzip (default) or zstd, with a level as in gzip:9.",
            ),
            (
                "apt",
                "How a `debian:` parent is made; what is left out comes from the host's apt.",
            ),
            ("limits", "What the commands of a component can use."),
            (
                "network",
                "What steps can reach while the image is built: the network of the builder, or none. Default: `host`.",
            ),
            (
                "secretParameters",
                "Parameters of components whose values nobody may see.",
            ),
            (
                "secrets",
                "Names of secrets that steps find as files in /run/secrets; the configuration or --secret says where their values are.",
            ),
            (
                "hygiene",
                "What is made of keys, passwords and tokens in the finished image. Default: the build fails.",
            ),
        ],
    ),
    of_definition(
        "amiforge-rootFilesystem",
        "The file system of the root partition.",
        &[
            ("type", "Which one."),
            (
                "profile",
                "`legacy` is for guests whose tools do not know metadata checksums. Default: standard.",
            ),
        ],
    ),
    of_definition(
        "amiforge-apt",
        "",
        &[
            ("mirror", "The archive: a URL with http, https or file."),
            (
                "suite",
                "The suite to read; short for `suites` with one entry.",
            ),
            (
                "suites",
                "Suites to read, instead of the parent's with its updates and security suites.",
            ),
            ("components", "Parts of the archive, such as `main`."),
            (
                "keyring",
                "The file with the keys of the archive, from the recipe's folder.",
            ),
            (
                "snapshot",
                "A point in time of the snapshot archive: YYYYMMDDTHHMMSSZ.",
            ),
            ("packages", "Packages instead of the default set."),
            ("include", "Packages on top of the set."),
            (
                "variant",
                "Which packages come without being named. Default: required.",
            ),
            (
                "checkValidUntil",
                "False takes an index that has expired, which a snapshot needs. Default: true.",
            ),
        ],
    ),
    of_definition(
        "amiforge-hygiene",
        "",
        &[
            (
                "findings",
                "`error` (default): the build fails; `warning`: it goes on.",
            ),
            (
                "allow",
                "Paths that may hold secrets; `*` stands for a part of a name, `**` for any names.",
            ),
        ],
    ),
    of_definition(
        "amiforge-of-an-infrastructure-configuration",
        "Settings that only amiforge knows.",
        &[(
            "limits",
            "What the commands of steps may use; a recipe may set less.",
        )],
    ),
    of_definition(
        "amiforge-limits",
        "",
        &[
            ("processes", "Processes and threads at a time."),
            ("openFiles", "Open files of one process."),
            ("fileSizeGib", "Size of one file in GiB."),
        ],
    ),
    of_definition(
        "container-recipe",
        "A container image: a Dockerfile with components, as the API's CreateContainerRecipe has it.",
        &[
            (
                "semanticVersion",
                "`<major>.<minor>.<patch>`; trailing parts can be `x`.",
            ),
            ("containerType", "Only DOCKER."),
            (
                "parentImage",
                "The image of `FROM`: an ARN, a name such as `amazonlinux:latest`, or a parent of ours such as `debian:bookworm`.",
            ),
            (
                "components",
                "In running order; the service takes at most 20.",
            ),
            ("targetRepository", "Where the image goes."),
            (
                "dockerfileTemplateData",
                "The Dockerfile; `{{{ imagebuilder:parentImage }}}`, `…:environments` and `…:components` are filled in.",
            ),
            (
                "dockerfileTemplateUri",
                "The Dockerfile in S3; an alternative to `dockerfileTemplateData`.",
            ),
            (
                "instanceConfiguration",
                "The instance that builds the image.",
            ),
            (
                "platformOverride",
                "The platform, when the service cannot tell it from the parent.",
            ),
            (
                "imageOsVersionOverride",
                "The system's version, when the service cannot tell it from the parent.",
            ),
            ("workingDirectory", "The folder that steps run in."),
            (
                "amiforge",
                "What AWS's recipes do not have. Only amiforge knows this key: take it out before the recipe goes to AWS.",
            ),
        ],
    ),
    of_definition(
        "target-repository",
        "",
        &[
            ("service", "Only ECR."),
            ("repositoryName", "The repository."),
        ],
    ),
    of_definition(
        "instanceConfiguration",
        "",
        &[
            ("image", "The AMI of the instance."),
            ("blockDeviceMappings", "Its volumes."),
        ],
    ),
    of_definition(
        "configuration",
        "What stands here for what only AWS has. A `config.yaml` of amiforge.",
        &[
            (
                "parents",
                "Parents as recipes name them (ARN, `ssm:…`, `ami-…`), and what is taken instead, such as `debian:bookworm`.",
            ),
            (
                "components",
                "ARNs of components, and the document or library component that is taken instead.",
            ),
            (
                "references",
                "`aws:ssm:…` and `aws:imds:…` as documents name them, and their values.",
            ),
            (
                "cacheTrust",
                "Public keys of those whose layers in shared caches are used: `ed25519:` and 64 hex digits, as `amiforge cache key show` prints it.",
            ),
            (
                "secrets",
                "Where the values of secrets are that recipes name below `amiforge.secrets`.",
            ),
        ],
    ),
    of_definition(
        "source-of-a-secret",
        "One of the three.",
        &[
            ("env", "The environment variable that has it."),
            (
                "file",
                "The file that has it, byte for byte, from the configuration's folder.",
            ),
            (
                "command",
                "A command of /bin/sh that prints it. The newline at its end does not count.",
            ),
        ],
    ),
    of_definition(
        "value-of-a-reference",
        "A secret.",
        &[
            ("env", "The environment variable that has it."),
            (
                "file",
                "The file that has it, from the configuration's folder.",
            ),
        ],
    ),
];
