//! Texts of the inputs of actions.

use super::{Texts, of_definition};

pub(super) static TEXTS: &[Texts] = &[
    of_definition(
        "AppendFile-entry",
        "Text for the end of a file that is there.",
        &[
            ("path", "The file."),
            ("content", "The text; no line break is added."),
            ("encoding", "How the text becomes bytes. Default: utf-8."),
        ],
    ),
    of_definition(
        "CopyFile-entry",
        "A copy of a file, or of several by `*` in the last part of the path.",
        &[
            ("source", "The file, or files."),
            (
                "destination",
                "The file to write; one that ends in `/` is a folder.",
            ),
            (
                "overwrite",
                "False: a file that is there is an error. Default: true.",
            ),
        ],
    ),
    of_definition(
        "CopyFolder-entry",
        "A copy of a folder with all below it, or of several by `*` in the last part of the path.",
        &[
            ("source", "The folder, or folders."),
            (
                "destination",
                "The folder to write; one that is there is added to.",
            ),
            (
                "overwrite",
                "False: a folder that is there is an error. Default: true.",
            ),
        ],
    ),
    of_definition(
        "CreateFile-entry",
        "A text file. Folders above it are made.",
        &[
            ("path", "The file."),
            ("content", "Its text; empty when left out."),
            ("encoding", "How the text becomes bytes. Default: utf-8."),
            ("owner", "User name or number."),
            ("group", "Group name or number."),
            (
                "permissions",
                "Mode in octal digits, such as `0644`. Default: 0666 less the umask.",
            ),
            (
                "overwrite",
                "False: a file that is there is an error. Default: true.",
            ),
        ],
    ),
    of_definition(
        "CreateFolder-entry",
        "A folder. Folders above it are made.",
        &[
            ("path", "The folder."),
            ("owner", "User name or number."),
            ("group", "Group name or number."),
            (
                "permissions",
                "Mode in octal digits, such as `0755`. Default: 0777 less the umask.",
            ),
            (
                "overwrite",
                "False: a folder that is there is an error. Default: true, and it is kept with its content.",
            ),
        ],
    ),
    of_definition(
        "CreateSymlink-entry",
        "A symbolic link.",
        &[
            ("path", "The link."),
            ("target", "What it leads to, which must be there."),
            (
                "force",
                "True: a link that is there is replaced. Default: false.",
            ),
        ],
    ),
    of_definition(
        "DeleteFile-entry",
        "A file to remove, or several by `*` in the last part of the path.",
        &[
            ("path", "The file, or files."),
            ("force", "Has no meaning for a file."),
        ],
    ),
    of_definition(
        "DeleteFolder-entry",
        "A folder to remove.",
        &[
            ("path", "The folder."),
            (
                "force",
                "True: with all that is in it. Default: false, and it must be empty.",
            ),
        ],
    ),
    of_definition(
        "ExecuteBash",
        "Commands of one bash script. Output: `stdout`.",
        &[(
            "commands",
            "The lines of the script. It runs without `set -e`: the last status counts.",
        )],
    ),
    of_definition(
        "ExecuteBinary",
        "A program, run without a shell. Output: `stdout`.",
        &[
            (
                "path",
                "The program; a name without `/` is looked for in `PATH`.",
            ),
            ("arguments", "Its arguments."),
        ],
    ),
    of_definition(
        "ExecuteDocument",
        "Another component document.",
        &[
            (
                "document",
                "A path of the machine, `s3://bucket/key`, or the ARN of a component.",
            ),
            (
                "document-s3-bucket-owner",
                "The account that must own the bucket, 12 digits.",
            ),
            (
                "phases",
                "Names with commas between them; all when left out.",
            ),
            ("parameters", "Values for the document's parameters."),
        ],
    ),
    of_definition(
        "ExecutePowerShell",
        "PowerShell, on Windows only. Output: `stdout`.",
        &[
            ("commands", "The lines of one script."),
            ("file", "A script whose name ends in `.ps1`."),
        ],
    ),
    of_definition(
        "InstallMSI",
        "A package of Windows Installer, on Windows only.",
        MSI,
    ),
    of_definition(
        "UninstallMSI",
        "A package of Windows Installer to remove, on Windows only.",
        MSI,
    ),
    of_definition(
        "ListFiles-entry",
        "The files of a folder. Output: `files`, with commas between them.",
        &[
            ("path", "The folder."),
            (
                "fileNamePattern",
                "What names must match; `*` stands for any text.",
            ),
            (
                "recursive",
                "True: also those in folders below it. Default: false.",
            ),
        ],
    ),
    of_definition(
        "MoveFile-entry",
        "A file to move, or several by `*` in the last part of the path.",
        &[
            ("source", "The file, or files."),
            ("destination", "Where to; one that ends in `/` is a folder."),
            (
                "overwrite",
                "False: a file that is there is an error. Default: true.",
            ),
        ],
    ),
    of_definition(
        "MoveFolder-entry",
        "A folder to move, or several by `*` in the last part of the path.",
        &[
            ("source", "The folder, or folders."),
            ("destination", "Where to."),
            (
                "overwrite",
                "False: a folder that is there is an error. Default: true.",
            ),
        ],
    ),
    of_definition(
        "ReadFile-entry",
        "A text file. Output: `content`.",
        &[
            ("path", "The file."),
            ("encoding", "How its bytes are text. Default: utf-8."),
            (
                "printFileContent",
                "True: the logs show the content. Default: false.",
            ),
        ],
    ),
    of_definition(
        "Reboot",
        "A restart; the next step goes on after it.",
        &[("delaySeconds", "Seconds to wait before it. Default: 0.")],
    ),
    of_definition(
        "S3Download-entry",
        "An object of S3, or all below a prefix.",
        &[
            ("source", "`s3://bucket/key`, or `s3://bucket/prefix/*`."),
            ("destination", "The file to write; for a prefix the folder."),
            (
                "expectedBucketOwner",
                "The account that must own the bucket, 12 digits.",
            ),
            (
                "overwrite",
                "False: a file that is there is an error. Default: true.",
            ),
        ],
    ),
    of_definition(
        "S3Upload-entry",
        "A file to upload, or several by `*` in the last part of the path.",
        &[
            ("source", "The file, or files."),
            (
                "destination",
                "`s3://bucket/key`; of several files `s3://bucket/prefix/`.",
            ),
            (
                "recurse",
                "True: also the files of folders that match. Default: false.",
            ),
            (
                "expectedBucketOwner",
                "The account that must own the bucket, 12 digits.",
            ),
        ],
    ),
    of_definition(
        "SetFileEncoding-entry",
        "A text file to convert from UTF-8.",
        &[
            ("path", "The file."),
            (
                "encoding",
                "What it becomes. Default: utf-8, which only checks it.",
            ),
        ],
    ),
    of_definition(
        "SetFileOwner-entry",
        "The owner of a file.",
        &[
            ("path", "The file; a link is followed."),
            ("owner", "User name or number."),
            ("group", "Group name or number."),
        ],
    ),
    of_definition(
        "SetFilePermissions-entry",
        "The mode of a file.",
        &[
            ("path", "The file; a link is followed."),
            ("permissions", "Mode in octal digits, such as `0644`."),
        ],
    ),
    of_definition(
        "SetFolderOwner-entry",
        "The owner of a folder.",
        &[
            ("path", "The folder; a link is followed."),
            ("owner", "User name or number."),
            ("group", "Group name or number."),
            ("recursive", "With all below it. Default: true."),
        ],
    ),
    of_definition(
        "SetFolderPermissions-entry",
        "The mode of a folder.",
        &[
            ("path", "The folder; a link is followed."),
            ("permissions", "Mode in octal digits, such as `0755`."),
            ("recursive", "With all below it. Default: true."),
        ],
    ),
    of_definition(
        "SetRegistry-entry",
        "A value of the Windows registry, on Windows only.",
        &[
            ("path", "The key, from a root such as `HKLM:\\`."),
            ("name", "The value's name."),
            ("value", "A text, or a list of them."),
            ("type", "How it is stored."),
        ],
    ),
    of_definition(
        "UpdateOS",
        "Updates of installed packages through the package manager.",
        &[
            ("include", "Packages to update; all when left out."),
            ("exclude", "Packages to leave alone."),
        ],
    ),
    of_definition(
        "WebDownload-entry",
        "A file from the web. Output: `destination`.",
        &[
            ("source", "The URL, http or https."),
            (
                "destination",
                "The file to write; one that ends in `/` is a folder, and the URL has the name.",
            ),
            (
                "overwrite",
                "False: a file that is there is an error. Default: true.",
            ),
            (
                "checksum",
                "What the file must have, in hexadecimal digits. Needs `algorithm`.",
            ),
            ("algorithm", "How the checksum is made."),
            (
                "ignoreCertificateErrors",
                "True: the server may be anybody. Default: false.",
            ),
        ],
    ),
];

const MSI: &[(&str, &str)] = &[
    ("path", "The package: a path or a URL."),
    (
        "reboot",
        "What a package that wants a restart gets. Default: Allow.",
    ),
    ("logOptions", "Flags of `msiexec /L`. Default: `*VX`."),
    ("logFile", "Where the log goes."),
    ("properties", "Properties of the package, by name."),
    (
        "ignoreAuthenticodeSignatureErrors",
        "Take a package whose signature is not valid.",
    ),
    (
        "allowUnsignedInstaller",
        "Take a package without signature.",
    ),
];
