//! Sandboxes and action modules.
