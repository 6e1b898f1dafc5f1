//! Invariant: the pieces of a text put together are the text, and resolving replaces references once; never a
//! panic, never more text than the limit.
#![no_main]

use amiforge_recipe::{Iteration, Piece, Scope, pieces};
use amiforge_types::Span;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let found = pieces(text);
    let whole: String = found
        .iter()
        .map(|piece| match piece {
            Piece::Literal(text) | Piece::Foreign(text) | Piece::Reference(text, _) => *text,
        })
        .collect();
    assert_eq!(whole, text);

    let mut scope = Scope::default();
    for name in ["Name", "Path", "abc"] {
        scope.variables.insert(name.to_owned(), "{{ abc }}".to_owned());
    }
    scope.environment.insert("HOME".to_owned(), "/root".to_owned());
    scope.context.insert("date".to_owned(), "2026-01-01".to_owned());
    scope.iteration = Some(Iteration {
        name: Some("each".to_owned()),
        index: 3,
        value: "{{ loop.value }}".to_owned(),
    });
    let resolved = scope.resolve_text(text, Span::default());
    let plain = found.iter().all(|piece| !matches!(piece, Piece::Reference(..)));
    if plain {
        assert_eq!(resolved.as_deref(), Ok(text));
    }
});
