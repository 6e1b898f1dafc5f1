//! Each rule of the service, its tree crawled, and HTTP from the outside.
