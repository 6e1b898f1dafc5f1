//! kill -9 at random points.
