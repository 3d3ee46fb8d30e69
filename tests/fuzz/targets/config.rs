#![no_main]
#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(init: entries::report_escaped_panics_only(), |data: &[u8]| entries::run("config", data));
