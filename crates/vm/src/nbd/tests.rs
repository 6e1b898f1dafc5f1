//! Conversations over streams in memory, and over sockets.
