//! Image Builder and AWSTOE documents.
