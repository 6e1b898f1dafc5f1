//! Names of time zones.
//! Source: the IANA time zone database, zones and links; without `Factory`, which is no place.

use super::forms;
use super::schema::Form;
use crate::decode::{Cx, shown};
use crate::node::Node;
use crate::suggest;
use crate::trace::Asked;

/// One a line, sorted.
static NAMES: &str = include_str!("timezones.txt");

fn is_known(text: &str) -> bool {
    NAMES.lines().any(|name| name == text)
}

/// The zone of a schedule. A slip is an error; a name that is like none may be younger than the table.
pub(crate) fn timezone(node: &Node, cx: &mut Cx<'_>) {
    let form: &Form = &forms::TIMEZONE;
    cx.asks(node.span, || Asked::Hint(form.help));
    let before = cx.diags.len();
    form.check(node, cx);
    let Some(text) = node.as_text() else { return };
    if node.is_opaque() || cx.diags.len() > before || is_known(text) {
        return;
    }
    let message = format!("{} is not the name of a time zone", shown(text));
    let same = NAMES.lines().find(|name| name.eq_ignore_ascii_case(text));
    let help = match same {
        Some(name) => Some(format!("did you mean `{name}`?")),
        None => suggest::did_you_mean(text, NAMES.lines()),
    };
    match help {
        Some(help) => cx.error_help("unknown-timezone", node.span, message, Some(help)),
        None => cx.warning("unknown-timezone", node.span, message, form.help),
    }
}

#[cfg(test)]
mod tests {
    use amiforge_types::{Diagnostics, Severity, Span};

    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_the_usual_names() {
        let names: Vec<&str> = NAMES.lines().collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(names.len() > 500);
        for name in [
            "UTC",
            "Etc/UTC",
            "Europe/Berlin",
            "America/Argentina/Ushuaia",
            "Asia/Kolkata",
        ] {
            assert!(is_known(name), "{name}");
        }
    }

    #[test]
    fn a_slip_is_an_error_and_a_name_like_none_a_warning() {
        let found = |text: &str| {
            let mut diags = Diagnostics::new();
            timezone(&Node::text(Span::default(), text), &mut Cx::new(&mut diags));
            diags.into_sorted().into_iter().next()
        };
        assert_eq!(found("Europe/Berlin"), None);
        for (text, meant) in [
            ("Europe/Berln", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("America/NewYork", "America/New_York"),
        ] {
            let problem = found(text).unwrap();
            assert_eq!(
                (problem.severity, problem.code),
                (Severity::Error, "unknown-timezone")
            );
            assert_eq!(problem.help, Some(format!("did you mean `{meant}`?")));
        }
        let problem = found("Atlantis/Poseidonis").unwrap();
        assert_eq!(problem.severity, Severity::Warning);
        assert_eq!(found("No such zone").unwrap().code, "invalid-name");
    }
}
