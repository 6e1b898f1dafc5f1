//! Invariant: a policy and a life cycle policy are read or refused with a place inside the text; a decision names statements of the
//! policy, and an explicit deny stands whatever else allows.
#![no_main]

use amiforge_ami::ec2::AccountId;
use amiforge_ami::ec2::lifecycle::LifecyclePolicy;
use amiforge_ami::ec2::policy::{Policy, PolicyKind, Principal, Request, Verdict, evaluate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = LifecyclePolicy::from_json(text);
    let policy = match Policy::parse("fuzz", PolicyKind::Identity, text) {
        Ok(policy) => policy,
        Err(problems) => {
            assert!(!problems.is_empty());
            let inside = |at: usize| at <= text.len() && text.is_char_boundary(at);
            assert!(
                problems
                    .iter()
                    .filter_map(|p| p.span)
                    .all(|s| inside(s.start.offset) && inside(s.end.offset))
            );
            return;
        }
    };
    let ann = Principal::user(&AccountId::local(), "ann");
    let mut request = Request::new(
        &ann,
        "ec2:RunInstances",
        "arn:aws:ec2:us-east-1::image/ami-0123456789abcdef0",
    );
    request.context.set("ec2:Owner", ["amazon"]);
    request.context.set("aws:TagKeys", ["team", "approved"]);
    let all = r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
    let all = Policy::parse("all", PolicyKind::Identity, all).unwrap();
    let alone = evaluate(std::slice::from_ref(&policy), &request);
    let with = evaluate(&[policy, all], &request);
    assert_eq!(
        alone.verdict == Verdict::ExplicitDeny,
        with.verdict == Verdict::ExplicitDeny
    );
    assert!(with.verdict != Verdict::ImplicitDeny);
    assert_eq!(
        alone.verdict == Verdict::ImplicitDeny,
        alone.deciding.is_empty()
    );
});
