//! What a mapping may hold, as a table, and the one function that checks a mapping against it.

use crate::decode::{self, Cx, Fields, shown};
use crate::node::Node;
use crate::trace::Asked;

/// The fields of a mapping and how they depend on each other.
pub(crate) struct Object {
    /// What messages call it.
    pub(crate) what: &'static str,
    pub(crate) fields: &'static [Field],
    pub(crate) relations: &'static [Relation],
}

/// One field.
pub(crate) struct Field {
    /// The word of the API, in camelCase.
    pub(crate) name: &'static str,
    /// CloudFormation's word.
    pub(crate) cfn: Cfn,
    pub(crate) required: bool,
    pub(crate) rule: Rule,
}

/// How CloudFormation calls a field of the API.
pub(crate) enum Cfn {
    /// The same, in its own spelling.
    Same,
    /// By another word.
    Word(&'static str),
    /// Not at all: templates that have it are refused.
    Absent,
}

/// What the value of a field must be.
pub(crate) enum Rule {
    /// Text of 1 to so many characters.
    Text(usize),
    /// `true` or `false`.
    Bool,
    /// A whole number from the first to the second.
    Int(i64, i64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Whatever this function lets pass.
    Is(fn(&Node, &mut Cx<'_>)),
    /// Text of a form.
    Form(&'static Form),
    /// From so many to so many of a kind.
    List(usize, usize, &'static Rule),
    /// A mapping with fields of its own.
    Object(&'static Object),
    /// The same, which templates may also spell as the API does.
    FreeCase(&'static Object),
    /// Anything; checked elsewhere.
    Any,
}

/// A form that a text must have.
pub(crate) struct Form {
    pub(crate) code: &'static str,
    /// Ends the message "… is not ".
    pub(crate) what: &'static str,
    pub(crate) help: &'static str,
    pub(crate) fits: fn(&str) -> bool,
}

/// What fields demand of each other.
pub(crate) enum Relation {
    /// Exactly one of these must be there.
    ExactlyOne(&'static [&'static str]),
    /// Not more than one of these can be there.
    AtMostOne(&'static [&'static str]),
    /// The guide allows one of these, the service takes several.
    UsuallyOne(&'static [&'static str]),
    /// `name` must be there, unless this field is: the call updates what is there already.
    NamedUnless(&'static str),
    /// A rule of its own.
    Check(fn(&Fields<'_>, &mut Cx<'_>)),
}

/// A field that must be there.
pub(crate) const fn must(name: &'static str, rule: Rule) -> Field {
    Field {
        name,
        cfn: Cfn::Same,
        required: true,
        rule,
    }
}

/// A field that may be there.
pub(crate) const fn may(name: &'static str, rule: Rule) -> Field {
    Field {
        required: false,
        ..must(name, rule)
    }
}

/// A field that may be there, but not in a template.
pub(crate) const fn api_only(name: &'static str, rule: Rule) -> Field {
    Field {
        cfn: Cfn::Absent,
        ..may(name, rule)
    }
}

/// The longest list and text where nothing sets a limit.
pub(crate) const UNLIMITED: usize = usize::MAX;

/// Checks a mapping and all below it; the fields as they were found come back for what the table
/// cannot say.
pub(crate) fn check<'n>(node: &'n Node, object: &Object, cx: &mut Cx<'_>) -> Option<Fields<'n>> {
    let mut fields = Fields::of_either_case(node, object.what, cx)?;
    for field in object.fields {
        let value = match field.cfn {
            Cfn::Same => fields.node(field.name, cx),
            Cfn::Word(word) => fields.aliased(field.name, word, cx),
            Cfn::Absent => fields.of_api(field.name, cx),
        };
        match (value, &field.cfn) {
            (Some(value), _) => field.rule.check(value, cx),
            (None, Cfn::Word(word)) if field.required && cx.pascal => {
                fields.missing_word(word, cx);
            }
            (None, _) if field.required => fields.missing(field.name, cx),
            (None, _) => {}
        }
    }
    fields.deny_unknown(cx);
    for relation in object.relations {
        relation.check(&fields, object.what, cx);
    }
    Some(fields)
}

impl Rule {
    pub(crate) fn check(&self, node: &Node, cx: &mut Cx<'_>) {
        match self {
            Self::Text(most) => {
                decode::limited(node, cx, *most);
            }
            Self::Bool => {
                decode::boolean(node, cx);
            }
            Self::Int(least, most) => {
                decode::integer(node, cx, *least..=*most);
            }
            Self::Choice(words) => choice(node, cx, words),
            Self::Is(check) => check(node, cx),
            Self::Form(form) => form.check(node, cx),
            Self::List(least, most, item) => list(node, cx, (*least, *most), item),
            Self::Object(object) => {
                check(node, object, cx);
            }
            Self::FreeCase(object) => {
                let pascal = std::mem::take(&mut cx.pascal);
                check(node, object, cx);
                cx.pascal = pascal;
            }
            Self::Any => {}
        }
    }
}

fn choice(node: &Node, cx: &mut Cx<'_>, words: &[&str]) {
    let choices: Vec<(&str, ())> = words.iter().map(|word| (*word, ())).collect();
    decode::choice(node, cx, &choices);
}

impl Form {
    pub(crate) fn check(&self, node: &Node, cx: &mut Cx<'_>) {
        let Some(text) = decode::filled(node, cx) else {
            return;
        };
        cx.asks(node.span, || Asked::Hint(self.help));
        if !node.is_opaque() && !(self.fits)(&text) {
            let help = (!self.help.is_empty()).then(|| self.help.to_owned());
            let message = format!("{} is not {}", shown(&text), self.what);
            cx.error_help(self.code, node.span, message, help);
        }
    }
}

fn list(node: &Node, cx: &mut Cx<'_>, (least, most): (usize, usize), item: &Rule) {
    let Some(items) = decode::seq(node, cx) else {
        return;
    };
    cx.asks(node.span, || Asked::Items(least, most));
    let count = items.len();
    if count < least && !node.is_opaque() {
        let message = if count == 0 {
            "this list has no entry".to_owned()
        } else {
            format!("this list has {count} entries, at least {least} are needed")
        };
        cx.error("empty-value", node.span, message);
    }
    if count > most {
        let message = format!("this list has {count} entries, at most {most} are allowed");
        cx.error("out-of-range", node.span, message);
    }
    items.iter().for_each(|one| item.check(one, cx));
}

impl Relation {
    fn check(&self, fields: &Fields<'_>, what: &str, cx: &mut Cx<'_>) {
        match self {
            Self::ExactlyOne(names) => {
                cx.asks(fields.span(), || Asked::OneOf(names.to_vec()));
                let given = given(fields, names);
                let open = names.iter().any(|name| maybe(fields, name));
                if given.is_empty() && !open && !fields.is_unknown() {
                    let message = format!("{what} needs one of {}", words(fields, names));
                    cx.error("missing-field", fields.span(), message);
                }
                at_most_one(fields, &given, names, cx);
            }
            Self::AtMostOne(names) => at_most_one(fields, &given(fields, names), names, cx),
            Self::UsuallyOne(names) => {
                if let given @ [_, second, ..] = given(fields, names).as_slice() {
                    let message = format!("{} stand together", words(fields, given));
                    let help = "the guide allows one of them; the service takes both";
                    cx.warning("conflicting-fields", fields.place(second), message, help);
                }
            }
            Self::NamedUnless(arn) => {
                if cx.pascal {
                    // Templates update what they made by its logical id.
                    if fields.peek("name").is_none() {
                        fields.missing("name", cx);
                    }
                    return;
                }
                cx.asks(fields.span(), || Asked::OneOf(vec!["name", arn]));
                if fields.peek("name").is_none() && fields.peek(arn).is_none() {
                    fields.missing("name", cx);
                }
            }
            Self::Check(check) => check(fields, cx),
        }
    }
}

fn given(fields: &Fields<'_>, names: &[&'static str]) -> Vec<&'static str> {
    let there = |name: &&&'static str| fields.peek(name).is_some() && !maybe(fields, name);
    names.iter().filter(there).copied().collect()
}

/// Whether a field is there is not known.
fn maybe(fields: &Fields<'_>, name: &str) -> bool {
    fields.peek(name).is_some_and(Node::may_be_absent)
}

fn at_most_one(fields: &Fields<'_>, given: &[&str], names: &[&str], cx: &mut Cx<'_>) {
    if let [_, second, ..] = given {
        let message = format!(
            "only one of {} can be given, found {}",
            words(fields, names),
            words(fields, given)
        );
        cx.error("conflicting-fields", fields.place(second), message);
    }
}

fn words(fields: &Fields<'_>, names: &[&str]) -> String {
    let all: Vec<String> = names
        .iter()
        .map(|name| format!("`{}`", fields.spelled(name)))
        .collect();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => all.join(""),
    }
}
