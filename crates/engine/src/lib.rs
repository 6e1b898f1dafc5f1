//! The operations: validate, plan, build, test.
