//! Templates of CloudFormation.

use super::{Texts, of_definition};

pub(super) static TEXTS: &[Texts] = &[
    of_definition(
        "template",
        "A template of CloudFormation with resources of Image Builder.",
        &[
            (
                "AWSTemplateFormatVersion",
                "The version of templates; there is one.",
            ),
            (
                "Conditions",
                "Conditions that resources and values may depend on, by name.",
            ),
            ("Description", "What the template is for, in words."),
            ("Globals", "Settings of serverless resources."),
            ("Hooks", "Hooks of deployments."),
            ("Mappings", "Values by two keys, for `Fn::FindInMap`."),
            ("Metadata", "Anything that tools keep in a template."),
            (
                "Outputs",
                "Values that the stack shows or exports, by name.",
            ),
            (
                "Parameters",
                "Values that are given when it is deployed, or with `--param`, by name.",
            ),
            (
                "Resources",
                "What is made, by logical id. Only types of Image Builder are looked at.",
            ),
            ("Rules", "What values of parameters must have in common."),
            ("Transform", "Macros that CloudFormation runs first."),
        ],
    ),
    of_definition(
        "resource",
        "A resource.",
        &[
            ("Condition", "The condition under which it is made."),
            ("CreationPolicy", "When CloudFormation counts it as made."),
            ("DeletionPolicy", "What becomes of it when the stack goes."),
            ("DependsOn", "Resources that are made first."),
            (
                "Metadata",
                "Anything; of a recipe, `amiforge` has its settings here.",
            ),
            ("Properties", "What it is."),
            (
                "Type",
                "Its type, such as `AWS::ImageBuilder::ImageRecipe`.",
            ),
            ("UpdatePolicy", "How it is updated."),
            (
                "UpdateReplacePolicy",
                "What becomes of it when an update replaces it.",
            ),
        ],
    ),
    of_definition(
        "call",
        "A function of CloudFormation, with what it takes.",
        &[],
    ),
    of_definition(
        "parameter-of-the-template",
        "A value that is given when the template is deployed.",
        &[
            (
                "AllowedPattern",
                "A regular expression that the whole value must match.",
            ),
            ("AllowedValues", "The values that are allowed."),
            (
                "ConstraintDescription",
                "What is told when a value is refused.",
            ),
            ("Default", "The value when none is given."),
            ("Description", "What it is for, in words."),
            ("MaxLength", "Most characters of a text."),
            ("MaxValue", "The largest number."),
            ("MinLength", "Fewest characters of a text."),
            ("MinValue", "The smallest number."),
            ("NoEcho", "Its value is a secret, which nothing shows."),
            (
                "Type",
                "What it is: a text, a number, a list, or something of the account.",
            ),
        ],
    ),
];
