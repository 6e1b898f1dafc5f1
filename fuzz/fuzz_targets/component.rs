//! Invariant: any text is read or answered with diagnostics that lie inside it, and what was read can be
//! resolved and decoded as a run would; never a panic, never unbounded work.
#![no_main]

use std::collections::BTreeMap;

use amiforge_recipe::{If, Iteration, Scope, StepRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (component, _) = amiforge_recipe::parse_component(text);
    let Some(component) = component else { return };
    // What was accepted has one canonical form.
    assert_eq!(component.canonical(), component.canonical());

    let given = component.parameters.iter().map(|p| (p.name.clone(), "7".to_owned()));
    let mut scope = Scope::new(component.variables(&given.collect()));
    for phase in &component.phases {
        for step in &phase.steps {
            if let Some(when) = &step.condition
                && let Ok(resolved) = scope.resolve(&when.condition)
            {
                let _ = If::decode(&resolved);
            }
            if let Some(repeat) = &step.repeat
                && let Ok(values) = repeat.values(&scope)
            {
                assert_eq!(values.get(values.len()), None);
                scope.iteration = values.get(0).map(|value| Iteration {
                    name: repeat.name.clone(),
                    index: 0,
                    value,
                });
            }
            let resolved = step.inputs.as_ref().map(|inputs| scope.resolve(inputs));
            scope.iteration = None;
            let Ok(resolved) = resolved.transpose() else { continue };
            let _ = step.decode_inputs(resolved.as_ref());
            let mut record = StepRecord::of_inputs(resolved.as_ref());
            let outputs = step.action.outputs().iter();
            let outputs: BTreeMap<String, String> =
                outputs.map(|key| ((*key).to_owned(), "a,b\nc".to_owned())).collect();
            record.outputs = vec![outputs];
            scope.record(&phase.name, &step.name, record);
        }
    }
});
