#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_dataplane::fuzz_bodies::normal_path(data));
