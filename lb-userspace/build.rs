//! Embeds the kernel programs. `cargo xtask` builds them and names the object in `LB_EBPF_OBJECT`;
//! without it (rust-analyzer, `cargo check`) an empty object takes its place and the agent says so.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-env-changed=LB_EBPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("lb-ebpf");
    match env::var_os("LB_EBPF_OBJECT") {
        Some(object) => {
            let object = PathBuf::from(object);
            println!("cargo:rerun-if-changed={}", object.display());
            fs::copy(&object, &out)
                .unwrap_or_else(|error| panic!("LB_EBPF_OBJECT={}: {error}", object.display()));
        }
        None => fs::write(&out, []).expect("OUT_DIR is writable"),
    }
}
