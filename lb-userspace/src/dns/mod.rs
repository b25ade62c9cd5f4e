//! Names: every Service answers by its DNS name.
