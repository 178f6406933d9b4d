//! Links the shim at a fixed address.
//!
//! A program that may be loaded anywhere has its tables of pointers rewritten at each start, so that every shim owns a
//! copy of them: three quarters of a megabyte, of the two that a shim may have beside a container. Loaded where it was
//! linked for, it shares them with all others. The price is that its own code is not at a random address; stack, heap
//! and libraries still are.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-no-pie");
}
