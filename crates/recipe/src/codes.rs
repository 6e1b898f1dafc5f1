//! What the codes of problems mean, for `amiforge explain`.

/// Code, what is wrong, and what to do.
const CODES: &[(&str, &str)] = &[
    (
        "alias-limit",
        "Aliases (`*name`) repeat more text than a document may have. Write out what is meant, or repeat less.",
    ),
    (
        "aws-limit",
        "The document is right here; the service would refuse it as it is, for a limit that it goes over or for something that only amiforge has.",
    ),
    (
        "chain-across-stages",
        "A step of the test phase refers to one of the build. Each stage is a run of its own, on another machine, so the value is not there. Write it to a file of the image in the build, and read that file in the test.",
    ),
    (
        "chain-to-later-step",
        "A step refers to itself or to a step that runs after it, which has no inputs and outputs yet. Move the step that is referred to up.",
    ),
    (
        "circular-reference",
        "Resources, conditions or parameters of a template refer to one another in a circle, so that none has a value.",
    ),
    (
        "complex-key",
        "A key of a mapping is a list or a mapping. Keys are texts; quote one that begins with `[` or `{`.",
    ),
    (
        "conflicting-fields",
        "Fields exclude one another, or need one another. The message names them.",
    ),
    (
        "control-character",
        "The text holds a character that YAML does not allow. In double quotes it can be written as `\\xNN`, in JSON as `\\u00NN`.",
    ),
    (
        "document-too-large",
        "The document has more bytes than are read. Components that long are better cut in two.",
    ),
    (
        "duplicate-key",
        "A key stands twice in one mapping. Readers of YAML keep one of the two and do not say which; remove the other.",
    ),
    (
        "duplicate-name",
        "Two things that must be told apart have one name: parameters and constants of a document, phases, steps of a phase, loops of a phase, entries of a list.",
    ),
    (
        "empty-document",
        "The file holds nothing but blanks and comments.",
    ),
    (
        "empty-value",
        "A field that needs text or entries is empty. Where nothing is meant, leave the field out.",
    ),
    (
        "endless-loop",
        "`updateBy` leads away from `end`, or is 0. Its sign is that of the way from `start` to `end`.",
    ),
    (
        "folded-script",
        "A script or document of several lines stands in a folded block (`>`). YAML joins the lines of such a block with blanks, so that commands become arguments of the first one. `|` keeps them.",
    ),
    (
        "foreign-reference",
        "What stands between the braces is no reference, so it stays as it is: `{{.Names}}` of a Go template, say. A reference of this kind would be `{{ Name }}`, `{{ phase.step.outputs.stdout }}`, or `{{ loop.value }}` inside a loop. In a template, `${AWS::Region}` is one in the text of a `!Sub` only.",
    ),
    (
        "ignored-field",
        "The field is read and has no effect here, since it is about AWS.",
    ),
    (
        "ignored-instruction",
        "An instruction of a Dockerfile template has no effect here. The message says which, and what to do.",
    ),
    (
        "inputs-not-a-list",
        "The action takes a list of entries, and a single mapping stands there. It is read as a list of one; put `- ` before its first field.",
    ),
    (
        "invalid-account",
        "An account id has 12 digits. Quote it, so that leading zeros stay.",
    ),
    (
        "invalid-arn",
        "The text is not the ARN of such a resource. An ARN is `arn:<partition>:<service>:<region>:<account>:<resource>`.",
    ),
    (
        "invalid-checksum",
        "The text cannot be a digest of the algorithm: each has its number of hexadecimal digits.",
    ),
    (
        "invalid-choice",
        "The value is not one of those that the field takes. Letter case counts.",
    ),
    (
        "invalid-component",
        "`componentArn` names no component. Write a path (`./components/web.yaml`), a name of the library (`update-linux/x.x.x`), or an ARN.",
    ),
    (
        "invalid-device",
        "The text is no name of a block device, such as `/dev/xvda` or `/dev/sda1`.",
    ),
    (
        "invalid-digest",
        "The text cannot be a digest of the operator's algorithm: each has its number of hexadecimal digits.",
    ),
    (
        "invalid-document",
        "`ExecuteDocument` takes a path of the machine, `s3://bucket/key`, or the ARN of a component.",
    ),
    (
        "invalid-encoding",
        "There is no such encoding. `utf-8`, `utf-16` and `utf-32` are known, the latter two also with `-LE` or `-BE`.",
    ),
    (
        "invalid-instruction",
        "An instruction of a Dockerfile template cannot be read: `docker build` would refuse it as well. The message says what is missing or wrong.",
    ),
    (
        "invalid-intrinsic",
        "A function of a template has arguments of the wrong number or kind.",
    ),
    (
        "invalid-mode",
        "Permissions are octal digits, `0644` for example. They keep the text you wrote; quotes do no harm.",
    ),
    (
        "invalid-name",
        "The text cannot be a name there. The help says which characters and how many may be in it.",
    ),
    (
        "invalid-parameter",
        "A parameter of a component has no value, or one that `allowedValues` does not have. Give it in the recipe's `parameters` or with `--param`.",
    ),
    (
        "invalid-parent",
        "`parentImage` names no parent. Write `debian:bookworm`, `disk:<path>`, `tar:<path>`, `image:<name>/<version>`, an ARN, `ssm:<parameter>`, or an AMI id.",
    ),
    ("invalid-path", "The text cannot be a path there."),
    (
        "invalid-pattern",
        "The regular expression does not follow its grammar. Expressions are RE2's; there is no looking ahead or back.",
    ),
    (
        "invalid-reference",
        "A reference of a template or workflow does not follow its grammar.",
    ),
    (
        "invalid-s3-uri",
        "The text is no address in S3. Write `s3://bucket/key`, or `s3://bucket/prefix/*` for all below a prefix.",
    ),
    (
        "invalid-schedule",
        "The text is neither `cron(<minute> <hour> <day of month> <month> <day of week> <year>)` nor `rate(<number> <unit>)`. One of the two days is `?`.",
    ),
    (
        "invalid-url",
        "The text is no address of the web: `http://` or `https://`, a host, and a path without blanks.",
    ),
    (
        "invalid-value",
        "The value is not one that the field can have. The message says why.",
    ),
    (
        "invalid-version",
        "A version is three numbers with dots between them, and in a reference `x` may stand for the last ones: `1.0.0`, `1.x.x`, `x.x.x`.",
    ),
    (
        "invalid-wildcard",
        "`*` is allowed in the last part of a path only, after the last `/`.",
    ),
    (
        "json-syntax",
        "The document begins like JSON, or its file is called `.json`, and it does not follow the grammar of JSON: texts and keys in double quotes, commas between values only, no comments. YAML allows more; name the file `.yaml` for that.",
    ),
    (
        "literal-reference",
        "A reference stands in the default of a parameter or the value of a constant. Values are put in as they are, once, so the braces reach the step. Write the references side by side in the step that needs them.",
    ),
    (
        "literal-wildcard",
        "A `*` is a part of the name here: the action takes one path. CopyFile, CopyFolder, MoveFile, MoveFolder, DeleteFile and ListFiles take wildcards.",
    ),
    (
        "merge-key",
        "YAML's merge keys (`<<`) are not read: the service's reader does not promise them. Write the fields out.",
    ),
    ("missing-field", "A field that must be there is not."),
    (
        "missing-input",
        "A reference names an input that the step does not have. Entries of a list are counted from 0.",
    ),
    (
        "missing-output",
        "A reference names an output that the action does not give. The help lists those that it gives.",
    ),
    (
        "missing-step",
        "A reference names a phase or step that the document does not have.",
    ),
    (
        "multiple-documents",
        "The file holds several YAML documents (`---`), and one belongs there.",
    ),
    (
        "nested-too-deep",
        "Lists, mappings or conditions are nested deeper than is read.",
    ),
    (
        "no-build-version",
        "`ExecuteDocument` takes the ARN of one build of a component, `arn:aws:imagebuilder:<region>:<account>:component/<name>/1.0.0/1`. The service's documentation has no `x` and no missing build number there, as recipes may have.",
    ),
    (
        "no-standard-phase",
        "No phase is called `build`, `validate` or `test`, so a build would run nothing.",
    ),
    (
        "not-encodable",
        "The content has a character that the encoding does not have.",
    ),
    (
        "not-utf8",
        "The file is not UTF-8. The message says where the first wrong byte is; editors can convert it.",
    ),
    (
        "nothing-to-check",
        "The template has no resource of Image Builder, so there is nothing to check.",
    ),
    (
        "out-of-range",
        "A number is outside what the field can have.",
    ),
    ("recursive-alias", "An alias stands inside what it repeats."),
    (
        "refused-reference",
        "A reference names credentials of the instance, which documents cannot read.",
    ),
    (
        "relative-path",
        "A document that a step runs is named by a relative path. It starts in the working folder of the machine that runs the step (`workingDirectory` of the recipe, else `/`), never in the folder of the document that names it. Write the whole path.",
    ),
    (
        "several-conditions",
        "One condition belongs there. Join several in a list below `and` or `or`.",
    ),
    (
        "several-operators",
        "A condition has one operator. Join several in a list below `and` or `or`.",
    ),
    (
        "suspicious-command",
        "A command of a Dockerfile template begins like a list and is none: its texts stand in single quotes, or something follows it. Docker then hands it to a shell as it is, brackets and all.",
    ),
    (
        "tab-indentation",
        "A tab stands where YAML counts blanks. Indent with blanks.",
    ),
    (
        "unbootable-volume",
        "The volume is too small for a root file system, or there is none for it.",
    ),
    (
        "undeclared-name",
        "A reference names neither a parameter nor a constant of the document. Names count letter by letter.",
    ),
    (
        "undeclared-parameter",
        "A recipe gives a value to a parameter that the component does not declare. As in the service, it is ignored.",
    ),
    (
        "unknown-action",
        "There is no such action. AWSTOE has thirty, and letter case counts.",
    ),
    (
        "unknown-alias",
        "An alias (`*name`) has no anchor (`&name`) before it. A text that begins with `*` needs quotes.",
    ),
    (
        "unknown-component",
        "The document of a component cannot be read, or the library has no component of that name and version. `amiforge component list` shows the library.",
    ),
    (
        "unknown-context",
        "`context:` has no such key. The help lists those that there are.",
    ),
    (
        "unknown-document",
        "It cannot be told what kind of document this is, since it has no field that only one kind has.",
    ),
    (
        "unknown-field",
        "The field does not exist there. Letter case counts; the help names the nearest one, or all.",
    ),
    (
        "unknown-instruction",
        "A line of a Dockerfile template begins with a word that is no instruction. Where it continues the line before, that line ends with `\\`.",
    ),
    (
        "unknown-operator",
        "There is no such operator of conditions.",
    ),
    (
        "unknown-parent",
        "The name of the parent is none of those that are known.",
    ),
    (
        "unknown-reference",
        "A function of a template names a resource, parameter, condition or mapping that the template does not have.",
    ),
    (
        "unknown-resource-type",
        "There is no such type of resource in Image Builder.",
    ),
    (
        "unknown-timezone",
        "The IANA database of time zones has no such name. Names are those of a region and a city, such as `Europe/Berlin`, in this letter case. A name that is like none of the table may be younger than it, so that is a warning only.",
    ),
    (
        "unknown-variable",
        "There is no such variable in names and tags of images, or in a workflow.",
    ),
    (
        "unreadable",
        "The file cannot be read: it is not there, is no regular file, or may not be read.",
    ),
    (
        "unresolved-component",
        "The recipe names a component that only AWS has. Say in your configuration which document stands for it: the help shows the lines. A check goes on without it, a build does not.",
    ),
    (
        "unresolved-parent",
        "The recipe names an image that only AWS has. Say in your configuration what stands for it: the help shows the lines. A check goes on without it, a build does not.",
    ),
    (
        "unresolved-reference",
        "A component refers to the parameter store or the instance metadata of AWS. Say in your configuration what the value is, or where: the help shows the lines. A check goes on without it, a build does not.",
    ),
    (
        "unresolved-secret",
        "A recipe names a secret, and nobody says where its value is, or it is not there. Say it with `--secret`, or in your configuration: the help shows the lines. A check goes on without it, a build does not.",
    ),
    (
        "unresolved-value",
        "A value is known only when the template is deployed. Give its parameter a value with `--param`.",
    ),
    (
        "unsupported-component",
        "A component is named in a way that cannot be followed here, by a URL for example. Keep a copy beside the recipe.",
    ),
    (
        "unsupported-instruction",
        "A Dockerfile template has something that `docker build` follows and no build here does: files come from components, so `RUN`, `COPY`, `ADD` and further stages have no place. What only sets how a container is started is followed.",
    ),
    (
        "unsupported-intrinsic",
        "The function of the template needs AWS, or is not known. The rest of the template is checked.",
    ),
    (
        "unsupported-schema",
        "The version of the schema is not one that is read.",
    ),
    (
        "unsupported-tag",
        "A tag such as `!Ref` has no meaning in this kind of document; templates have it.",
    ),
    (
        "unsupported-type",
        "Parameters and constants of components are of type `string`.",
    ),
    (
        "unused-checksum",
        "A checksum is compared only when its algorithm is given too, and the other way round.",
    ),
    (
        "unused-setting",
        "A setting of `amiforge.apt` says nothing about this parent. A `debian:` parent is made by all of them; of an archive, a disk, an image of a registry or of the catalog, a machine image gets only what a boot lacks, by `packages`, `include`, and `mirror` with `suites`, `components` and `keyring`; a container gets nothing. Remove the setting, or install what is meant in a component.",
    ),
    (
        "unusual-parent",
        "The service takes this name, and no public image is known that has it.",
    ),
    (
        "unusual-phase",
        "The phase is called nearly like one that a build runs, and would not run.",
    ),
    (
        "unusual-schedule",
        "The service's own examples have this, and its rules forbid it. It is taken.",
    ),
    (
        "wrong-platform",
        "A component says that it is for one platform and has a step whose action exists only on another, as `ExecuteBash` on Windows. Correct the platform, or take the action that the platform has. Or a recipe names a component of another platform than its image's.",
    ),
    (
        "wrong-resource",
        "A reference leads to a resource of another kind than the field takes.",
    ),
    (
        "wrong-stage",
        "The action of a workflow does not belong to workflows of this type.",
    ),
    (
        "wrong-type",
        "A value of another kind belongs there: a list, a mapping, a number, or text. Numbers and booleans in commands are taken as the text that they are written with.",
    ),
    (
        "yaml-syntax",
        "The text does not follow YAML's grammar. Often a text needs quotes: one with `: ` or ` #` in it, or one that begins with `{`, `[`, `*`, `&`, `!`, `%`, `@` or a backquote.",
    ),
];

/// What a code of a problem means.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    let at = CODES
        .binary_search_by(|(known, _)| (*known).cmp(code))
        .ok()?;
    CODES.get(at).map(|(_, text)| *text)
}

/// Every code, sorted.
pub fn codes() -> impl Iterator<Item = &'static str> {
    CODES.iter().map(|(code, _)| *code)
}

/// The code that is most like a wrong one.
#[must_use]
pub fn nearest_code(wrong: &str) -> Option<&'static str> {
    crate::suggest::nearest(wrong, codes())
}
