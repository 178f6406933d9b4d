//! Contract suites, fakes, fixtures, and a daemon to start and stop in tests.
#![forbid(unsafe_code)]
