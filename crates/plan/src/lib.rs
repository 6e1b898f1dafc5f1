//! Documents and resolved inputs to layers with content ids.
