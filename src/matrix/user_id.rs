//! The syntax of user ids.

/// Whether this can be a user id, including historical ones (specification, appendices, "Historical User IDs"). The
/// localpart may contain every character except a colon and NUL, and may be empty.
pub(crate) fn is_user_id(text: &str) -> bool {
    let parts = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    parts.is_some_and(|(name, server)| {
        !name.contains('\0')
            && !server.is_empty()
            && !server.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_of_all_times_are_known() {
        for user_id in [
            "@a:hs",
            "@UPPER:hs",
            "@:hs",
            "@a b!*:hs",
            "@ü梅😀:hs",
            "@\u{1b}[31m:hs",
            "@a:hs:8448",
            "@a:[::1]:8448",
        ] {
            assert!(is_user_id(user_id), "{user_id:?}");
        }
        for other in ["", "@", "a", "a:hs", "@a", "@a:", "!a:hs", "@a:h s", "@a\0:hs"] {
            assert!(!is_user_id(other), "{other:?}");
        }
    }
}
