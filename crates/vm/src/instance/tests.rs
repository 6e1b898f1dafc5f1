//! Command lines, networks, consoles, the guest agent.
