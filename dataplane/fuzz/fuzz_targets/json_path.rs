#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_vtl::fuzz_bodies::json_path(data));
