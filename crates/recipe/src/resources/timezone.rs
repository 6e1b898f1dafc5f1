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

/// Whether some edits (insert, delete, replace, swap of neighbours) make one word the other. At most two are asked for.
fn within(slips: usize, a: &[char], b: &[char]) -> bool {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let Some(left) = slips.checked_sub(1) else {
        return a.is_empty() && b.is_empty();
    };
    match (a, b) {
        ([], []) => true,
        ([_, rest @ ..], []) | ([], [_, rest @ ..]) => rest.len() <= left,
        ([x, after_a @ ..], [y, after_b @ ..]) => {
            let swapped = after_a.first() == Some(y) && after_b.first() == Some(x);
            within(left, after_a, after_b)
                || within(left, after_a, b)
                || within(left, a, after_b)
                || (swapped && within(left, &after_a[1..], &after_b[1..]))
        }
    }
}

/// Whether a name can only be a slip: one per six letters of the place, two at most. `Asia/Tomsk` came when there was
/// `Asia/Omsk`, and `Europe/Kyiv` beside `Europe/Kiev`.
fn is_slip(text: &str, name: &str) -> bool {
    if text.eq_ignore_ascii_case(name) {
        return true;
    }
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let (area, place) = text.rsplit_once('/').unwrap_or(("", text));
    let (other_area, other) = name.rsplit_once('/').unwrap_or(("", name));
    let (place, other) = (letters(place), letters(other));
    let slips = (place.len().max(other.len()) / 6).min(2);
    area.eq_ignore_ascii_case(other_area) && within(slips, &place, &other)
}

/// Places that people take for zones, and the zone whose time is theirs: large cities without one, and names in
/// another language. Without `_`, in small letters, sorted.
const PLACES: &[(&str, &str)] = &[
    ("abudhabi", "Asia/Dubai"),
    ("atlanta", "America/New_York"),
    ("austin", "America/Chicago"),
    ("bangalore", "Asia/Kolkata"),
    ("barcelona", "Europe/Madrid"),
    ("beijing", "Asia/Shanghai"),
    ("bern", "Europe/Zurich"),
    ("birmingham", "Europe/London"),
    ("bombay", "Asia/Kolkata"),
    ("boston", "America/New_York"),
    ("chennai", "Asia/Kolkata"),
    ("cologne", "Europe/Berlin"),
    ("dallas", "America/Chicago"),
    ("delhi", "Asia/Kolkata"),
    ("dusseldorf", "Europe/Berlin"),
    ("edinburgh", "Europe/London"),
    ("frankfurt", "Europe/Berlin"),
    ("geneva", "Europe/Zurich"),
    ("hamburg", "Europe/Berlin"),
    ("hanoi", "Asia/Ho_Chi_Minh"),
    ("houston", "America/Chicago"),
    ("hyderabad", "Asia/Kolkata"),
    ("koln", "Europe/Berlin"),
    ("krakow", "Europe/Warsaw"),
    ("lyon", "Europe/Paris"),
    ("manchester", "Europe/London"),
    ("miami", "America/New_York"),
    ("milan", "Europe/Rome"),
    ("mumbai", "Asia/Kolkata"),
    ("munich", "Europe/Berlin"),
    ("newdelhi", "Asia/Kolkata"),
    ("osaka", "Asia/Tokyo"),
    ("ottawa", "America/Toronto"),
    ("peking", "Asia/Shanghai"),
    ("philadelphia", "America/New_York"),
    ("portland", "America/Los_Angeles"),
    ("pune", "Asia/Kolkata"),
    ("rio", "America/Sao_Paulo"),
    ("riodejaneiro", "America/Sao_Paulo"),
    ("rotterdam", "Europe/Amsterdam"),
    ("sanfrancisco", "America/Los_Angeles"),
    ("seattle", "America/Los_Angeles"),
    ("shenzhen", "Asia/Shanghai"),
    ("stpetersburg", "Europe/Moscow"),
    ("stuttgart", "Europe/Berlin"),
    ("thehague", "Europe/Amsterdam"),
    ("washington", "America/New_York"),
    ("wien", "Europe/Vienna"),
];

/// The zone of a place, when its name stands in the table, or is that of one zone with another area before it or none.
fn of_place(text: &str) -> Option<&'static str> {
    let place = text.rsplit_once('/').map_or(text, |(_, place)| place);
    let plain: String = place
        .chars()
        .filter(|c| !matches!(c, '_' | '-' | ' ' | '.'))
        .flat_map(char::to_lowercase)
        .collect();
    if let Ok(at) = PLACES.binary_search_by(|(name, _)| (*name).cmp(&plain)) {
        return Some(PLACES[at].1);
    }
    let mut found = NAMES.lines().filter(|name| {
        let place_of = name.rsplit_once('/').map(|(_, place)| place);
        place_of.is_some_and(|other| other.eq_ignore_ascii_case(place))
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// The zone of a schedule. A slip is an error; any other name may be younger than the table.
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
    let near = same
        .or_else(|| of_place(text))
        .or_else(|| suggest::nearest(text, NAMES.lines()));
    let help = near.map(|name| format!("did you mean `{name}`?"));
    if near.is_some_and(|name| is_slip(text, name)) {
        cx.error_help("unknown-timezone", node.span, message, help);
    } else {
        let help = help.as_deref().unwrap_or(form.help);
        cx.warning("unknown-timezone", node.span, message, help);
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
    fn places_are_sorted_and_lead_to_zones() {
        assert!(PLACES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (place, zone) in PLACES {
            assert!(is_known(zone), "{zone}");
            let own = |name: &str| {
                let last = name.rsplit('/').next().unwrap_or(name);
                last.replace(['_', '-'], "").to_lowercase()
            };
            assert!(
                !NAMES.lines().any(|name| own(name) == *place),
                "{place} is a zone"
            );
        }
    }

    #[test]
    fn a_slip_is_an_error_and_a_name_that_may_be_young_a_warning() {
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
            ("Europe/Lodnon", "Europe/London"),
            (
                "America/Argentina/Buenos_Ayrees",
                "America/Argentina/Buenos_Aires",
            ),
            ("eire", "Eire"),
        ] {
            let problem = found(text).unwrap();
            assert_eq!(
                (problem.severity, problem.code),
                (Severity::Error, "unknown-timezone")
            );
            assert_eq!(problem.help, Some(format!("did you mean `{meant}`?")));
        }
        // As they were before the database got them, and what is too far from all names.
        for young in [
            "Atlantis/Poseidonis",
            "Asia/Tomks",
            "America/Nuk",
            "Europe/Wien",
            "Europe/Amsterdamned",
            "Asia/Berlin",
        ] {
            let problem = found(young).unwrap();
            assert_eq!(problem.severity, Severity::Warning, "{young}");
        }
        for (wrong, meant) in [
            ("Europe/Munich", "Europe/Berlin"),
            ("Europe/Wien", "Europe/Vienna"),
            ("America/San_Francisco", "America/Los_Angeles"),
            ("Asia/Berlin", "Europe/Berlin"),
            ("Berlin", "Europe/Berlin"),
        ] {
            let problem = found(wrong).unwrap();
            assert_eq!(problem.severity, Severity::Warning, "{wrong}");
            assert_eq!(problem.help, Some(format!("did you mean `{meant}`?")));
        }
        for (young, old) in [
            ("Europe/Saratov", "Europe/Sarajevo"),
            ("Europe/Kyiv", "Europe/Kiev"),
            ("Asia/Tomsk", "Asia/Omsk"),
            ("Asia/Qostanay", "Asia/Qatar"),
        ] {
            assert!(!is_slip(young, old), "{young}");
        }
        for (wrong, name) in [
            ("Europe/Amsterdame", "Europe/Amsterdam"),
            ("Europe/msterdam", "Europe/Amsterdam"),
        ] {
            assert!(is_slip(wrong, name), "{wrong}");
        }
        assert_eq!(found("No such zone").unwrap().code, "invalid-name");
    }
}
