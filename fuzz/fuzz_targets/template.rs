//! Invariant: any text is read as a template, with or without values for its parameters, or answered with diagnostics
//! that lie inside it; never a panic, never unbounded work.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let given = BTreeMap::from([("Environment".to_owned(), "prod".to_owned())]);
    for given in [BTreeMap::new(), given] {
        let (template, problems) = amiforge_recipe::parse_template(text, &given);
        for problem in problems.iter() {
            if let Some(span) = problem.span {
                assert!(text.get(span.start.offset..span.end.offset).is_some(), "{problem}");
            }
        }
        let Some(template) = template else { continue };
        for resource in &template.resources {
            let _ = template.recipe(Some(&resource.id));
            let _ = resource.image_recipe();
        }
    }
    let _ = amiforge_recipe::parse_document(text);
    let _ = amiforge_recipe::parse_config(text);
});
