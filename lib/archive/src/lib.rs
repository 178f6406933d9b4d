//! Layer tar streams: reading, compression, whiteouts, safe extraction.
#![forbid(unsafe_code)]
