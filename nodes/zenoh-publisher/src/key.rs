//! Key expressions of cameras whose ids may hold anything.

/// The key's chunk for `id`: what has a meaning in a key expression (`/ * $ # ? @`), `%` and control
/// characters become `%XX`, so that any URL decoder gives the id back. `None` for an empty id, for which zenoh has no chunk.
pub(crate) fn chunk(id: &str) -> Option<String> {
    if id.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(id.len());
    for c in id.chars() {
        if matches!(c, '/' | '*' | '$' | '#' | '?' | '@' | '%') || c.is_ascii_control() {
            // all of these are ASCII: one byte
            out.push_str(&format!("%{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
    Some(out)
}
