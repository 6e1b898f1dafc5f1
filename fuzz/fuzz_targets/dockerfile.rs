//! Invariant: a Dockerfile template is read or refused, never a panic; every problem has a place inside the text, and
//! replacing variables does not make more than their limit.
#![no_main]

use amiforge_recipe::{MAX_DOCKERFILE_BYTES, parse_dockerfile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, problems) = parse_dockerfile(text);
    assert!(text.len() <= MAX_DOCKERFILE_BYTES || file.is_none());
    assert_eq!(file.is_none(), problems.has_errors());
    let unsupported = file.iter().flat_map(|file| &file.unsupported);
    for problem in problems.iter().chain(unsupported) {
        let span = problem.span.expect("every problem has a place");
        assert!(text.get(span.start.offset..span.end.offset).is_some());
    }
    if let Some(file) = file {
        let values: usize = file.config.env.iter().map(|(_, value)| value.len()).sum();
        assert!(values <= 2 << 20);
    }
});
