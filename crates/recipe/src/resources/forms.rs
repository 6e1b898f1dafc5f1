//! Forms of texts that several resources share: names, versions, accounts, tags.
//! Source: the API's model of 2019-12-02, whose patterns these are.

use super::schema::Form;
use crate::decode::{self, Cx, shown};
use crate::node::{Node, NodeKind};
use crate::trace::Asked;
use crate::version::{Version, VersionPattern};

/// The name of an instance profile, which the ARN of another resource of the template is not.
pub(crate) fn instance_profile(node: &Node, cx: &mut Cx<'_>) {
    INSTANCE_PROFILE.check(node, cx);
    let shown = node.as_text().filter(|_| node.is_opaque());
    let named = shown.and_then(|text| text.strip_prefix("${")?.strip_suffix(".Arn}"));
    if let Some(id) = named.filter(|id| !id.contains(['{', '.'])) {
        let message = format!("the ARN of `{id}` is not {}", INSTANCE_PROFILE.what);
        let help = format!("write `!Ref {id}`: that is its name");
        cx.error_help(INSTANCE_PROFILE.code, node.span, message, Some(help));
    }
}

/// 3 to 128 of letters, digits, `-`, `_`; spaces only inside.
pub(crate) fn resource_name(node: &Node, cx: &mut Cx<'_>) {
    decode::resource_name(node, cx);
}

/// Three numbers.
pub(crate) fn version(node: &Node, cx: &mut Cx<'_>) {
    decode::parsed::<Version>(node, cx, "write three numbers, as in `1.0.0`");
}

/// Three numbers or `x`.
pub(crate) fn version_pattern(node: &Node, cx: &mut Cx<'_>) {
    decode::parsed::<VersionPattern>(
        node,
        cx,
        "write three numbers, as in `1.0.0`, or `x` for trailing ones",
    );
}

pub(crate) fn tags(node: &Node, cx: &mut Cx<'_>) {
    decode::tag_map(node, cx, 50);
}

/// Tags of build instances and their volumes.
pub(crate) fn resource_tags(node: &Node, cx: &mut Cx<'_>) {
    decode::tag_map(node, cx, 30);
}

pub(crate) static ACCOUNT_ID: Form = Form {
    code: "invalid-account",
    what: "the id of an AWS account",
    help: "write all 12 digits, in quotes: a leading zero counts",
    fits: is_account,
};

pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

pub(crate) static LAUNCH_TEMPLATE_ID: Form = Form {
    code: "invalid-name",
    what: "the id of a launch template",
    help: "write `lt-` and 17 letters and digits",
    fits: |text| {
        text.strip_prefix("lt-").is_some_and(|id| {
            id.len() == 17
                && id
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        })
    },
};

static INSTANCE_PROFILE: Form = Form {
    code: "invalid-name",
    what: "the name of an instance profile",
    help: "write the name, not the ARN: 1 to 256 of letters, digits and _+=,.@-",
    fits: |text| {
        (1..=256).contains(&text.chars().count())
            && text
                .chars()
                .all(|c| c.is_alphanumeric() || "_+=,.@-".contains(c))
    },
};

pub(crate) static LOG_GROUP: Form = Form {
    code: "invalid-name",
    what: "the name of a log group",
    help: "use 1 to 512 of letters, digits and -_/.",
    fits: |text| {
        text.len() <= 512
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_/.".contains(&b))
    },
};

pub(crate) static ROLE: Form = Form {
    code: "invalid-name",
    what: "the name or ARN of a role",
    help: "write the role's name, or arn:aws:iam::<account>:role/<name>",
    fits: |text| {
        let name = match text.strip_prefix("arn:") {
            None => text,
            Some(rest) => match rest.splitn(5, ':').collect::<Vec<_>>().as_slice() {
                [partition, "iam", "", account, role]
                    if partition.starts_with("aws") && is_account(account) =>
                {
                    role.strip_prefix("role/").unwrap_or("")
                }
                _ => "",
            },
        };
        (1..=2048).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b))
    },
};

pub(crate) static TIMEZONE: Form = Form {
    code: "invalid-name",
    what: "the name of a time zone",
    help: "write a name of the IANA database, for example `Europe/Berlin`, or `UTC`",
    fits: |text| {
        let mut parts = text.split('/');
        let word = |part: &str, more: &[u8]| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        (3..=100).contains(&text.len())
            && parts
                .next()
                .is_some_and(|part| part.len() >= 2 && word(part, b"_-+"))
            && parts.all(|part| word(part, b"-_+"))
    },
};

pub(crate) static PARALLEL_GROUP: Form = Form {
    code: "invalid-name",
    what: "the name of a parallel group",
    help: "use 1 to 100 of letters, digits and -_+#, the first a letter or digit",
    fits: |text| {
        let first = text.bytes().next();
        text.len() <= 100
            && first.is_some_and(|b| b.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_+#".contains(&b))
    },
};

pub(crate) static SSM_NAME: Form = Form {
    code: "invalid-name",
    what: "the name of an SSM parameter",
    help: "use 1 to 1011 of letters, digits and _.-/",
    fits: |text| {
        text.len() <= 1011
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b))
    },
};

pub(crate) static AMI_NAME: Form = Form {
    code: "invalid-name",
    what: "the name of an AMI",
    help: "use 3 to 127 of letters, digits, white space and -_:{}., with a letter, digit, - or _ or a brace at both ends",
    fits: |text| {
        let end = |c: Option<char>, brace: char| {
            c.is_some_and(|c| c.is_ascii_alphanumeric() || "-_".contains(c) || c == brace)
        };
        (3..=127).contains(&text.chars().count())
            && end(text.chars().next(), '{')
            && end(text.chars().last(), '}')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c.is_whitespace() || "-_:{}.".contains(c))
    },
};

pub(crate) static WATERMARK: Form = Form {
    code: "invalid-name",
    what: "the name of a watermark",
    help: "use 3 to 128 of letters, digits, ()[]./'@_- and spaces inside",
    fits: |text| {
        (3..=128).contains(&text.len())
            && text.trim() == text
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b" ()[]./'@_-".contains(&b))
    },
};

pub(crate) static USER_DATA: Form = Form {
    code: "invalid-encoding",
    what: "user data in base64",
    help: "encode the script: `base64 -w0 script.sh`, or `Fn::Base64` in a template",
    fits: |text| {
        let body = text.trim_end_matches('=');
        let padding = text.len() - body.len();
        text.len() % 4 == 0
            && text.len() <= 21_847
            && padding <= 2
            && body
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    },
};

pub(crate) static S3_URI: Form = Form {
    code: "invalid-url",
    what: "the address of an S3 object",
    help: "write s3://<bucket>/<key>",
    fits: |text| {
        let parts = text.strip_prefix("s3://").and_then(|t| t.split_once('/'));
        parts.is_some_and(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            || ["https://", "http://"]
                .iter()
                .any(|scheme| text.starts_with(scheme) && text.contains("amazonaws"))
    },
};

/// `noDevice: ""`.
pub(crate) fn empty(node: &Node, cx: &mut Cx<'_>) {
    cx.asks(node.span, || Asked::words(&[""]));
    if node.as_text().is_some_and(|text| !text.is_empty()) && !node.is_opaque() {
        cx.error(
            "wrong-type",
            node.span,
            format!(
                "expected an empty text, found {}",
                shown(node.as_text().unwrap_or_default())
            ),
        );
    } else if matches!(node.kind, NodeKind::Seq(_) | NodeKind::Map(_)) {
        decode::wrong_type(node, "an empty text", cx);
    }
}

/// A setting that CloudFormation and the API write as text in upper case, and people in any.
pub(crate) static INSTANCE_TYPE: Form = Form {
    code: "invalid-name",
    what: "an instance type",
    help: "write family and size, for example `t3.micro`",
    fits: |text| {
        text.split_once('.').is_some_and(|(family, size)| {
            let word = |part: &str| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            };
            word(family) && word(size)
        })
    },
};
