//! The unsafe corner: namespaces, process control, memory maps.
