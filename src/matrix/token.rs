//! Pagination tokens.

use super::Error;

/// Most bytes of a token within a URL. Common servers and proxies take request lines of up to 8 KiB, and that of a page
/// holds two tokens, the room's id and a few parameters.
const MOST_ENCODED: usize = 3 << 10;

/// A pagination token: opaque, compared for equality only (P20), and fit to be sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token as it was given; `None` if it is empty or cannot be sent.
    pub fn new(token: impl Into<String>) -> Option<Self> {
        let token = token.into();
        is_usable(&token).then_some(Self(token))
    }

    /// The token that a server gave in `field` of its answer; `None` for the empty string, which no server means as one (P5).
    ///
    /// # Errors
    /// [`Error::Malformed`] if it cannot be stored or sent back: to take the rest of the answer without it would lose the way on.
    pub(super) fn served(field: &str, token: String) -> Result<Option<Self>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        let length = encoded_length(&token);
        Self::new(token).map(Some).ok_or_else(|| {
            Error::Malformed(format!(
                "{field}: a pagination token that cannot be used: with NUL in it, or of {length} bytes in a URL, where at \
                 most {MOST_ENCODED} can be sent back"
            ))
        })
    }

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a token can be stored, which PostgreSQL does not with NUL in it, and sent.
pub(super) fn is_usable(token: &str) -> bool {
    !token.is_empty() && !token.contains('\0') && encoded_length(token) <= MOST_ENCODED
}

/// Its length as a value in a query.
fn encoded_length(token: &str) -> usize {
    let encoded = |byte: u8| if byte.is_ascii_alphanumeric() || b"*-._ ".contains(&byte) { 1 } else { 3 };
    token.bytes().map(encoded).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_sent_back_is_a_token() {
        let longest = "a".repeat(MOST_ENCODED);
        for token in ["t1", "s1_2~3.4|5", "ü", &longest] {
            assert_eq!(Token::served("end", token.to_owned()).unwrap().unwrap().as_str(), token);
        }
        assert_eq!(Token::served("end", String::new()).unwrap(), None);
        let (long, encoded) = ("a".repeat(MOST_ENCODED + 1), "%".repeat(MOST_ENCODED / 3 + 1));
        for token in ["a\0b", &long, &encoded, &"ü".repeat(MOST_ENCODED / 6 + 1)] {
            assert!(Token::served("end", token.to_owned()).is_err(), "{} bytes", token.len());
            assert_eq!(Token::new(token), None);
        }
    }

    #[test]
    fn the_length_is_that_in_the_url() {
        for token in ["aZ09*-._ ", "t1|2~3+4%5/6?7#8", "äöü\u{1f600}", "\n\t\u{7f}"] {
            let mut url = reqwest::Url::parse("http://h/").unwrap();
            url.query_pairs_mut().append_pair("f", token);
            assert_eq!(url.query().unwrap().len() - 2, encoded_length(token), "{token:?}");
        }
    }
}
