use super::*;

/// What each operator does with an absent key: alone, with `IfExists`, with `ForAnyValue:` and with `ForAllValues:`.
const ABSENT: &[(&str, &str, [bool; 4])] = &[
    ("StringEquals", "a", [false, true, false, true]),
    ("StringNotEquals", "a", [true, true, false, true]),
    ("StringEqualsIgnoreCase", "a", [false, true, false, true]),
    ("StringNotEqualsIgnoreCase", "a", [true, true, false, true]),
    ("StringLike", "a*", [false, true, false, true]),
    ("StringNotLike", "a*", [true, true, false, true]),
    ("NumericEquals", "1", [false, true, false, true]),
    ("NumericNotEquals", "1", [true, true, false, true]),
    ("NumericLessThan", "1", [false, true, false, true]),
    ("NumericLessThanEquals", "1", [false, true, false, true]),
    ("NumericGreaterThan", "1", [false, true, false, true]),
    ("NumericGreaterThanEquals", "1", [false, true, false, true]),
    (
        "DateEquals",
        "2026-01-01T00:00:00Z",
        [false, true, false, true],
    ),
    (
        "DateNotEquals",
        "2026-01-01T00:00:00Z",
        [true, true, false, true],
    ),
    (
        "DateLessThan",
        "2026-01-01T00:00:00Z",
        [false, true, false, true],
    ),
    (
        "DateLessThanEquals",
        "2026-01-01T00:00:00Z",
        [false, true, false, true],
    ),
    (
        "DateGreaterThan",
        "2026-01-01T00:00:00Z",
        [false, true, false, true],
    ),
    (
        "DateGreaterThanEquals",
        "2026-01-01T00:00:00Z",
        [false, true, false, true],
    ),
    ("Bool", "true", [false, true, false, true]),
    ("BinaryEquals", "AQ==", [false, true, false, true]),
    ("IpAddress", "10.0.0.0/8", [false, true, false, true]),
    ("NotIpAddress", "10.0.0.0/8", [true, true, false, true]),
    (
        "ArnEquals",
        "arn:aws:iam::1:user/a",
        [false, true, false, true],
    ),
    (
        "ArnNotEquals",
        "arn:aws:iam::1:user/a",
        [true, true, false, true],
    ),
    (
        "ArnLike",
        "arn:aws:iam::1:user/*",
        [false, true, false, true],
    ),
    (
        "ArnNotLike",
        "arn:aws:iam::1:user/*",
        [true, true, false, true],
    ),
];

fn condition(operator: &str, operands: &[&str]) -> Condition {
    let operator = Operator::parse(operator).unwrap();
    Condition {
        operator,
        key: "t:Key".to_owned(),
        operands: operands
            .iter()
            .map(|text| Operand::parse(operator, text, true).unwrap())
            .collect(),
    }
}

fn check(operator: &str, operands: &[&str], values: &[&str]) -> Outcome {
    let mut context = Context::default();
    context.set("T:KEY", values.iter().copied());
    context.set("aws:username", ["ann"]);
    condition(operator, operands).check(&context)
}

fn met(operator: &str, operands: &[&str], values: &[&str]) -> bool {
    match check(operator, operands, values) {
        Outcome::Met => true,
        Outcome::NotMet(_) => false,
        other => panic!("{operator} {operands:?} {values:?}: {other:?}"),
    }
}

#[test]
fn every_operator_with_an_absent_key() {
    for (operator, operand, [alone, if_exists, any, all]) in ABSENT {
        for (name, expected) in [
            ((*operator).to_owned(), *alone),
            (format!("{operator}IfExists"), *if_exists),
            (format!("ForAnyValue:{operator}"), *any),
            (format!("ForAllValues:{operator}"), *all),
            (format!("ForAnyValue:{operator}IfExists"), true),
            (format!("ForAllValues:{operator}IfExists"), true),
        ] {
            assert_eq!(met(&name, &[operand], &[]), expected, "{name}");
        }
    }
    let tested: Vec<&str> = ABSENT.iter().map(|(name, ..)| *name).collect();
    let all = OPERATORS
        .iter()
        .map(|(name, ..)| *name)
        .filter(|n| *n != "Null");
    assert_eq!(tested, all.collect::<Vec<_>>());
}

#[test]
fn null_asks_for_presence() {
    for (operand, values, expected) in [
        ("true", &[][..], true),
        ("false", &[], false),
        ("true", &["x"], false),
        ("false", &["x"], true),
        ("FALSE", &["x", "y"], true),
    ] {
        assert_eq!(
            met("Null", &[operand], values),
            expected,
            "{operand} {values:?}"
        );
    }
}

#[test]
fn one_value() {
    for (operator, operands, value, expected) in [
        ("StringEquals", &["a", "b"][..], "b", true),
        ("StringEquals", &["a"], "A", false),
        ("StringEquals", &["a*"], "ab", false),
        ("StringEquals", &["a*"], "a*", true),
        ("StringEquals", &["${aws:username}"], "ann", true),
        ("StringEquals", &[], "a", false),
        ("StringNotEquals", &[], "a", true),
        ("StringNotEquals", &["a", "b"], "b", false),
        ("StringNotEquals", &["a", "b"], "c", true),
        ("StringEqualsIgnoreCase", &["Äb"], "äB", true),
        ("StringNotEqualsIgnoreCase", &["ab"], "AB", false),
        ("stringlike", &["a?c*"], "abcd", true),
        ("StringLike", &["A*"], "ab", false),
        ("StringLike", &["${aws:username}-*"], "ann-1", true),
        ("StringNotLike", &["a*", "b*"], "bc", false),
        ("NumericEquals", &["1.50"], "1.5", true),
        ("NumericEquals", &["-0"], "0", true),
        (
            "NumericEquals",
            &["9007199254740993"],
            "9007199254740992",
            false,
        ),
        ("NumericNotEquals", &["1"], "2", true),
        ("NumericNotEquals", &["1"], "nothing", true),
        ("NumericLessThan", &["10"], "9", true),
        ("NumericLessThan", &["-9"], "-10", true),
        ("NumericLessThan", &["1"], "1", false),
        ("NumericLessThan", &["0"], "-0.5", true),
        ("NumericLessThanEquals", &["1"], "1.0", true),
        ("NumericGreaterThan", &["1.25"], "1.3", true),
        ("NumericGreaterThan", &["1"], "nothing", false),
        ("NumericGreaterThanEquals", &["16"], "8", false),
        ("DateEquals", &["2026-01-01T00:00:00Z"], "1767225600", true),
        ("DateEquals", &["2026"], "2026-01-01T01:00:00+01:00", true),
        ("DateEquals", &["2026-01"], "2026-01-01", true),
        ("DateNotEquals", &["2026-01-01"], "2026-01-02", true),
        (
            "DateLessThan",
            &["2026-01-01T00:00Z"],
            "2025-12-31T23:59:59.5Z",
            true,
        ),
        (
            "DateLessThanEquals",
            &["1767225600"],
            "2026-01-01T00:00:00Z",
            true,
        ),
        ("DateGreaterThan", &["2026-01-01"], "2026-01-01", false),
        ("DateGreaterThanEquals", &["2026-01-01"], "someday", false),
        ("Bool", &["true"], "TRUE", true),
        ("Bool", &["false"], "true", false),
        ("Bool", &["true", "false"], "false", true),
        ("Bool", &["true"], "yes", false),
        ("BinaryEquals", &["AQI="], "AQI=", true),
        ("BinaryEquals", &["AQI="], "AQM=", false),
        ("IpAddress", &["203.0.113.0/24"], "203.0.113.9", true),
        ("IpAddress", &["203.0.113.9"], "203.0.113.8", false),
        ("IpAddress", &["0.0.0.0/0"], "8.8.8.8", true),
        ("IpAddress", &["0.0.0.0/0"], "2001:db8::1", false),
        ("IpAddress", &["2001:db8::/32"], "2001:db8:1::1", true),
        ("IpAddress", &["::/0"], "2001:db8:1::1", true),
        (
            "NotIpAddress",
            &["10.0.0.0/8", "192.168.0.0/16"],
            "192.168.1.1",
            false,
        ),
        ("NotIpAddress", &["10.0.0.0/8"], "192.168.1.1", true),
        (
            "ArnEquals",
            &["arn:aws:iam::*:user/a*"],
            "arn:aws:iam::1:user/ann",
            true,
        ),
        (
            "ArnEquals",
            &["arn:aws:iam::*"],
            "arn:aws:iam::1:user/ann",
            false,
        ),
        (
            "ArnLike",
            &["arn:aws:sns:*:1:t?"],
            "arn:aws:sns:us-east-1:1:t1",
            true,
        ),
        (
            "ArnNotEquals",
            &["arn:aws:iam::1:user/ann"],
            "arn:aws:iam::1:user/ann",
            false,
        ),
        (
            "ArnNotLike",
            &["arn:aws:iam::1:role/*"],
            "arn:aws:iam::1:user/ann",
            true,
        ),
        ("StringEqualsIfExists", &["a"], "b", false),
        ("NumericLessThanIfExists", &["16"], "8", true),
    ] {
        assert_eq!(
            met(operator, operands, &[value]),
            expected,
            "{operator} {operands:?} {value}"
        );
    }
}

#[test]
fn several_values() {
    for (operator, operands, values, expected) in [
        (
            "ForAnyValue:StringEquals",
            &["a", "b"][..],
            &["b", "c"][..],
            true,
        ),
        ("ForAnyValue:StringEquals", &["a"], &["b", "c"], false),
        ("ForAnyValue:StringNotEquals", &["a"], &["a", "c"], true),
        ("ForAnyValue:StringNotEquals", &["a"], &["a"], false),
        ("ForAllValues:StringEquals", &["a", "b"], &["b", "a"], true),
        ("ForAllValues:StringEquals", &["a", "b"], &["b", "c"], false),
        ("ForAllValues:StringNotEquals", &["a"], &["b", "c"], true),
        ("ForAllValues:StringNotEquals", &["a"], &["b", "a"], false),
        (
            "ForAllValues:StringLike",
            &["ec2:*", "aws:*"],
            &["ec2:a", "aws:b"],
            true,
        ),
        ("forallvalues:NumericLessThan", &["10"], &["1", "11"], false),
        (
            "ForAnyValue:IpAddress",
            &["10.0.0.0/8"],
            &["1.1.1.1", "10.1.1.1"],
            true,
        ),
    ] {
        assert_eq!(
            met(operator, operands, values),
            expected,
            "{operator} {operands:?} {values:?}"
        );
    }
    for operator in ["StringEquals", "StringNotEquals", "StringEqualsIfExists"] {
        assert!(
            matches!(check(operator, &["a"], &["a", "b"]), Outcome::Unclear(_)),
            "{operator}"
        );
    }
}

#[test]
fn variables_without_a_value() {
    for (operator, met) in [("StringEquals", false), ("StringNotEquals", true)] {
        let found = check(operator, &["${aws:PrincipalTag/team}"], &["a"]);
        let key = "aws:principaltag/team".to_owned();
        assert_eq!(found, Outcome::Unresolved { key, met });
    }
    assert!(met(
        "StringEquals",
        &["${aws:PrincipalTag/team, 'none'}"],
        &["none"]
    ));
}

#[test]
fn names_and_values_that_are_none() {
    for (name, message) in [
        ("StringEqual", "no condition operator"),
        ("ForSomeValues:StringEquals", "neither"),
        ("NullIfExists", "neither prefix nor suffix"),
        ("ForAnyValue:Null", "neither prefix nor suffix"),
        ("", "no condition operator"),
        ("IfExists", "no condition operator"),
    ] {
        let found = Operator::parse(name).unwrap_err();
        assert!(found.contains(message), "{name}: {found}");
    }
    for (operator, value) in [
        ("NumericEquals", "1e3"),
        ("NumericEquals", ""),
        ("NumericEquals", "1."),
        ("DateEquals", "tomorrow"),
        ("DateEquals", ""),
        ("DateEquals", "2026-13-01"),
        ("Bool", "yes"),
        ("Null", "1"),
        ("BinaryEquals", "?"),
        ("IpAddress", "10.0.0.0/33"),
        ("IpAddress", "10.0.0.0/+8"),
        ("IpAddress", "10.0.0"),
        ("StringEquals", "${aws:username"),
    ] {
        let operator = Operator::parse(operator).unwrap();
        assert!(
            Operand::parse(operator, value, true).is_err(),
            "{operator} {value}"
        );
    }
    let shown = Operator::parse("foranyvalue:stringnotlikeifexists")
        .unwrap()
        .to_string();
    assert_eq!(shown, "ForAnyValue:StringNotLikeIfExists");
}
