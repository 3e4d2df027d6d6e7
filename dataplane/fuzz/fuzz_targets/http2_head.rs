#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_dataplane::fuzz_bodies::http2_head(data));
