//! Hermetic environments and wrappers of the outside checkers, for tests.
