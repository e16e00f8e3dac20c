//! What is asked for every request, at the least cost: its headers in one piece of memory, where the SDK takes two more
//! for each line, and whether a property is there, where the SDK copies the path twice.
#![expect(unsafe_code, reason = "the SDK hands out no buffer of headers, and an import cannot be called safely")]

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map_type: u32, return_map_data: *mut *mut u8, return_map_size: *mut usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        return_value: *mut *mut u8,
        return_size: *mut usize,
    ) -> u32;
}

/// What the ABI calls the headers of the request.
const HTTP_REQUEST_HEADERS: u32 = 0;

/// The headers of the request of the effective context, as `Request::from_pairs` reads them. Nothing if the host refuses.
pub fn request_headers() -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut::<u8>(), 0_usize);
    // SAFETY: both pointers are those of variables that live beyond the call. The host has taken the memory from the
    // allocator that the SDK exports (`proxy_on_memory_allocate`): a `Vec<u8>` of this capacity, which nobody else holds.
    unsafe {
        let status = proxy_get_header_map_pairs(HTTP_REQUEST_HEADERS, &raw mut data, &raw mut size);
        (status == 0 && !data.is_null()).then(|| Vec::from_raw_parts(data, size, size))
    }
}

/// Whether the host has no property at this path, whose parts stand one behind another with a zero between two.
pub fn lacks_property(path: &[u8]) -> bool {
    /// What the ABI calls "not found".
    const NOT_FOUND: u32 = 1;
    let (mut data, mut size) = (std::ptr::null_mut::<u8>(), 0_usize);
    // SAFETY: every pointer is that of a slice or of a variable that lives beyond the call. What the host hands over was
    // taken from the allocator that the SDK exports: it is given back as the `Vec<u8>` of this capacity that it is.
    unsafe {
        let status = proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size);
        if !data.is_null() {
            drop(Vec::from_raw_parts(data, size, size));
        }
        status == NOT_FOUND
    }
}
