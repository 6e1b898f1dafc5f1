//! Texts of component documents and conditions.

use super::{Texts, of_definition};

pub(super) static TEXTS: &[Texts] = &[
    of_definition(
        "component-document",
        "What is done to an image: phases of steps. AWSTOE's schema 1.0; the service takes up to 16,000 characters inline.",
        &[
            (
                "name",
                "What people call the document; nothing depends on it.",
            ),
            ("schemaVersion", "The version of the format: 1.0."),
            (
                "parameters",
                "Values that a recipe can give. `{{ Name }}` stands for one.",
            ),
            (
                "constants",
                "Values that nobody can change. `{{ Name }}` stands for one.",
            ),
            (
                "phases",
                "In running order. A build runs `build`, then `validate`; an instance of the image runs `test`.",
            ),
        ],
    ),
    of_definition(
        "parameter",
        "A parameter below its name of 3 to 128 letters, digits, `_` and `-`.",
        &[
            ("type", "Only `string`."),
            (
                "default",
                "Its value when none is given; without a default a recipe must give one.",
            ),
            (
                "allowedValues",
                "The only values that can be given; the default is one of them.",
            ),
            ("name", "Which parameter of the document."),
            ("value", "Its value."),
        ],
    ),
    of_definition(
        "constant",
        "A constant below its name of 3 to 128 letters, digits, `_` and `-`.",
        &[("type", "Only `string`."), ("value", "Its value.")],
    ),
    of_definition(
        "phase",
        "Steps that run together.",
        &[
            (
                "name",
                "`build`, `validate` or `test`; phases of other names run only by `component run`. Letters, digits, `_`, `-`.",
            ),
            ("steps", "In running order."),
        ],
    ),
    of_definition(
        "step",
        "One action.",
        &[
            (
                "name",
                "Once in a phase: 1 to 128 letters, digits, `_` and `-`, since references name it.",
            ),
            ("action", "What the step does."),
            (
                "if",
                "Whether the step runs at all; looked at once, before the loop.",
            ),
            ("loop", "Runs the step several times."),
            (
                "timeoutSeconds",
                "When the step is ended. Default: 7200; -1 for no limit.",
            ),
            (
                "onFailure",
                "Abort: the document ends, as failed (default). Continue: it goes on, and is failed. Ignore: it goes on, and is not.",
            ),
            (
                "maxAttempts",
                "How often a failing step is tried. Default: 1.",
            ),
            ("disableLogging", "Keeps the step's output out of the logs."),
            ("inputs", "What the action takes."),
        ],
    ),
    of_definition(
        "loop",
        "How often a step runs: `for` counts, `forEach` takes values. At most 1,000,000 times.",
        &[
            (
                "name",
                "What references call it besides `loop`, as in `{{ <name>.value }}`.",
            ),
            ("for", "Counts: `{{ loop.index }}` and `{{ loop.value }}`."),
            ("forEach", "The values: a list, or a text that is cut."),
        ],
    ),
    of_definition(
        "for",
        "From `start` to `end`, which counts if it is met.",
        &[
            ("start", "The first number."),
            ("end", "Where it ends."),
            (
                "updateBy",
                "What is added each time: not 0, and towards `end`.",
            ),
        ],
    ),
    of_definition(
        "forEach",
        "A text to be cut into values.",
        &[
            (
                "list",
                "The text, for example `{{ phase.step.outputs.stdout }}`.",
            ),
            (
                "delimiter",
                "The character between values. Default: a comma.",
            ),
        ],
    ),
    of_definition(
        "if",
        "A condition and what follows from it.",
        &[
            (
                "then",
                "When it is true: Execute (default) runs the step, Skip passes it over, Abort fails.",
            ),
            (
                "else",
                "When it is false: Skip (default) passes the step over, Execute runs it, Abort fails.",
            ),
        ],
    ),
    of_definition(
        "condition",
        "Exactly one operator. Its operand is what `value` is compared with.",
        &[
            ("and", "All of these are true."),
            ("or", "One of these is true."),
            ("not", "This is not true."),
            ("stringEquals", "`value` is this text, in any letter case."),
            ("stringLessThan", "`value` comes before this text."),
            (
                "stringLessThanEquals",
                "`value` comes before this text, or is it.",
            ),
            ("stringGreaterThan", "`value` comes after this text."),
            (
                "stringGreaterThanEquals",
                "`value` comes after this text, or is it.",
            ),
            ("numberEquals", "`value` is this number."),
            ("numberLessThan", "`value` is less than this number."),
            ("numberLessThanEquals", "`value` is at most this number."),
            ("numberGreaterThan", "`value` is greater than this number."),
            (
                "numberGreaterThanEquals",
                "`value` is at least this number.",
            ),
            ("booleanEquals", "`value` is this: true or false."),
            ("stringIsEmpty", "This text has no characters."),
            (
                "stringIsWhitespace",
                "This text has characters, and all of them are white space.",
            ),
            (
                "binaryExists",
                "There is a program of this name in `PATH`, or at this path.",
            ),
            ("fileExists", "There is a file at this path."),
            ("folderExists", "There is a folder at this path."),
            (
                "fileMD5Equals",
                "The file at `path` has this MD5 digest, 32 hexadecimal digits.",
            ),
            (
                "fileSHA1Equals",
                "The file at `path` has this SHA-1 digest, 40 hexadecimal digits.",
            ),
            (
                "fileSHA256Equals",
                "The file at `path` has this SHA-256 digest, 64 hexadecimal digits.",
            ),
            (
                "fileSHA512Equals",
                "The file at `path` has this SHA-512 digest, 128 hexadecimal digits.",
            ),
            (
                "patternMatches",
                "`value` matches this regular expression somewhere.",
            ),
            ("value", "What is looked at."),
            ("path", "The file whose digest is looked at."),
        ],
    ),
];
