//! Compiles the kernels' own source as C++.

fn main() {
    println!("cargo::rerun-if-changed=../cuda");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // debug output and the profile's level aside, this is what the device code's --fmad=false is
        .flag("-ffp-contract=off")
        .opt_level(2)
        .file("../cuda/host.cpp")
        .compile("millrace_kernels_host");
}
