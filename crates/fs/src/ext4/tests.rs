//! Units that need no outside tool.
